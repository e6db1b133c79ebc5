package perf

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/midr"
	"github.com/unthunk/unthunk/internal/virtual"
)

// intelIndirect are raw codes for retired indirect branches and for mispredicted
// ones, by model of Intel's family 6. Of hybrid CPUs they are those of cpu_core:
// perf_event_open returns ENOENT for them on the other cores. None counts returns.
// They are of tools/perf/pmu-events/arch/x86 of Linux 6.18, whose folders the
// comments name (models by mapfile.csv), or of github.com/intel/perfmon where said.
var intelIndirect = []struct {
	branches, mispredicts uint64
	models                []int
}{
	// BR_INST_RETIRED.INDIRECT, BR_MISP_RETIRED.INDIRECT: icelake, icelakex,
	// rocketlake, tigerlake, sapphirerapids, emeraldrapids, graniterapids,
	// alderlake, meteorlake, arrowlake, lunarlake.
	{0x80c4, 0x80c5, []int{
		0x7d, 0x7e, 0x6a, 0x6c, 0xa7, 0x8c, 0x8d, 0x8f, 0xcf, 0xad, 0xae,
		0x97, 0x9a, 0xb7, 0xba, 0xbf, 0xaa, 0xac, 0xb5, 0xc5, 0xc6, 0xbd,
	}},
	// BR_INST_RETIRED.NEAR_INDIRECT, BR_MISP_RETIRED.NEAR_INDIRECT: pantherlake;
	// 0xd5, 0xe5 (PTL) and 0xdd (CWF) of intel/perfmon.
	{0x50c4, 0x50c5, []int{0xcc, 0xd5, 0xe5, 0xdd}},
	// BR_INST_RETIRED.NON_RETURN_IND, BR_MISP_RETIRED.NON_RETURN_IND: silvermont,
	// knightslanding, goldmont, goldmontplus, elkhartlake, snowridgex. By the name
	// of INDIRECT: alderlaken, sierraforest, grandridge.
	{0xebc4, 0xebc5, []int{
		0x37, 0x4a, 0x4c, 0x4d, 0x5a, 0x57, 0x85, 0x5c, 0x5f, 0x7a, 0x96, 0x9c, 0x86,
		0xbe, 0xaf, 0xb6,
	}},
	// BR_MISP_EXEC.INDIRECT: executed, those of a wrong path too. sandybridge,
	// jaketown, ivybridge, ivytown, haswell, haswellx, broadwell, broadwellde,
	// broadwellx, skylake, skylakex and cascadelakex.
	{0, 0xe489, []int{
		0x2a, 0x2d, 0x3a, 0x3e, 0x3c, 0x45, 0x46, 0x3f, 0x3d, 0x47, 0x56, 0x4f,
		0x4e, 0x5e, 0x8e, 0x9e, 0xa5, 0xa6, 0x55,
	}},
}

// indirectEvents are the raw codes of a CPU for retired indirect branches and for
// those that were mispredicted; 0 where it has none that is known.
//
// On AMD they are ex_ret_ind_brch_instr (amdzen3 to amdzen5; ex_ret_brn_ind of
// amdzen6) and ex_ret_brn_ind_misp (amdzen1 to amdzen6, only mispredicts found in
// EX). AMD does not say whether they count returns, and so retpolines.
func indirectEvents(vendor string, family, model int) (branches, mispredicts uint64) {
	switch {
	case vendor == "AuthenticAMD" && (family == 0x19 || family == 0x1a):
		return 0xcc, 0xca
	case vendor == "AuthenticAMD" && family == 0x17:
		return 0, 0xca
	case vendor == "GenuineIntel" && family == 18 && (model == 1 || model == 3):
		return 0x50c4, 0x50c5 // BR_INST_RETIRED.NEAR_INDIRECT, BR_MISP_RETIRED.NEAR_INDIRECT: novalake of Linux 7.3
	case vendor == "GenuineIntel" && family == 6:
		for _, e := range intelIndirect {
			if slices.Contains(e.models, model) {
				return e.branches, e.mispredicts
			}
		}
	}
	return 0, 0
}

// arm64Indirect are those of CPUs of arm64 that count retired indirect branches without returns: BR_INDNR_TAKEN_RETIRED
// and BR_INDNR_MIS_PRED_RETIRED, by tools/perf/pmu-events/arch/arm64 of Linux 6.18: arm/neoverse-n3 and arm/neoverse-v3
// (retired.json), and ampere/ampereonex (branch.json).
var arm64Indirect = []struct {
	implementer, part     uint16
	branches, mispredicts uint64
}{
	{0x41, 0xd8e, 0x810c, 0x8117}, // Neoverse N3
	{0x41, 0xd84, 0x810c, 0x8117}, // Neoverse V3
	{0x41, 0xd83, 0x810c, 0x8117}, // Neoverse V3AE
	{0xc0, 0xac4, 0x810c, 0x8117}, // Ampere-1A
}

// arm64Speculated are the CPUs of arm64 before those, which count only what is executed, on a wrong path too: BR_INDIRECT_SPEC,
// indirect branches with returns, and BR_RETURN_SPEC, returns. BR_MIS_PRED_RETIRED are all mispredicted branches that retire,
// indirect or not. By the same folder of Linux 7.3 (models by mapfile.csv): arm/neoverse-n1, arm/neoverse-v1 and arm/neoverse-n2-v2
// (spec_operation.json, retired.json), arm/cortex-a65-e1 and ampere/ampereone (branch.json, instruction.json).
var arm64Speculated = []midr.ID{
	{Implementer: 0x41, Part: 0xd0c}, // Neoverse N1
	{Implementer: 0x41, Part: 0xd4a}, // Neoverse E1
	{Implementer: 0x41, Part: 0xd40}, // Neoverse V1
	{Implementer: 0x41, Part: 0xd49}, // Neoverse N2
	{Implementer: 0x41, Part: 0xd4f}, // Neoverse V2
	{Implementer: 0xc0, Part: 0xac3}, // Ampere-1
}

// indirectOfARM64 is [indirectEvents] of a CPU of arm64. A PMU there opens raw events that it does not have, and reads 0:
// nothing but what is known is asked for.
func indirectOfARM64(id midr.ID) (branches, mispredicts uint64) {
	for _, e := range arm64Indirect {
		if e.implementer == id.Implementer && e.part == id.Part {
			return e.branches, e.mispredicts
		}
	}
	return 0, 0
}

// branchesOfARM64 are the events of a CPU of arm64 for indirect branches.
func branchesOfARM64(id midr.ID) []Event {
	if slices.Contains(arm64Speculated, midr.ID{Implementer: id.Implementer, Part: id.Part}) {
		return []Event{
			rawEvent("indirect-speculated", 0x7a), rawEvent("returns-speculated", 0x79), rawEvent("mispredicts-retired", 0x22),
		}
	}
	return retired(indirectOfARM64(id))
}

// retired are the events for retired indirect branches and for mispredicted ones, without those of code 0.
func retired(branches, mispredicts uint64) (events []Event) {
	for _, e := range []Event{rawEvent("indirect-branches", branches), rawEvent("indirect-mispredicts", mispredicts)} {
		if e.Config != 0 {
			events = append(events, e)
		}
	}
	return events
}

func rawEvent(name string, code uint64) Event {
	return Event{Name: name, Type: unix.PERF_TYPE_RAW, Config: code}
}

// ownBranches are the events of this machine's first CPU for indirect branches: none of an emulated one of arm64, whatever CPU it
// imitates, as QEMU's PMU opens what it does not count, and reads 0.
func ownBranches() []Event {
	if id, ok := midr.Read(); ok {
		if virtual.Here() {
			return nil
		}
		return branchesOfARM64(id)
	}
	branches, mispredicts := indirectEvents(cpu())
	return retired(branches, mispredicts)
}

// cpu is the vendor, family and model of the first CPU in /proc/cpuinfo, empty where
// that does not say, as on arm64.
func cpu() (vendor string, family, model int) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "", 0, 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan() && lines.Text() != ""; {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(name) {
		case "vendor_id":
			vendor = value
		case "cpu family":
			family, _ = strconv.Atoi(value)
		case "model":
			model, _ = strconv.Atoi(value)
		}
	}
	return vendor, family, model
}
