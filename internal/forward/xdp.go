package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
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
	counts *ebpf.Map // per CPU, by direction
	events *events

	reloading  sync.Mutex // held while programs are loaded anew; taken before mu
	mu         sync.Mutex
	devices    []kernelDevice
	directions []kernelDirection
	objects    []*object // by direction
	closed     bool
	final      Totals          // once closed
	said       map[string]bool // warnings that were given
}

// kernelDevice is a device of the engine XDP.
type kernelDevice struct {
	device.Device
	link    link.Link // of its program; nil without, or while it is lost
	program ebpf.ProgramID
	// lost is set while the device is gone, bare while it has no program of ours.
	lost, bare bool
	complained string // of why it cannot be used yet
}

type kernelDirection struct {
	Pair
	in, out  int               // of devices
	observer *observe.Observer // nil where there is no BTF
	observed int               // which device it observes, by index
	before   observe.Seen      // by earlier observers
	program  bool              // it is the user's, and not counted
	frags    bool              // frames may have several buffers
}

// count is what the program counts of a direction on a CPU. Its size is that of the map's
// values, its fields are at countFrames and so on.
type count struct{ Frames, Bytes, Errors, Passed uint64 }

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
	devices, numbers, err := c.devices()
	if err != nil {
		return f, err
	}
	for _, d := range devices {
		f.devices = append(f.devices, kernelDevice{Device: d.Device})
	}
	directions := uint32(len(c.directions()))
	f.ports, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.DevMap, KeySize: 4, ValueSize: 4, MaxEntries: directions})
	if err != nil {
		return f, fmt.Errorf("make devmap: %w", privilege(err))
	}
	f.counts, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: countSize, MaxEntries: directions})
	if err != nil {
		return f, fmt.Errorf("make counters: %w", err)
	}
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return f, fmt.Errorf("stat network namespace: %w", err)
	}
	f.netns = uint32(ns.Ino)
	for i, d := range c.directions() {
		in, out := numbers[d.In], numbers[d.Out]
		f.directions = append(f.directions, kernelDirection{
			Pair: d, in: in, out: out, program: c.Object != "",
			frags: f.devices[in].MTU > xdpFrame || f.devices[out].MTU > xdpFrame,
		})
		o, err := f.load(ctx, uint32(i), c.Claim)
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
	return f, nil
}

// connect has a direction's frames sent by the output that is there, and observes what leaves.
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
	if k.observer, err = observe.New(observe.Config{Netns: f.netns, From: in.Index}); err != nil {
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

func privilege(err error) error {
	switch {
	case errors.Is(err, unix.EACCES) && !feature.Capability(unix.CAP_PERFMON).Held():
		// The verifier's, which lets only CAP_PERFMON compute with the addresses of packets.
		err = unix.EPERM
	case !errors.Is(err, unix.EPERM):
		return err
	}
	return feature.Refused(err, unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON)
}

// load loads the program of a direction: the default one, or the user's with its maps.
func (f *inKernel) load(ctx context.Context, direction uint32, claim asm.Instructions) (*object, error) {
	if f.config.Object != "" {
		file, err := readObject(ctx, f.config.Object)
		if err != nil {
			return nil, err
		}
		return file.load(ctx)
	}
	spec := &ebpf.ProgramSpec{Type: ebpf.XDP, License: license, Instructions: f.instructions(direction, claim)}
	if f.directions[direction].frags {
		spec.Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		return nil, fmt.Errorf("load XDP program: %w", privilege(err))
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
	stackCount   = -24 // the pointer to the direction's count
)

// instructions are the XDP program of one direction: claim, count, write
// addresses, redirect.
func (f *inKernel) instructions(direction uint32, claim asm.Instructions) asm.Instructions {
	ins := asm.Instructions{
		asm.StoreMem(asm.RFP, stackContext, asm.R1, asm.DWord),
		asm.StoreImm(asm.RFP, stackKey, int64(direction), asm.Word),
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
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return f.final, nil
	}
	return f.totals()
}

func (f *inKernel) totals() (Totals, error) {
	t := Totals{Mode: "native"}
	if f.config.Generic {
		t.Mode = "generic"
	}
	for i := range f.directions {
		k := &f.directions[i]
		d := Direction{In: k.In, Out: k.Out, Up: f.devices[k.in].up() && f.devices[k.out].up()}
		perCPU := make([]count, runtime.NumCPU())
		if err := f.counts.Lookup(uint32(i), &perCPU); err != nil {
			return t, fmt.Errorf("read counters: %w", err)
		}
		var errs uint64
		for _, c := range perCPU {
			d.Received += c.Frames
			d.Bytes += c.Bytes
			errs += c.Errors
			d.Passed += c.Passed
		}
		seen, err := k.seen()
		if err != nil {
			return t, err
		}
		d.Sent, d.Bulks = seen.Frames, seen.Calls
		if k.program {
			d.Received = seen.Frames + seen.Drops + seen.Errors
		}
		if text := seen.Failure(); text != "" && seen.Frames == 0 {
			f.warn(fmt.Sprintf("nothing that %s receives leaves by %s", k.In, k.Out), text)
		}
		d.Drops = kernelDrops(errs, seen)
		if done := d.Sent + d.Dropped(); done < d.Received {
			d.InFlight = d.Received - done
		}
		t.Directions = append(t.Directions, d)
	}
	var devices []string
	for _, d := range f.devices {
		devices = append(devices, d.Name)
	}
	t.Events = f.events.list(devices)
	return t, nil
}

// kernelDrops are frames that no output took: noPort of them since none was in the devmap.
func kernelDrops(noPort uint64, seen observe.Seen) []Drop {
	var down, refused, failed uint64
	for _, e := range seen.ErrorsSince(observe.Seen{}) { // xdp_ok_fwd_dev in net/core, __xdp_enqueue in kernel/bpf/devmap.c
		switch e.Error {
		case unix.ENETDOWN:
			down += e.Count
		case unix.EMSGSIZE, unix.EOPNOTSUPP:
			refused += e.Count
		default:
			failed += e.Count
		}
	}
	return []Drop{{dropNoPort, noPort}, {dropLinkDown, down}, {dropRefused, refused}, {dropFailed, failed}, {dropXmit, seen.Drops}}
}

// warn gives a warning with its cause once, whatever figures the cause has later.
func (f *inKernel) warn(text, cause string) {
	if f.said[text] {
		return
	}
	f.said[text] = true
	f.config.Warn(text + ": " + cause)
}

// settle is how long after the programs are detached the frames under way are
// given to leave.
const settle = 10 * time.Millisecond

// Close detaches the programs. The last counts can be read after.
func (f *inKernel) Close() error {
	f.reloading.Lock()
	defer f.reloading.Unlock()
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
	if len(f.directions) > 0 {
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
