package tax

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/clock"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

// Plan is a run. Its zero value prices all pairs on the last CPU.
type Plan struct {
	// Pairs are names or families of pairs; none means all.
	Pairs []string
	// CPU is the core under test; -1 picks the last one this process may run
	// on.
	CPU int
	// Rounds is how many times everything is built afresh.
	Rounds int
	// Duration is what the whole run takes, building included. Rounds that do
	// not fit are left out, but never the first six.
	Duration time.Duration
}

// Sizes of a default run.
const (
	DefaultRounds   = 15
	DefaultDuration = 45 * time.Second
)

func (p Plan) withDefaults() Plan {
	if p.Rounds == 0 {
		p.Rounds = DefaultRounds
	}
	if p.Duration == 0 {
		p.Duration = DefaultDuration
	}
	return p
}

// Validate returns an error in one line when the plan cannot be meant.
func (p Plan) Validate() error {
	p = p.withDefaults()
	for _, want := range p.Pairs {
		if !slices.ContainsFunc(pairs(), func(p pair) bool { return p.matches(want) }) {
			return fmt.Errorf("pair %q is not one of %s", want, strings.Join(Families(), ", "))
		}
	}
	if p.Rounds < 1 || p.Rounds > rounds.Max {
		return fmt.Errorf("%d rounds are not within 1 … %d", p.Rounds, rounds.Max)
	}
	if p.Duration < time.Second || p.Duration > 24*time.Hour {
		return fmt.Errorf("duration %v is not within 1s … 24h", p.Duration)
	}
	return nil
}

// pairs are those of the plan.
func (p Plan) pairs() []pair {
	if len(p.Pairs) == 0 {
		return pairs()
	}
	return slices.DeleteFunc(pairs(), func(pair pair) bool {
		return !slices.ContainsFunc(p.Pairs, pair.matches)
	})
}

// Raw is what a run measured.
type Raw struct {
	pairs []rawPair
	// CPU is the core under test.
	CPU int
	// Rounds is how many rounds were begun, of Planned.
	Rounds, Planned int
	// Incomplete is set when ctx ended the run.
	Incomplete bool
	// TSCRate is the rate of the time stamp counter in Hz, 0 when unknown.
	TSCRate float64
	// CoreClock is the clock of the core under test in Hz, one number a
	// round.
	CoreClock []float64
	// Hop is the price of the redirect hop in ns per packet, by bulk and
	// round.
	Hop map[int][]float64
	// Calls are calls of one redirected packet, by bulk.
	Calls map[int]redirect.Calls
	// Path is what was found in the code that makes them, by the names of
	// pathCalls; those that are direct here are missing.
	Path map[string]string
	// Observed is set when others' programs were at the tracepoint xdp_redirect:
	// every packet of a chain paid for them.
	Observed bool
	// Outside is how many of the programs that a redirected packet meets on
	// its hop do not stand in the dispatcher.
	Outside float64
}

// quiet is the quantile of the slots of a round that is its number: what disturbs
// a slot makes it longer, never shorter.
const quiet = 0.1

// Run prices the pairs of a plan. When ctx ends it returns what it has, with
// Incomplete set and no error.
//
// It returns a [feature.Missing] without root, BTF, live frames, kernel symbols,
// or on another architecture than x86-64. Requires at least Linux 5.18.
func Run(ctx context.Context, plan Plan, progress func(rounds.Progress)) (*Raw, error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	plan = plan.withDefaults()
	if !clock.X86 {
		return nil, &feature.Missing{Feature: "x86-64", Help: "tax decodes no other code yet"}
	}
	cpu, err := rounds.OnCPU(plan.CPU).Pick()
	if err != nil {
		return nil, err
	}
	if err := redirect.Probe(); err != nil {
		return nil, err
	}
	k, err := kernel.OpenLive()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	if progress == nil {
		progress = func(rounds.Progress) {}
	}
	r := &run{
		plan: plan, cpu: cpu, kernel: k, progress: progress,
		raw: &Raw{CPU: cpu, Planned: plan.Rounds, Hop: make(map[int][]float64), Path: make(map[string]string)},
	}
	for _, p := range plan.pairs() {
		r.raw.pairs = append(r.raw.pairs, rawPair{pair: p})
	}
	start := clock.Start()
	err = r.rounds(ctx)
	r.raw.TSCRate = start.Rate()
	if err != nil && ctx.Err() != nil {
		r.raw.Incomplete = true
		return r.raw, nil
	}
	return r.raw, err
}

// run is a run under way.
type run struct {
	plan     Plan
	cpu      int
	kernel   *kernel.Kernel
	progress func(rounds.Progress)
	raw      *Raw
	end      time.Time
	round    int
	// fills is how often the dispatcher has been filled.
	fills int
}

// fillShare is the share of a run that filling the dispatcher may take.
const fillShare = 0.35

func (r *run) rounds(ctx context.Context) error {
	if err := r.inspect(); err != nil {
		return err
	}
	start := time.Now()
	r.end = start.Add(r.plan.Duration)
	for n := range r.plan.Rounds {
		if n >= stat.MinRounds && time.Now().After(r.end) {
			break
		}
		r.round, r.raw.Rounds = n, n+1
		// The first round always fills the dispatcher; later ones while the fills
		// keep within their share of the run up to the end of the round.
		due := fillShare * float64(r.plan.Duration) * float64(n+1) / float64(r.plan.Rounds)
		if n == 0 || float64(r.fills+1)*float64(fillTime) <= due {
			if err := r.fill(ctx); err != nil {
				return err
			}
		}
		roundEnd := time.Now().Add(time.Until(r.end) / time.Duration(r.plan.Rounds-n))
		if err := r.inNamespace(func(namespace *netlab.Namespace) error {
			if err := r.coreClock(namespace); err != nil {
				return err
			}
			if err := r.programs(ctx, namespace); err != nil {
				return err
			}
			if err := r.users(ctx, namespace); err != nil {
				return err
			}
			return r.chains(ctx, namespace, roundEnd)
		}); err != nil {
			return err
		}
	}
	return nil
}

// coreClock adds this round's clock.
func (r *run) coreClock(namespace *netlab.Namespace) error {
	var seen []float64
	err := namespace.Do(func() error {
		for range 50 {
			seen = append(seen, clock.Core())
		}
		return nil
	})
	r.raw.CoreClock = append(r.raw.CoreClock, stat.Quantile(seen, 1-quiet))
	return err
}

func (r *run) inNamespace(f func(*netlab.Namespace) error) error {
	namespace, err := netlab.New(r.cpu)
	if err != nil {
		return err
	}
	return errors.Join(f(namespace), namespace.Close())
}

func (r *run) show(what string) {
	r.progress(rounds.Progress{Round: r.round + 1, Rounds: r.plan.Rounds, What: what, Left: max(0, time.Until(r.end))})
}

// inspect checks the premises that kernel text alone can tell, and that there is
// code to read for the others.
func (r *run) inspect() error {
	for i := range r.raw.pairs {
		p := &r.raw.pairs[i]
		if err := p.found(p.sides.inspect(r.kernel)); err != nil {
			return err
		}
	}
	for _, call := range pathCalls {
		premise, err := holds(r.kernel, call.in)
		var refused refusal
		if errors.As(err, &refused) {
			continue
		}
		if err != nil {
			return err
		}
		r.raw.Path[call.name] = premise
	}
	return nil
}
