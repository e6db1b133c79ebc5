package perf

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestParseSwitches(t *testing.T) {
	whole := slices.Concat(
		record(recordSwitch, miscSwitchOut, 7<<32|6, 5<<32|5, 1000),
		record(recordSwitch, 0, 7<<32|6, 5<<32|5, 2000),
		record(99, 0, 1, 2, 3), // not known: skipped
	)
	for _, test := range []struct {
		name     string
		more     []byte
		complete bool
	}{
		{"whole", nil, true},
		{"lost", record(recordLost, 0, 1, 5), false},
		{"too short", record(recordSwitch, 0, 1), false},
	} {
		p := switchParser{complete: true}
		var got []Switch
		b := slices.Concat(whole, test.more)
		if n := p.parse(b, func(s Switch) { got = append(got, s) }); n != len(b) || p.complete != test.complete {
			t.Errorf("%s: took %d of %d bytes, complete %v", test.name, n, len(b), p.complete)
		}
		want := []Switch{{Time: 1000, Out: true, Other: 7}, {Time: 2000, Other: 7}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// A thread that goes to sleep leaves its CPU, and comes back to it.
func TestSwitches(t *testing.T) {
	testutil.Root(t)
	s, err := NewSwitches(0)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	s.Read(func(Switch) {})
	sleepOn(t, 0)
	var times []uint64
	out := 0
	s.Read(func(w Switch) {
		if len(times) > 0 && w.Time < times[len(times)-1] {
			t.Errorf("time %d after %d", w.Time, times[len(times)-1])
		}
		times = append(times, w.Time)
		if w.Out {
			out++
		}
	})
	if len(times) < 2 || out == 0 || out == len(times) {
		t.Errorf("%d records, %d of them of a task that stops", len(times), out)
	}
}

func FuzzParseSwitches(f *testing.F) {
	f.Add(slices.Concat(record(recordSwitch, 0, 1, 2, 3), record(recordLost, 0, 1, 2)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p switchParser
		if n := p.parse(b, func(Switch) {}); n < 0 || n > len(b) {
			t.Errorf("took %d of %d bytes", n, len(b))
		}
	})
}
