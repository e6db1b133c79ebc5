package redirect

import (
	"context"

	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
)

// verdicts counts frames by what the program under test says of them, as the driver does. A program of ours between the
// driver and the user's, which calls that by a tail call with a constant index and counts what it returns, would be in
// every number: it took 10 to 13 ns of a frame's 310 with retpolines and safe returns, and the user's program was no
// longer the one in the BPF dispatcher.
type verdicts struct {
	read   func() (netlab.XDPCounts, error)
	close  func()
	before netlab.XDPCounts // at the last reset
	// now is what was counted since, when it was last read.
	now netlab.XDPCounts
	// dropped says that frames that are dropped have arrived: it is the user's program that ended them, and no sink.
	dropped bool
}

func (v *verdicts) reset() (err error) {
	v.before, err = v.read()
	return err
}

// add completes a slot's counts. Tested frames are those whose verdict the kernel could follow.
func (v *verdicts) add(s *chain.State) error {
	total, err := v.read()
	if err != nil {
		return err
	}
	v.now = total.Less(v.before)
	s.Tested = v.now.Seen - v.now.Failed
	s.Received += s.Passed
	if v.dropped {
		s.Received += v.now.Dropped
	}
	return nil
}

// recorded are counts by what becomes of the frames.
func recorded(v netlab.XDPCounts) record.Verdicts {
	return record.Verdicts{Redirect: v.Redirected, TX: v.Sent, Drop: v.Dropped, Pass: v.Passed(), Failed: v.Failed}
}

// Verdicts are the frames of the last slot by what a target said of them; none of a chain without a target.
func (c *Chain) Verdicts() record.Verdicts {
	if c.verdicts == nil {
		return record.Verdicts{}
	}
	return recorded(c.verdicts.now)
}

// targetMTU lets frames through that a program has made longer. It is what a page has room for beside what XDP needs
// (veth_xdp_set in drivers/net/veth.c), for packets as long as they may be.
const targetMTU = 3000

// setUpTarget prepares a chain for the packets of a target: also the one without it.
func (c *Chain) setUpTarget() (err error) {
	for _, d := range []netlab.Device{c.generator, c.tested, c.out, c.sink} {
		if err := d.SetMTU(targetMTU); err != nil {
			return err
		}
	}
	v := &verdicts{dropped: c.spec.Scenario == Prog}
	if v.read, v.close, err = c.tested.CountXDP(); err != nil {
		return err
	}
	c.verdicts = v
	return nil
}

// connectTarget loads the target, leads its redirects to the next device, ends what it sends back and what it passes to
// the network stack, and lets all of it be counted.
func (c *Chain) connectTarget(context.Context) (err error) {
	t := c.spec.Target
	if c.programs.Tested, err = t.load(); err != nil {
		return err
	}
	if err := c.namespace.Do(func() error { return t.connect(c.out) }); err != nil {
		return err
	}
	if err := c.generator.Attach(c.programs.Sink, link.XDPDriverMode); err != nil {
		return err
	}
	return c.tested.EndStack(c.programs.StackEnd)
}

// frame is what frames are when they are first made.
func (c ChainSpec) frame() ([]byte, error) {
	if c.Target != nil {
		return make([]byte, c.Target.madeBytes()), nil
	}
	if c.Scenario.intoStack() { // each is one of tcpSegments when it is sent
		return make([]byte, 2*DefaultSize), nil
	}
	return c.Scenario.frame(c.Size)
}
