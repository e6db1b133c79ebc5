// Package device finds the user's network devices and attaches XDP programs to them.
package device

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// Device is a network device of the calling thread's network namespace.
type Device struct {
	Name  string
	Index int
	MTU   int
	// Queues is how many receive queues it has.
	Queues int
	// Up is set when the administrator has it up: `ip link set DEV up`. Link is set when it also has a carrier.
	Up, Link bool
}

// absentError is about a device that does not exist. It is a [netlink.LinkNotFoundError].
type absentError struct {
	name string
	err  error
}

func (e *absentError) Error() string {
	return fmt.Sprintf("there is no device %s in this network namespace", e.name)
}

func (e *absentError) Unwrap() error { return e.err }

// Find finds a device by its name. It fails when the device has an XDP program already.
func Find(name string) (Device, error) {
	d, attrs, err := named(name)
	if err == nil && attrs.Xdp != nil && attrs.Xdp.Attached {
		err = fmt.Errorf("device %s has an XDP program already (id %d): detach it first", name, attrs.Xdp.ProgId)
	}
	return d, err
}

// Named finds a device by its name, whether it has an XDP program or not.
func Named(name string) (Device, error) {
	d, _, err := named(name)
	return d, err
}

func named(name string) (Device, *netlink.LinkAttrs, error) {
	l, err := netlink.LinkByName(name)
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return Device{}, nil, &absentError{name, err}
	}
	if err != nil {
		return Device{}, nil, fmt.Errorf("find device %s: %w", name, err)
	}
	attrs := l.Attrs()
	return Device{
		Name: name, Index: attrs.Index, MTU: attrs.MTU, Queues: attrs.NumRxQueues, Up: attrs.Flags&net.FlagUp != 0,
		Link: attrs.RawFlags&unix.IFF_LOWER_UP != 0, // dev_get_flags in net/core/dev.c
	}, attrs, nil
}

// CheckUp returns an error with the cure when the administrator has the device down.
func (d Device) CheckUp() error {
	if d.Up {
		return nil
	}
	return fmt.Errorf("%s is down: ip link set %s up", d.Name, d.Name)
}

// Peer is the name of the other end of a veth, false when the device is no veth or its peer is
// in another network namespace.
func (d Device) Peer() (name string, ok bool) {
	l, err := netlink.LinkByIndex(d.Index)
	if err != nil || l.Type() != "veth" || l.Attrs().NetNsID >= 0 {
		return "", false
	}
	peer, err := netlink.LinkByIndex(l.Attrs().ParentIndex)
	if err != nil || peer.Type() != "veth" || peer.Attrs().ParentIndex != d.Index {
		return "", false
	}
	return peer.Attrs().Name, true
}

// Links looks devices up: the functions of package netlink, or a handle that stays in one
// network namespace.
type Links interface {
	LinkByIndex(index int) (netlink.Link, error)
}

// CheckPresent returns an error when the device that was found does not exist any more,
// even when another has its name now.
func (d Device) CheckPresent(links Links) error {
	_, err := links.LinkByIndex(d.Index)
	if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return fmt.Errorf("%s went away", d.Name)
	}
	return nil // what cannot be asked is not gone
}

// AttachNative attaches an XDP program in the driver, until the link is closed. It returns a [feature.Missing] when the
// driver has no XDP; option is the flag of the verb that does without. Requires at least Linux 5.9.
func (d Device) AttachNative(p *ebpf.Program, option string) (link.Link, error) {
	l, err := d.attach(p, link.XDPDriverMode)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, &feature.Missing{Feature: "native XDP on " + d.Name, Help: "try " + option, Err: err}
	}
	return l, err
}

// AttachGeneric attaches an XDP program in the network stack, until the link is closed. Requires at least Linux 5.9.
func (d Device) AttachGeneric(p *ebpf.Program) (link.Link, error) {
	return d.attach(p, link.XDPGenericMode)
}

func (d Device) attach(p *ebpf.Program, flags link.XDPAttachFlags) (link.Link, error) {
	l, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: d.Index, Flags: flags})
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, unix.EPERM):
		return nil, feature.Refused(err, unix.CAP_BPF, unix.CAP_NET_ADMIN)
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("attach XDP program: %s has one already: %w", d.Name, unix.EBUSY)
	case errors.Is(err, unix.ERANGE): // of a veth, veth_xdp_set in drivers/net/veth.c asks for the peer's
		return nil, fmt.Errorf("attach XDP program: the MTU of %s, of a veth that of its peer, is too large for one buffer: %w",
			d.Name, unix.ERANGE)
	}
	return nil, fmt.Errorf("attach XDP program to %s: %w", d.Name, err)
}

// AttachPass makes the device ready to take redirected frames: many drivers have queues for them only while they run an
// XDP program themselves. The program lets everything pass, also frames of several buffers. The link is nil when the
// driver has no XDP, which shows in the counts. Requires at least Linux 5.18.
func (d Device) AttachPass() (link.Link, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "Dual BSD/GPL", Flags: unix.BPF_F_XDP_HAS_FRAGS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load XDP program: %w", err)
	}
	defer p.Close() // the link holds it
	l, err := d.attach(p, link.XDPDriverMode)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	return l, err
}

// AwaitUp waits until devices are up: many drivers restart when an XDP program is attached. A device that does not
// report its state counts as up, and one that is not there any more: [Device.CheckPresent] says which it was.
func AwaitUp(ctx context.Context, ifindexes ...int) error {
	for _, ifindex := range ifindexes {
		for tries := 0; ; tries++ {
			l, err := netlink.LinkByIndex(ifindex)
			if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
				break
			}
			if err != nil {
				return fmt.Errorf("read interface state: %w", err)
			}
			state := l.Attrs().OperState
			if state == netlink.OperUp || state == netlink.OperUnknown {
				break
			}
			if tries == 100 {
				return fmt.Errorf("interface %s is %v 10 s after its XDP program was attached", l.Attrs().Name, state)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}
