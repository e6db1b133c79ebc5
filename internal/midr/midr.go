// Package midr tells which CPU of arm64 a machine has, by the Main ID Register as /proc/cpuinfo shows it.
package midr

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// ID are the fields of a CPU's MIDR_EL1 (Arm Architecture Reference Manual, D19.2).
type ID struct{ Implementer, Variant, Part, Revision uint16 }

// Parse reads the first CPU of /proc/cpuinfo's text. It returns false where that is no arm64's.
func Parse(cpuinfo string) (id ID, ok bool) {
	fields := []struct {
		name string
		to   *uint16
	}{{"CPU implementer", &id.Implementer}, {"CPU variant", &id.Variant}, {"CPU part", &id.Part}, {"CPU revision", &id.Revision}}
	for line := range strings.Lines(cpuinfo) {
		name, value, _ := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		if len(fields) == 0 || name != fields[0].name {
			if len(fields) < 4 && name != "CPU architecture" {
				return ID{}, false
			}
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(value), 0, 12)
		if err != nil {
			return ID{}, false
		}
		*fields[0].to, ok = uint16(n), true
		if fields = fields[1:]; len(fields) == 0 {
			return id, ok
		}
	}
	return ID{}, false
}

// Read is the first CPU of this machine, false where it is none of arm64.
func Read() (ID, bool) {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ID{}, false
	}
	return Parse(string(text))
}

// cpu is a CPU that has a name.
type cpu struct {
	implementer, part uint16
	name              string
}

// known are the CPUs of servers since 2016, and of the development boards that people have
// (arch/arm64/include/asm/cputype.h of Linux 7.2).
var known = []cpu{
	{0x00, 0x051, "emulated (QEMU's max)"},
	{0x41, 0xd03, "Arm Cortex-A53"}, {0x41, 0xd05, "Arm Cortex-A55"}, {0x41, 0xd07, "Arm Cortex-A57"}, {0x41, 0xd08, "Arm Cortex-A72"},
	{0x41, 0xd09, "Arm Cortex-A73"}, {0x41, 0xd0a, "Arm Cortex-A75"}, {0x41, 0xd0b, "Arm Cortex-A76"}, {0x41, 0xd0d, "Arm Cortex-A77"},
	{0x41, 0xd41, "Arm Cortex-A78"}, {0x41, 0xd42, "Arm Cortex-A78AE"}, {0x41, 0xd4b, "Arm Cortex-A78C"},
	{0x41, 0xd0c, "Arm Neoverse N1"}, {0x41, 0xd4a, "Arm Neoverse E1"}, {0x41, 0xd40, "Arm Neoverse V1"}, {0x41, 0xd49, "Arm Neoverse N2"},
	{0x41, 0xd4f, "Arm Neoverse V2"}, {0x41, 0xd8e, "Arm Neoverse N3"}, {0x41, 0xd84, "Arm Neoverse V3"}, {0x41, 0xd83, "Arm Neoverse V3AE"},
	{0x43, 0x0af, "Cavium ThunderX2"}, {0x43, 0x0a1, "Cavium ThunderX"}, {0x46, 0x001, "Fujitsu A64FX"}, {0x48, 0xd01, "HiSilicon TSV110"},
	{0x51, 0xc00, "Qualcomm Falkor"}, {0x6d, 0xd49, "Microsoft Azure Cobalt 100"},
	{0xc0, 0xac3, "Ampere-1"}, {0xc0, 0xac4, "Ampere-1A"}, {0xc0, 0xac5, "Ampere-1B"},
}

// String is the CPU's name, or its numbers, and its revision: "Arm Neoverse N1 r3p1".
func (id ID) String() string {
	name := cmp.Or(id.Name(), fmt.Sprintf("implementer %#x part %#x", id.Implementer, id.Part))
	return fmt.Sprintf("%s r%dp%d", name, id.Variant, id.Revision)
}

// Name is what the CPU is called, "" where that is not known.
func (id ID) Name() string {
	i := slices.IndexFunc(known, func(c cpu) bool { return c.implementer == id.Implementer && c.part == id.Part })
	if i < 0 {
		return ""
	}
	return known[i].name
}

// historyLoops are how many branches Linux makes over the branch history of a CPU that has no clearbhb when user space is left
// (spectre_bhb_loop_affected in arch/arm64/kernel/proton-pack.c of Linux 7.3).
var historyLoops = []struct {
	branches int
	parts    []uint16 // of Arm
}{
	{132, []uint16{0xd4e, 0xd4f}},
	{38, []uint16{0xd4d, 0xd81, 0xd89}},
	{32, []uint16{0xd41, 0xd42, 0xd4b, 0xd44, 0xd4c, 0xd47, 0xd48, 0xd49, 0xd40}},
	{24, []uint16{0xd0b, 0xd0e, 0xd0d, 0xd0c}},
	{8, []uint16{0xd08, 0xd07}},
}

// HistoryLoop is how many branches Linux 7.3 makes over a CPU's branch history where it has no clearbhb; 0 where it makes none, or for
// CPUs of others than Arm and Ampere.
func (id ID) HistoryLoop() int {
	if id.Implementer == 0xc0 && id.Part == 0xac3 {
		return 11
	}
	for _, l := range historyLoops {
		if id.Implementer == 0x41 && slices.Contains(l.parts, id.Part) {
			return l.branches
		}
	}
	return 0
}
