// Package virtual tells whether a CPU is hardware or software. What software's time says is no price: all that gives one asks here.
package virtual

import (
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/midr"
)

// TCG is the [Signature] of QEMU's emulator on x86-64.
const TCG = "TCGTCGTCGTCG"

// Here tells whether the CPU of this machine is software.
func Here() bool { return Emulated(os.DirFS("/"), Signature()) }

// NeedHardware returns a [feature.Missing] where the CPU of this machine is software: nothing has a price there.
func NeedHardware() error {
	if !Here() {
		return nil
	}
	return &feature.Missing{Feature: "a CPU of hardware", Help: "this one is emulated (QEMU), and what its time says is no price"}
}

// Emulated tells whether the CPU of a machine is software, so that its time is none of hardware. root is the folder that has its proc and
// sys, signature that of its hypervisor, or empty.
//
// On arm64 QEMU's model "max" says so in its Main ID Register. Its other models have those of the CPUs that they imitate, and a PMU
// that counts neither predictions of branches nor accesses of the cache. PMUv3 of a CPU with a predictor and a cache has both (Arm
// Architecture Reference Manual, D13.11.3), and KVM hands them to guests. An emulated CPU without a PMU is taken for hardware.
func Emulated(root fs.FS, signature string) bool {
	if signature == TCG {
		return true
	}
	info, err := fs.ReadFile(root, "proc/cpuinfo")
	if err != nil {
		return false
	}
	id, ok := midr.Parse(string(info))
	if !ok {
		return false
	}
	return id.Implementer == 0 || onQEMU(root) && pmuOfSoftware(root)
}

// onQEMU tells whether the board is that of QEMU, by what firmware says: a device tree, or DMI. With KVM the board is the same.
func onQEMU(root fs.FS) bool {
	board, _ := fs.ReadFile(root, "proc/device-tree/compatible")
	vendor, _ := fs.ReadFile(root, "sys/class/dmi/id/sys_vendor")
	return strings.Contains(string(board), "linux,dummy-virt") || strings.TrimSpace(string(vendor)) == "QEMU"
}

// pmuOfSoftware tells whether there is a PMU of which the kernel has cycles, and nothing of a cache or of predictions.
func pmuOfSoftware(root fs.FS) bool {
	pmus, _ := fs.Glob(root, "sys/bus/event_source/devices/armv8_*/events")
	has := func(event string) bool {
		for _, events := range pmus {
			if _, err := fs.Stat(root, path.Join(events, event)); err == nil {
				return true
			}
		}
		return false
	}
	return has("cpu_cycles") && !has("br_mis_pred") && !has("br_pred") && !has("l1d_cache")
}
