package perf

import (
	"os"
	"slices"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

// work adds numbers: each turn takes the same instructions.
//
//go:noinline
func work(turns int) (sum int) {
	for i := range turns {
		sum ^= i
	}
	return sum
}

// worked is what work returned.
var worked int

// TestExact counts on the PMU of a guest of arm64, which executes an instruction a cycle and counts each: turns of a
// loop take the same, to the instruction, and what the PMU has not is not among the counters.
func TestExact(t *testing.T) {
	testutil.ExactARM64(t)
	c, err := NewCounters(PerPacket(), AllTasks, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if names := c.Names(); !slices.Equal(names, []string{"cycles", "instructions"}) {
		t.Errorf("counters %v", names)
	}
	least := func(turns int) map[string]float64 { // of each event, which are read one after the other
		best := make(map[string]float64)
		for range 20 { // a tick, or the runtime, is in some
			before, err := c.Read()
			if err != nil {
				t.Fatal(err)
			}
			worked += work(turns)
			after, err := c.Read()
			if err != nil {
				t.Fatal(err)
			}
			for name, n := range after.Since(before) {
				if old, ok := best[name]; !ok || n < old {
					best[name] = n
				}
			}
		}
		return best
	}
	const turns = 1000
	one, two, three := least(turns), least(2*turns), least(3*turns)
	for _, name := range c.Names() {
		first, second := two[name]-one[name], three[name]-two[name]
		t.Logf("%s: %v, %v and %v of %d, %d and %d turns", name, one[name], two[name], three[name], turns, 2*turns, 3*turns)
		if first != second || first < 2*turns || int(first)%turns != 0 {
			t.Errorf("%s: %v and %v more for %d turns more", name, first, second, turns)
		}
	}
	if e, err := Best(0); err != nil || e.Precise != 0 || e.Name != "cycles" {
		t.Errorf("%+v, %v, want cycles, which are not precise there", e, err)
	}
}

// TestAllowedRate has a guest's kernel allow few samples a second, as it does by itself where samples take long: what is beyond is
// not refused, and the sampler says at what rate it samples.
func TestAllowedRate(t *testing.T) {
	testutil.ExactARM64(t)
	const limit = "/proc/sys/kernel/perf_event_max_sample_rate"
	before, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(limit, before, 0)
	if err := os.WriteFile(limit, []byte("300"), 0); err != nil {
		t.Fatal(err)
	}
	for rate, want := range map[int]int{4000: 300, 300: 300, 100: 100} {
		s, err := NewSampler(Cycles(0), 0, rate)
		if err != nil {
			t.Fatalf("%d Hz: %v", rate, err)
		}
		if s.Rate() != want {
			t.Errorf("%d Hz of %d that are asked for, want %d", s.Rate(), rate, want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	s, err := NewSampler(Clock, 0, 4000) // has a period, and no limit
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Rate() != 4000 {
		t.Errorf("the clock samples at %d Hz, want 4000", s.Rate())
	}
}
