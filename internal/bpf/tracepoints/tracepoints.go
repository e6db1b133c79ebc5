// Package tracepoints counts redirects by programs at the kernel's global XDP
// tracepoints, as tools that watch a whole machine do. Benchmarks hold
// unthunk's own way of counting against it.
package tracepoints

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel tracepoints tracepoints.bpf.c -- -O2 -g -Wall -Werror -I../headers

// Attach attaches one tool's worth of programs, which count until closed:
// ndo_xdp_xmit calls and failed redirects and, with each, every redirect that
// succeeds. It needs BTF. Requires at least Linux 5.6.
func Attach(each bool) (detach func() error, err error) {
	spec, err := loadTracepoints()
	if err != nil {
		return nil, err
	}
	if !each {
		delete(spec.Programs, tracepointsProgCountRedirect)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load tracepoint programs: %w", err)
	}
	var links []link.Link
	detach = func() error {
		var errs []error
		for _, l := range links {
			errs = append(errs, l.Close())
		}
		coll.Close()
		return errors.Join(errs...)
	}
	for _, p := range coll.Programs {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach tracepoint program: %w", err), detach())
		}
		links = append(links, l)
	}
	return detach, nil
}
