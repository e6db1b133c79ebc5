package profile

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

// TestExactCounters profiles the chain where an instruction takes a cycle and a ns, and a PMU counts each: what it counts for a
// packet is what the chain's time stamps say. An event that the PMU takes and does not have is no number.
func TestExactCounters(t *testing.T) {
	testutil.ExactARM64(t)
	p := plan("none")
	p.Rate, p.Chain.Schedule.Duration = 500, time.Second
	p.counted = append(perf.PerPacket(), perf.Event{Name: "indirect-speculated", Type: unix.PERF_TYPE_RAW, Config: 0x7a})
	raw, err := Run(t.Context(), p, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"cycles", "instructions", "indirect-speculated"}; !slices.Equal(raw.Counted, want) {
		t.Errorf("counted %q, want %q", raw.Counted, want)
	}
	doc := raw.Record(nil)
	const said = "no indirect-speculated: the PMU takes the event and counts nothing"
	if !strings.Contains(fmt.Sprint(doc.Warnings), said) {
		t.Errorf("no %q: %v", said, doc.Warnings)
	}
	if doc.Undisturbed == nil || len(doc.Counters) != 2 {
		t.Fatalf("undisturbed %v, counters %+v", doc.Undisturbed, doc.Counters)
	}
	per := func(c record.ProfileCounter) float64 { return c.PerPacket.Median }
	cycles, instructions := doc.Counters[0], doc.Counters[1]
	if cycles.Name != "cycles" || instructions.Name != "instructions" || math.Abs(per(cycles)-per(instructions)) > 1 {
		t.Errorf("%s %v, %s %v", cycles.Name, per(cycles), instructions.Name, per(instructions))
	}
	// Windows without a tick are the quicker ones.
	t.Logf("%v instructions in %v ns", per(instructions), doc.Undisturbed.Median)
	if off := per(instructions)/doc.Undisturbed.Median - 1; off < -0.002 || off > 0.02 {
		t.Errorf("%v instructions in %v ns", per(instructions), doc.Undisturbed.Median)
	}
}
