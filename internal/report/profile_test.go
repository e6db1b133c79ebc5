package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

func around(x, half float64, unit string) *stat.Quantity {
	return &stat.Quantity{Median: x, Low: x - half, High: x + half, N: 11, Unit: unit}
}

// profileDoc is a profile of the veth chain.
func profileDoc() *record.Profile {
	p := new(record.Profile)
	p.Schema, p.Kind, p.Run = record.Schema, "profile", "one"
	p.Packet = around(126.6, 4, "ns")
	for _, s := range []struct {
		name string
		ns   float64
	}{{"generator", 40}, {"receive", 15}, {"program", 8}, {"redirect", 7}, {"bulk-queue", 3}, {"transmit", 12}, {"return", 12},
		{"softirq", 4}, {"locks", 3}, {"sink", 20}, {"observer", 1.5}, {"other", 0.7}, {"unattributed", 0.4}} {
		p.Rows = append(p.Rows, record.ProfileRow{Name: s.name, Ns: around(s.ns, s.ns/10, "ns"), Samples: []float64{s.ns}, Rounds: []int{0}})
	}
	p.Sampling = record.Sampling{Event: "cpu-clock", Rate: 800, CPUs: []int{1}, Samples: 5000, Packets: 19_500_000, Throughput: around(98.8, 0.4, "percent")}
	program := "bpf_prog_e8df55ddab988952_redirect_map"
	for _, f := range []struct {
		name, stage string
		ns          float64
	}{{"veth_xdp_rcv_one", "receive", 30}, {program, "program", 8}, {"a_function_with_a_name_that_is_longer_than_the_column", "redirect", 7}} {
		p.Functions = append(p.Functions, record.ProfileFunction{Name: f.name, Stage: f.stage, Samples: int(40 * f.ns), Ns: around(f.ns, 1, "ns")})
	}
	calls := "net_device.netdev_ops → net_device_ops.ndo_xdp_xmit"
	p.Tax = &record.ProfileTax{
		Thunks: around(0.1, 0.05, "ns"), Landings: around(2.3, 0.8, "ns"), Total: around(2.4, 0.8, "ns"), Hop: around(1.9, 0.7, "ns"),
		Estimate: around(1.8, 0.1, "ns"), Agree: "agree", Returns: around(0.6, 0.2, "ns"), ReturnLandings: around(50, 3, "ns"),
		Sites: []record.ProfileSite{
			{Function: "bq_xmit_all", Offset: 0xa3, Stage: "transmit", Calls: &calls, Targets: []string{"veth_ndo_xdp_xmit"}, PerPacket: around(0.0625, 0, "calls"), Thunk: around(0.1, 0.05, "ns"), Landing: around(1, 0.4, "ns")},
			{Function: "bpf_dispatcher_xdp", Offset: 0x3d, Stage: "program", Targets: []string{program}, Thunk: around(0, 0, "ns"), Landing: around(0.9, 0.4, "ns")},
		},
	}
	p.Counters = []record.ProfileCounter{{Name: "cycles", PerPacket: around(470, 5, "events")}, {Name: "instructions", PerPacket: around(940, 1, "events")}}
	root := []string{"entry_SYSCALL_64_after_hwframe", "bpf_test_run_xdp_live", "xdp_test_run_batch.constprop.0"}
	poll := append(root[:3:3], "__local_bh_enable_ip", "net_rx_action", "__napi_poll", "veth_poll", "veth_xdp_rcv")
	stack := func(stage string, ns float64, base []string, frames ...string) {
		p.Stacks = append(p.Stacks, record.ProfileStack{Frames: append(base[:len(base):len(base)], frames...), Stage: stage, Samples: int(40 * ns), Ns: ns})
	}
	stack("generator", 40, root)
	stack("receive", 15, poll)
	stack("program", 8, poll, program)
	stack("redirect", 7, poll, "xdp_do_redirect")
	stack("transmit", 12, poll, "bq_xmit_all", "veth_ndo_xdp_xmit", "veth_xdp_xmit")
	stack("sink", 0.001, poll, "too_narrow_to_be_seen")
	p.Warnings = []record.Warning{{Text: "a warning"}, {Row: "locks", Text: "a warning of a row"}}
	return p
}

func TestProfileGolden(t *testing.T) {
	var b bytes.Buffer
	if err := Profile(&b, Options{Width: 80}, profileDoc(), "redirect-map/bulk=16", 15); err != nil {
		t.Fatal(err)
	}
	fits(t, b.String(), 80)
	golden(t, "profile.txt", b.String())

	p := profileDoc()
	p.Tax.Estimate, p.Tax.Agree, p.Tax.ReturnLandings, p.Incomplete, p.Sampling.Throughput = nil, "", nil, true, nil
	b.Reset()
	if err := Profile(&b, Options{Width: 60}, p, "redirect-map/bulk=16", 1); err != nil {
		t.Fatal(err)
	}
	fits(t, b.String(), 60)
	golden(t, "profile-60.txt", b.String())

	b.Reset()
	p = profileDoc()
	if err := Stages(&b, Options{Width: 80}, p.Rows, &p.ProfileParts, "redirect-map/bulk=16"); err != nil {
		t.Fatal(err)
	}
	fits(t, b.String(), 80)
	golden(t, "stages.txt", b.String())
}

// Nothing measured is no reason to fail.
func TestProfileEmpty(t *testing.T) {
	p := &record.Profile{}
	p.Incomplete = true
	for name, write := range map[string]func(io.Writer) error{
		"text":   func(w io.Writer) error { return Profile(w, Options{}, p, "x", 10) },
		"pprof":  func(w io.Writer) error { return Pprof(w, p) },
		"folded": func(w io.Writer) error { return Folded(w, p) },
		"flame":  func(w io.Writer) error { return Flame(w, p, "x") },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil || strings.Contains(b.String(), "NaN") {
			t.Errorf("%s: %v\n%s", name, err, b.String())
		}
	}
}

func TestProfileAsmGolden(t *testing.T) {
	lines := []branch.Line{
		{Addr: 0x1000, Text: "push %rbp"},
		{Addr: 0x1001, Text: "call __x86_indirect_thunk_rax", Indirect: true, Note: "indirect call through a retpoline: target in rax"},
		{Addr: 0x1006, Text: "mov %rax,%rbx"},
	}
	var b bytes.Buffer
	if err := ProfileAsm(&b, Options{Width: 80, Color: true}, "f", lines, map[uint64]float64{0x1000: 0.25, 0x1006: 3}, 3.25); err != nil {
		t.Fatal(err)
	}
	golden(t, "profile-asm.txt", b.String())
}

func TestFolded(t *testing.T) {
	p := &record.Profile{}
	p.Stacks = []record.ProfileStack{
		{Frames: []string{"a", "b;c d\n", "\xff"}, Samples: 3},
		{Frames: []string{"a"}, Samples: 1},
	}
	var b bytes.Buffer
	if err := Folded(&b, p); err != nil {
		t.Fatal(err)
	}
	if want := "a;b_c_d_;_ 3\na 1\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestPprof(t *testing.T) {
	var b bytes.Buffer
	if err := Pprof(&b, profileDoc()); err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Sample) != len(profileDoc().Stacks) || len(p.SampleType) != 2 {
		t.Errorf("%d samples, %d types", len(p.Sample), len(p.SampleType))
	}
	s := p.Sample[2]
	leaf := s.Location[0]
	if leaf.Line[0].Function.Name != "bpf_prog_e8df55ddab988952_redirect_map" || leaf.Mapping.File != "[bpf]" || s.Location[len(s.Location)-1].Mapping.File != "[kernel.kallsyms]" {
		t.Errorf("the innermost frame is %+v of %+v", leaf.Line[0].Function, leaf.Mapping)
	}
	if s.Value[0] != 320 || s.Value[1] != 8e6 || s.Label["stage"][0] != "program" {
		t.Errorf("values %v, labels %v", s.Value, s.Label)
	}
}

func TestFlame(t *testing.T) {
	p := profileDoc()
	evil := `</text><script>alert(1)</script>"'&]]>` + "\x1b[31m"
	p.Stacks = append(p.Stacks, record.ProfileStack{Frames: []string{evil, evil}, Stage: evil, Samples: 400, Ns: 10})
	var b bytes.Buffer
	if err := Flame(&b, p, evil); err != nil {
		t.Fatal(err)
	}
	scripts := 0
	text := b.String()
	for d := xml.NewDecoder(&b); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "script" {
			scripts++
		}
	}
	if scripts != 1 {
		t.Errorf("%d scripts", scripts)
	}
	for _, want := range []string{"redirect_map [bpf]", "veth_xdp_xmit", "8.00 ns a packet, 320 samples, program"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	for _, not := range []string{"too_narrow", "http://", "https://", "\x1b"} {
		if strings.Contains(strings.Replace(text, "http://www.w3.org/2000/svg", "", 1), not) {
			t.Errorf("it has %q", not)
		}
	}
}
