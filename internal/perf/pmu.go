package perf

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"
)

// intelIndirect are the models of Intel's family 6 that have BR_INST_RETIRED.INDIRECT
// and BR_MISP_RETIRED.INDIRECT, Ice Lake and later (mapfile.csv and icelake,
// icelakex, tigerlake, rocketlake, sapphirerapids, alderlake, meteorlake,
// emeraldrapids and graniterapids of tools/perf/pmu-events/arch/x86 of Linux). Of
// hybrid ones they are those of the big cores.
var intelIndirect = []int{
	0x6a, 0x6c, 0x7d, 0x7e, 0x8c, 0x8d, 0x8f, 0x97, 0x9a, 0xa7,
	0xaa, 0xac, 0xad, 0xae, 0xb7, 0xba, 0xbf, 0xcf,
}

// indirectEvents are the raw codes of a CPU for retired indirect branches and for
// those that were mispredicted; 0 where it has none that is known.
//
// On AMD they are ex_ret_ind_brch_instr (Zen 3 and later) and ex_ret_brn_ind_misp
// (amdzen1 to amdzen5 of tools/perf/pmu-events/arch/x86), which leave returns out, as
// Intel's do. A retpoline is a return to both.
func indirectEvents(vendor string, family, model int) (branches, mispredicts uint64) {
	switch {
	case vendor == "AuthenticAMD" && family >= 0x19:
		return 0xcc, 0xca
	case vendor == "AuthenticAMD" && family == 0x17:
		return 0, 0xca
	case vendor == "GenuineIntel" && family == 6 && slices.Contains(intelIndirect, model):
		return 0x80c4, 0x80c5
	}
	return 0, 0
}

// cpu is the vendor, family and model of the first CPU in /proc/cpuinfo, empty where
// that does not say.
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
