package datapath

import (
	"context"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestPassage(t *testing.T) {
	var p passage
	for _, took := range []time.Duration{-1, 0, 1, 2, 3, 1023, 1024, time.Minute} {
		p.count(10, took)
	}
	for i, want := range map[int]uint64{0: 20, 1: 10, 2: 20, 10: 10, 11: 10, PassageBuckets - 1: 10} {
		if got := p.frames[i].Load(); got != want {
			t.Errorf("%d frames of less than 2^%d ns, want %d", got, i, want)
		}
	}
	if want := 10 * (time.Minute + 2053); time.Duration(p.sum.Load()) != want {
		t.Errorf("%v together, want %v", time.Duration(p.sum.Load()), want)
	}
}

func TestPassageBelow(t *testing.T) {
	var p Passage
	if got := p.Below(0.5); got != 0 {
		t.Errorf("%v without frames", got)
	}
	p.Frames[3], p.Frames[10], p.Sum = 90, 10, 500
	for part, want := range map[float64]time.Duration{0: 8, 0.5: 8, 0.9: 8, 0.91: 1024, 1: 1024} {
		if got := p.Below(part); got != want {
			t.Errorf("%v of the frames took less than %v, want %v", part, got, want)
		}
	}
	var earlier Passage
	earlier.Frames[3], earlier.Sum = 90, 200
	if less := p.Less(earlier); less.Below(0) != 1024 || less.Sum != 300 {
		t.Errorf("%+v", less)
	}
}

// Each frame that a run received is counted once.
func TestPassageOfRun(t *testing.T) {
	d := generator(t, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	testutil.Eventually(t, "frames", func() bool { return d.Counters(nil)[0].Received > 1000 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var sum uint64
	for _, n := range d.Passage().Frames {
		sum += n
	}
	if want := d.Counters(nil)[0].Received; sum != want {
		t.Errorf("%d frames counted of %d", sum, want)
	}
}
