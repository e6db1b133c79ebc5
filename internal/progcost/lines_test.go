package progcost

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/prog"
)

// Lines ran as often as the C says for these packets, and their ns are those of the program.
func TestLines(t *testing.T) {
	testutil.Root(t)
	packets := made(t, "udp4:100,udp4:100,udp4:100,tcp4:100")
	target, err := program.Parse("../bpf/sample/sample_bpfel.o:nat")
	if err != nil {
		t.Fatal(err)
	}
	timed, err := target.Open(t.Context(), program.Options{})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer timed.Close()
	counted, counters, err := OpenCounted(t.Context(), target, program.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer counted.Close()
	l := Lines{Timed: timed, Counted: counted, Counters: counters, Length: time.Second, Ns: 100}
	found, warns, err := l.Measure(t.Context(), packets, prog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	runs := func(part string) float64 {
		most := -1.0
		for _, f := range found {
			if strings.Contains(f.Text, part) {
				most = max(most, f.Runs)
			}
		}
		return most
	}
	// Of four packets three are translated, and their flow is known from the first pass on.
	for part, want := range map[string]float64{
		"bpf_map_lookup_elem(&flows": 0.75, "t->packets++": 0.75, "bpf_map_update_elem(&flows": -1, "struct translation *t": 1,
	} {
		if got := runs(part); got != want {
			t.Errorf("%s runs %v times a packet, want %v", part, got, want)
		}
	}
	if len(warns) > 0 { // no perf events here: the counts are right all the same
		t.Log(warns)
		return
	}
	// Cold runs have too few samples for ns, and say so; how often lines run is known.
	cold, coldWarns, err := l.Measure(t.Context(), packets, prog.Options{Cold: 64 << 20})
	if err != nil || len(cold) == 0 || len(coldWarns) != 1 || !strings.Contains(coldWarns[0], "lines have no ns") {
		t.Errorf("cold: %d lines, %v (%v)", len(cold), coldWarns, err)
	}
	for _, f := range cold {
		if f.Ns != nil {
			t.Errorf("cold: %+v", f)
		}
	}
	sum, dearest := 0.0, record.CostLine{}
	for _, f := range found {
		if f.Line == 0 {
			t.Errorf("a line without a number: %+v", f)
		}
		if f.Ns != nil {
			sum += *f.Ns
			if f.Sampled > dearest.Sampled {
				dearest = f
			}
		}
	}
	if math.Abs(sum-100) > 1e-6 {
		t.Errorf("lines take %v ns together, the program 100", sum)
	}
	if !strings.Contains(dearest.Text, "bpf_map_lookup_elem(&flows") {
		t.Errorf("the dearest line is %+v, want the lookup in a hash", dearest)
	}
}

func TestCodeLine(t *testing.T) {
	t.Parallel()
	a, b := line{function: "a", number: 1}, line{function: "b", number: 2}
	c := code{{at: 100, line: a}, {at: 110, line: b}, {at: 120, none: true}, {at: 120, line: a}, {at: 130, none: true}}
	for _, tt := range []struct {
		chain []uint64
		want  line
		ok    bool
	}{
		{[]uint64{100}, a, true}, {[]uint64{119}, b, true}, {[]uint64{120}, a, true}, {[]uint64{130}, line{}, false},
		{[]uint64{50}, line{}, false}, {[]uint64{5000, 110}, a, true}, {[]uint64{5000, 121}, a, true}, {nil, line{}, false},
	} {
		if got, ok := c.line(tt.chain); got != tt.want || ok != tt.ok {
			t.Errorf("%v: %v, %v", tt.chain, got, ok)
		}
	}
}
