package redirect

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/traffic"
)

// windowFrames is the least distance of two time stamps, in frames. At a taken time of some 30 ns a stamp costs the
// average frame 0.03 ns.
const windowFrames = 1024

// slotTime is what a slot should take: long compared with the call that starts it, short compared with the machine's
// moods.
const slotTime = 3 * time.Millisecond

// Measurement is one thing that is timed in a round: a chain at one bulk, slot by slot.
type Measurement struct {
	chain   *Chain
	live    traffic.Live
	window  int // frames
	unit    int // frames that a window has a multiple of
	windows int // a slot
	// tries is how often the generator runs for a frame that it sends: more than once when it waits for room.
	tries float64
	// ns holds the time of each good window, in ns per frame.
	ns []float64
	// whole holds the kernel's time of each slot, in whole ns per frame.
	whole []float64
	// verdicts are frames by what a target said of them; empty of other chains.
	verdicts netlab.XDPCounts
	// unsettled is set while frames of a slot may still be under way.
	unsettled bool
	counts    rounds.Counts
	slots     rounds.Slots
}

// newMeasurement measures a chain at a bulk. It has sent nothing yet.
func newMeasurement(c *Chain, bulk int) (*Measurement, error) {
	frame, err := c.spec.frame()
	if err != nil {
		return nil, err
	}
	m := &Measurement{
		chain:   c,
		live:    traffic.Live{Program: c.programs.Generate, Frame: frame, Batch: bulk},
		unit:    bulk,
		windows: 4,
		tries:   1,
	}
	switch t := c.spec.Target; {
	case t != nil:
		m.unit = leastMultiple(bulk, len(t.frames))
	case c.packets != nil:
		m.unit = leastMultiple(bulk, segments)
	}
	m.SetWindow(windowFrames)
	return m, nil
}

// renew forgets what was measured in the round before.
func (m *Measurement) renew() {
	m.ns, m.whole, m.verdicts, m.counts, m.slots = nil, nil, netlab.XDPCounts{}, rounds.Counts{}, rounds.Slots{}
}

// Measure returns a measurement that has sent its first slot.
func (c *Chain) Measure(ctx context.Context, bulk int) (*Measurement, error) {
	m, err := newMeasurement(c, bulk)
	if err != nil {
		return nil, err
	}
	return m, m.warmUp(ctx)
}

// SetWindow makes windows of at least frames frames: of whole bulks, so that a window holds the whole way of each of
// its frames, and of each packet equally often.
func (m *Measurement) SetWindow(frames int) {
	m.window = (frames + m.unit - 1) / m.unit * m.unit
}

// Shorten makes slots of some windows.
func (m *Measurement) Shorten(windows int) { m.windows = windows }

// Windows is how many windows a slot has.
func (m *Measurement) Windows() int { return m.windows }

// Lengthen makes slots n times as long, if the chain can hold that many frames, and gives them as many windows as they
// can have: the shorter a window is, the less is lost with one that is disturbed.
func (m *Measurement) Lengthen(n int) {
	frames := n * m.windows * m.window
	most := chain.MaxWindows - 2
	if frames+2*(frames/most+m.live.Batch) >= m.chain.capacity() {
		return
	}
	m.SetWindow(max(frames/most, leastWindow))
	m.windows = max(min(frames/m.window, most), 3)
}

// leastWindow is the least of a window that was shortened, in frames: a stamp costs each 0.12 ns.
const leastWindow = 256

// warmUp sends one slot that is thrown away and sets the slot's length by it.
func (m *Measurement) warmUp(ctx context.Context) error {
	s, _, err := m.send(ctx)
	if err != nil {
		return err
	}
	m.pace(s)
	if n := len(s.Stamps); n >= 2 && s.Stamps[n-1] > s.Stamps[n-2] {
		perWindow := time.Duration(s.Stamps[n-1] - s.Stamps[n-2])
		m.windows = min(max(int(slotTime/perWindow), 3), chain.MaxWindows-2, m.chain.capacity()/m.window-3)
	}
	return nil
}

// pace makes the generator run as often for a frame as it had to in a slot.
func (m *Measurement) pace(s chain.State) {
	if s.Sent > 0 {
		m.tries = min(m.tries*float64((m.windows+2)*m.window)/float64(s.Sent), 64)
	}
}

// send runs one slot and returns its counts, and the kernel's own figure of its time in ns per frame. The first window
// warms the page pool and the caches; the last only ends the one before. A slot that a signal broke off is run again.
func (m *Measurement) send(ctx context.Context) (s chain.State, ns float64, err error) {
	for try := 0; ; try++ {
		s, ns, err = m.sendOnce(ctx)
		if try == 3 || !errors.Is(err, unix.EINTR) {
			return s, ns, err
		}
	}
}

func (m *Measurement) sendOnce(ctx context.Context) (s chain.State, ns float64, err error) {
	if m.unsettled {
		if _, err := m.chain.settle(ctx); err != nil {
			return s, 0, err
		}
	}
	if err := m.chain.reset(m.window); err != nil {
		return s, 0, err
	}
	m.unsettled = true
	frames := int(float64((m.windows+2)*m.window) * m.tries)
	err = m.chain.namespace.Do(func() error {
		if source := m.chain.source; source != nil {
			sent, err := source.send(frames, m.live.Batch)
			m.chain.sent += uint64(sent)
			return err
		}
		d, err := m.live.Send(ctx, frames)
		ns = float64(d)
		return err
	})
	if err != nil {
		return s, 0, err
	}
	s, err = m.chain.settle(ctx)
	m.unsettled = err != nil
	return s, ns, err
}

// Slot measures for about 3 ms, unless lengthened.
func (m *Measurement) Slot(ctx context.Context) error {
	s, ns, err := m.send(ctx)
	if err != nil {
		return err
	}
	m.whole = append(m.whole, ns)
	if !m.chain.counted || !m.count(s) {
		return nil
	}
	if len(s.Stamps) < 3 { // the generator waited longer than before
		m.pace(s)
	}
	for i := 2; i < len(s.Stamps); i++ {
		m.ns = append(m.ns, float64(s.Stamps[i]-s.Stamps[i-1])/float64(m.window))
	}
	return nil
}

// Ns is the time of the whole chain in ns per frame: the 10th percentile of the windows of all slots so far. It fails
// when the packet counts of more than one slot in twenty disagreed.
func (m *Measurement) Ns() (float64, error) {
	if m.slots.Unusable() || len(m.ns) == 0 {
		return 0, m.counts.Disagree()
	}
	return rounds.Undisturbed(m.ns), nil
}

// Span is a time in which a chain did nothing but its work.
type Span struct {
	Start, End uint64 // CLOCK_MONOTONIC in ns
	Frames     uint64
	// Counts are frames of the whole slot.
	rounds.Counts
	// Windows are the times of parts of Window frames each, in ns.
	Windows []uint64
	Window  int
}

// Span measures one slot: the time between its second time stamp and its last. It returns false when the slot's packet
// counts disagree; then the counts are there, and nothing else.
func (m *Measurement) Span(ctx context.Context) (Span, bool, error) {
	s, _, err := m.send(ctx)
	span := Span{Counts: counts(s), Window: m.window}
	if err != nil || !m.count(s) || len(s.Stamps) < 3 {
		return span, false, err
	}
	for i := 2; i < len(s.Stamps); i++ {
		span.Windows = append(span.Windows, s.Stamps[i]-s.Stamps[i-1])
	}
	span.Start, span.End = s.Stamps[1], s.Stamps[len(s.Stamps)-1]
	span.Frames = uint64(len(span.Windows) * span.Window)
	return span, true, nil
}

func counts(s chain.State) rounds.Counts {
	return rounds.Counts{Sent: s.Sent, Redirected: s.Tested, Received: s.Received}
}

// count adds a slot's counts and tells whether they agree.
func (m *Measurement) count(s chain.State) (good bool) {
	c := counts(s)
	if v := m.chain.verdicts; v != nil {
		m.verdicts = m.verdicts.Plus(v.now)
	}
	good = c.Agree(m.chain.spec.Scenario.copies())
	m.counts.Add(c)
	m.slots.Add(good)
	return good
}
