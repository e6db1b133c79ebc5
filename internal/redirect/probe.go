package redirect

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/traffic"
)

// Probe returns a [feature.Missing] when this machine cannot run a chain. It
// takes a few milliseconds.
func Probe(ctx context.Context) error {
	// A new network namespace takes CAP_SYS_ADMIN, which includes CAP_BPF and CAP_PERFMON.
	return probe(ctx, unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN)
}

// probe finds out whether the kernel can do it and the caller has the rights.
func probe(ctx context.Context, rights ...feature.Capability) error {
	if err := feature.Need(rights...); err != nil {
		return err
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return &feature.Missing{Feature: "kernel BTF", Config: "CONFIG_DEBUG_INFO_BTF"}
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		License:      "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1 /* XDP_DROP */), asm.Return()},
	})
	if errors.Is(err, unix.EPERM) {
		return feature.Refused(fmt.Errorf("load XDP program: %w", err), rights...)
	}
	if err != nil {
		return fmt.Errorf("load XDP program: %w", err)
	}
	defer prog.Close()
	frame, err := traffic.UDPFrame(DefaultSize)
	if err != nil {
		return err
	}
	// A kernel that does not know the flag says EINVAL, one that does not
	// know the batch size either says E2BIG.
	live := traffic.Live{Program: prog, Frame: frame, Batch: 1}
	if _, err := live.Send(ctx, 1); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.E2BIG) {
		return &feature.Missing{Feature: "live frames in BPF_PROG_TEST_RUN", Since: "5.18"}
	} else if err != nil {
		return err
	}
	return nil
}
