package tax

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/redirect"
)

// tracepoint is the one that observers are priced at: one hit for each
// frame redirected.
const tracepoint = "xdp_redirect"

// maxObservers is the most programs that a setting has at the tracepoint.
const maxObservers = 2

// chains are the two chains of one round, one with the redirect and one without,
// and the measurements on them.
type chains struct {
	redirect, drop *redirect.Chain
	measurements   map[setting]*redirect.Measurement
	second         *ebpf.Program
	observers      [maxObservers]*ebpf.Program
	// foreignObservers tells that others' programs are at the tracepoint.
	foreignObservers bool
	// redirects is how many a packet makes behind the generator's.
	redirects float64
	// hops are the prices of the redirect hop in this round, by bulk.
	hops map[int]float64
}

// chains prices the pairs on chains once. It stops at end.
func (r *run) chains(ctx context.Context, namespace *netlab.Namespace, end time.Time) error {
	pairs := of[onChain](r.raw)
	if len(pairs) == 0 {
		return nil
	}
	r.round.Show("building chains")
	return r.onChains(ctx, namespace, pairs, func(c *chains) error {
		c.redirects = 1
		if calls, ok := r.raw.calls[topBulk]; ok && r.target != nil {
			c.redirects = calls.Redirects
		}
		if err := r.measureChains(ctx, c, end); err != nil {
			return err
		}
		for _, p := range pairs {
			if with, without, err := p.sides.ns(c); err != nil {
				p.failure = err.Error()
			} else {
				p.add(r.round.Number, with, without)
			}
		}
		for bulk, ns := range c.hops {
			r.raw.hops[bulk] = append(r.raw.hops[bulk], ns)
		}
		return nil
	})
}

// onChains builds the chains of a round, counts calls in the first round, reads what only loaded programs show, and calls do.
func (r *run) onChains(ctx context.Context, namespace *netlab.Namespace, pairs []open[onChain], do func(*chains) error) (err error) {
	c := &chains{measurements: make(map[setting]*redirect.Measurement), hops: make(map[int]float64)}
	defer func() { err = errors.Join(err, c.Close()) }()
	var settings []setting
	for _, p := range pairs {
		settings = append(settings, p.sides.settings()...)
	}
	if err := c.build(ctx, namespace, r, settings); err != nil {
		return err
	}
	if r.round.Number == 0 {
		if r.raw.calls, err = c.count(ctx); err != nil {
			return err
		}
		if r.target != nil {
			r.raw.verdict = c.redirect.Verdicts().One()
		}
	}
	if err := r.check(c, pairs); err != nil {
		return err
	}
	return do(c)
}

// build makes the chains, the programs and the measurements of settings.
func (c *chains) build(ctx context.Context, namespace *netlab.Namespace, r *run, settings []setting) (err error) {
	build := func(i int, own redirect.Scenario) (*redirect.Chain, error) {
		if r.target != nil {
			return redirect.BuildTarget(ctx, namespace, i, r.target, own == redirect.Drop, r.cpu)
		}
		return redirect.Build(ctx, namespace, i, own, r.cpu)
	}
	if c.redirect, err = build(0, redirect.Map); err != nil {
		return err
	}
	if c.drop, err = build(1, redirect.Drop); err != nil {
		return err
	}
	if c.second, err = price.Load("second"); err != nil {
		return err
	}
	for i := range c.observers {
		if c.observers[i], err = price.Load("observer"); err != nil {
			return err
		}
	}
	for _, s := range settings {
		if c.measurements[s] != nil {
			continue
		}
		chain := c.redirect
		if s.drop {
			chain = c.drop
		}
		if c.measurements[s], err = chain.Measure(ctx, s.bulk); err != nil {
			return err
		}
	}
	return nil
}

// check reads what only loaded programs show: premises of pairs, and what a packet
// meets besides.
func (r *run) check(c *chains, pairs []open[onChain]) error {
	var refused refusal
	sink, err := dispatched(r.kernel, c.redirect.Sink())
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	r.raw.outside = 1
	if sink.in || r.raw.verdict == "pass" || r.raw.verdict == "drop" { // such a packet does not meet the sink
		r.raw.outside = 0
	}
	if r.target != nil {
		yours, err := dispatched(r.kernel, c.redirect.Tested())
		if err != nil && !errors.As(err, &refused) {
			return err
		}
		if !yours.in { // the program that drops in its place is in the dispatcher
			r.raw.outside++
		}
	}
	if r.round.Number == 0 {
		if r.raw.foreignObservers, err = traced(r.kernel, c.observers[0]); err != nil {
			return err
		}
	}
	c.foreignObservers = r.raw.foreignObservers
	for _, p := range pairs {
		if err := p.found(p.sides.check(r.kernel, c)); err != nil {
			return err
		}
	}
	return nil
}

// traced tells whether others' programs are at the tracepoint: then attaching one
// more does not turn its static key on, which makes a jump of a nop in
// xdp_do_redirect.
func traced(k *kernel.Kernel, observer *ebpf.Program) (bool, error) {
	f, ok := k.Function("xdp_do_redirect")
	if !ok {
		return false, nil
	}
	before, err := k.Code(f)
	if err != nil {
		return false, err
	}
	l, err := attachObserver(observer)
	if err != nil {
		return false, err
	}
	after, err := k.Code(f)
	if err := errors.Join(err, l.Close()); err != nil {
		return false, err
	}
	jumps := func(code []byte) map[uint64]bool {
		at := make(map[uint64]bool)
		for step := range k.Scan(code, f.Addr) {
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

func attachObserver(p *ebpf.Program) (link.Link, error) {
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: p})
	if err != nil {
		return nil, fmt.Errorf("attach to tracepoint %s: %w", tracepoint, err)
	}
	return l, nil
}

// count counts the calls of a redirected packet at each bulk. Nothing is attached yet,
// so any measurement at a bulk will do.
func (c *chains) count(ctx context.Context) (map[int]redirect.CallsPerPacket, error) {
	calls := make(map[int]redirect.CallsPerPacket)
	for s, m := range c.measurements {
		if _, ok := calls[s.bulk]; ok || s.drop {
			continue
		}
		seen, err := m.CallsPerPacket(ctx)
		if err != nil {
			return nil, err
		}
		calls[s.bulk] = seen
	}
	return calls, nil
}

// watchedSlots is how many slots each measurement with observers gets in a row.
const watchedSlots = 8

// measureChains measures all settings in turn until end. Attaching to a tracepoint and
// detaching takes some 0.4 s, so settings with observers get their slots in a row, and
// the others then get the same time.
func (r *run) measureChains(ctx context.Context, c *chains, end time.Time) error {
	var plain, watched []setting
	for s := range c.measurements {
		if s.watched {
			watched = append(watched, s)
		} else {
			plain = append(plain, s)
		}
	}
	slices.SortFunc(watched, func(a, b setting) int { return a.observers - b.observers })
	for pass := 0; pass == 0 || time.Now().Before(end); pass++ {
		r.round.Show("tracepoint " + tracepoint)
		begin := time.Now()
		if err := c.watch(ctx, watched); err != nil {
			return err
		}
		r.round.Show("redirect chains")
		for again := time.Now().Add(time.Since(begin)); len(plain) > 0; {
			for _, i := range rand.Perm(len(plain)) {
				if err := r.references.Sample(); err != nil {
					return err
				}
				if err := c.slot(ctx, plain[i]); err != nil {
					return err
				}
			}
			if now := time.Now(); now.After(again) || now.After(end) {
				break
			}
		}
	}
	return nil
}

// slot measures a setting without observers.
func (c *chains) slot(ctx context.Context, s setting) (err error) {
	if s.second && !c.redirect.TakesPortProgram() {
		return nil
	}
	if s.second {
		if err := c.redirect.SetPortProgram(c.second); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.redirect.SetPortProgram(nil)) }()
	}
	return c.measurements[s].Slot(ctx)
}

// watch measures settings with observers, in the order of how many there are.
func (c *chains) watch(ctx context.Context, settings []setting) (err error) {
	var links []link.Link
	defer func() {
		for _, l := range links {
			err = errors.Join(err, l.Close())
		}
	}()
	for _, s := range settings {
		for len(links) < s.observers {
			l, err := attachObserver(c.observers[len(links)])
			if err != nil {
				return err
			}
			links = append(links, l)
		}
		for range watchedSlots {
			if err := c.measurements[s].Slot(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// hop is the price of the redirect hop at a bulk in this round, in ns per packet.
func (c *chains) hop(bulk int) (float64, error) {
	all, err := c.measurements[setting{bulk: bulk}].Ns()
	without, errWithout := c.measurements[setting{bulk: bulk, drop: true}].Ns()
	if err := errors.Join(err, errWithout); err != nil {
		return 0, err
	}
	c.hops[bulk] = all - without
	return all - without, nil
}

// both are the times of two settings in ns per hit; hits is how many a packet makes.
func (c *chains) both(sides []setting, hits float64) (with, without float64, err error) {
	with, err = c.measurements[sides[0]].Ns()
	without, errWithout := c.measurements[sides[1]].Ns()
	return with / hits, without / hits, errors.Join(err, errWithout)
}

// Close unloads what was built.
func (c *chains) Close() error {
	var errs []error
	for _, chain := range []*redirect.Chain{c.redirect, c.drop} {
		if chain != nil {
			errs = append(errs, chain.Close())
		}
	}
	for _, p := range append(c.observers[:], c.second) {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
