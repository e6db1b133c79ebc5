package rounds

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/unthunk/unthunk/internal/stat"
)

// Max is the largest number of rounds that a schedule takes.
const Max = 10_000

// Schedule is how many rounds a run has, and how long it takes. A zero field stands for the default of the verb; see
// [Schedule.Or].
type Schedule struct {
	// Rounds is how many times everything is built anew.
	Rounds int
	// Duration is what the whole run takes, building included. Rounds that do not fit are left out, but never the
	// first [stat.MinRounds].
	Duration time.Duration
}

// Or returns the schedule with each zero field taken from defaults.
func (s Schedule) Or(defaults Schedule) Schedule {
	return Schedule{
		Rounds:   cmp.Or(s.Rounds, defaults.Rounds),
		Duration: cmp.Or(s.Duration, defaults.Duration),
	}
}

// Validate returns an error in one line when the schedule cannot be meant. Call it after [Schedule.Or].
func (s Schedule) Validate() error {
	if s.Rounds < 1 || s.Rounds > Max {
		return fmt.Errorf("%d rounds are not within 1 … %d", s.Rounds, Max)
	}
	if s.Duration < time.Second || s.Duration > 24*time.Hour {
		return fmt.Errorf("duration %v is not within 1s … 24h", s.Duration)
	}
	return nil
}

// Progress is where a run stands.
type Progress struct {
	// Round is the round under way, from 1, of Rounds.
	Round, Rounds int
	// What is what is being measured.
	What string
	// Left is the time left.
	Left time.Duration
}

// Outcome is how much of a schedule was run.
type Outcome struct {
	// Begun is how many rounds were begun, of Planned.
	Begun, Planned int
	// Incomplete is set when the context ended the run.
	Incomplete bool
}

// Warning says that the time was up before all rounds were begun. It is empty when they were, or when the context
// ended the run.
func (o Outcome) Warning() string {
	if o.Incomplete || o.Begun >= o.Planned {
		return ""
	}
	return fmt.Sprintf("%d of %d rounds fitted into the duration", o.Begun, o.Planned)
}

// Round is a round under way.
type Round struct {
	// Number is the number of the round, from 0.
	Number int

	rounds int
	end    time.Time // of the run
	show   func(Progress)
}

// Show says what is being measured now.
func (r Round) Show(what string) {
	if r.show != nil {
		r.show(Progress{Round: r.Number + 1, Rounds: r.rounds, What: what, Left: max(0, time.Until(r.end))})
	}
}

// End is when the round has to end: what is left of the run's time at the moment of the call is shared equally
// between this round and the rounds that follow.
func (r Round) End() time.Time {
	now := time.Now()
	return now.Add(r.end.Sub(now) / time.Duration(r.rounds-r.Number))
}

// least is how long a round takes that begins late.
const least = 50 * time.Millisecond

// Duration is how long the round may take, for a round that only waits: the time to [Round.End], but never less than
// 50 ms, so that a round that begins late still sees packets.
func (r Round) Duration() time.Duration { return max(time.Until(r.End()), least) }

// Run measures round by round, until all are done or the time is up. When ctx ends, the outcome is incomplete and
// there is no error; any other error of measure ends the run. show is told where the run stands; it may be nil.
func (s Schedule) Run(ctx context.Context, show func(Progress), measure func(Round) error) (Outcome, error) {
	o := Outcome{Planned: s.Rounds}
	end := time.Now().Add(s.Duration)
	for n := range s.Rounds {
		if n >= stat.MinRounds && time.Now().After(end) {
			break
		}
		o.Begun = n + 1
		if err := measure(Round{Number: n, rounds: s.Rounds, end: end, show: show}); err != nil {
			if ctx.Err() == nil {
				return o, err
			}
			o.Incomplete = true
			break
		}
	}
	return o, nil
}
