package redirect

import (
	"context"
	"time"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/netlab"
)

// arrivals counts frames that arrive where no program of the chain runs: in the network stack, or in an AF_XDP socket.
type arrivals interface {
	// reset makes the count 0.
	reset() error
	received() (uint64, error)
	// capacity is the largest number of frames between two calls of reset.
	capacity() int
	Close() error
}

// maxFrames is the capacity of a chain where nothing else limits it: a slot has far fewer.
const maxFrames = 1 << 24

// stackDrops counts frames that the network stack has dropped on a device.
type stackDrops struct {
	device netlab.Device
	before uint64 // at the last reset
}

func (s *stackDrops) reset() (err error) {
	s.before, err = s.device.StackDrops()
	return err
}

func (s *stackDrops) received() (uint64, error) {
	now, err := s.device.StackDrops()
	return now - s.before, err
}

func (s *stackDrops) capacity() int { return maxFrames }

func (s *stackDrops) Close() error { return nil }

// patience says when to give up waiting for frames. It counts polls of the chain's counters, a millisecond apart, in
// which no frame arrived.
type patience struct {
	// most is how many such polls there may be in a row before frames have been waited for in vain.
	most int
	// lossy is set once frames have been waited for in vain.
	lossy bool
	idle  int
}

const (
	// patientPolls is a second: a NAPI thread may have to wait for its CPU.
	patientPolls = 1000
	// lossyPolls is for a chain that has lost frames before.
	lossyPolls = 20
)

// ends tells whether the wait is over, after a poll in which frames arrived or did not.
func (p *patience) ends(arrived bool) bool {
	p.idle++
	if arrived {
		p.idle = 0
	}
	most := p.most
	if p.lossy {
		most = lossyPolls
	}
	if p.idle <= most {
		return false
	}
	p.idle, p.lossy = 0, true
	return true
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// reset starts a slot with a time stamp every window frames.
func (c *Chain) reset(window int) error {
	if c.elsewhere != nil {
		if err := c.elsewhere.reset(); err != nil {
			return err
		}
	}
	if c.verdicts != nil {
		if err := c.verdicts.reset(); err != nil {
			return err
		}
	}
	c.sent = 0
	if c.twin {
		if err := c.sendHere(); err != nil {
			return err
		}
	}
	return c.programs.Reset(window)
}

// capacity is the largest number of frames that a slot may hold.
func (c *Chain) capacity() int {
	most := maxFrames
	if c.elsewhere != nil {
		most = c.elsewhere.capacity()
	}
	if c.source != nil {
		most = min(most, c.source.capacity())
	}
	return most
}

// settle waits until every frame that was sent has arrived, or until none has come for long, and returns the slot's
// counts. On one core there is nothing to wait for but a softirq that was left to ksoftirqd.
func (c *Chain) settle(ctx context.Context) (chain.State, error) {
	c.patience.idle = 0
	for last := uint64(0); ; {
		s, err := c.state()
		if err != nil || !c.counted || c.arrived(s) || c.patience.ends(s.Received != last) {
			return s, err
		}
		last = s.Received
		if err := pause(ctx, time.Millisecond); err != nil {
			return s, err
		}
	}
}

// arrived tells whether every frame that was sent has arrived. A driver counts at the end of a poll.
func (c *Chain) arrived(s chain.State) bool {
	return s.Received >= s.Sent*c.spec.Scenario.copies() && (c.verdicts == nil || c.verdicts.now.Seen >= s.Sent)
}

// state reads the sink first: the other programs have counted what it has received.
func (c *Chain) state() (chain.State, error) {
	var elsewhere uint64
	if c.elsewhere != nil {
		var err error
		if elsewhere, err = c.elsewhere.received(); err != nil {
			return chain.State{}, err
		}
	}
	s, err := c.programs.State()
	s.Received += elsewhere
	if c.spec.Scenario.intoStack() {
		s.Received += s.Passed
	}
	if c.source != nil {
		s.Sent = c.sent
	}
	if err == nil && c.verdicts != nil {
		err = c.verdicts.add(&s)
	}
	return s, err
}
