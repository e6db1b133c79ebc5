package tax

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/clock"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/reference"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/virtual"
)

// Plan is a run. Its zero value prices all pairs on the last CPU.
type Plan struct {
	// Pairs are names or families of pairs; without any, all are priced.
	Pairs []string
	// Target is a program of the user's that packets of the chains meet in the place of unthunk's own; it may be nil.
	Target *redirect.Target
	// Sparing says to leave the caches that CPUs share alone, and to load programs of pairs once, so that intervals do not
	// hold what differs from one load to the next. Pairs may still charge others, see [Plan.FillsDispatcher]: name those
	// that do not.
	Sparing bool
	// Emulated says to price by the time of an emulated CPU too, which is none of hardware: to try what reads prices.
	Emulated bool
	// CPU is the core under test.
	CPU rounds.CPU
	rounds.Schedule
}

// Schedule of a default run.
const (
	DefaultRounds   = 15
	DefaultDuration = 45 * time.Second
)

func (p Plan) withDefaults() Plan {
	p.Schedule = p.Schedule.Or(rounds.Schedule{Rounds: DefaultRounds, Duration: DefaultDuration})
	return p
}

// Validate returns an error in one line when the plan cannot be meant.
func (p Plan) Validate() error {
	for _, want := range p.Pairs {
		if !slices.ContainsFunc(pairs(), func(p pair) bool { return p.matches(want) }) {
			return fmt.Errorf("pair %q is not one of %s", want, strings.Join(Families(), ", "))
		}
	}
	return p.withDefaults().Schedule.Validate()
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

// FillsDispatcher says whether the plan has pairs for which the BPF dispatcher is filled
// with 48 programs. On arm64, which has no dispatcher, it has none.
func (p Plan) FillsDispatcher() bool { return p.fillsDispatcher(runtime.GOARCH) }

func (p Plan) fillsDispatcher(arch string) bool {
	return arch != "arm64" && slices.ContainsFunc(p.pairs(), func(pair pair) bool { return pair.fillsDispatcher() })
}

// Raw is what a run measured.
type Raw struct {
	pairs []rawPair
	// CPU is the core under test.
	CPU int
	rounds.Outcome
	// References are what fixed work took on that core in the same rounds.
	References []record.Reference
	// tscRate is the rate of the time stamp counter in Hz, 0 when unknown.
	tscRate float64
	// coreClock is the clock of the core under test in Hz, one number a
	// round.
	coreClock []float64
	// hops are the prices of the redirect hop in ns per packet, by bulk and
	// round.
	hops map[int][]float64
	// calls are calls of one redirected packet, by bulk.
	calls map[int]redirect.CallsPerPacket
	// path is what was found in the code that makes them, by the names of
	// pathCalls; those that are direct here are missing.
	path map[string]string
	// foreignObservers is set when others' programs were at the tracepoint xdp_redirect:
	// every packet of a chain paid for them.
	foreignObservers bool
	// outside is how many of the programs that a redirected packet meets on
	// its hop are not in the dispatcher.
	outside float64
	// yours says that the program under test was the user's.
	yours bool
	// verdict is what that said of each packet, by the names of [record.Verdicts], or [record.MixedVerdict]; empty of a
	// program of unthunk's.
	verdict string
}

// Run prices the pairs of a plan. When ctx ends it returns what it has, with
// Incomplete set and no error. On an emulated CPU pairs have a premise, and what
// was counted, and no price.
//
// It returns a [feature.Missing] without root, BTF, live frames, kernel symbols,
// or on another architecture than x86-64 and arm64. Requires at least Linux 5.18.
func Run(ctx context.Context, plan Plan, show func(rounds.Progress)) (raw *Raw, err error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	plan = plan.withDefaults()
	cpu, err := plan.CPU.Pick()
	if err != nil {
		return nil, err
	}
	if err := redirect.Probe(ctx); err != nil {
		return nil, err
	}
	k, err := kernel.OpenLive()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	if err := k.CheckArch("pricing calls"); err != nil {
		return nil, err
	}
	r := &run{
		schedule: plan.Schedule, cpu: cpu, kernel: k, target: plan.Target,
		raw: &Raw{CPU: cpu, yours: plan.Target != nil, hops: make(map[int][]float64), path: make(map[string]string)},
	}
	for _, p := range plan.pairs() {
		if p.name == Thunk && k.Arch == "arm64" {
			p = programCall()
		}
		r.raw.pairs = append(r.raw.pairs, rawPair{pair: p})
	}
	if plan.Sparing {
		r.kept = make(map[string]*price.Pair)
		defer func() {
			for _, loaded := range r.kept {
				loaded.Close()
			}
		}()
	}
	if err := r.inspect(); err != nil {
		return nil, err
	}
	if virtual.Here() && !plan.Emulated {
		return r.raw, r.countOnly(ctx, show)
	}
	open := reference.Open
	if plan.Sparing {
		open = reference.OpenSparing
	}
	if r.references, err = open(cpu); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.references.Close()) }()
	start := clock.Start()
	r.raw.Outcome, err = plan.Schedule.Run(ctx, show, func(round rounds.Round) error { return r.measure(ctx, round) })
	if err != nil {
		return nil, err
	}
	r.raw.tscRate = start.Rate()
	r.raw.References, r.raw.coreClock = r.references.Record(), r.references.CoreClock()
	return r.raw, nil
}

// run is a run under way.
type run struct {
	schedule rounds.Schedule
	cpu      int
	kernel   *kernel.Kernel
	target   *redirect.Target
	raw      *Raw
	// references are timed between what is measured.
	references *reference.Watch
	// round is the one under way.
	round rounds.Round
	// fills is how often the dispatcher has been filled.
	fills int
	// kept are the pairs of programs of a sparing run, which all rounds share; nil in others.
	kept map[string]*price.Pair
}

// fillShare is the share of a run that filling the dispatcher may take.
const fillShare = 0.35

// measure prices every pair in one round.
func (r *run) measure(ctx context.Context, round rounds.Round) error {
	r.round = round
	r.references.Begin(round.Number)
	if r.fillIsDue() {
		if err := r.fill(ctx); err != nil {
			return err
		}
	}
	end := round.End()
	return r.inNamespace(func(namespace *netlab.Namespace) error {
		if err := r.programs(ctx, namespace); err != nil {
			return err
		}
		if err := r.statistics(ctx, namespace); err != nil {
			return err
		}
		if err := r.users(ctx, namespace); err != nil {
			return err
		}
		if err := r.chains(ctx, namespace, end); err != nil {
			return err
		}
		r.references.End()
		return nil
	})
}

// fillIsDue tells whether the round fills the dispatcher: the first one does, and later
// ones while the fills keep within their share of the run up to the end of the round.
func (r *run) fillIsDue() bool {
	gone := float64(r.round.Number+1) / float64(r.schedule.Rounds)
	due := fillShare * float64(r.schedule.Duration) * gone
	return r.round.Number == 0 || float64(r.fills+1)*float64(fillTime) <= due
}

func (r *run) inNamespace(f func(*netlab.Namespace) error) error {
	namespace, err := netlab.New(r.cpu)
	if err != nil {
		return err
	}
	return errors.Join(f(namespace), namespace.Close())
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
		premise, err := holds(r.kernel, functions.Holders(call.role))
		var refused refusal
		if errors.As(err, &refused) {
			continue
		}
		if err != nil {
			return err
		}
		r.raw.path[call.name] = premise
	}
	return nil
}
