package tax

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/redirect"
)

// observed is the tracepoint that observers are priced at: one hit for each
// frame redirected.
const observed = "xdp_redirect"

// measured is an arm on a chain of this round.
type measured struct {
	onChain
	arm *redirect.Arm
}

// bench is the two chains of one round, one with the redirect and one without,
// and the arms on them.
type bench struct {
	chain, drop *redirect.Chain
	arms        map[onChain]*measured
	second      *ebpf.Program
	observers   [2]*ebpf.Program
}

// chains prices the pairs on a chain once. It leaves off at end.
func (r *run) chains(ctx context.Context, lab *netlab.Namespace, end time.Time) (err error) {
	pairs := r.of(chainKind)
	if len(pairs) == 0 {
		return nil
	}
	r.show("building chains")
	b, err := r.assemble(ctx, lab, pairs)
	defer func() { err = errors.Join(err, b.Close()) }()
	if err != nil {
		return err
	}
	if err := r.premises(b, pairs); err != nil {
		return err
	}
	if r.round == 0 {
		if err := r.count(ctx, b); err != nil {
			return err
		}
	}
	var plain, watched []*measured
	for _, a := range b.arms {
		if a.observers > 0 {
			watched = append(watched, a)
		} else {
			plain = append(plain, a)
		}
	}
	slices.SortFunc(watched, func(a, b *measured) int { return a.observers - b.observers })
	// Attaching to a tracepoint and detaching takes some 0.4 s, so the arms with
	// observers get their slots in a row, and the others as much time.
	for pass := 0; pass == 0 || time.Now().Before(end); pass++ {
		r.show("tracepoint " + observed)
		begin := time.Now()
		if err := b.watch(ctx, watched); err != nil {
			return err
		}
		r.show("redirect chains")
		for again := time.Now().Add(time.Since(begin)); ; {
			for _, i := range rand.Perm(len(plain)) {
				if err := b.slot(ctx, plain[i]); err != nil {
					return err
				}
			}
			if now := time.Now(); now.After(again) || now.After(end) {
				break
			}
		}
	}
	return r.conclude(b, pairs)
}

// watchedSlots is how many slots each arm with observers gets in a row.
const watchedSlots = 8

// assemble builds the chains that the pairs need.
func (r *run) assemble(ctx context.Context, lab *netlab.Namespace, pairs []*RawPair) (b *bench, err error) {
	b = &bench{arms: make(map[onChain]*measured)}
	for _, p := range pairs {
		for _, side := range []arm{p.With, p.Without} {
			a := side.(onChain)
			hop := a.hop
			a.hop = false
			b.arms[a] = &measured{onChain: a}
			if hop {
				a.drop = true
				b.arms[a] = &measured{onChain: a}
			}
		}
	}
	if b.chain, err = redirect.Build(lab, 0, redirect.Map, r.cpu); err != nil {
		return b, err
	}
	if b.drop, err = redirect.Build(lab, 1, redirect.Drop, r.cpu); err != nil {
		return b, err
	}
	if b.second, err = price.Load("second"); err != nil {
		return b, err
	}
	for i := range b.observers {
		if b.observers[i], err = price.Load("observer"); err != nil {
			return b, err
		}
	}
	for _, a := range b.arms {
		chain := b.chain
		if a.drop {
			chain = b.drop
		}
		if a.arm, err = chain.Arm(ctx, a.bulk); err != nil {
			return b, err
		}
	}
	return b, nil
}

// premises checks what only programs that are loaded can tell.
func (r *run) premises(b *bench, pairs []*RawPair) error {
	var refused refusal
	in, _, _, err := r.code.dispatched(b.chain.Sink())
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	r.raw.Outside = 1
	if in {
		r.raw.Outside = 0
	}
	if r.round == 0 {
		if r.raw.Observed, err = r.observed(b); err != nil {
			return err
		}
	}
	for _, p := range pairs {
		if r.raw.Observed && p.With.(onChain).observers > 0 {
			p.Refused = "others' programs are at " + observed + " already: what the first costs cannot be seen"
		}
		if !p.With.(onChain).second {
			continue
		}
		in, _, fallback, err := r.code.dispatched(b.second)
		switch {
		case errors.As(err, &refused):
			p.Refused = string(refused)
		case err != nil:
			return err
		case in:
			p.Refused = "already direct here: the dispatcher holds programs of a devmap too"
		default:
			p.Premise = "the program is not in the dispatcher, which ends in " + fallback
		}
	}
	return nil
}

// observed tells whether others' programs are at the tracepoint: then attaching one
// more does not turn its static key on, which makes a jump of a nop in
// xdp_do_redirect.
func (r *run) observed(b *bench) (bool, error) {
	f, ok := r.code.kernel("xdp_do_redirect")
	if !ok || b.observers[0] == nil {
		return false, nil
	}
	before, err := r.code.read(f)
	if err != nil {
		return false, err
	}
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: observed, Program: b.observers[0]})
	if err != nil {
		return false, fmt.Errorf("attach to tracepoint %s: %w", observed, err)
	}
	after, err := r.code.read(f)
	if err := errors.Join(err, l.Close()); err != nil {
		return false, err
	}
	jumps := func(code []byte) map[uint64]bool {
		at := make(map[uint64]bool)
		for step := range branch.Scan(code, f.addr) {
			if step.Kind == branch.JumpDirect {
				at[step.Addr] = true
			}
		}
		return at
	}
	was := jumps(before)
	for addr := range jumps(after) {
		if !was[addr] {
			return false, nil
		}
	}
	return true, nil
}

// count counts the calls of a packet at each bulk.
func (r *run) count(ctx context.Context, b *bench) error {
	for _, bulk := range slices.Sorted(maps.Keys(bulks(b.arms))) {
		a := b.arms[onChain{bulk: bulk}]
		if a == nil {
			a = b.arms[onChain{bulk: bulk, observers: 1}]
		}
		calls, err := a.arm.Count(ctx)
		if err != nil {
			return err
		}
		r.raw.Calls[bulk] = calls
	}
	return nil
}

func bulks(arms map[onChain]*measured) map[int]bool {
	out := make(map[int]bool)
	for a := range arms {
		out[a.bulk] = true
	}
	return out
}

// slot measures an arm without observers.
func (b *bench) slot(ctx context.Context, a *measured) (err error) {
	if a.second {
		if err := b.chain.SetPortProgram(b.second); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.chain.SetPortProgram(nil)) }()
	}
	return a.arm.Slot(ctx)
}

// watch measures the arms with observers, in the order of how many there are.
func (b *bench) watch(ctx context.Context, arms []*measured) (err error) {
	var links []link.Link
	defer func() {
		for _, l := range links {
			err = errors.Join(err, l.Close())
		}
	}()
	for _, a := range arms {
		for len(links) < a.observers-1 {
			l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: observed, Program: b.observers[len(links)]})
			if err != nil {
				return fmt.Errorf("attach to tracepoint %s: %w", observed, err)
			}
			links = append(links, l)
		}
		for range watchedSlots {
			if err := a.arm.Slot(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// conclude adds this round's numbers to the pairs.
func (r *run) conclude(b *bench, pairs []*RawPair) error {
	ns := func(a onChain) (float64, error) { return b.arms[a].arm.Ns() }
	hop := func(bulk int) (float64, error) {
		all, err := ns(onChain{bulk: bulk})
		without, errDrop := ns(onChain{bulk: bulk, drop: true})
		return all - without, errors.Join(err, errDrop)
	}
	hops := make(map[int]float64)
	for _, p := range pairs {
		var sides [2]float64
		var bad error
		for i, side := range []arm{p.With, p.Without} {
			a := side.(onChain)
			var err error
			if a.hop {
				sides[i], err = hop(a.bulk)
				hops[a.bulk] = sides[i]
			} else {
				sides[i], err = ns(a)
			}
			bad = errors.Join(bad, err)
		}
		if bad != nil {
			p.failure = bad.Error()
			continue
		}
		// The generator's redirect hits the tracepoint too.
		hits := 1.0
		if p.With.(onChain).observers > 0 {
			hits = 2
		}
		p.add(r.round, sides[0]/hits, sides[1]/hits)
	}
	for bulk, x := range hops {
		r.raw.Hop[bulk] = append(r.raw.Hop[bulk], x)
	}
	return nil
}

// Close unloads what was built.
func (b *bench) Close() error {
	var errs []error
	for _, c := range []*redirect.Chain{b.chain, b.drop} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	for _, p := range append(b.observers[:], b.second) {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
