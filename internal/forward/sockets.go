package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/xsk"
)

// openSockets opens a socket for each port, all in one mode, on memory that is made for it.
func (f *afxdp) openSockets(ctx context.Context) error {
	f.mode = f.config.Mode
	if f.config.Generic {
		f.mode = xsk.Copy
	}
	err := f.tryMode(ctx)
	if err != nil || f.mode != xsk.Auto {
		return err
	}
	if f.mode = f.sockets[0].Mode(); f.mode == xsk.ZeroCopy {
		return nil
	}
	// That no driver has it is nothing new; that one device keeps another from it is.
	why, together := f.sockets[0].WhyCopy(), f.sockets[0].Options().Mode == xsk.Copy
	if together || !errors.Is(why, unix.EOPNOTSUPP) || slices.ContainsFunc(f.devices, queuedDevice.offersZeroCopy) {
		f.config.Warn(fmt.Sprintf("frames are copied: %v", why))
	}
	if err := f.dropSockets(); err != nil {
		return err
	}
	return f.tryMode(ctx)
}

// tryMode makes the memory of a mode and opens the sockets of all ports on it.
func (f *afxdp) tryMode(ctx context.Context) (err error) {
	var all []xsk.Options
	var there []int // the ports of queues that are there
	for port, p := range f.ports {
		if p.queue < f.devices[p.device].now {
			there = append(there, port)
		}
	}
	// Queues that come share what there is with the worker's others.
	frames := max(cmp.Or(f.config.Frames, defaultFrames)*len(there), len(f.ports))
	c := xsk.Config{Frames: frames, HugePages: true}
	if f.mode == xsk.Copy {
		c.FrameSize = copyChunk
	}
	if f.umem, err = xsk.NewUMEM(c); err != nil {
		return err
	}
	f.multi = false
	for _, d := range f.devices {
		// The Ethernet header, and two VLAN tags.
		f.multi = f.multi || d.MTU+22 > f.umem.Capacity()
	}
	for _, port := range there {
		all = append(all, f.options(f.ports[port]))
	}
	sockets, err := xsk.OpenAll(ctx, f.umem, all)
	for i, s := range sockets {
		f.sockets[there[i]] = s
	}
	return err
}

// options are those of a port's socket. Its fill ring is no longer than the chunks that there
// are for it: the datapath fills the rings one after the other, and the last would get none. A device
// that only transmits has no program in copy mode, and needs no chunks to receive into.
func (f *afxdp) options(p portOf) xsk.Options {
	chunks := uint(min(cmp.Or(f.config.Frames, defaultFrames), ring))
	if f.mode == xsk.Copy && !f.input(p.device) {
		chunks = shortestRing
	}
	return xsk.Options{
		Interface: f.devices[p.device].Index, Queue: p.queue, Mode: f.mode, MultiBuffer: f.multi,
		Fill: 1 << (bits.Len(chunks) - 1), Completion: ring, RX: ring, TX: ring,
		BusyPoll: f.config.BusyPoll,
	}
}

// shortestRing is the least that the kernel takes, in entries.
const shortestRing = 2

// dropSockets closes all sockets, which no datapath has got yet, and their memory.
func (f *afxdp) dropSockets() error {
	var errs []error
	for port, s := range f.sockets {
		if s != nil {
			errs = append(errs, s.Close())
			f.sockets[port] = nil
		}
	}
	errs = append(errs, f.umem.Close())
	f.umem = nil
	return errors.Join(errs...)
}

// openDevice opens a socket on each queue of a device that came back. The ports are by queue.
func (f *afxdp) openDevice(ctx context.Context, i int) (ports []datapath.Port, err error) {
	for _, port := range f.portsOf(i)[:f.devices[i].now] {
		s, err := xsk.Open(ctx, f.umem, f.options(f.ports[port]))
		if err != nil {
			f.closeSockets(i)
			return nil, err
		}
		p := datapath.NewXSK(s)
		f.mu.Lock()
		f.sockets[port], f.outlets[port], f.used[port] = s, p, true
		f.mu.Unlock()
		ports = append(ports, p)
	}
	return ports, nil
}

// attach attaches the program of an input to a device. In zero-copy mode an output gets one
// too, which passes all to the network stack: Intel's drivers transmit nothing without.
func (f *afxdp) attach(ctx context.Context, i int) error {
	if err := f.spread(ctx, i); err != nil {
		return err
	}
	for {
		var p *xsk.Program
		var err error
		f.mu.Lock()
		reloads := f.reloads
		f.mu.Unlock()
		switch {
		case f.input(i):
			p, err = f.attachInput(ctx, i)
		case f.mode == xsk.ZeroCopy:
			p, err = xsk.Attach(f.devices[i].Index, xsk.ProgramOptions{Queues: 1, MultiBuffer: f.multi})
		}
		if p == nil {
			return err
		}
		f.mu.Lock()
		f.programs[i] = p
		if reloads == f.reloads || !f.input(i) {
			f.mu.Unlock()
			return nil
		}
		// That was the program before a reload.
		err = f.dropProgram(i)
		f.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

func (f *afxdp) attachInput(ctx context.Context, i int) (*xsk.Program, error) {
	d := f.devices[i]
	f.mu.Lock()
	sockets, claim := f.openSocketsOf(i), f.claim
	f.mu.Unlock()
	if f.config.Object != "" {
		return f.attachObject(ctx, i, sockets)
	}
	p, err := xsk.Attach(d.Index, xsk.ProgramOptions{
		Sockets: sockets, Queues: d.most, MultiBuffer: f.multi, Generic: f.config.Generic, Claim: claim,
	})
	if errors.Is(err, unix.EOPNOTSUPP) && !f.config.Generic {
		if m := feature.AsMissing(err); m != nil {
			err = m.Err
		}
		return nil, &feature.Missing{Feature: "native XDP on " + d.Name, Help: "try --generic", Err: err}
	}
	return p, err
}

// attachObject attaches the user's program, one for each device: an XSKMAP is keyed by queue.
// On an error it leaves nothing, as it may be tried again for long.
func (f *afxdp) attachObject(ctx context.Context, i int, sockets []*xsk.Socket) (*xsk.Program, error) {
	f.mu.Lock()
	file, loaded := f.file, memoryOf(maps.Values(f.objects))
	f.mu.Unlock()
	o, err := file.load(ctx, loaded)
	if err != nil {
		return nil, err
	}
	p, err := o.attachXSK(f.devices[i].Index, f.config.Generic)
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	for _, s := range sockets {
		if err := p.Add(s); err != nil {
			return nil, errors.Join(err, p.Close(), o.Close())
		}
	}
	f.mu.Lock()
	f.objects[i] = o
	f.mu.Unlock()
	return p, nil
}

// closeSockets closes what the datapath has not got, and detaches the program.
func (f *afxdp) closeSockets(device int) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, port := range f.portsOf(device) {
		if f.sockets[port] != nil {
			f.sockets[port].Close()
			f.sockets[port] = nil
		}
		add(&f.past[port], f.kernel[port])
		f.kernel[port] = xsk.Statistics{}
	}
	return f.dropProgram(device)
}

// dropProgram is closeProgram where there is one, and closes the object that it is from. f.mu is
// held.
func (f *afxdp) dropProgram(device int) (err error) {
	if f.programs[device] != nil {
		err = f.closeProgram(device)
	}
	if o := f.objects[device]; o != nil {
		err = errors.Join(err, o.Close())
		delete(f.objects, device)
	}
	return err
}

// closeProgram detaches the program of a device, and keeps what it counted. f.mu is held.
func (f *afxdp) closeProgram(device int) error {
	p := f.programs[device]
	delete(f.programs, device)
	passed, err := p.Passed()
	f.passed[device] += passed
	return errors.Join(err, p.Close())
}

// stopInputs ends that frames come in. The program of a device that also transmits without
// copies stays until what it has to transmit has left, and passes all frames.
func (f *afxdp) stopInputs() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for i, p := range f.programs {
		if f.mode != xsk.ZeroCopy || !f.output(i) {
			errs = append(errs, f.closeProgram(i))
			continue
		}
		// That of an output alone gives frames to nobody, and its map has room for one queue.
		if !f.input(i) {
			continue
		}
		for queue := range f.devices[i].most {
			errs = append(errs, p.Remove(queue))
		}
	}
	return errors.Join(errs...)
}

// recoverEach is how often a lost device is looked for.
const recoverEach = 200 * time.Millisecond

// recover waits for a device to come back, by name.
func (f *afxdp) recover(ctx context.Context, i int) {
	f.recovering[i].Lock()
	defer f.recovering[i].Unlock()
	said := ""
	complain := func(err error) {
		var absent netlink.LinkNotFoundError
		if text := err.Error(); text != said && ctx.Err() == nil && !errors.As(err, &absent) {
			f.config.Warn(fmt.Sprintf("%s cannot be used yet: %v", f.devices[i].Name, err))
			said = text
		}
	}
	opened := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(recoverEach):
		}
		switch {
		case opened && f.isLost(i):
			return // again: it is found by who waits for this to end
		case opened:
		case f.notLost(i):
			opened = true
		case slices.ContainsFunc(f.portsOf(i), f.path.Present):
			continue // its other queues are not lost yet
		default:
			if err := f.reopen(ctx, i); err != nil {
				complain(err)
				continue
			}
			opened = true
		}
		// With chunks in its fill rings, as in the beginning.
		link := false
		if err := f.config.Do(func() (err error) {
			if err = f.attachMissing(ctx, i); err == nil {
				link, err = f.linkBack(i)
			}
			return err
		}); err != nil {
			complain(err)
			continue
		}
		f.notAway(i)
		f.events.happen(f.name(i), back(f.name(i), link))
		return
	}
}

// notLost says that a device is not lost, and notes that, where all its open ports are present: that a queue was lost
// may be heard of only when the device was taken back.
func (f *afxdp) notLost(device int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	open := 0
	for _, port := range f.portsOf(device) {
		if f.sockets[port] == nil {
			continue
		}
		if !f.path.Present(port) {
			return false
		}
		open++
	}
	if open > 0 {
		delete(f.lost, device)
	}
	return open > 0
}

// attachMissing is attach where a device has no program of ours.
func (f *afxdp) attachMissing(ctx context.Context, i int) error {
	f.mu.Lock()
	has := f.programs[i] != nil
	f.mu.Unlock()
	if has {
		return nil
	}
	return f.attach(ctx, i)
}

func (f *afxdp) isLost(device int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost[device]
}

// reopen finds a lost device by its name and opens its sockets, and the datapath fills them.
func (f *afxdp) reopen(ctx context.Context, i int) error {
	f.closeSockets(i) // the device may be gone, and its link with it; one that is only away has its RSS table still
	var ports []datapath.Port
	err := f.config.Do(func() error {
		d, err := f.config.find(f.devices[i].Name)
		if err != nil {
			return err
		}
		f.mu.Lock()
		most := f.devices[i].most
		f.devices[i].Index, f.devices[i].queues = d.Index, queues{min(d.now, most), min(d.sending, most), most, d.unsaid}
		f.route()
		f.mu.Unlock()
		ports, err = f.openDevice(ctx, i)
		return err
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	delete(f.lost, i)
	f.mu.Unlock()
	for queue, p := range ports {
		err = errors.Join(err, f.path.SetPort(f.portsOf(i)[queue], p))
	}
	return err
}
