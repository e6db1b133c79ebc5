package redirect

import (
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/testutil"
)

// A sparing run measures the redirect alone with four entries of the BPF dispatcher, all of which its programs have.
func TestSparing(t *testing.T) {
	testutil.Root(t)
	testutil.AMD64(t)
	k, err := kernel.OpenNamed(func(name, _ []byte) bool { return kernel.DispatcherSymbol(name) })
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer k.Close()
	before, _, err := k.Dispatcher()
	if err != nil {
		t.Fatal(err)
	}
	built := 0
	raw, err := Run(t.Context(), Plan{
		Bulks: []int{1, 16}, Sparing: true, Schedule: rounds.Schedule{Rounds: 2, Duration: time.Second},
		Built: func(programs []*ebpf.Program) error {
			built++
			now, _, err := k.Dispatcher()
			if err != nil {
				return err
			}
			in := 0
			for _, p := range programs {
				functions, err := kernel.Program(p)
				if err != nil {
					return err
				}
				if kernel.Dispatched(now, functions[0]) {
					in++
				}
			}
			if in != SparingSlots || len(programs) != SparingSlots {
				t.Errorf("round %d: %d of %d programs are in the dispatcher, which held %d and holds %d; want %d",
					built, in, len(programs), len(before), len(now), SparingSlots)
			}
			return nil
		},
	}, nil)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	if built != 1 {
		t.Errorf("built %d times, want once", built)
	}
	rows, _ := raw.Record()
	for _, row := range rows {
		if row.Refused != "" || row.Hop == nil {
			t.Errorf("%s: hop %v, refused %q", row.Name, row.Hop, row.Refused)
			continue
		}
		if len(row.Rounds) != 2 {
			t.Errorf("%s: rounds %v", row.Name, row.Rounds)
		}
		if c := row.Counts; c.Sent == 0 || c.Sent != c.Redirected || c.Sent != c.Received {
			t.Errorf("%s: counts %+v", row.Name, c)
		}
		if row.FramesPerXmit != nil || row.CountingCost != nil {
			t.Errorf("%s: a sparing run was at the tracepoints, or priced the counting", row.Name)
		}
	}
}

// What takes more than a sparing run has is refused.
func TestSparingRefuses(t *testing.T) {
	t.Parallel()
	for _, p := range []Plan{
		{Scenarios: []Scenario{Drop}}, {Scenarios: []Scenario{Map, TX}}, {Mode: Generic}, {Layout: TwoCore},
		{Operations: []Operation{{spins: 1}}}, {Target: &Target{}},
	} {
		p.Sparing = true
		if err := p.Validate(); !errors.Is(err, errSparing) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if err := (Plan{Sparing: true}).Validate(); err != nil {
		t.Error(err)
	}
}
