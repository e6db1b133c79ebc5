package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestXrayGolden(t *testing.T) {
	t.Parallel()
	for name, rare := range map[string]bool{"xray.txt": false, "xray-rare.txt": true} {
		var b bytes.Buffer
		if err := Xray(&b, Options{Width: 80}, reporttest.Xray(),
			"The path of a veth: veth_poll is its napi_struct.poll.", rare); err != nil {
			t.Fatal(err)
		}
		reporttest.Fits(t, b.String(), 80)
		reporttest.Golden(t, name, b.String())
	}
}

// What was counted has a column and a sum, rare branches too.
func TestXrayCounted(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := Xray(&b, Options{Width: 80}, reporttest.XrayCounted(), "The path of a veth.", false); err != nil {
		t.Fatal(err)
	}
	reporttest.Fits(t, b.String(), 80)
	reporttest.Golden(t, "xray-counted.txt", b.String())
}

func TestDotGolden(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := Dot(&b, reporttest.CallGraph()); err != nil {
		t.Fatal(err)
	}
	reporttest.Golden(t, "xray.dot", b.String())
}

// Records come from files: what they hold does not reach the terminal raw.
func TestXrayHostile(t *testing.T) {
	t.Parallel()
	doc := reporttest.Xray()
	for i := range doc.Rows {
		row := &doc.Rows[i]
		evil := "\x1b[2J\x07\n"
		row.Function, row.Kind, row.Per, row.Stage, row.Pointer, row.Targets = evil, evil, evil, evil, &evil,
			[]string{evil}
	}
	doc.Partial[0].Name = "\x1b"
	var b bytes.Buffer
	if err := Xray(&b, Options{}, doc, "\x1b", true); err != nil {
		t.Fatal(err)
	}
	g := reporttest.CallGraph()
	g.Functions = append(g.Functions, "\x1b")
	for i := range g.Calls {
		g.Calls[i].From, g.Calls[i].To, g.Calls[i].Site = "\x1b", "\x07", &doc.Rows[0]
	}
	if err := Dot(&b, g); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\x07") {
		t.Errorf("%q", b.String())
	}
}
