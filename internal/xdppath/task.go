package xdppath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// currentTask is the address of the calling thread's task_struct. It comes
// from a BPF program, as kernels without CONFIG_KALLSYMS_ALL name no list of
// tasks or namespaces. The caller's goroutine must be locked to its thread.
//
// Requires at least Linux 5.14.
func currentTask() (addr uint64, err error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "path_task", Type: ebpf.Syscall, License: "Dual BSD/GPL",
		Flags: unix.BPF_F_SLEEPABLE,
		// A run returns 32 bits: the context tells which half.
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.FnGetCurrentTask.Call(),
			asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord),
			asm.JEq.Imm(asm.R1, 0, "low"),
			asm.RSh.Imm(asm.R0, 32),
			asm.Return().WithSymbol("low"),
		},
	})
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return 0, feature.Refused(err, unix.CAP_BPF, unix.CAP_PERFMON)
	case err != nil:
		return 0, fmt.Errorf("load program that finds this thread: %w", err)
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	for _, high := range []uint64{0, 1} {
		half, err := p.Run(&ebpf.RunOptions{Context: high})
		if err != nil {
			return 0, fmt.Errorf("find this thread in kernel memory: %w", err)
		}
		addr |= uint64(half) << (32 * high)
	}
	return addr, nil
}
