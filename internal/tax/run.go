package tax

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/clock"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/redirect"
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
		if !slices.ContainsFunc(Pairs(), func(pair Pair) bool { return pair.matches(want) }) {
			return fmt.Errorf("pair %q is not one of %s", want, strings.Join(Families(), ", "))
		}
	}
	if p.Rounds < 1 || p.Rounds > redirect.MaxRounds {
		return fmt.Errorf("%d rounds are not within 1 … %d", p.Rounds, redirect.MaxRounds)
	}
	if p.Duration < time.Second || p.Duration > 24*time.Hour {
		return fmt.Errorf("duration %v is not within 1s … 24h", p.Duration)
	}
	return nil
}

func (p Pair) matches(want string) bool { return want == p.Name || want == p.Family() }

// Families lists the names that a plan takes, one a group of pairs.
func Families() []string {
	var out []string
	for _, p := range Pairs() {
		if !slices.Contains(out, p.Family()) {
			out = append(out, p.Family())
		}
	}
	return out
}

// Calls lists the families whose price is that of an indirect call of the kernel,
// and the control.
func Calls() []string {
	return slices.DeleteFunc(Families(), func(family string) bool {
		return slices.Contains([]string{"dispatcher-tree", "return-frame", "direct-call", "user"}, family)
	})
}

// pairs are those of the plan.
func (p Plan) pairs() []Pair {
	if len(p.Pairs) == 0 {
		return Pairs()
	}
	return slices.DeleteFunc(Pairs(), func(pair Pair) bool {
		return !slices.ContainsFunc(p.Pairs, pair.matches)
	})
}

// Raw is what a run measured.
type Raw struct {
	Pairs []RawPair
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

// RawPair is what a run measured of one pair.
type RawPair struct {
	Pair
	// Premise is what was found in the code of both sides; Refused why there
	// is no price.
	Premise, Refused string
	// Rounds are the numbers of the rounds with a price, or of climbs of the
	// dispatcher, each of which has several; WithNs and WithoutNs are its two
	// sides in ns per run of what differs.
	Rounds            []int
	WithNs, WithoutNs []float64
	// failure is why the last round that has no price has none.
	failure string
}

func (p *RawPair) add(round int, with, without float64) {
	p.Rounds = append(p.Rounds, round)
	p.WithNs = append(p.WithNs, with)
	p.WithoutNs = append(p.WithoutNs, without)
}

// quiet is the quantile of the slots of a round that is its number: what disturbs
// a slot makes it longer, never shorter.
const quiet = 0.1

// Run prices the pairs of a plan. When ctx ends it returns what it has, with
// Incomplete set and no error.
//
// It returns a [feature.Missing] without root, BTF, live frames, kernel symbols,
// or on another architecture than x86-64. Requires at least Linux 5.18.
func Run(ctx context.Context, plan Plan, progress func(redirect.Progress)) (*Raw, error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	plan = plan.withDefaults()
	if !clock.X86 {
		return nil, &feature.Missing{Feature: "x86-64", Help: "tax decodes no other code yet"}
	}
	cpu, err := redirect.PickCPU(plan.CPU)
	if err != nil {
		return nil, err
	}
	if err := redirect.Probe(); err != nil {
		return nil, err
	}
	code, err := openCode()
	if err != nil {
		return nil, err
	}
	defer code.Close()
	if progress == nil {
		progress = func(redirect.Progress) {}
	}
	r := &run{
		plan: plan, cpu: cpu, code: code, progress: progress,
		raw: &Raw{CPU: cpu, Planned: plan.Rounds, Hop: make(map[int][]float64), Calls: make(map[int]redirect.Calls), Path: make(map[string]string)},
	}
	for _, p := range plan.pairs() {
		r.raw.Pairs = append(r.raw.Pairs, RawPair{Pair: p})
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
	code     *code
	progress func(redirect.Progress)
	raw      *Raw
	end      time.Time
	round    int
	climbs   int
}

// climbShare is the share of a run that filling the dispatcher may take.
const climbShare = 0.35

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
		// The first round always climbs; later ones while they keep within
		// their share of the time gone by and to come.
		due := climbShare * float64(r.plan.Duration) * float64(n+1) / float64(r.plan.Rounds)
		if n == 0 || float64(r.climbs+1)*float64(climbTime) <= due {
			if err := r.climb(ctx); err != nil {
				return err
			}
		}
		roundEnd := time.Now().Add(time.Until(r.end) / time.Duration(r.plan.Rounds-n))
		if err := r.inNamespace(func(lab *netlab.Namespace) error {
			if err := r.coreClock(lab); err != nil {
				return err
			}
			if err := r.programs(ctx, lab); err != nil {
				return err
			}
			if err := r.users(ctx, lab); err != nil {
				return err
			}
			return r.chains(ctx, lab, roundEnd)
		}); err != nil {
			return err
		}
	}
	return nil
}

// coreClock adds this round's clock.
func (r *run) coreClock(lab *netlab.Namespace) error {
	var seen []float64
	err := lab.Do(func() error {
		for range 50 {
			seen = append(seen, clock.Core())
		}
		return nil
	})
	r.raw.CoreClock = append(r.raw.CoreClock, stat.Quantile(seen, 1-quiet))
	return err
}

func (r *run) inNamespace(f func(*netlab.Namespace) error) error {
	lab, err := netlab.New(r.cpu)
	if err != nil {
		return err
	}
	return errors.Join(f(lab), lab.Close())
}

func (r *run) show(what string) {
	r.progress(redirect.Progress{Round: r.round + 1, Rounds: r.plan.Rounds, Row: what, Left: max(0, time.Until(r.end))})
}

// of are the pairs of one kind that have not been refused.
func (r *run) of(k kind) []*RawPair {
	var out []*RawPair
	for i := range r.raw.Pairs {
		if p := &r.raw.Pairs[i]; p.With.kind() == k && p.Refused == "" {
			out = append(out, p)
		}
	}
	return out
}

// inspect checks the premises that kernel text alone can tell, and that there is
// code to read for the others.
func (r *run) inspect() error {
	compiles, err := r.code.compiles()
	if err != nil {
		return err
	}
	for i := range r.raw.Pairs {
		p := &r.raw.Pairs[i]
		if !compiles && p.needsJIT() {
			p.Refused = errNoJIT
			continue
		}
		if p.In != nil {
			if p.Premise, p.Refused, err = r.code.holds(p.In); err != nil {
				return err
			}
		}
		if p.With.kind() == impossibleKind {
			if p.Refused, err = r.code.returnFrame(); err != nil {
				return err
			}
		}
	}
	for _, call := range pathCalls {
		premise, refused, err := r.code.holds(call.in)
		if err != nil {
			return err
		}
		if refused == "" {
			r.raw.Path[call.name] = premise
		}
	}
	return nil
}

// climb fills the dispatcher once and prices the call of a program on the way.
func (r *run) climb(ctx context.Context) error {
	pairs := r.of(treeKind)
	if len(pairs) == 0 {
		return nil
	}
	r.show("filling the BPF dispatcher")
	var sizes []int
	for _, p := range pairs {
		for _, side := range []arm{p.With, p.Without} {
			if size := side.(tree).size; !slices.Contains(sizes, size) {
				sizes = append(sizes, size)
			}
		}
	}
	slices.SortFunc(sizes, func(a, b int) int { return height(a) - height(b) })
	c := &climb{code: r.code, inside: make(map[int][]float64), refused: make(map[int]string)}
	defer c.Close()
	err := r.inNamespace(func(lab *netlab.Namespace) error {
		c.lab = lab
		return c.run(ctx, sizes)
	})
	var refused refusal
	if errors.As(err, &refused) {
		for _, p := range pairs {
			if p.Rounds == nil {
				p.Refused = string(refused)
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	side := func(a arm) []float64 {
		if a.(tree).outside {
			return c.outside
		}
		return c.inside[a.(tree).size]
	}
	for _, p := range pairs {
		if !p.With.(tree).outside {
			why := cmp.Or(c.refused[p.With.(tree).size], c.refused[p.Without.(tree).size])
			if why != "" {
				p.Refused = why
				continue
			}
		}
		with, without := side(p.With), side(p.Without)
		for i := range with {
			p.add(r.climbs, c.ns(with[i]), c.ns(without[i]))
		}
		if p.Premise = c.premise; !p.With.(tree).outside {
			p.Premise = "both stand in the compare tree, whose programs were counted"
		}
	}
	r.climbs++
	return nil
}

// height is where a size of the dispatcher stands on a climb.
func height(size int) int {
	if size == full {
		return maxDispatcher
	}
	return size
}

// programSlots is how often each program of a pair is run in a round: one run is
// 256 turns, some 5 µs.
const programSlots = 100

// programs prices each pair of programs once.
func (r *run) programs(ctx context.Context, lab *netlab.Namespace) error {
	pairs := r.of(programKind)
	for _, i := range rand.Perm(len(pairs)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := pairs[i]
		r.show(p.Name)
		if err := r.pair(lab, p); err != nil {
			return fmt.Errorf("price %s: %w", p.Name, err)
		}
	}
	return nil
}

func (r *run) pair(lab *netlab.Namespace, p *RawPair) error {
	loaded, err := price.LoadPair([2]string{p.With.(program).name, p.Without.(program).name})
	if err != nil {
		return err
	}
	defer loaded.Close()
	check := r.code.differ
	if p.PerPacket == notCounted {
		check = r.code.alike
	}
	if p.Premise, p.Refused, err = check(loaded.Programs[0], loaded.Programs[1]); err != nil || p.Refused != "" {
		return err
	}
	var first [2]price.Run
	var slots [2][]float64
	err = lab.Do(func() error {
		for n := range programSlots + 1 {
			for k := range 2 {
				i := (n + k) % 2 // each goes first every other time
				got, err := loaded.Run(i)
				if err != nil {
					return err
				}
				if n == 0 { // warms up
					first[i] = got
					continue
				}
				slots[i] = append(slots[i], float64(got.Ns)/float64(max(got.Turns, 1)))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if first[0].Turns == 0 || first[0].Turns != first[1].Turns || first[0].Sum != first[1].Sum {
		p.Refused = fmt.Sprintf("the two programs did not do the same: %d turns gave %d, %d gave %d",
			first[0].Turns, first[0].Sum, first[1].Turns, first[1].Sum)
		return nil
	}
	p.add(r.round, stat.Quantile(slots[0], quiet), stat.Quantile(slots[1], quiet))
	return nil
}

// refusal is an error that leaves a family of pairs without a price, and the
// others as they are.
type refusal string

func (e refusal) Error() string { return string(e) }
