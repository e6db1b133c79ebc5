package ktext

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// window is how many bytes one run of the program copies.
const window = 64 << 10

// Live is a [Source] of the running kernel's memory: a BPF syscall program
// copies up to 64 KiB at a time with bpf_probe_read_kernel. All 19 MB of a
// kernel's text take about 50 ms. It is safe for concurrent use.
type Live struct {
	mu     sync.Mutex
	prog   *ebpf.Program
	buffer *ebpf.Map
	memory *ebpf.Memory
}

// request is the context of the program.
type request struct {
	Addr uint64
	Size uint64
}

// OpenLive loads the program. It returns a [feature.Missing] without root
// (CAP_BPF and CAP_PERFMON) and on kernels that cannot do it.
//
// Requires at least Linux 5.14.
func OpenLive() (*Live, error) {
	buffer, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "ktext", Type: ebpf.Array, KeySize: 4, ValueSize: window,
		MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE,
	})
	if err != nil {
		return nil, missing("load map", err)
	}
	l := &Live{buffer: buffer}
	if l.memory, err = buffer.Memory(); err != nil {
		return nil, errors.Join(missing("map memory", err), l.Close())
	}
	l.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "ktext", Type: ebpf.Syscall, License: "Dual BSD/GPL",
		// Syscall programs may sleep; the verifier insists on it.
		Flags:        unix.BPF_F_SLEEPABLE,
		Instructions: instructions(buffer.FD()),
	})
	if err != nil {
		return nil, errors.Join(missing("load program", err), l.Close())
	}
	return l, nil
}

// instructions copies request.Size bytes from request.Addr into the only
// element of the array and returns what bpf_probe_read_kernel did.
func instructions(buffer int) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, buffer),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "fail"),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.LoadMem(asm.R2, asm.R6, 8, asm.DWord),
		asm.JGT.Imm(asm.R2, window, "fail"),
		asm.LoadMem(asm.R3, asm.R6, 0, asm.DWord),
		asm.FnProbeReadKernel.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, -int32(unix.EINVAL)).WithSymbol("fail"),
		asm.Return(),
	}
}

// missing turns what the kernel says to users without rights and by old
// kernels into a feature.Missing. Old kernels answer EINVAL to an unknown
// program type.
func missing(what string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return feature.Refused(fmt.Errorf("%s that reads kernel text: %w", what, err), unix.CAP_BPF, unix.CAP_PERFMON)
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, ebpf.ErrNotSupported):
		return &feature.Missing{
			Feature: "BPF syscall programs",
			Since:   "5.14",
			Config:  "CONFIG_BPF_SYSCALL",
			Err:     err,
		}
	}
	return fmt.Errorf("%s that reads kernel text: %w", what, err)
}

// ReadAddr implements [Source]. An address that is not mapped gives an error
// that wraps EFAULT; a locked-down kernel gives a [feature.Missing].
func (l *Live) ReadAddr(p []byte, addr uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.prog == nil {
		return errors.New("read kernel text: closed")
	}
	for len(p) > 0 {
		n := min(len(p), window)
		ret, err := l.prog.Run(&ebpf.RunOptions{Context: request{addr, uint64(n)}})
		if err != nil {
			return fmt.Errorf("read kernel text at %#x: %w", addr, err)
		}
		if e := syscall.Errno(-int32(ret)); e == unix.EPERM {
			return &feature.Missing{
				Feature: "reading kernel memory from BPF",
				Help:    "boot without lockdown=confidentiality",
				Err:     e,
			}
		} else if ret != 0 {
			return fmt.Errorf("read kernel text at %#x: %w", addr, e)
		}
		if _, err := l.memory.ReadAt(p[:n], 0); err != nil {
			return fmt.Errorf("read kernel text at %#x: %w", addr, err)
		}
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

// Close unloads the program. It may be called twice.
func (l *Live) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	if l.prog != nil {
		errs = append(errs, l.prog.Close())
	}
	if l.buffer != nil {
		errs = append(errs, l.buffer.Close())
	}
	l.prog, l.buffer, l.memory = nil, nil, nil
	return errors.Join(errs...)
}
