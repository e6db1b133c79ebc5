package xsk

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// ProgramOptions say which XDP program gives a device's frames to sockets.
type ProgramOptions struct {
	// Sockets get the frames of their queues from the first on. Each that is in
	// zero-copy mode must have chunks in its fill ring.
	Sockets []*Socket
	// Queues is how many queues may have a socket; 0 is 64.
	Queues int
	// MultiBuffer loads the program for frames of several buffers (xdp.frags,
	// Linux 5.18).
	MultiBuffer bool
	// Metadata has the program ask the driver about each frame that it hands over:
	// see [UMEM.RxMetadata] (Linux 6.3, native mode). The UMEM must be made for it.
	Metadata bool
	// Generic attaches it in generic mode, for drivers without XDP.
	Generic bool
	// Claim is run for each frame with a pointer to its first byte in R2 and
	// one past its last in R3: there are 14 at least, or the frame passes. It
	// may write over all registers but R10, and over the stack from
	// [ClaimStack] down.
	// It jumps to [ClaimLabel] when the socket is to have the frame and to
	// [PassLabel] when the network stack is; both, at least once. nil claims
	// all. Package filter makes one of a pcap expression.
	Claim asm.Instructions
}

// ClaimStack is the offset from the frame pointer below which the stack is
// [ProgramOptions.Claim]'s, in bytes.
const ClaimStack = -32

// Labels that [ProgramOptions.Claim] jumps to.
const (
	ClaimLabel = "claim"
	PassLabel  = "pass"
)

// redirectLabel is where metadata is left out.
const redirectLabel = "redirect"

const defaultQueues = 64

// Program is an XDP program on one device that redirects to sockets by queue. It is for one
// goroutine at a time; [Program.Passed] may be called by others, but for Close and Replace.
type Program struct {
	program *ebpf.Program
	sockets *ebpf.Map // XSKMAP, by queue
	passed  *ebpf.Map // what Claim left to the network stack, by CPU; nil without Claim
	link    link.Link
	id      ebpf.ProgramID // of the program that the link was given last
	owned   bool
	// What one that is owned was attached with.
	ifindex         int
	multi, metadata bool
}

// Offsets of struct xdp_md, linux/bpf.h.
const (
	xdpData         = 0
	xdpDataEnd      = 4
	xdpDataMeta     = 8
	xdpRXQueueIndex = 16
)

const xdpPass = 2

// Attach loads the default program and attaches it to a device of the calling
// thread's network namespace: frames of a queue that has a socket go to it,
// unless Claim says no, and all others to the network stack (XDP_PASS). It is
// detached by Close, and with the process however that ends. Requires at least
// Linux 5.9.
//
// Attach when the sockets are bound and their fill rings have chunks: a driver in
// zero-copy mode may take the first of them now, and never ask again if there are
// none (igb up to Linux 6.18). A device that only transmits from zero-copy sockets
// needs a program too, without sockets; see [ErrNoProgram]. Many drivers reset the
// link.
func Attach(ifindex int, o ProgramOptions) (*Program, error) {
	if o.Metadata && o.Generic {
		return nil, errors.New("attach XDP program: in generic mode there is no driver to ask for metadata")
	}
	if o.Queues == 0 {
		o.Queues = defaultQueues
	}
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: uint32(o.Queues)})
	if err != nil {
		return nil, fmt.Errorf("make XSKMAP: %w", bpfMissing(err))
	}
	p := &Program{sockets: sockets, owned: true, ifindex: ifindex, multi: o.MultiBuffer, metadata: o.Metadata}
	for _, s := range o.Sockets {
		if err := p.Add(s); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	if p.program, err = p.load(o.Claim); err == nil {
		err = p.attach(ifindex, o.Generic)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// load loads the default program, with the maps that there are.
func (p *Program) load(claim asm.Instructions) (program *ebpf.Program, err error) {
	if claim != nil && p.passed == nil {
		p.passed, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1})
		if err != nil {
			return nil, fmt.Errorf("make counter: %w", bpfMissing(err))
		}
	}
	var metadata asm.Instructions
	spec := &ebpf.ProgramSpec{Type: ebpf.XDP, License: "Dual BSD/GPL"}
	if p.metadata {
		if metadata, err = metadataInstructions(); err != nil {
			return nil, fmt.Errorf("load XDP program that asks for metadata: %w", err)
		}
		// What a driver knows only programs of one device may ask for.
		spec.Flags |= unix.BPF_F_XDP_DEV_BOUND_ONLY
		spec.Ifindex = uint32(p.ifindex)
	}
	spec.Instructions = p.instructions(claim, metadata)
	if p.multi {
		spec.Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	program, err = ebpf.NewProgram(spec)
	if p.metadata && errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("load XDP program: %w", &feature.Missing{
			Feature: "XDP metadata of " + deviceName(p.ifindex), Help: "its driver has none; attach without", Err: err,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("load XDP program: %w", bpfMissing(err))
	}
	return program, nil
}

// Replace puts the default program, loaded anew, in the place of the one that [Attach]
// attached, with another Claim or the same. Each frame meets one of them, and none is lost;
// sockets and counts stay. It also gives the program to queues that a device got since
// (ethtool -L) where its driver does not: a veth's new queues have none
// (veth_enable_range_safe in drivers/net/veth.c, Linux 6.18). With Metadata the calling
// thread must be in the device's network namespace.
func (p *Program) Replace(claim asm.Instructions) error {
	if !p.owned {
		return errors.New("replace XDP program: it is the caller's, use ReplaceProgram")
	}
	program, err := p.load(claim)
	if err != nil {
		return fmt.Errorf("replace XDP program: %w", err)
	}
	old := p.program
	if err := p.update(program); err != nil {
		return errors.Join(err, program.Close())
	}
	return old.Close()
}

// ReplaceProgram puts another program of the caller's in the place of that of
// [AttachProgram], with its XSKMAP, into which the sockets go before. Each frame meets one
// of them, and none is lost.
func (p *Program) ReplaceProgram(program *ebpf.Program, sockets *ebpf.Map, all []*Socket) error {
	if p.owned {
		return errors.New("replace XDP program: it is the default program, use Replace")
	}
	if t := sockets.Type(); t != ebpf.XSKMap {
		return fmt.Errorf("replace XDP program: its map is %v and not an XSKMAP", t)
	}
	next := &Program{sockets: sockets}
	for _, s := range all {
		if err := next.Add(s); err != nil {
			return fmt.Errorf("replace XDP program: %w", err)
		}
	}
	if err := p.update(program); err != nil {
		return err
	}
	p.sockets = sockets
	return nil
}

// update puts a program in the place of the one that is attached.
func (p *Program) update(program *ebpf.Program) error {
	if p.link == nil {
		return fmt.Errorf("replace XDP program: %w", ErrClosed)
	}
	if err := p.link.Update(program); err != nil {
		return fmt.Errorf("replace XDP program: %w", bpfMissing(err))
	}
	p.program = program
	return p.noteProgram()
}

// noteProgram notes which program the link has. The program itself is not asked: of one of more than 4 MiB the kernel warns.
func (p *Program) noteProgram() error {
	info, err := p.link.Info()
	if err != nil {
		return fmt.Errorf("read link of XDP program: %w", err)
	}
	p.id = info.Program
	return nil
}

// AttachProgram attaches a program of the caller's that redirects to sockets
// through an XSKMAP, which is keyed by queue. Both stay the caller's.
func AttachProgram(ifindex int, program *ebpf.Program, sockets *ebpf.Map, generic bool) (*Program, error) {
	if t := sockets.Type(); t != ebpf.XSKMap {
		return nil, fmt.Errorf("attach XDP program: its map is %v and not an XSKMAP", t)
	}
	p := &Program{program: program, sockets: sockets}
	if err := p.attach(ifindex, generic); err != nil {
		return nil, err
	}
	return p, nil
}

// instructions are the default program: with claim it asks that, and runs metadata for what goes to
// a socket.
func (p *Program) instructions(claim, metadata asm.Instructions) asm.Instructions {
	var ins asm.Instructions
	queue := asm.LoadMem(asm.R2, asm.R1, xdpRXQueueIndex, asm.Word)
	if claim != nil || metadata != nil {
		ins = append(ins,
			asm.LoadMem(asm.R4, asm.R1, xdpRXQueueIndex, asm.Word),
			asm.StoreMem(asm.RFP, queueStack, asm.R4, asm.DWord),
			asm.StoreMem(asm.RFP, contextStack, asm.R1, asm.DWord),
		)
		queue = asm.LoadMem(asm.R2, asm.RFP, queueStack, asm.DWord)
	}
	if claim != nil {
		ins = append(ins,
			asm.LoadMem(asm.R2, asm.R1, xdpData, asm.Word),
			asm.LoadMem(asm.R3, asm.R1, xdpDataEnd, asm.Word),
			asm.Mov.Reg(asm.R4, asm.R2),
			asm.Add.Imm(asm.R4, 14),
			asm.JGT.Reg(asm.R4, asm.R3, PassLabel),
		)
		ins = append(ins, claim...)
	}
	if metadata != nil {
		queue = queue.WithSymbol(redirectLabel)
	}
	rest := append(slices.Clone(metadata),
		queue,
		asm.LoadMapPtr(asm.R1, p.sockets.FD()),
		// What bpf_redirect_map returns when the queue has no socket (Linux 5.3).
		asm.Mov.Imm(asm.R3, xdpPass),
		asm.FnRedirectMap.Call(),
		asm.Return(),
	)
	if claim != nil {
		rest[0] = rest[0].WithSymbol(ClaimLabel)
		rest = append(rest,
			asm.StoreImm(asm.RFP, keyStack, 0, asm.Word).WithSymbol(PassLabel),
			asm.LoadMapPtr(asm.R1, p.passed.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, keyStack),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "counted"),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R0, xdpPass).WithSymbol("counted"),
			asm.Return(),
		)
	}
	return append(ins, rest...)
}

// Where the program keeps things on its stack, out of the way of Claim: the queue's number, a key,
// and the context.
const (
	queueStack   = -8
	keyStack     = -16
	contextStack = -24
)

// Passed is how many frames [ProgramOptions.Claim], or their length, left to the network
// stack since the program was attached; 0 without Claim, and for a program of the caller's.
func (p *Program) Passed() (frames uint64, err error) {
	if p.passed == nil {
		return 0, nil
	}
	var perCPU []uint64
	if err := p.passed.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read counter: %w", err)
	}
	for _, n := range perCPU {
		frames += n
	}
	return frames, nil
}

func (p *Program) attach(ifindex int, generic bool) (err error) {
	flags := link.XDPDriverMode
	if generic {
		flags = link.XDPGenericMode
	}
	p.link, err = link.AttachXDP(link.XDPOptions{Program: p.program, Interface: ifindex, Flags: flags})
	switch {
	case err == nil:
		if err := p.noteProgram(); err != nil {
			return errors.Join(err, p.link.Close())
		}
		return nil
	case errors.Is(err, unix.EOPNOTSUPP) && !generic:
		return &feature.Missing{Feature: "native XDP on " + deviceName(ifindex), Help: "use generic mode", Err: err}
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("attach XDP program: %s has one already: %w", deviceName(ifindex), unix.EBUSY)
	case errors.Is(err, unix.ERANGE): // of a veth, veth_xdp_set in drivers/net/veth.c asks for the peer's
		return fmt.Errorf("attach XDP program: the MTU of %s, of a veth that of its peer, is too large without multi-buffer: %w",
			deviceName(ifindex), unix.ERANGE)
	}
	return fmt.Errorf("attach XDP program: %w", bpfMissing(err))
}

// deviceName is the name of a device of the calling thread's network namespace, for errors.
func deviceName(ifindex int) string {
	if i, err := net.InterfaceByIndex(ifindex); err == nil {
		return i.Name
	}
	return fmt.Sprintf("device %d", ifindex)
}

func bpfMissing(err error) error {
	// EACCES is the verifier's, which lets only CAP_PERFMON compute with the addresses of
	// packets, as filters do.
	if errors.Is(err, unix.EACCES) && !feature.Capability(unix.CAP_PERFMON).Held() {
		return feature.Refused(unix.EPERM, unix.CAP_PERFMON)
	}
	if errors.Is(err, unix.EPERM) {
		return feature.Refused(err, unix.CAP_BPF, unix.CAP_NET_ADMIN)
	}
	return err
}

// Add gives the frames of a socket's queue to it. One in zero-copy mode must have chunks
// in its fill ring.
func (p *Program) Add(s *Socket) error {
	if s.mode == ZeroCopy && s.Fill.untouched() {
		return fmt.Errorf("put socket into XSKMAP at queue %d: put chunks into its fill ring before: without any, %s may never receive",
			s.options.Queue, deviceName(s.options.Interface))
	}
	if err := p.sockets.Update(uint32(s.options.Queue), uint32(s.fd), ebpf.UpdateAny); err != nil {
		return fmt.Errorf("put socket into XSKMAP at queue %d: %w", s.options.Queue, err)
	}
	return nil
}

// Remove lets the frames of a queue pass again.
func (p *Program) Remove(queue int) error {
	err := p.sockets.Delete(uint32(queue))
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("take socket out of XSKMAP: %w", err)
	}
	return nil
}

// Close detaches the program. In zero-copy mode what is in a TX ring may leave only before
// that: of a device that transmits, wait for the completions first.
func (p *Program) Close() error {
	var errs []error
	if p.link != nil {
		errs = append(errs, p.link.Close())
		p.link = nil
	}
	if p.owned {
		errs = append(errs, p.program.Close(), p.sockets.Close(), p.passed.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("detach XDP program: %w", err)
	}
	return nil
}
