// Package observe counts ndo_xdp_xmit calls, redirects, NAPI polls and softirqs of
// one network namespace, by tracepoint programs that check the namespace first.
package observe

import (
	"cmp"
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
	// Redirects is how often xdp_do_redirect succeeded, Polls how often the
	// polled device's NAPI poll ran, Softirqs how often the NET_RX action
	// began between the two, on the CPU of both. All are 0 unless asked
	// for.
	Redirects, Polls, Softirqs uint64

	errorsBy [len(observeSeen{}.ErrorsBy)]uint64 // by errno
}

// ErrorCount is how often xdp_do_redirect failed for one reason.
type ErrorCount struct {
	Error syscall.Errno
	Count uint64
}

// ErrorsSince lists why xdp_do_redirect failed since before was read.
func (s Seen) ErrorsSince(before Seen) (list []ErrorCount) {
	for errno, n := range s.errorsBy {
		if n > before.errorsBy[errno] {
			list = append(list, ErrorCount{syscall.Errno(errno), n - before.errorsBy[errno]})
		}
	}
	return list
}

// Add adds what another Observer saw later.
func (s *Seen) Add(later Seen) {
	s.Calls, s.Frames, s.Drops = s.Calls+later.Calls, s.Frames+later.Frames, s.Drops+later.Drops
	s.Errors, s.Redirects = s.Errors+later.Errors, s.Redirects+later.Redirects
	s.Polls, s.Softirqs = s.Polls+later.Polls, s.Softirqs+later.Softirqs
	s.XmitError, s.Error = cmp.Or(later.XmitError, s.XmitError), cmp.Or(later.Error, s.Error)
	for errno, n := range later.errorsBy {
		s.errorsBy[errno] += n
	}
}

// Config says what an Observer looks at.
type Config struct {
	// Netns is the inode number of the network namespace.
	Netns uint32
	// From restricts counts, other than polls, to frames received by the
	// device with this index; 0 = all.
	From int
	// Polled is the index of the device whose NAPI polls are counted. With
	// it, redirects and softirqs are counted too.
	Polled int
	// Redirects has redirects counted without Polled. Each redirect on the machine then takes some 50 ns more.
	Redirects bool
}

// Observer is attached to the xdp_devmap_xmit and xdp_redirect_err
// tracepoints, and on request to xdp_redirect, napi_poll and softirq_entry, until
// closed.
type Observer struct {
	coll  *ebpf.Collection
	links []link.Link
}

// New attaches an observer. It needs BTF. Requires at least Linux 5.6.
func New(cfg Config) (*Observer, error) {
	spec, err := loadObserve()
	if err != nil {
		return nil, err
	}
	for _, v := range []struct {
		name  string
		value uint32
	}{
		{observeVarNetns, cfg.Netns},
		{observeVarFromIfindex, uint32(cfg.From)},
		{observeVarPolledIfindex, uint32(cfg.Polled)},
	} {
		if err := spec.Variables[v.name].Set(v.value); err != nil {
			return nil, fmt.Errorf("set %s: %w", v.name, err)
		}
	}
	if cfg.Polled == 0 {
		if !cfg.Redirects {
			delete(spec.Programs, observeProgXdpRedirect)
		}
		delete(spec.Programs, observeProgNapiPoll)
		delete(spec.Programs, observeProgSoftirqEntry)
	}
	o := &Observer{}
	if o.coll, err = ebpf.NewCollection(spec); err != nil {
		return nil, fmt.Errorf("load observer: %w", err)
	}
	for _, p := range o.coll.Programs {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach observer: %w", err), o.Close())
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
		Redirects: raw.Redirects, Polls: raw.Polls, Softirqs: raw.Softirqs, errorsBy: raw.ErrorsBy,
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
