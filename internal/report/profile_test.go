package report

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestProfileGolden(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := Profile(&b, Options{Width: 80}, reporttest.Profile(), "redirect-map/bulk=16", 15); err != nil {
		t.Fatal(err)
	}
	reporttest.Fits(t, b.String(), 80)
	reporttest.Golden(t, "profile.txt", b.String())

	p := reporttest.Profile()
	p.Tax.Estimate, p.Tax.Agree, p.Tax.ReturnEntries, p.Incomplete, p.Sampling.Throughput = nil, "", nil, true, nil
	b.Reset()
	if err := Profile(&b, Options{Width: 60}, p, "redirect-map/bulk=16", 1); err != nil {
		t.Fatal(err)
	}
	reporttest.Fits(t, b.String(), 60)
	reporttest.Golden(t, "profile-60.txt", b.String())
}

// Source lines that take most stand in the order of the source.
func TestProfileLines(t *testing.T) {
	t.Parallel()
	p := reporttest.Profile()
	once, many := 1.0, 12.5
	for _, l := range []record.ProfileLine{
		{Line: 7, Text: "int small = 0;", Ns: reporttest.Around(0.1, 0.1, "ns"), Runs: &once},
		{Line: 12, Text: "struct flow *found = bpf_map_lookup_elem(&flows_of_all, &key);", Ns: reporttest.Around(28.9, 1.9, "ns"), Runs: &once},
		{Line: 19, Text: "for (i = 0; i < n; i++)", Ns: reporttest.Around(3.5, 0.4, "ns"), Runs: &many},
		{Line: 21, Text: "return XDP_TX;", Ns: reporttest.Around(1, 0.2, "ns")},
	} {
		l.File, l.Self = "src/lb.c", l.Ns
		p.Lines = append(p.Lines, l)
	}
	for _, width := range []int{60, 80} {
		var b bytes.Buffer
		if err := Profile(&b, Options{Width: width}, p, "prog/lb/bulk=16", 3); err != nil {
			t.Fatal(err)
		}
		reporttest.Fits(t, b.String(), width)
		_, table, _ := strings.Cut(b.String(), "source line\n")
		table, _, _ = strings.Cut(table, "\n\n")
		lines := strings.Split(table, "\n")
		if len(lines) != 3 || !strings.Contains(lines[0], "28.9 [27.0, 30.8] 1.00 lb.c:12  struct flow") || !strings.Contains(lines[0], "…") ||
			!strings.Contains(lines[1], "12.5 lb.c:19  for (i") || !strings.Contains(lines[2], "? lb.c:21  return") {
			t.Errorf("%d columns:\n%s", width, table)
		}
	}
}

// Nothing measured is no reason to fail.
func TestProfileEmpty(t *testing.T) {
	t.Parallel()
	p := &record.Profile{}
	p.Incomplete = true
	for name, write := range map[string]func(io.Writer) error{
		"text":   func(w io.Writer) error { return Profile(w, Options{}, p, "x", 10) },
		"pprof":  func(w io.Writer) error { return Pprof(w, p) },
		"folded": func(w io.Writer) error { return Folded(w, p) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil || strings.Contains(b.String(), "NaN") {
			t.Errorf("%s: %v\n%s", name, err, b.String())
		}
	}
}

func TestProfileAsmGolden(t *testing.T) {
	t.Parallel()
	lines := []branch.Line{
		{Addr: 0x1000, Text: "push %rbp"},
		{Addr: 0x1001, Text: "call __x86_indirect_thunk_rax", Indirect: true,
			Note: "indirect call through a retpoline: target in rax"},
		{Addr: 0x1006, Text: "mov %rax,%rbx"},
		{Addr: 0x1009, Text: "je 0x1006 <+0x6>"},
	}
	var b bytes.Buffer
	if err := ProfileAsm(&b, Options{Width: 80, Color: true}, "f", lines, map[uint64]float64{0x1000: 0.25, 0x1006: 3},
		3.25); err != nil {
		t.Fatal(err)
	}
	reporttest.Golden(t, "profile-asm.txt", b.String())
}

func TestFolded(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
	var b bytes.Buffer
	if err := Pprof(&b, reporttest.Profile()); err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Sample) != len(reporttest.Profile().Stacks) || len(p.SampleType) != 2 {
		t.Errorf("%d samples, %d types", len(p.Sample), len(p.SampleType))
	}
	s := p.Sample[2]
	leaf := s.Location[0]
	if leaf.Line[0].Function.Name != "bpf_prog_e8df55ddab988952_redirect_map" || leaf.Mapping.File != "[bpf]" ||
		s.Location[len(s.Location)-1].Mapping.File != "[kernel.kallsyms]" {
		t.Errorf("the innermost frame is %+v of %+v", leaf.Line[0].Function, leaf.Mapping)
	}
	if s.Value[0] != 320 || s.Value[1] != 8e6 || s.Label["stage"][0] != "program" {
		t.Errorf("values %v, labels %v", s.Value, s.Label)
	}
}

// A table of indirect branches has a row, or it is none.
func TestProfileSmallBranches(t *testing.T) {
	t.Parallel()
	p := reporttest.Profile()
	for i := range p.Tax.Sites {
		p.Tax.Sites[i].Thunk, p.Tax.Sites[i].TargetEntry = nil, nil
	}
	var b bytes.Buffer
	if err := Profile(&b, Options{}, p, "x", 10); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); regexp.MustCompile(`(?m)^indirect branch +stage`).MatchString(text) ||
		!strings.Contains(text, "each of which took less than 0.1 %") {
		t.Error(text)
	}
}
