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
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/observe"
	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/xsk"
)

// inKernel forwards by XDP_REDIRECT.
type inKernel struct {
	config     Config
	directions []kernelDirection
	ports      *ebpf.Map // devmap, by direction
	counts     *ebpf.Map // per CPU, by direction
	links      []link.Link
	programs   []*ebpf.Program
	objects    []*object

	network *netlink.Handle // of the devices' network namespace

	mu     sync.Mutex
	closed bool
	final  Totals          // once closed
	said   map[string]bool // warnings that were given
}

type kernelDirection struct {
	Pair
	in, out  device.Device
	observer *observe.Observer // nil where there is no BTF
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
	f = &inKernel{config: c, said: make(map[string]bool)}
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
	if f.network, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return f, fmt.Errorf("open netlink socket: %w", err)
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
	for i, d := range c.directions() {
		in, out := devices[numbers[d.In]], devices[numbers[d.Out]]
		if err := f.ports.Update(uint32(i), uint32(out.Index), ebpf.UpdateAny); err != nil {
			return f, fmt.Errorf("put %s into devmap: %w", out.Name, err)
		}
		k := kernelDirection{
			Pair: d, in: in.Device, out: out.Device, program: c.Object != "", frags: in.MTU > xdpFrame || out.MTU > xdpFrame,
		}
		if k.observer, err = observe.New(observe.Config{Netns: uint32(ns.Ino), From: in.Index}); err != nil {
			c.Warn(fmt.Sprintf("what %s sends is not counted: %v", out.Name, err))
		}
		f.directions = append(f.directions, k)
		// After its observer: what is sent from the first frame on counts.
		if err := f.attachInput(ctx, uint32(i), in); err != nil {
			return f, err
		}
	}
	for _, d := range devices {
		input := slices.ContainsFunc(c.directions(), func(p Pair) bool { return p.In == d.Name })
		if input || c.Generic {
			continue
		}
		l, err := d.AttachPass()
		if err != nil {
			return f, err
		}
		if l != nil {
			f.links = append(f.links, l)
		}
	}
	return f, nil
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

// attachInput attaches what redirects a direction's frames.
func (f *inKernel) attachInput(ctx context.Context, direction uint32, in queuedDevice) error {
	p, o, err := f.load(ctx, direction)
	if err != nil {
		return err
	}
	if o != nil {
		f.objects = append(f.objects, o)
	} else {
		f.programs = append(f.programs, p)
	}
	return f.attach(p, in)
}

// load loads the program of a direction, with the user's object if it is in one.
func (f *inKernel) load(ctx context.Context, direction uint32) (p *ebpf.Program, o *object, err error) {
	if f.config.Object == "" {
		spec := &ebpf.ProgramSpec{Type: ebpf.XDP, License: license, Instructions: f.instructions(direction)}
		if f.directions[direction].frags {
			spec.Flags |= unix.BPF_F_XDP_HAS_FRAGS
		}
		if p, err = ebpf.NewProgram(spec); err != nil {
			return nil, nil, fmt.Errorf("load XDP program: %w", privilege(err))
		}
		return p, nil, nil
	}
	file, err := readObject(ctx, f.config.Object)
	if err != nil {
		return nil, nil, err
	}
	read, err := file.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, read.Close())
		}
	}()
	m, err := read.mapOf(ebpf.DevMap, ebpf.DevMapHash)
	if err != nil {
		return nil, nil, err
	}
	var out uint32
	err = f.ports.Lookup(direction, &out)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return read.program, read, nil // the output is gone
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read devmap: %w", err)
	}
	if err := m.Update(uint32(0), out, ebpf.UpdateAny); err != nil {
		return nil, nil, fmt.Errorf("put output into the devmap of the BPF object: %w", err)
	}
	return read.program, read, nil
}

func (f *inKernel) attach(p *ebpf.Program, in queuedDevice) (err error) {
	var l link.Link
	if f.config.Generic {
		l, err = in.AttachGeneric(p)
	} else {
		l, err = in.AttachNative(p, "--generic")
	}
	if err != nil {
		return err
	}
	f.links = append(f.links, l)
	return nil
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
func (f *inKernel) instructions(direction uint32) asm.Instructions {
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
	if f.config.Claim != nil {
		ins = append(ins, f.config.Claim...)
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

// Run waits: the kernel forwards by itself.
func (f *inKernel) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
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
	for i, k := range f.directions {
		d := Direction{In: k.In, Out: k.Out, Up: f.present(k)}
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
		d.Batches = 0
		var seen observe.Seen
		if k.observer != nil {
			var err error
			if seen, err = k.observer.Seen(); err != nil {
				return t, err
			}
			d.Sent, d.Bulks = seen.Frames, seen.Calls
			if k.program {
				d.Received = seen.Frames + seen.Drops + seen.Errors
			}
		}
		if text := seen.Failure(); text != "" && seen.Frames == 0 {
			f.warn(fmt.Sprintf("nothing that %s receives leaves by %s", k.In, k.Out), text)
		}
		d.Drops = []Drop{{dropFailed, errs + seen.Errors}, {dropXmit, seen.Drops}}
		if done := d.Sent + d.Dropped(); done < d.Received {
			d.InFlight = d.Received - done
		}
		t.Directions = append(t.Directions, d)
	}
	return t, nil
}

// present tells whether both devices of a direction exist. A device that went away took its
// program with it.
func (f *inKernel) present(k kernelDirection) bool {
	up := true
	for _, d := range []device.Device{k.in, k.out} {
		if err := d.CheckPresent(f.network); err != nil {
			f.warn(err.Error(), "nothing is forwarded from it or to it any more")
			up = false
		}
	}
	return up
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
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	var errs []error
	for _, l := range slices.Backward(f.links) {
		errs = append(errs, l.Close())
	}
	if len(f.directions) > 0 {
		time.Sleep(settle)
		final, err := f.totals()
		f.final = final
		errs = append(errs, err)
	}
	for _, k := range f.directions {
		if k.observer != nil {
			errs = append(errs, k.observer.Close())
		}
	}
	if f.network != nil {
		f.network.Close()
	}
	for _, p := range f.programs {
		errs = append(errs, p.Close())
	}
	for _, o := range f.objects {
		errs = append(errs, o.Close())
	}
	for _, m := range []*ebpf.Map{f.ports, f.counts} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
