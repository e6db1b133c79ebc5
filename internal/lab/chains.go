package lab

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
)

// InGuest is what runs in a guest that [Run] made: it counts what a packet goes through
// for each of the rows or, when timed, takes its time instead. Rows of a scenario are
// beside each other. It needs CONFIG_KPROBE_EVENTS and CONFIG_BPF_EVENTS.
//
// Traced marks a slot of each row for whoever traces the guest.
func InGuest(ctx context.Context, nic string, rows []Row, timed, traced bool) (*Measurement, error) {
	m, err := inGuest(ctx, nic, rows, timed, traced)
	if err != nil {
		// Only what failed is looked at: a probe before would move counts.
		if why := feature.AsMissing(redirect.Probe(ctx)); why != nil {
			return nil, why
		}
		return nil, err
	}
	m.Build = ownBuild(m.Host.Compiler, chain.Sum()) // at the end: reading it moves no count
	return m, nil
}

func inGuest(ctx context.Context, nic string, rows []Row, timed, traced bool) (*Measurement, error) {
	var mark *marker
	if traced {
		mark = &marker{}
	}
	switch {
	case nic != Veth:
		return overWires(ctx, rows, timed, mark)
	case timed:
		return timeChains(ctx, rows)
	}
	return countChains(ctx, rows, mark)
}

// counts makes an empty count for each row.
func counts(rows []Row) (out []BulkCount) {
	for _, r := range rows {
		b := BulkCount{Scenario: r.Scenario, Bulk: r.Bulk}
		if b.Scenario == DefaultScenario {
			b.Scenario = ""
		}
		out = append(out, b)
	}
	return out
}

// way is the rows of a scenario, with their counts.
type way struct {
	scenario
	counts []BulkCount // a part of those of the measurement
}

// ways cuts rows by their scenarios.
func ways(rows []Row, counts []BulkCount) (out []way, err error) {
	for i := 0; i < len(rows); {
		s, err := findScenario(rows[i].Scenario)
		if err != nil {
			return nil, err
		}
		n := 1
		for i+n < len(rows) && rows[i+n].Scenario == rows[i].Scenario {
			n++
		}
		out = append(out, way{s, counts[i : i+n]})
		i += n
	}
	return out, nil
}

// refuse says of each row of a way why nothing was counted. That the kernel lacks
// something is no failure.
func (w *way) refuse(err error) {
	for i := range w.counts {
		b := &w.counts[i]
		*b = BulkCount{Scenario: b.Scenario, Bulk: b.Bulk, Refused: printable(err.Error(), maxWhy), Failed: feature.AsMissing(err) == nil}
	}
}

func (w *way) refused() bool { return w.counts[0].Refused != "" }

// on builds the chain of a way in a namespace of its own, and calls f with it. What is in
// the BPF dispatcher then does not depend on the other scenarios of a run.
func (w *way) on(ctx context.Context, cpu int, f func(lab *netlab.Namespace, c *redirect.Chain) error) (err error) {
	lab, err := netlab.New(cpu)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	if w.chain.ByPacketSocket() {
		if err := preferSoftirqs(cpu); err != nil {
			return err
		}
	}
	chain, err := redirect.BuildExact(ctx, lab, redirect.Row{ChainSpec: redirect.ChainSpec{
		Scenario: w.chain, Mode: w.mode, Size: redirect.DefaultSize, Layout: redirect.OneCore,
	}}, cpu)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chain.Close()) }()
	return f(lab, chain)
}

// preferSoftirqs lets the thread of left softirqs run as soon as there are some. Up to Linux 6.3 a system call leaves all
// of its own to that thread once it was woken (ksoftirqd_running in kernel/softirq.c), and a socket that sends meanwhile fills
// the veth's ring: with Linux 6.1 it is told ENOBUFS.
func preferSoftirqs(cpu int) error {
	name := fmt.Sprintf("ksoftirqd/%d", cpu)
	pid, err := netlab.KernelThread(func(got string) bool { return got == name })
	if err != nil || pid == 0 {
		return err // with PREEMPT_RT it may have another name, and waits for nobody
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if err := unix.SchedSetAttr(pid, &attr, 0); err != nil {
		return fmt.Errorf("prefer thread %s: %w", name, err)
	}
	return nil
}

// countChains counts what a packet of veth chains goes through. Instructions come first,
// for all rows: kprobes take some of their own.
func countChains(ctx context.Context, rows []Row, mark *marker) (m *Measurement, err error) {
	m = &Measurement{Bulks: counts(rows)}
	cpu, err := rounds.CPU{}.Pick()
	if err != nil {
		return nil, err
	}
	all, err := ways(rows, m.Bulks)
	if err != nil {
		return nil, err
	}
	p := newProbes(nil)
	defer func() { err = errors.Join(err, p.Close()) }()
	if p.types, err = btf.LoadKernelSpec(); err != nil {
		return nil, &feature.Missing{Feature: "BTF", Config: "CONFIG_DEBUG_INFO_BTF", Err: err}
	}
	for i := range all {
		w := &all[i]
		if err := w.check(p.types); err != nil {
			w.refuse(err)
			continue
		}
		err := w.on(ctx, cpu, func(_ *netlab.Namespace, c *redirect.Chain) error {
			if err := p.read(); err != nil { // now that the dispatcher has a symbol
				return err
			}
			if err := w.instructions(ctx, c, mark); err != nil {
				return err
			}
			return mark.describe(m, p.kernel.Symbols)
		})
		if err != nil && len(all) == 1 && feature.AsMissing(err) == nil {
			return nil, err
		}
		if err != nil {
			w.refuse(err)
		}
	}
	unprobed := cookies.check(p.types)
	for i := range all {
		w := &all[i]
		if w.refused() {
			continue
		}
		if unprobed != nil {
			for j := range w.counts {
				w.counts[j].Unprobed = printable(unprobed.Error(), maxWhy)
			}
			continue
		}
		err := w.on(ctx, cpu, func(lab *netlab.Namespace, c *redirect.Chain) error { return w.probe(ctx, p, lab, c) })
		if err != nil && len(all) == 1 {
			return nil, err
		}
		if err != nil {
			w.refuse(err)
		}
	}
	m.Uncounted, m.Stamp, m.Host = p.uncounted, p.stamp, host.Identify(host.Options{Kernel: p.kernel})
	return m, nil
}

// arm measures a chain at the bulk of a count.
func arm(ctx context.Context, c *redirect.Chain, bulk int) (*redirect.Measurement, error) {
	m, err := c.Measure(ctx, bulk)
	if err != nil {
		return nil, err
	}
	m.SetWindow(window)
	return m, nil
}

// socketSpread is how far two builds of unthunk, or runs of other scenarios, may be from each
// other where a packet socket sends, in instructions a packet; the same command of the same
// build is equal to the digit. Up to 4.25 was seen with Linux 6.12. The kernel copies such a
// packet with memcpy, which goes forward or backward by the addresses of its buffers
// (arch/x86/lib/memcpy_64.S): that may be why.
const socketSpread = 5.0

// groSpread is the same of GRO in a cpumap: two runs of Linux 6.18, with other scenarios beside, were 1.05 instructions a
// packet apart at bulk 64, and equal at bulk 16. Without GRO such runs were equal, with Linux 6.12 and 6.18.
const groSpread = 3.0

// spread is how far counts of a way may be from each other, nil where they are exact.
func (w *way) spread() *float64 {
	switch {
	case w.chain.ByPacketSocket():
		return new(socketSpread)
	case w.chain == redirect.CPUGRO:
		return new(groSpread)
	}
	return nil
}

// instructions counts those of each row of a way.
func (w *way) instructions(ctx context.Context, c *redirect.Chain, mark *marker) error {
	for i := range w.counts {
		b := &w.counts[i]
		m, err := arm(ctx, c, b.Bulk)
		if err != nil {
			return err
		}
		n := slots
		if w.beyond {
			n = slotsBeyond
		}
		for range n {
			span, ok, err := m.Span(ctx)
			if err == nil && !ok {
				err = span.Disagree()
			}
			if err != nil {
				return fmt.Errorf("count instructions at bulk %d: %w", b.Bulk, err)
			}
			b.add(span)
		}
		b.Spread = w.spread()
		if err := mark.trace(ctx, m, b); err != nil {
			return fmt.Errorf("bulk %d: %w", b.Bulk, err)
		}
	}
	return nil
}

// probe counts the indirect branches of each row of a way.
func (w *way) probe(ctx context.Context, p *probes, lab *netlab.Namespace, c *redirect.Chain) error {
	var arms []*redirect.Measurement
	for _, b := range w.counts {
		m, err := arm(ctx, c, b.Bulk)
		if err != nil {
			return err
		}
		arms = append(arms, m)
	}
	tested, _, _ := c.Devices()
	if err := p.follow(ctx, lab, tested, w.beyond, slotOf(ctx, arms[0])); err != nil {
		return err
	}
	for i := range w.counts {
		if err := p.countSlots(ctx, arms[i], &w.counts[i]); err != nil {
			return fmt.Errorf("count at bulk %d: %w", w.counts[i].Bulk, err)
		}
	}
	return nil
}

// countSlots adds what a packet of a veth chain executes: the difference of a slot
// and one of twice as many packets, so that what a slot takes besides its packets
// cancels. Pairs of slots are sent until they settle it: a timer's tick, which comes in most slots, makes some of them say
// something else. Where they do not, a doubt says so.
func (p *probes) countSlots(ctx context.Context, arm *redirect.Measurement, b *BulkCount) error {
	send := slotOf(ctx, arm)
	said := votes{of: make(map[hit]map[float64]int)}
	executed := make(map[int]bool) // probes
	arm.Shorten(1)
	for said.pairs < maxPairs && !said.settled() {
		// A guest's clock counts its instructions: without this a tick may come at the same place of each pair, and have the votes.
		time.Sleep(rand.N(tick))
		arm.SetWindow(window)
		one, packets, err := p.during(send)
		if err != nil {
			return err
		}
		arm.SetWindow(2 * window)
		two, more, err := p.during(send)
		if err != nil {
			return err
		}
		pair := perPacket(one, two, more-packets)
		for t := range pair {
			executed[t.probe] = true
		}
		said.add(pair)
	}
	var unsettled []string
	for t := range said.of {
		per, ok := said.most(t)
		switch {
		case !ok:
			unsettled = append(unsettled, p.Places[t.probe].String())
		case per > 0:
			p.count(b, t, per)
		}
	}
	if slices.Sort(unsettled); len(unsettled) > 0 {
		b.Unsettled = fmt.Sprintf("%d pairs of slots do not agree on how often a packet goes through %s", said.pairs,
			strings.Join(unsettled[:min(len(unsettled), 3)], ", "))
	}
	p.leftOut(b, executed)
	b.sort()
	return nil
}

// tick is at least what lies between two ticks of a guest's timer, of 100 to 1000 Hz.
const tick = 10 * time.Millisecond

// perPacket is how often each of some more packets was hit, by the hits of a slot and of one of so many more packets. It is exact where
// a packet is hit a number of times in 64.
func perPacket(one, two map[hit]uint64, more uint64) map[hit]float64 {
	pair := make(map[hit]float64)
	for _, hits := range []map[hit]uint64{one, two} {
		for t := range hits {
			pair[t] = float64(int64(two[t]-one[t])) / float64(more)
		}
	}
	return pair
}

// Pairs of slots that counts are taken of: at least six, and at most 48. A number a packet is taken when six pairs more say it than
// say anything else. It is none where, of sixteen or more, at most one in eight says the same other one than 0, and of 48 one in
// four. What a timer does says another number in most pairs: with Linux 6.12, 384 packets more had -6 to 24 more entries of
// ktime_get's clock. Of what a packet itself goes through all of 48 pairs said one number, and all of 64 beside four busy loops on
// the host.
const (
	minPairs, maxPairs = 6, 48
	ahead              = 6
	enoughPairs, rare  = 16, 1.0 / 8
	seldom             = 1.0 / 4
)

// votes are how many pairs of slots say a number a packet. A packet goes through a place in the same way every 64 packets: another
// number is of what disturbed a slot, and is not taken.
type votes struct {
	of    map[hit]map[float64]int
	pairs int
}

// add adds what a pair of slots says. What it does not name was not executed more often by more packets.
func (v *votes) add(pair map[hit]float64) {
	v.pairs++
	for t, per := range pair {
		if v.of[t] == nil {
			v.of[t] = map[float64]int{0: v.pairs - 1}
		}
		v.of[t][per]++
	}
	for t, counts := range v.of {
		if _, ok := pair[t]; !ok {
			counts[0]++
		}
	}
}

// most is the number a packet that the pairs settle, and whether they do.
func (v *votes) most(t hit) (per float64, ok bool) {
	first, some := 0, 0
	for x, n := range v.of[t] {
		if !possible(x) {
			continue
		}
		if n > first {
			per, first = x, n
		}
		if x > 0 {
			some = max(some, n)
		}
	}
	if others := v.pairs - first; first-others >= ahead {
		return per, true
	}
	share := float64(some) / float64(v.pairs)
	return 0, v.pairs >= enoughPairs && share <= rare || v.pairs >= maxPairs && share <= seldom
}

// possible tells whether a packet can go through a place so often.
func possible(per float64) bool { return per >= 0 && per*64 == math.Trunc(per*64) }

// settled tells whether enough pairs said a number of each place.
func (v *votes) settled() bool {
	if v.pairs < minPairs {
		return false
	}
	for t := range v.of {
		if _, ok := v.most(t); !ok {
			return false
		}
	}
	return true
}

// timeChains measures the time of a packet of veth chains, for each scenario in rounds
// that interleave the bulks. Those that only guests count have no time.
func timeChains(ctx context.Context, rows []Row) (m *Measurement, err error) {
	m = &Measurement{Host: host.Identify(host.Options{}), Bulks: counts(rows)}
	all, err := ways(rows, m.Bulks)
	if err != nil {
		return nil, err
	}
	for _, w := range all {
		plan := redirect.Plan{Scenarios: []redirect.Scenario{w.chain}, Mode: w.mode, Schedule: rounds.Schedule{Duration: timeOf}}
		for _, b := range w.counts {
			plan.Bulks = append(plan.Bulks, b.Bulk)
		}
		if plan.Validate() != nil {
			continue
		}
		raw, err := redirect.Run(ctx, plan, nil)
		if err != nil {
			return nil, err
		}
		timed, _ := raw.Record()
		for i, row := range timed {
			if row.Refused != "" && len(all) == 1 {
				return nil, fmt.Errorf("measure %s: %s", row.Name, row.Refused)
			}
			w.counts[i].Ns = row.Ns
		}
	}
	return m, nil
}
