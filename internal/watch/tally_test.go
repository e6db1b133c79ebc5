package watch

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/bpf/poll"
	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// A watch without an end keeps its sums, in ever longer stretches.
func TestTallies(t *testing.T) {
	t.Parallel()
	var ts tallies
	const seconds = 5*maxTallies + 3
	for range seconds {
		ts.add(tally{length: time.Second, packets: 2, verdicts: map[string]uint64{"drop": 2}, program: 3, samples: 1,
			stages: map[functions.Stage]float64{functions.StageReceive: 4}})
	}
	sum := ts.sum()
	if sum.packets != 2*seconds || sum.length != seconds*time.Second || sum.verdicts["drop"] != 2*seconds || sum.program != 3*seconds ||
		sum.stages[functions.StageReceive] != 4*seconds || sum.samples != seconds {
		t.Errorf("%+v of %d seconds", sum, seconds)
	}
	if len(ts.all) >= maxTallies || ts.each != 8 {
		t.Errorf("%d stretches of %d s", len(ts.all), ts.each)
	}
	for i, each := range ts.all {
		if each.length != time.Duration(ts.each)*time.Second {
			t.Fatalf("stretch %d has %v, want %d s", i, each.length, ts.each)
		}
	}
}

// ns a packet is all ns by all packets, and its interval holds it in 19 of 20 watches: also where
// the rate goes up and down.
func TestRatio(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	const runs, truth = 2000, 100.0
	held := 0
	for range runs {
		var ts []tally
		for range 30 {
			packets := uint64(1000 + random.IntN(100_000))
			ns := float64(packets)*truth + math.Sqrt(float64(packets))*3000*random.NormFloat64()
			ts = append(ts, tally{length: time.Second, packets: packets, program: max(ns, 0)})
		}
		ts = append(ts, tally{length: time.Second}) // a second without packets
		row := ratio(ts, "ns", func(t *tally) float64 { return t.program }, func(t *tally) float64 { return float64(t.packets) })
		if row.Value == nil || len(row.Samples) != 30 || row.Value.Low > row.Value.Median || row.Value.Median > row.Value.High {
			t.Fatalf("%+v", row)
		}
		if row.Value.Low <= truth && truth <= row.Value.High {
			held++
		}
	}
	if held < runs*90/100 || held > runs*99/100 {
		t.Errorf("the interval held the truth in %d of %d watches", held, runs)
	}
	if row := ratio([]tally{{}}, "ns", (*tally).path, func(*tally) float64 { return 0 }); row.Value != nil || row.Refused == "" {
		t.Errorf("of nothing: %+v", row)
	}
}

// A second of few samples says nothing of a packet.
func TestFewSamples(t *testing.T) {
	t.Parallel()
	w := &Watch{filter: &poll.Filter{}}
	for samples, known := range map[int]bool{0: false, minSamples - 1: false, minSamples: true} {
		s := w.line(tally{length: time.Second, packets: 1000, samples: samples, program: 5000,
			stages: map[functions.Stage]float64{functions.StageReceive: 9000}}, time.Time{}, "")
		if (s.Program != nil) != known || (s.Path != nil) != known || (len(s.Stages) > 0) != known || s.Core == nil {
			t.Errorf("%d samples: %+v", samples, s)
		}
	}
}
