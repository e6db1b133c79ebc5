package xsk

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// ProgramOptions say which XDP program gives a device's frames to sockets.
type ProgramOptions struct {
	// Queues is how many queues may have a socket; 0 is 64.
	Queues int
	// MultiBuffer loads the program for frames of several buffers (xdp.frags,
	// Linux 5.18).
	MultiBuffer bool
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

const defaultQueues = 64

// Program is an XDP program on one device that redirects to sockets by queue.
type Program struct {
	program *ebpf.Program
	sockets *ebpf.Map // XSKMAP, by queue
	link    link.Link
	owned   bool
}

// Offsets of struct xdp_md, linux/bpf.h.
const (
	xdpData         = 0
	xdpDataEnd      = 4
	xdpRXQueueIndex = 16
)

const xdpPass = 2

// Attach loads the default program and attaches it to a device of the calling
// thread's network namespace: frames of a queue that has a socket go to it,
// unless Claim says no, and all others to the network stack (XDP_PASS). It is
// detached by Close, and with the process however that ends. Requires at least
// Linux 5.9.
func Attach(ifindex int, o ProgramOptions) (*Program, error) {
	if o.Queues == 0 {
		o.Queues = defaultQueues
	}
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: uint32(o.Queues)})
	if err != nil {
		return nil, fmt.Errorf("make XSKMAP: %w", bpfMissing(err))
	}
	spec := &ebpf.ProgramSpec{Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: redirect(sockets.FD(), o.Claim)}
	if o.MultiBuffer {
		spec.Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	program, err := ebpf.NewProgram(spec)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("load XDP program: %w", bpfMissing(err)), sockets.Close())
	}
	p := &Program{program: program, sockets: sockets, owned: true}
	if err := p.attach(ifindex, o.Generic); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
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

// redirect is the default program.
func redirect(sockets int, claim asm.Instructions) asm.Instructions {
	var ins asm.Instructions
	queue := asm.LoadMem(asm.R2, asm.R1, xdpRXQueueIndex, asm.Word)
	if claim != nil {
		ins = append(ins,
			asm.LoadMem(asm.R4, asm.R1, xdpRXQueueIndex, asm.Word),
			asm.StoreMem(asm.RFP, queueStack, asm.R4, asm.DWord),
			asm.LoadMem(asm.R2, asm.R1, xdpData, asm.Word),
			asm.LoadMem(asm.R3, asm.R1, xdpDataEnd, asm.Word),
			asm.Mov.Reg(asm.R4, asm.R2),
			asm.Add.Imm(asm.R4, 14),
			asm.JGT.Reg(asm.R4, asm.R3, PassLabel),
		)
		ins = append(ins, claim...)
		queue = asm.LoadMem(asm.R2, asm.RFP, queueStack, asm.DWord).WithSymbol(ClaimLabel)
	}
	ins = append(ins,
		queue,
		asm.LoadMapPtr(asm.R1, sockets),
		// What bpf_redirect_map returns when the queue has no socket (Linux 5.3).
		asm.Mov.Imm(asm.R3, xdpPass),
		asm.FnRedirectMap.Call(),
		asm.Return(),
	)
	if claim != nil {
		ins = append(ins, asm.Mov.Imm(asm.R0, xdpPass).WithSymbol(PassLabel), asm.Return())
	}
	return ins
}

// queueStack is where the queue's number is kept while Claim runs.
const queueStack = -8

func (p *Program) attach(ifindex int, generic bool) (err error) {
	flags := link.XDPDriverMode
	if generic {
		flags = link.XDPGenericMode
	}
	p.link, err = link.AttachXDP(link.XDPOptions{Program: p.program, Interface: ifindex, Flags: flags})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP) && !generic:
		name := fmt.Sprintf("native XDP on interface %d", ifindex)
		return &feature.Missing{Feature: name, Help: "use generic mode", Err: err}
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("attach XDP program: interface %d has one already: %w", ifindex, err)
	case errors.Is(err, unix.ERANGE):
		return fmt.Errorf("attach XDP program: the MTU of interface %d, or of its peer, needs multi-buffer: %w", ifindex, err)
	}
	return fmt.Errorf("attach XDP program: %w", bpfMissing(err))
}

func bpfMissing(err error) error {
	if errors.Is(err, unix.EPERM) {
		return feature.Right("CAP_BPF and CAP_NET_ADMIN", err)
	}
	return err
}

// Add gives the frames of a socket's queue to it.
func (p *Program) Add(s *Socket) error {
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

// Close detaches the program.
func (p *Program) Close() error {
	var errs []error
	if p.link != nil {
		errs = append(errs, p.link.Close())
		p.link = nil
	}
	if p.owned {
		errs = append(errs, p.program.Close(), p.sockets.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("detach XDP program: %w", err)
	}
	return nil
}
