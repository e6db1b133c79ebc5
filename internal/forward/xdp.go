package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/observe"
	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/xsk"
)

// inKernel forwards by XDP_REDIRECT.
type inKernel struct {
	config Config
	netns  uint32    // inode of the devices' network namespace
	ports  *ebpf.Map // devmap, by direction
	counts *ebpf.Map // per CPU, by direction and queue
	events *events

	reloading  sync.Mutex // held while programs are loaded anew; taken before mu
	mu         sync.Mutex
	devices    []kernelDevice
	directions []kernelDirection
	objects    []*object // by direction
	closed     bool
	final      Totals          // once closed
	said       map[string]bool // warnings that were given
	unsaid     []string        // and those that are to be given when mu is free
}

// kernelDevice is a device of the engine XDP.
type kernelDevice struct {
	queuedDevice
	link    link.Link // of its program; nil without, or while it is lost
	program ebpf.ProgramID
	// lost is set while the device is gone, bare while it has no program of ours.
	lost, bare bool
	complained string // of Run alone: why it cannot be used yet
}

// counted is how many queues are counted apart. A device that does not say its queues may have any: frames of a bond come by those
// of its parts.
func (q queues) counted() int {
	if q.unsaid {
		return maxQueues
	}
	return q.most
}

// has says whether a queue that frames came by is there now.
func (q queues) has(queue int) bool { return queue < q.now || q.unsaid }

type kernelDirection struct {
	Pair
	in, out  int               // of devices
	first    uint32            // of its counts, one for each of queues and one for all that come after these
	queues   int               // that are counted apart
	observer *observe.Observer // nil where there is no BTF
	observed int               // which device it observes, by index
	before   observe.Seen      // by earlier observers
	program  bool              // it is the user's, and not counted
	frags    bool              // frames may have several buffers
	// uncounted is the most frames that were missing while the direction rested. last is when it was last looked at.
	uncounted uint64
	last      look
}

// look is what was counted of a direction at some moment.
type look struct{ received, sent, dropped uint64 }

// count is what the program counts of a direction on a CPU. Its size is that of the map's
// values, its fields are at countFrames and so on.
type count struct{ Frames, Bytes, Errors, Passed uint64 }

func (c *count) add(o count) {
	c.Frames, c.Bytes, c.Errors, c.Passed = c.Frames+o.Frames, c.Bytes+o.Bytes, c.Errors+o.Errors, c.Passed+o.Passed
}

// Offsets in a count.
const (
	countFrames = 8 * iota
	countBytes
	countErrors
	countPassed
	countSize
)

func openXDP(ctx context.Context, c Config) (f *inKernel, err error) {
	f = &inKernel{config: c, events: newEvents(c), said: make(map[string]bool)}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
			f = nil
		}
	}()
	defer f.say()
	devices, numbers, err := c.devices()
	if err != nil {
		return f, err
	}
	for _, d := range devices {
		f.devices = append(f.devices, kernelDevice{queuedDevice: d})
	}
	counts := uint32(0)
	for _, d := range c.directions() {
		in, out := numbers[d.In], numbers[d.Out]
		k := kernelDirection{
			Pair: d, in: in, out: out, first: counts, queues: f.devices[in].counted(), program: c.Object != "",
			frags: f.devices[in].MTU > xdpFrame || f.devices[out].MTU > xdpFrame,
		}
		f.directions, counts = append(f.directions, k), counts+uint32(k.queues)+1
	}
	directions := uint32(len(f.directions))
	f.ports, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.DevMap, KeySize: 4, ValueSize: 4, MaxEntries: directions})
	if err != nil {
		return f, fmt.Errorf("make devmap: %w", unprivileged(err))
	}
	f.counts, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: countSize, MaxEntries: counts})
	if err != nil {
		return f, fmt.Errorf("make counters: %w", err)
	}
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return f, fmt.Errorf("stat network namespace: %w", err)
	}
	f.netns = uint32(ns.Ino)
	for i := range f.directions {
		o, err := f.load(ctx, uint32(i), c.Claim, memoryOf(slices.Values(f.objects)))
		if err != nil {
			return f, err
		}
		f.objects = append(f.objects, o)
		if err := f.connect(i); err != nil {
			return f, err
		}
	}
	// After observers: what is sent from the first frame on counts.
	for i := range f.devices {
		if err := f.attach(i); err != nil {
			return f, err
		}
	}
	for i := range f.devices {
		d := &f.devices[i]
		now, err := device.Named(d.Name)
		if err != nil {
			return f, err
		}
		d.Link = now.Link // many drivers take it down for a program
	}
	return f, nil
}

// connect has a direction's frames sent by the output that is there, and observes what leaves. f.mu is held, or nobody else has f.
func (f *inKernel) connect(direction int) (err error) {
	k := &f.directions[direction]
	in, out := f.devices[k.in], f.devices[k.out]
	if err := f.ports.Update(uint32(direction), uint32(out.Index), ebpf.UpdateAny); err != nil {
		return fmt.Errorf("put %s into devmap: %w", out.Name, err)
	}
	if err := f.direct(direction, f.objects[direction]); err != nil {
		return err
	}
	if k.observed == in.Index {
		return nil
	}
	if err := k.stopObserving(); err != nil {
		return err
	}
	k.observed = in.Index
	if k.observer, err = observe.New(observe.Config{Netns: f.netns, From: in.Index, Redirects: f.config.Generic}); err != nil {
		f.warn(fmt.Sprintf("what %s sends is not counted", out.Name), err.Error())
	}
	return nil
}

// stopObserving keeps what was seen.
func (k *kernelDirection) stopObserving() error {
	if k.observer == nil {
		return nil
	}
	seen, err := k.observer.Seen()
	k.before.Add(seen)
	err = errors.Join(err, k.observer.Close())
	k.observer = nil
	return err
}

// seen is what left, and what did not, since the beginning.
func (k *kernelDirection) seen() (observe.Seen, error) {
	sum := k.before
	if k.observer == nil {
		return sum, nil
	}
	now, err := k.observer.Seen()
	sum.Add(now)
	return sum, err
}

const (
	license = "Dual BSD/GPL"
	passed  = 2 // XDP_PASS
	// xdpFrame is an MTU that fits into one page for every driver.
	xdpFrame = 3000
)

// unprivileged is err, with the capabilities that may be missing where the kernel refused for want of one.
func unprivileged(err error) error {
	switch {
	case errors.Is(err, unix.EACCES) && !feature.Capability(unix.CAP_PERFMON).Held():
		// The verifier's, which lets only CAP_PERFMON compute with the addresses of packets.
		err = unix.EPERM
	case !errors.Is(err, unix.EPERM):
		return err
	}
	return feature.Refused(err, unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON)
}

// load loads the program of a direction: the default one, or the user's with its maps. loaded is what maps of other objects
// take, in bytes.
func (f *inKernel) load(ctx context.Context, direction uint32, claim asm.Instructions, loaded uint64) (*object, error) {
	if f.config.Object != "" {
		file, err := readObject(ctx, f.config.Object)
		if err != nil {
			return nil, err
		}
		return file.load(ctx, loaded)
	}
	spec := &ebpf.ProgramSpec{Type: ebpf.XDP, License: license, Instructions: f.instructions(direction, claim)}
	if f.directions[direction].frags {
		spec.Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		return nil, fmt.Errorf("load XDP program: %w", unprivileged(err))
	}
	return &object{program: p}, nil
}

// attach attaches to a device what redirects the frames of an input, or lets an output take
// redirected frames.
func (f *inKernel) attach(i int) (err error) {
	d := &f.devices[i]
	direction := slices.IndexFunc(f.directions, func(k kernelDirection) bool { return k.in == i })
	switch {
	case direction < 0 && f.config.Generic:
		return nil
	case direction < 0:
		d.link, err = d.AttachPass()
	case f.config.Generic:
		d.link, err = d.AttachGeneric(f.objects[direction].program)
	default:
		d.link, err = d.AttachNative(f.objects[direction].program, "--generic")
	}
	if err != nil || d.link == nil {
		return err
	}
	return d.noteProgram()
}

// noteProgram notes which program the link of a device holds.
func (d *kernelDevice) noteProgram() error {
	info, err := d.link.Info()
	if err != nil {
		return fmt.Errorf("read link of XDP program: %w", err)
	}
	d.program = info.Program
	return nil
}

// attached says whether a device has the program that it was given.
func (d *kernelDevice) attached() (bool, error) {
	if d.link == nil {
		return true, nil // it was given none
	}
	info, err := d.link.Info()
	if err != nil {
		return false, fmt.Errorf("read link of XDP program: %w", err)
	}
	xdp := info.XDP()
	return (xdp == nil || xdp.Ifindex != 0) && info.Program == d.program, nil
}

// Where the program keeps things on its stack: out of the way of Claim, which
// uses it down from xsk.ClaimStack.
const (
	stackContext = -8
	stackKey     = -16
	stackCount   = -24 // the pointer to the count of the direction and queue
)

// contextQueue is where the queue is that a frame was received by, in struct xdp_md (linux/bpf.h).
const contextQueue = 16

// instructions are the XDP program of one direction: claim, count, write
// addresses, redirect.
func (f *inKernel) instructions(direction uint32, claim asm.Instructions) asm.Instructions {
	k := &f.directions[direction]
	ins := asm.Instructions{
		asm.StoreMem(asm.RFP, stackContext, asm.R1, asm.DWord),
		asm.LoadMem(asm.R2, asm.R1, contextQueue, asm.Word),
		asm.JLT.Imm(asm.R2, int32(k.queues), "queue"),
		asm.Mov.Imm(asm.R2, int32(k.queues)),
		asm.Add.Imm(asm.R2, int32(k.first)).WithSymbol("queue"),
		asm.StoreMem(asm.RFP, stackKey, asm.R2, asm.Word),
		asm.LoadMapPtr(asm.R1, f.counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "uncounted"),
		asm.StoreMem(asm.RFP, stackCount, asm.R0, asm.DWord),
		asm.LoadMem(asm.R1, asm.RFP, stackContext, asm.DWord),
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word),
		// No room for an Ethernet header: not ours.
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, 14),
		asm.JGT.Reg(asm.R4, asm.R3, xsk.PassLabel),
	}
	if claim != nil {
		ins = append(ins, claim...)
	} else {
		ins = append(ins, asm.Ja.Label(xsk.ClaimLabel))
	}
	ins = append(ins,
		asm.LoadMem(asm.R6, asm.RFP, stackContext, asm.DWord).WithSymbol(xsk.ClaimLabel),
		asm.LoadMem(asm.R7, asm.R6, 0, asm.Word),
		asm.LoadMem(asm.R8, asm.R6, 4, asm.Word),
		asm.LoadMem(asm.R9, asm.RFP, stackCount, asm.DWord),
		asm.LoadMem(asm.R1, asm.R9, countFrames, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R9, countFrames, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R9, countBytes, asm.DWord),
		asm.Mov.Reg(asm.R4, asm.R8),
		asm.Sub.Reg(asm.R4, asm.R7),
		asm.Add.Reg(asm.R1, asm.R4),
		asm.StoreMem(asm.R9, countBytes, asm.R1, asm.DWord),
	)
	if f.config.Source != nil || f.config.Destination != nil {
		ins = append(ins, // for the verifier: a claimed frame has 14 bytes
			asm.Mov.Reg(asm.R4, asm.R7),
			asm.Add.Imm(asm.R4, 14),
			asm.JGT.Reg(asm.R4, asm.R8, "uncounted"),
		)
		ins = append(ins, store(asm.R7, 0, f.config.Destination)...)
		ins = append(ins, store(asm.R7, 6, f.config.Source)...)
	}
	return append(ins,
		asm.LoadMapPtr(asm.R1, f.ports.FD()),
		asm.Mov.Imm(asm.R2, int32(direction)),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnRedirectMap.Call(),
		asm.JEq.Imm(asm.R0, 4 /* XDP_REDIRECT */, "done"),
		asm.LoadMem(asm.R1, asm.R9, countErrors, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R9, countErrors, asm.R1, asm.DWord),
		asm.Return().WithSymbol("done"),
		asm.LoadMem(asm.R1, asm.RFP, stackCount, asm.DWord).WithSymbol(xsk.PassLabel),
		asm.LoadMem(asm.R2, asm.R1, countPassed, asm.DWord),
		asm.Add.Imm(asm.R2, 1),
		asm.StoreMem(asm.R1, countPassed, asm.R2, asm.DWord),
		asm.Mov.Imm(asm.R0, passed).WithSymbol("uncounted"),
		asm.Return(),
	)
}

// store writes an address at an offset, in halves of a word.
func store(to asm.Register, offset int16, mac []byte) (ins asm.Instructions) {
	for i := 0; i+1 < len(mac); i += 2 {
		v := int64(binary.NativeEndian.Uint16(mac[i:]))
		ins = append(ins, asm.StoreImm(to, offset+int16(i), v, asm.Half))
	}
	return ins
}

// Run follows the devices: the kernel forwards by itself.
func (f *inKernel) Run(ctx context.Context) error {
	tick := time.NewTicker(recoverEach)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			f.follow(ctx)
		}
	}
}

// Polls are none: no worker polls.
func (f *inKernel) Polls() []uint64 { return nil }

func (f *inKernel) Totals() (Totals, error) {
	defer f.say()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return f.final, nil
	}
	return f.totals()
}

// totals reads the counters. f.mu is held.
func (f *inKernel) totals() (Totals, error) {
	t := Totals{Mode: "native"}
	if f.config.Generic {
		t.Mode = "generic"
	}
	for i := range f.directions {
		k := &f.directions[i]
		d := Direction{In: k.In, Out: k.Out, Up: f.devices[k.in].up() && f.devices[k.out].up()}
		seen, err := k.seen() // first: what comes meanwhile is in flight, and not sent before it was received
		if err != nil {
			return t, err
		}
		queues, sum, err := f.byQueue(k)
		if err != nil {
			return t, err
		}
		d.Received, d.Bytes, d.Passed = sum.Frames, sum.Bytes, sum.Passed
		t.Queues = append(t.Queues, queues...)
		d.Sent, d.Bulks, d.Handed = seen.Frames, seen.Calls, seen.Frames+seen.Drops
		if f.config.Generic { // one by one, without ndo_xdp_xmit (generic_xdp_tx in net/core/dev.c)
			d.Sent = seen.Redirects
		}
		if k.program {
			d.Received = d.Sent + seen.Drops + seen.Errors
		}
		if text := seen.Failure(); text != "" && d.Sent == 0 {
			f.warn(fmt.Sprintf("nothing that %s receives leaves by %s", k.In, k.Out), text)
		}
		d.Drops = kernelDrops(sum.Errors, seen.ErrorsSince(observe.Seen{}), seen.Drops)
		k.account(&d, f.closed)
		t.Directions = append(t.Directions, d)
	}
	var devices []string
	for i := range f.devices {
		d := &f.devices[i]
		devices, t.Links = append(devices, d.Name), append(t.Links, Link{d.Name, d.Link && !d.lost})
	}
	t.Events = f.events.list(devices)
	return t, nil
}

// account gives a direction what was received and nobody saw leave: in flight, or uncounted where that is known, as in the end.
// What was uncounted stays so, as counters must not fall. Frames that are seen to leave after all stand for those that are
// missing later.
func (k *kernelDirection) account(d *Direction, end bool) {
	missing := less(d.Received, d.Sent+d.Dropped())
	if end {
		k.uncounted = max(k.uncounted, missing)
	}
	d.InFlight = less(missing, k.uncounted)
	d.Drops = append(d.Drops, Drop{DropUncounted, k.uncounted})
}

// less is a without b, and 0 where b is more.
func less(a, b uint64) uint64 { return a - min(a, b) }

// byQueue are the counts of a direction's queues, but for those that the input does not have and no frame came by, and
// the sum of all. A program of the user's counts nothing, and so has none.
func (f *inKernel) byQueue(k *kernelDirection) (list []Queue, sum count, err error) {
	if k.program {
		return nil, sum, nil
	}
	in := &f.devices[k.in]
	for queue := range k.queues + 1 {
		var perCPU []count // of all CPUs that there may be
		if err := f.counts.Lookup(k.first+uint32(queue), &perCPU); err != nil {
			return nil, sum, fmt.Errorf("read counters: %w", err)
		}
		q := Queue{Device: k.In, Queue: queue, Up: in.up() && in.has(queue), ByCPU: make([]uint64, len(perCPU))}
		for cpu, c := range perCPU {
			q.Received, q.ByCPU[cpu] = q.Received+c.Frames, c.Frames
			sum.add(c)
		}
		if queue < k.queues && (queue < in.now || q.Received > 0) {
			list = append(list, q)
		}
	}
	return list, sum, nil
}

// noteRest notes what is missing of directions that have rested since the last call as uncounted. Within a NAPI poll the
// kernel sends all that it redirected, and that is counted unless the input is in another network namespace by then, or the
// kernel has no BTF. f.mu is held.
func (f *inKernel) noteRest() {
	t, err := f.totals()
	if err != nil {
		return // who reads them hears of it
	}
	for i, d := range t.Directions {
		k, now := &f.directions[i], look{d.Received, d.Sent, d.Dropped()}
		if now == k.last {
			k.uncounted += d.InFlight
		}
		k.last = now
	}
}

// kernelDrops are frames that no output took: noPort of them since none was in the devmap, some since a redirect
// failed, and refused ones by the driver.
func kernelDrops(noPort uint64, failures []observe.ErrorCount, refused uint64) []Drop {
	var down, unsendable, failed uint64
	for _, e := range failures { // xdp_ok_fwd_dev in net/core, __xdp_enqueue in kernel/bpf/devmap.c
		switch e.Error {
		case unix.ENETDOWN:
			down += e.Count
		case unix.EMSGSIZE, unix.EOPNOTSUPP:
			unsendable += e.Count
		default:
			failed += e.Count
		}
	}
	return []Drop{{dropNoPort, noPort}, {dropLinkDown, down}, {dropRefused, unsendable}, {dropFailed, failed}, {dropXmit, refused}}
}

// warn has say give a warning with its cause once, whatever figures the cause has later. f.mu is held, or nobody else has f.
func (f *inKernel) warn(text, cause string) {
	if f.said[text] {
		return
	}
	f.said[text] = true
	f.unsaid = append(f.unsaid, text+": "+cause)
}

// say gives the warnings that there are. The caller holds no lock: who is warned may ask for the totals.
func (f *inKernel) say() {
	f.mu.Lock()
	unsaid := f.unsaid
	f.unsaid = nil
	f.mu.Unlock()
	for _, text := range unsaid {
		f.config.Warn(text)
	}
}

// settle is how long after the programs are detached the frames under way are
// given to leave.
const settle = 10 * time.Millisecond

// Close detaches the programs. The last counts can be read after.
func (f *inKernel) Close() error {
	f.reloading.Lock()
	defer f.reloading.Unlock()
	defer f.say()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	var errs []error
	for i := range f.devices {
		errs = append(errs, f.devices[i].detach())
	}
	if f.counts != nil {
		time.Sleep(settle)
		final, err := f.totals()
		f.final = final
		errs = append(errs, err)
	}
	for i := range f.directions {
		errs = append(errs, f.directions[i].stopObserving())
	}
	errs = append(errs, closeAll(f.objects))
	for _, m := range []*ebpf.Map{f.ports, f.counts} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(append(errs, f.config.home.Close())...)
}
