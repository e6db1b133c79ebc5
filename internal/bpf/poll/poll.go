// Package poll lets samples of a perf event through only while a CPU polls one of some NAPI
// instances.
package poll

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel poll poll.bpf.c -- -O2 -g -Wall -Werror -I../headers

// Max is how many NAPI instances a filter knows: MAX_NAPIS of the program.
const Max = 256

// Filter is a BPF program for perf events. It must be closed.
type Filter struct{ objects pollObjects }

// Counts are how often the events of all CPUs came, and how often they made a sample.
type Counts struct{ Taken, Kept uint64 }

// New loads a filter for the NAPI instances at these addresses of kernel memory (struct
// napi_struct): at most [Max]. It needs BTF. An instance that is gone meanwhile is as one that
// is not polled, unless the memory has another use by then.
//
// It returns a [feature.Missing] without CAP_BPF and CAP_PERFMON. Requires at least Linux 5.5.
func New(napis []uint64) (*Filter, error) {
	if len(napis) > Max {
		return nil, fmt.Errorf("load filter: %d NAPI instances, at most %d are possible", len(napis), Max)
	}
	spec, err := loadPoll()
	if err != nil {
		return nil, err
	}
	var all [Max]uint64
	copy(all[:], napis)
	err = errors.Join(spec.Variables[pollVarNapi].Set(all), spec.Variables[pollVarNapis].Set(uint32(len(napis))))
	if err != nil {
		return nil, fmt.Errorf("set NAPI instances: %w", err)
	}
	f := &Filter{}
	if err := spec.LoadAndAssign(&f.objects, nil); err != nil {
		if errors.Is(err, unix.EPERM) {
			return nil, feature.Refused(err, unix.CAP_BPF, unix.CAP_PERFMON)
		}
		return nil, fmt.Errorf("load filter: %w", err)
	}
	return f, nil
}

// Attach puts the filter on a perf event, which goes on without it when the filter is closed
// only once the event is closed too. An event has one program.
func (f *Filter) Attach(event int) error {
	if err := unix.IoctlSetInt(event, unix.PERF_EVENT_IOC_SET_BPF, f.objects.Polls.FD()); err != nil {
		return fmt.Errorf("attach BPF program to perf event: %w", err)
	}
	return nil
}

// Counts reads the counts since New.
func (f *Filter) Counts() (c Counts, err error) {
	var each []pollCounts
	if err := f.objects.Counts.Lookup(uint32(0), &each); err != nil {
		return c, fmt.Errorf("read counts of filter: %w", err)
	}
	for _, cpu := range each {
		c.Taken, c.Kept = c.Taken+cpu.Taken, c.Kept+cpu.Kept
	}
	return c, nil
}

// Program is the filter.
func (f *Filter) Program() *ebpf.Program { return f.objects.Polls }

// Close unloads the filter once no event has it any more.
func (f *Filter) Close() error { return f.objects.Close() }
