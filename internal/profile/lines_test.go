package profile

import (
	"slices"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestLineAt(t *testing.T) {
	table := &lineTable{
		functions: []span{{0x1000, 0x1100}, {0x2000, 0x2010}},
		places: []linePlace{
			{0x1004, sourceLine{"a.c", 1}, "one"}, {0x1010, sourceLine{"a.c", 2}, "two"}, {0x2008, sourceLine{"a.c", 3}, "three"},
		},
	}
	for addr, want := range map[uint64]int{
		0xfff: 0, 0x1000: 0, 0x1004: 1, 0x100f: 1, 0x1010: 2, 0x10ff: 2, 0x1100: 0,
		0x2000: 0, // the prologue of a function is not of the line that ends the one before
		0x2008: 3, 0x2010: 0,
	} {
		got := 0
		if place := table.at(addr); place != nil {
			got = place.number
		}
		if got != want {
			t.Errorf("%#x: line %d, want %d", addr, got, want)
		}
	}
	s := newStacks()
	s.lines = table
	s.addLine([]uint64{0x10ff}, 2, 20)
	s.round = 1
	s.addLine([]uint64{0x9000, 0x1010, 0x1011}, 1, 10) // what the call that ends line 1 took
	s.addLine([]uint64{0x9000}, 1, 10)
	two, one := s.byLine[sourceLine{"a.c", 2}], s.byLine[sourceLine{"a.c", 1}]
	if len(s.byLine) != 2 || !slices.Equal(two.all, []float64{20}) || !slices.Equal(two.self, []float64{20}) || two.samples != 2 ||
		!slices.Equal(one.all, []float64{0, 10}) || !slices.Equal(one.self, []float64{0, 0}) {
		t.Errorf("%+v, %+v", two, one)
	}
}

// The lines of a program that is in the chain take what the stage of programs takes and less, and each runs as often as
// the packets make it run.
func TestLines(t *testing.T) {
	testutil.Root(t)
	const object = "../bpf/sample/sample_bpfel.o"
	parsed, err := program.Parse(object + ":nat")
	if err != nil {
		t.Fatal(err)
	}
	opened, err := parsed.Open(t.Context(), program.Options{Run: true})
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	target, err := redirect.NewTarget(opened, object, redirect.TargetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	raw, err := Run(t.Context(), Plan{Chain: redirect.Plan{
		Target: target, Bulks: []int{16}, Schedule: rounds.Schedule{Rounds: 3, Duration: 4 * time.Second},
	}}, nil)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	p := raw.Record(nil)
	if p.Packet == nil {
		t.Logf("the machine was too busy: %s", p.CannotTell)
		return
	}
	if raw.NoRuns != "" || len(p.Lines) == 0 {
		t.Fatalf("%d lines, %s", len(p.Lines), raw.NoRuns)
	}
	sum, runs := 0.0, map[float64]int{}
	for _, l := range p.Lines {
		sum += l.Ns.Median
		if l.Self.Median > l.Ns.Median || l.File == "" || l.Line == 0 || l.Text == "" || l.Runs == nil && l.Samples == 0 {
			t.Errorf("%+v", l)
		}
		if l.Runs != nil {
			runs[*l.Runs]++
		}
	}
	// One flow: all packets but the first find its entry.
	if runs[1] < 10 || len(runs) != 1 {
		t.Errorf("runs of lines: %v", runs)
	}
	program := slices.IndexFunc(p.Rows, func(r record.ProfileRow) bool { return r.Name == "program" })
	few := p.Sampling.Samples < 200 // a busy machine leaves few: what they say is chance
	if !few && (program < 0 || sum > p.Packet.Median || sum < 0.3*p.Rows[program].Ns.Median) {
		t.Errorf("lines take %.1f ns of a packet's %.1f; stages are %+v", sum, p.Packet.Median, p.Rows)
	}
}
