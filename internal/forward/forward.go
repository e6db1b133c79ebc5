package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/cilium/ebpf/asm"
	"github.com/safchain/ethtool"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/xsk"
)

// Engine is where frames are forwarded.
type Engine string

const (
	// AFXDP forwards in user space, by package datapath.
	AFXDP Engine = "afxdp"
	// XDP forwards in the kernel, by XDP_REDIRECT through a devmap.
	XDP Engine = "xdp"
)

// Engines are all there are.
func Engines() []Engine { return []Engine{AFXDP, XDP} }

// Pair is two devices, by name.
type Pair struct{ In, Out string }

// Config says what to forward and how.
type Config struct {
	Pairs []Pair
	// Both forwards from Out to In too.
	Both   bool
	Engine Engine
	// Source and Destination are written into every frame, unless nil.
	Source, Destination net.HardwareAddr
	// Claim says which frames to forward, the others are the network stack's;
	// see xsk.ProgramOptions. nil is all.
	Claim asm.Instructions
	// Object is a file with an XDP program of the user's, or FILE:PROGRAM, and a map that it
	// redirects through, an XSKMAP or a devmap; "" is the default program.
	Object string
	// Generic attaches in generic mode, for drivers without XDP.
	Generic bool
	// Mode is that of all sockets of AFXDP: xsk.Auto is zero copy where all
	// devices can, and else Warn is told which cannot.
	Mode xsk.Mode
	// Batch is how many frames are taken at once; 0 is datapath.DefaultBatch.
	// Frames is how many chunks a queue has, 2 or more; 0 is 8192. Both are of AFXDP.
	Batch, Frames int
	// Queues is how many queues of each device are used, from the first on; 0 is all, and
	// those that it gets later. Frames of the others are the network stack's. Workers is how
	// many share them: queue q of each device is worker q mod Workers'. 0 is as many as the
	// device with the most queues has, or as this process may use CPUs if these are fewer.
	// Both are of AFXDP.
	Queues, Workers int
	// RSS has the devices that frames come in by give all flows to the queues that are used, until the forwarder
	// is closed; see xsk.RSS.Spread. AFXDP only.
	RSS bool
	// Guard is a command, to which the index of a device is added, that runs the function Guard: it gives back what RSS changed
	// when this process is killed. Without it that stays.
	Guard []string
	// CPUs keep the workers on them, in turn; none leaves one worker alone and keeps several
	// on the CPUs that this process may use.
	CPUs []int
	// BusyPoll, if it is not 0, has workers poll the devices in place of interrupts, and
	// never wait; see xsk.Options.BusyPoll. AFXDP only.
	BusyPoll time.Duration
	// Sample gets some of the frames that arrive, if it is not nil. AFXDP only.
	Sample *Sample
	// Warn is told what is no error and should be known, Happened each event of a device. Both
	// may be called by any goroutine, and hold up no frame.
	Warn     func(string)
	Happened func(Happening)
	// Do runs a function on a thread in the devices' network namespace; nil is one in that of
	// the thread that calls Open.
	Do func(func() error) error

	home *home // with Do nil
}

// directions are what is forwarded, by names of devices.
func (c Config) directions() []Pair {
	var d []Pair
	for _, p := range c.Pairs {
		d = append(d, p)
		if c.Both {
			d = append(d, Pair{p.Out, p.In})
		}
	}
	return d
}

var errFilterAndObject = errors.New("a filter and a BPF object are two programs: choose one")

// Validate returns an error in one line when the configuration cannot be meant.
func (c Config) Validate() error {
	if !slices.Contains(Engines(), c.Engine) {
		return fmt.Errorf("engine %q is not one of %v", c.Engine, Engines())
	}
	if len(c.Pairs) == 0 {
		return errors.New("no pair of devices: name the one frames come in by (--in DEV) and the one they go out by (--out DEV)")
	}
	inputs := make(map[string]bool)
	for _, d := range c.directions() {
		switch {
		case d.In == "" || d.Out == "":
			return errors.New("each device that frames come in by needs one that they go out by")
		case d.In == d.Out:
			return fmt.Errorf("%s is named twice: frames must go out by another device than they came in by", d.In)
		case inputs[d.In]:
			return fmt.Errorf("frames that come in by %s can go out by one device only", d.In)
		}
		inputs[d.In] = true
	}
	for _, mac := range []net.HardwareAddr{c.Source, c.Destination} {
		if mac != nil && len(mac) != 6 {
			return fmt.Errorf("%s is no Ethernet address", mac)
		}
	}
	switch {
	case c.Object != "" && c.Claim != nil:
		return errFilterAndObject
	case c.Mode == xsk.ZeroCopy && c.Generic:
		return errors.New("generic mode copies each frame: zero copy needs native mode")
	case c.Batch < 0 || c.Batch > datapath.MaxBatch:
		return fmt.Errorf("a batch of %d is not within 1 … %d", c.Batch, datapath.MaxBatch)
	case c.Queues < 0 || c.Queues > maxQueues:
		return fmt.Errorf("%d queues are not within 0 … %d", c.Queues, maxQueues)
	case c.Workers < 0 || c.Workers > datapath.MaxWorkers:
		return fmt.Errorf("%d workers are not within 0 … %d", c.Workers, datapath.MaxWorkers)
	case c.BusyPoll != 0 && c.BusyPoll < time.Microsecond:
		return fmt.Errorf("busy polling for %v: must be 1 µs or more", c.BusyPoll)
	case c.Frames < 0 || c.Frames == 1:
		return fmt.Errorf("%d frames for a queue: must be 2 or more, or 0 for %d", c.Frames, defaultFrames)
	case c.Engine == XDP:
		return c.checkKernel()
	}
	return nil
}

// checkKernel says in one line why the engine XDP does not have what is asked for.
func (c Config) checkKernel() error {
	for _, only := range []struct {
		asked bool
		why   string
	}{
		{c.Mode != xsk.Auto, "zero copy is of the engine afxdp: the kernel redirects frames where they lie"},
		{c.Sample != nil, "frames can be sampled only by the engine afxdp: in the kernel nobody reads them"},
		{c.Queues > 0, "a number of queues is of the engine afxdp: the kernel forwards on all that a device has (ethtool -L)"},
		{c.RSS, "RSS is set by the engine afxdp: the kernel forwards on all queues that a device has (ethtool -X)"},
		{c.Workers > 0, "workers are of the engine afxdp: the kernel forwards on the CPUs that the queues interrupt"},
		{len(c.CPUs) > 0, "CPUs of workers are of the engine afxdp: the kernel forwards on those that the queues interrupt (/proc/irq)"},
		{c.BusyPoll > 0, "busy polling is of the engine afxdp: the kernel forwards in its own polls, and no socket asks for one"},
		{c.Batch > 0, "a batch is of the engine afxdp: the kernel forwards what a poll of the device finds"},
		{c.Frames > 0, "memory for frames is of the engine afxdp: in the kernel they are in that of the device's driver"},
		{c.Object != "" && (c.Source != nil || c.Destination != nil),
			"with a BPF object in the kernel the program writes the addresses: leave them out"},
	} {
		if only.asked {
			return errors.New(only.why)
		}
	}
	return nil
}

// Drop is frames that were received and not sent on, for one reason; with [DropUncounted] nobody knows.
type Drop struct {
	Reason string `json:"reason"`
	Frames uint64 `json:"frames"`
}

// Direction is what happened from one device to another since the beginning.
type Direction struct {
	In, Out string
	// Received frames came by In, and Sent of them left by Out, also where others leave by it too. InFlight have
	// not, yet.
	Received, Sent, InFlight uint64
	// Passed frames came by In and were passed to the network stack (XDP_PASS), as Claim, or a
	// length of less than 14 bytes, said. Those that a program of Object passes are not counted.
	Passed uint64
	Bytes  uint64
	// Batches and Bulks are how many the frames were received and sent in. A bulk that has frames of several inputs is
	// one of each.
	Batches, Bulks uint64
	// Handed frames were in Bulks, also those that were not sent then.
	Handed uint64
	// Drops in a fixed order, with those that are 0.
	Drops []Drop
	// Up is whether both devices are there and have their programs. Their links may be down.
	Up bool
}

// Queue is what happened at a queue of a device since the beginning. Of the engine XDP it has Received, ByCPU and Up:
// which queue the kernel sends by, and which queue's frames were dropped, is counted nowhere.
type Queue struct {
	Device        string
	Queue, Worker int
	// Received frames came by it, Sent left by it. Dropped came by it and were not taken by an output, or were to leave by
	// it and did not: the sum of all queues is that of all drops. KernelRX and RingFull
	// are those of them that the kernel dropped before the worker got them.
	Received, Sent, Dropped, KernelRX, RingFull uint64
	// Batches are how many the frames were received in.
	Batches uint64
	// ByCPU is how many of Received each CPU redirected; nil of the engine AFXDP.
	ByCPU []uint64
	// Up is whether the queue is there, and open.
	Up bool
}

// Link says whether the link of a device was up when it was last asked, 0.2 s ago at most: the administrator has it up, and
// it has a carrier. That of a device that is lost is not.
type Link struct {
	Device string `json:"device"`
	Up     bool   `json:"up"`
}

// Dropped sums the drops.
func (d Direction) Dropped() uint64 { return sum(d.Drops) }

func sum(drops []Drop) (frames uint64) {
	for _, d := range drops {
		frames += d.Frames
	}
	return frames
}

// Totals are a forwarder's counts.
type Totals struct {
	Directions []Direction
	// Queues are those that are or were open. Of the engine XDP they are those of inputs, and none with an Object.
	Queues []Queue
	// Links are those of all devices.
	Links []Link
	// Events are what happened to each device, with what never did.
	Events []Event
	// Workers is how many there are, and Busy how long they spent on batches together; 0
	// where nobody can say. Passage is how long frames were with them.
	Workers int
	Busy    time.Duration
	Passage datapath.Passage
	// Mode is how frames reach the engine, in the words of AF_XDP or XDP.
	Mode string
}

// Forwarder forwards until it is closed.
type Forwarder interface {
	// Run forwards until ctx is done. The engine XDP does without it.
	Run(ctx context.Context) error
	// Totals reads the counters; any goroutine may.
	Totals() (Totals, error)
	// Polls is how often each worker polled; none of the engine XDP. A worker that goes on
	// does it a hundred times a second at least.
	Polls() []uint64
	// Reload has frames decided on by another Claim, or by what the file of Config.Object has
	// now, from one frame to the next; any goroutine may. On an error all is as before.
	Reload(ctx context.Context, claim asm.Instructions) error
	Close() error
}

// Open makes a forwarder. It must be called on a thread in the devices' network
// namespace.
func Open(ctx context.Context, c Config) (Forwarder, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Warn == nil {
		c.Warn = func(string) {}
	}
	if c.Happened == nil {
		c.Happened = func(Happening) {}
	}
	if c.Do == nil {
		var err error
		if c.home, err = openHome(); err != nil {
			return nil, err
		}
		c.Do = c.home.do
	}
	if c.Engine == XDP {
		return openXDP(ctx, c)
	}
	return openAFXDP(ctx, c)
}

// queuedDevice is a device and its queues.
type queuedDevice struct {
	device.Device
	queues
}

// checkQueues returns an error when an input can never have the queues that were asked for, and
// warns of one that has not got them yet.
func (c Config) checkQueues(d queuedDevice) error {
	switch all := channels(d.Name); {
	case c.Queues > all.most:
		return fmt.Errorf("%d queues: %s has %d at most", c.Queues, d.Name, all.most)
	case c.Queues > all.now:
		c.Warn(fmt.Sprintf("%s has %d of %d queues now: the others are used when it has them (ethtool -L)", d.Name, all.now, c.Queues))
	}
	return nil
}

// queues are how many of a device's queues are used to receive, how many of these also transmit,
// and how many could be used if the device was set to have as many as it can. Of one that does not say (unsaid) these are 1.
type queues struct {
	now, sending, most int
	unsaid             bool
}

// offersZeroCopy says whether a device's driver has zero copy, as far as the kernel says it
// (Linux 6.3).
func (d queuedDevice) offersZeroCopy() bool {
	features, err := host.Features(d.Index)
	return err == nil && features&host.XDPXskZerocopy != 0
}

// find finds a device on which nobody else runs XDP.
func (c Config) find(name string) (queuedDevice, error) {
	d, err := device.Find(name)
	if err != nil {
		return queuedDevice{}, err
	}
	return queuedDevice{d, c.queues(name)}, nil
}

// queues are those of a device that are to be used.
func (c Config) queues(name string) queues {
	q, limit := channels(name), cmp.Or(c.Queues, maxQueues)
	return queues{min(q.now, limit), min(q.sending, limit), min(q.most, limit), q.unsaid}
}

// maxQueues is how many queues of a device are used at most.
const maxQueues = 256

// channels are the queues that a device has and can have, as far as it says.
func channels(name string) queues {
	one := queues{1, 1, 1, true}
	e, err := ethtool.NewEthtool()
	if err != nil {
		return one
	}
	defer e.Close()
	c, err := e.GetChannels(name)
	if err != nil {
		return one
	}
	now := max(1, int(c.RxCount+c.CombinedCount))
	return queues{now, min(now, max(1, int(c.TxCount+c.CombinedCount))), max(now, int(c.MaxRx), int(c.MaxCombined)), false}
}

// devices finds all that are named, each once.
func (c Config) devices() ([]queuedDevice, map[string]int, error) {
	var list []queuedDevice
	numbers := make(map[string]int)
	indexes := make(map[int]string)
	for _, d := range c.directions() {
		for _, name := range []string{d.In, d.Out} {
			if _, ok := numbers[name]; ok {
				continue
			}
			dev, err := c.find(name)
			if err != nil {
				return nil, nil, err
			}
			if other, ok := indexes[dev.Index]; ok {
				return nil, nil, fmt.Errorf("%s and %s are one interface", other, name)
			}
			if err := dev.CheckUp(); err != nil {
				c.Warn(err.Error())
			} else if !dev.Link {
				c.Warn(fmt.Sprintf("the link of %s is down: it has no carrier", name))
			}
			indexes[dev.Index] = name
			numbers[name] = len(list)
			list = append(list, dev)
		}
	}
	for _, d := range c.directions() {
		if err := c.checkQueues(list[numbers[d.In]]); err != nil {
			return nil, nil, err
		}
	}
	return list, numbers, nil
}
