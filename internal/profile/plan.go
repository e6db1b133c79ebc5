package profile

import (
	"fmt"
	"time"

	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
)

// Plan is a run on the veth chain.
type Plan struct {
	// Chain is what is profiled: a plan of one row, on one core. Its
	// schedule is that of the whole run.
	Chain redirect.Plan
	// Rate is samples a second; 0 picks what takes about 1 % of the CPU.
	Rate int
	// counted are the events that are counted per packet; nil for those of [perf.PerPacket].
	counted []perf.Event
}

// Sizes of a default run.
const (
	DefaultRounds   = 11
	DefaultDuration = 20 * time.Second
	DefaultBulk     = 16
)

func defaults() rounds.Schedule {
	return rounds.Schedule{Rounds: DefaultRounds, Duration: DefaultDuration}
}

// Limits of a rate that was picked.
const (
	MinRate  = 250
	AutoRate = 10_000
)

func (p Plan) withDefaults() Plan {
	p.Chain.Schedule = p.Chain.Schedule.Or(defaults())
	if len(p.Chain.Bulks) == 0 {
		p.Chain.Bulks = []int{DefaultBulk}
	}
	if p.counted == nil {
		p.counted = perf.PerPacket()
	}
	return p
}

// Validate returns an error in one line when the plan cannot be meant.
func (p Plan) Validate() error {
	p = p.withDefaults()
	if err := p.Chain.Validate(); err != nil {
		return err
	}
	if n := len(p.Chain.Rows()); n != 1 {
		return fmt.Errorf("%d rows: one scenario at one bulk is profiled at a time", n)
	}
	if row := p.Chain.Rows()[0]; row.Layout != redirect.OneCore {
		return fmt.Errorf("place %s cannot be profiled: time waiting for the other core cannot be distinguished from work", row.Layout)
	}
	return checkRate(p.Rate)
}

func checkRate(rate int) error {
	if rate < 0 || rate > perf.MaxRateOfClock {
		return fmt.Errorf("a rate of %d Hz is not within 1 … %d", rate, perf.MaxRateOfClock)
	}
	return nil
}
