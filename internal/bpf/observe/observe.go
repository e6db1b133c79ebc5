// Package observe counts ndo_xdp_xmit calls and failed redirects of one
// network namespace, by tracepoint programs that check the namespace first.
package observe

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel observe observe.bpf.c -- -O2 -g -Wall -Werror -I../headers

// Seen is what happened while an Observer was attached.
type Seen struct {
	// Calls of ndo_xdp_xmit, Frames it took, Drops it refused.
	Calls, Frames, Drops uint64
	// XmitError is the last error of ndo_xdp_xmit, or 0.
	XmitError syscall.Errno
	// Errors is how often xdp_do_redirect failed, Error the last reason.
	Errors uint64
	Error  syscall.Errno
}

// Observer is attached to the xdp_devmap_xmit and xdp_redirect_err
// tracepoints until closed.
type Observer struct {
	coll  *ebpf.Collection
	links []link.Link
}

// New attaches an observer to the network namespace with inode number netns.
// A fromIfindex other than 0 restricts it to frames received by that device.
// It needs BTF. Requires at least Linux 5.6.
func New(netns uint32, fromIfindex int) (o *Observer, err error) {
	spec, err := loadObserve()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables[observeVarNetns].Set(netns); err != nil {
		return nil, fmt.Errorf("set netns: %w", err)
	}
	if err := spec.Variables[observeVarFromIfindex].Set(uint32(fromIfindex)); err != nil {
		return nil, fmt.Errorf("set from_ifindex: %w", err)
	}
	o = &Observer{}
	defer func() {
		if err != nil {
			o.Close()
		}
	}()
	if o.coll, err = ebpf.NewCollection(spec); err != nil {
		return nil, fmt.Errorf("load observer: %w", err)
	}
	for _, p := range o.coll.Programs {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			return nil, fmt.Errorf("attach observer: %w", err)
		}
		o.links = append(o.links, l)
	}
	return o, nil
}

// Seen reads the totals since New.
func (o *Observer) Seen() (Seen, error) {
	var raw observeSeen
	if err := o.coll.Variables[observeVarTotal].Get(&raw); err != nil {
		return Seen{}, fmt.Errorf("read observer: %w", err)
	}
	return Seen{
		Calls: raw.Calls, Frames: raw.Frames, Drops: raw.Drops, XmitError: syscall.Errno(-raw.XmitError),
		Errors: raw.Errors, Error: syscall.Errno(-raw.Error),
	}, nil
}

// Close detaches the observer.
func (o *Observer) Close() error {
	var errs []error
	for _, l := range o.links {
		errs = append(errs, l.Close())
	}
	if o.coll != nil {
		o.coll.Close()
	}
	return errors.Join(errs...)
}
