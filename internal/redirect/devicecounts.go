package redirect

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/bpf/observe"
	"github.com/unthunk/unthunk/internal/record"
)

// Interval is what happened on real devices in a while.
type Interval struct {
	// End is when it was read, Length how long it was.
	End    time.Time
	Length time.Duration
	// Queues is what came by each receive queue on each CPU, without those that nothing came by.
	Queues []record.QueueCount
	// Left is how many frames left, by the statistics of the device that they leave by, which other traffic is in too;
	// nil for scenarios in which none leave.
	Left *uint64
	// Lost are frames that did not get where the scenario sends them.
	Lost []record.LostFrames
}

// Frames is how many frames came.
func (i Interval) Frames() (n uint64) {
	for _, q := range i.Queues {
		n += q.Frames
	}
	return n
}

// deviceCounts are counts since the devices were made or the program was attached.
type deviceCounts struct {
	at     time.Time
	queues []chain.QueueCount
	// in and out are the devices' own statistics; out is that of the device that frames leave by.
	in, out netlink.LinkStatistics
	// seen is what tracepoints saw.
	seen observe.Seen
}

// counts reads all but what tracepoints saw. The program's counts are read first, so that what it counted has had the
// time to leave.
func (p *AttachedPair) counts(scenario Scenario) (c deviceCounts, err error) {
	if c.queues, err = p.programs.QueueCounts(); err != nil {
		return c, err
	}
	c.at = time.Now()
	if c.in, err = p.statistics(p.In); err != nil {
		return c, err
	}
	c.out, err = p.left(scenario)
	return c, err
}

// left are the statistics of the device that frames leave by; zero where none leave.
func (p *AttachedPair) left(scenario Scenario) (s netlink.LinkStatistics, err error) {
	switch scenario {
	case Map:
		return p.statistics(p.Out)
	case TX:
		return p.statistics(p.In)
	}
	return s, nil
}

// statistics are a device's own.
func (p *AttachedPair) statistics(ifindex int) (s netlink.LinkStatistics, err error) {
	l, err := p.network.LinkByIndex(ifindex)
	if err != nil {
		return s, fmt.Errorf("read statistics: %w", err)
	}
	if l.Attrs().Statistics != nil {
		s = *l.Attrs().Statistics
	}
	return s, nil
}

// handled is how many frames the program has seen.
func (c deviceCounts) handled() (n uint64) {
	for _, q := range c.queues {
		n += q.Frames
	}
	return n
}

// since is what happened between two readings.
func (c deviceCounts) since(before deviceCounts, scenario Scenario) Interval {
	i := Interval{End: c.at, Length: c.at.Sub(before.at)}
	failed := uint64(0)
	for _, q := range c.queues {
		at := slices.IndexFunc(before.queues, func(b chain.QueueCount) bool { return b.Queue == q.Queue && b.CPU == q.CPU })
		if at >= 0 {
			b := before.queues[at]
			q.Frames, q.Bytes, q.Failed = q.Frames-b.Frames, q.Bytes-b.Bytes, q.Failed-b.Failed
		}
		failed += q.Failed
		if q.Frames > 0 {
			i.Queues = append(i.Queues, record.QueueCount{Queue: q.Queue, CPU: q.CPU, Frames: q.Frames, Bytes: q.Bytes})
		}
	}
	slices.SortFunc(i.Queues, func(a, b record.QueueCount) int { return cmp.Or(a.Queue-b.Queue, a.CPU-b.CPU) })
	lose := func(at, err string, frames uint64) {
		if frames > 0 {
			i.Lost = append(i.Lost, record.LostFrames{At: at, Error: err, Frames: frames})
		}
	}
	lose(record.LostMissed, "", rose(c.in.RxMissedErrors, before.in.RxMissedErrors))
	lose(record.LostNoPort, "", failed)
	if scenario == Map || scenario == TX {
		left := rose(c.out.TxPackets, before.out.TxPackets)
		i.Left = &left
		lose(record.LostTxDropped, "", rose(c.out.TxDropped, before.out.TxDropped))
	}
	for _, e := range c.seen.ErrorsSince(before.seen) {
		lose(record.LostRedirect, e.Error.Error(), e.Count)
	}
	if drops := rose(c.seen.Drops, before.seen.Drops); drops > 0 {
		text := ""
		if c.seen.XmitError != 0 {
			text = c.seen.XmitError.Error()
		}
		lose(record.LostXmit, text, drops)
	}
	return i
}

// rose is how much a counter rose. Drivers reset theirs when they restart.
func rose(after, before uint64) uint64 {
	if after < before {
		return 0
	}
	return after - before
}
