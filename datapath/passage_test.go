package datapath

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestPassage(t *testing.T) {
	var p passage
	for _, took := range []time.Duration{-1, 0, 1, 2, 3, 1023, 1024, math.MaxInt64} {
		p.count(10, took)
	}
	for i, want := range map[int]uint64{0: 20, 1: 10, 2: 20, 10: 10, 11: 10, PassageBuckets - 1: 10} {
		if got := p[i].Load(); got != want {
			t.Errorf("%d frames of less than 2^%d ns, want %d", got, i, want)
		}
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
	for _, n := range d.Passage() {
		sum += n
	}
	if want := d.Counters(nil)[0].Received; sum != want {
		t.Errorf("%d frames counted of %d", sum, want)
	}
}
