package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
)

func xrayDoc() *record.Document[record.SiteRow] {
	doc := &record.Document[record.SiteRow]{Schema: record.Schema, Kind: "xray", Run: "one", Settings: map[string]string{"path": "veth"}}
	add := func(stage, function, calls, kind, per string, always bool, targets ...string) *record.SiteRow {
		row := record.SiteRow{
			Name: function + "/" + calls, Function: function, Offset: uint64(0x1f + 16*len(doc.Rows)), Kind: kind, Thunk: "__x86_indirect_thunk_rax",
			Stage: stage, Sure: "certain", Targets: targets, Per: per, Always: always, Via: []string{function},
		}
		if calls != "unknown" {
			row.Calls = &calls
		} else {
			row.Sure = "unknown"
		}
		doc.Rows = append(doc.Rows, row)
		return &doc.Rows[len(doc.Rows)-1]
	}
	add("receive", "__napi_poll", "napi_struct.poll", "thunk", "poll", true, "veth_poll")
	add("program", "veth_xdp_rcv_one", "bpf_prog.bpf_func", "thunk", "packet", false).Sure = "likely"
	add("transmit", "bq_xmit_all", "net_device.netdev_ops → net_device_ops.ndo_xdp_xmit", "its-thunk", "bulk", true, "veth_ndo_xdp_xmit")
	add("transmit", "a_function_with_a_very_long_name_indeed", "some_operations.a_member_with_a_long_name", "register", "packet", true, "the_function_that_is_there_now").Jump = true
	add("return", "__xdp_return", "unknown", "memory", "unknown", false)
	add("return", "__xdp_return", "memory_provider_ops.release", "thunk", "rare", false)
	doc.Partial = []record.PartialFunction{{Name: "veth_poll", Why: "a jump table"}}
	doc.Warnings = []record.Warning{{Text: "a warning"}}
	return doc
}

func TestXrayGolden(t *testing.T) {
	for name, rare := range map[string]bool{"xray.txt": false, "xray-rare.txt": true} {
		var b bytes.Buffer
		if err := Xray(&b, Options{Width: 80}, xrayDoc(), "The path of a veth: veth_poll is its napi_struct.poll.", rare); err != nil {
			t.Fatal(err)
		}
		fits(t, b.String(), 80)
		golden(t, name, b.String())
	}
}

func TestDotGolden(t *testing.T) {
	var b bytes.Buffer
	calls := map[string][]string{"__napi_poll": nil, `veth"poll`: {"bq_xmit_all"}}
	if err := Dot(&b, calls, xrayDoc().Rows); err != nil {
		t.Fatal(err)
	}
	golden(t, "xray.dot", b.String())
}

func TestSiteComparisonGolden(t *testing.T) {
	old, new := xrayDoc(), xrayDoc()
	new.Rows[2].Kind, new.Rows[2].Thunk = "register", ""
	new.Rows = append(new.Rows[:4], new.Rows[5:]...)
	old.Rows = old.Rows[1:]
	c := compare.Sites(old, new)
	c.Old.File, c.New.File = "old.json", "new.json"
	var b bytes.Buffer
	if err := SiteComparison(&b, Options{Width: 80}, c); err != nil {
		t.Fatal(err)
	}
	fits(t, b.String(), 80)
	golden(t, "compare-xray.txt", b.String())
}

// Records come from files: what they hold does not reach the terminal raw.
func TestXrayHostile(t *testing.T) {
	doc := xrayDoc()
	for i := range doc.Rows {
		row := &doc.Rows[i]
		evil := "\x1b[2J\x07\n"
		row.Function, row.Kind, row.Per, row.Stage, row.Calls, row.Targets = evil, evil, evil, evil, &evil, []string{evil}
	}
	doc.Partial[0].Name = "\x1b"
	var b bytes.Buffer
	if err := Xray(&b, Options{}, doc, "\x1b", true); err != nil {
		t.Fatal(err)
	}
	if err := Dot(&b, map[string][]string{"\x1b": {"\x07"}}, doc.Rows); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\x07") {
		t.Errorf("%q", b.String())
	}
}
