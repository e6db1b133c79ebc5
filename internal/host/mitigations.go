package host

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/branch"
)

const vulnerabilitiesDir = "sys/devices/system/cpu/vulnerabilities"

// vulnerabilities makes one row of every entry the kernel has.
func (m *machine) vulnerabilities(f *Fingerprint) []Finding {
	f.Mitigations = make(map[string]string)
	var rows []Finding
	for _, entry := range m.list(vulnerabilitiesDir) {
		name := "vulnerability-" + strings.ReplaceAll(entry, "_", "-")
		state, err := m.read(vulnerabilitiesDir + "/" + entry)
		if err != nil {
			rows = append(rows, unseen(name, err))
			continue
		}
		f.Mitigations[strings.ReplaceAll(entry, "_", "-")] = state
		row := Finding{Name: name, Found: state, Level: LevelOK}
		if state != "Not affected" {
			row.Means, row.Level = mitigationCost(entry, state)
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		rows = append(rows, unseenf("vulnerabilities", "there is no /%s", vulnerabilitiesDir))
	}
	return rows
}

// mitigationCost says what one entry's state costs a redirected packet, by
// Documentation/admin-guide/hw-vuln, arch/x86/kernel/cpu/bugs.c and arch/arm64/kernel/proton-pack.c.
func mitigationCost(entry, state string) (string, Level) {
	has := func(s string) bool { return strings.Contains(state, s) }
	off := strings.HasPrefix(state, "Vulnerable")
	switch entry {
	case "spectre_v2":
		switch {
		case has("but not BHB"):
			return "the CPU predicts the kernel's branches without user space's (CSV2), and the branch history is not cleared: " +
				"nothing on the redirect path, and nothing on syscalls", LevelNote
		case has("BHB"):
			return "the branch history is cleared on entry from user space, by a loop, clearbhb or firmware: per syscall, not " +
				"per packet; AF_XDP's sendto pays it", LevelNote
		case has("CSV2"):
			return "the CPU predicts the kernel's branches without user space's: nothing on the redirect path", LevelOK
		case has("Branch predictor hardening"):
			return "predictions are flushed by firmware for user space: nothing on the redirect path", LevelOK
		case has("Retpolines"):
			return "indirect calls go through retpolines, unless memory says otherwise (indirect-call)", LevelWarn
		case has("LFENCE"):
			return "an lfence before every indirect branch", LevelWarn
		case has("Enhanced") || has("Automatic IBRS"):
			return "the CPU guards indirect branches; call sites are rewritten to plain indirect calls", LevelOK
		case has("IBRS"):
			return "indirect calls are plain, but IBRS slows all branches while in the kernel, and every entry writes an MSR", LevelWarn
		case off:
			return "indirect calls are plain", LevelNote
		}
	case "spec_rstack_overflow":
		switch {
		case has("Safe RET") || has("safe RET"):
			return "every return goes through a thunk that mispredicts it (return-thunk)", LevelWarn
		case has("IBPB"):
			return "predictors are flushed on kernel entry or on leaving a VM: per syscall or exit, not per packet, but the " +
				"first packets after it run cold", LevelNote
		}
	case "retbleed":
		switch {
		case has("Stuffing"):
			return "every call counts its depth", LevelWarn
		case has("untrained return thunk"):
			return "every return takes a thunk; untraining is paid on kernel entry", LevelNote
		case has("IBPB"):
			return "predictors are flushed on every kernel entry", LevelNote
		case has("IBRS"):
			return "an MSR is written on every kernel entry, not per packet", LevelNote
		}
	case "indirect_target_selection":
		switch {
		case off:
			return "no ITS thunks, so no cost", LevelNote
		case has("Retpolines") || has("Stuffing"):
			return "another mitigation covers it", LevelOK
		case has("thunks"):
			return "indirect calls and some returns take one more direct branch", LevelNote
		}
	case "spectre_v1":
		return "the verifier masks array indexes in BPF programs of unprivileged users only; copies to and from user space " +
			"are fenced, which AF_XDP's copy mode does not use per packet", LevelOK
	case "spec_store_bypass":
		return "only tasks that ask are slowed; BPF programs loaded by root carry no extra fences", LevelOK
	case "meltdown":
		if has("PTI") {
			return "page tables are switched on every syscall and interrupt: per poll at most, not per packet", LevelNote
		}
	case "tsa":
		switch {
		case has(": VM"):
			return "buffers are cleared before a guest is entered: nothing on the redirect path", LevelOK
		case has("Clear"):
			return "buffers are cleared on return to user space: per syscall, not per packet; AF_XDP's sendto pays it", LevelNote
		}
	case "mds", "tsx_async_abort", "mmio_stale_data", "srbds", "reg_file_data_sampling":
		if has("Clear") || has("clear") {
			return "buffers are cleared on return to user space: per syscall, not per packet; AF_XDP's sendto pays it", LevelNote
		}
	case "gather_data_sampling", "l1tf", "itlb_multihit", "old_microcode", "ghostwrite":
		return "nothing on the redirect path", LevelOK
	case "vmscape":
		switch {
		case has("IBPB before exit"):
			return "predictors are flushed on the first return to user space after a guest ran: hosts of guests pay in AF_XDP, " +
				"nothing on the redirect path", LevelOK
		case has("VMEXIT"):
			return "predictors are flushed each time a guest is left: nothing on the redirect path", LevelOK
		}
	}
	if off {
		return "not mitigated, so it costs nothing", LevelNote
	}
	return "", LevelNote
}

// agreement holds what /sys says against what memory says.
func agreement(f Fingerprint, b branches) []Finding {
	const name = "sys-and-memory"
	if b.err != nil || len(f.Mitigations) == 0 {
		return []Finding{unseenf(name, "it takes both kernel memory and /%s", vulnerabilitiesDir)}
	}
	var differ []string
	v2 := f.Mitigations["spectre-v2"]
	// "Mitigation: Enhanced / Automatic IBRS + Retpolines; …": only the
	// first part is about the kernel's own indirect branches.
	v2, _, _ = strings.Cut(v2, ";")
	sysRetpoline, sysLfence := strings.Contains(v2, "Retpolines"), strings.Contains(v2, "LFENCE")
	stalls := b.thunk.Kind == branch.ThunkRetpoline || b.thunk.Kind == branch.ThunkCallDepth
	switch {
	case v2 == "":
	case sysRetpoline && b.thunkName == "":
		differ = append(differ, "/sys says retpolines, but the kernel has no indirect thunk")
	case sysRetpoline && !stalls && b.thunk.Kind != branch.ThunkUnknown:
		differ = append(differ, fmt.Sprintf("/sys says retpolines, but the thunk in memory is a %s", b.thunk.Kind))
	case sysRetpoline && !b.throughThunk() && b.all.total() > 0:
		differ = append(differ, fmt.Sprintf("/sys says retpolines, but call sites are %s", b.callSites()))
	case !sysRetpoline && stalls && b.throughThunk():
		differ = append(differ, fmt.Sprintf("/sys says %q, but call sites go through a %s", v2, b.thunk.Kind))
	case sysLfence != (b.thunk.Kind == branch.ThunkLfence) && b.thunk.Kind != branch.ThunkUnknown && b.thunkName != "" && !sysRetpoline:
		differ = append(differ, fmt.Sprintf("/sys says %q, but the thunk in memory is a %s", v2, b.thunk.Kind))
	}
	if sysRetpoline && b.all.sites[branch.SiteRegister]+b.all.sites[branch.SiteMemory] > 0 && b.throughThunk() {
		differ = append(differ, fmt.Sprintf("/sys says retpolines, but %d indirect branches of the path are bare",
			b.all.sites[branch.SiteRegister]+b.all.sites[branch.SiteMemory]))
	}
	for _, c := range []struct {
		entry, says string
		kind        branch.ReturnKind
	}{
		{"spec-rstack-overflow", "safe ret", branch.ReturnSRSO},
		{"retbleed", "untrained return thunk", branch.ReturnRetbleed},
		{"indirect-target-selection", "return thunks", branch.ReturnITS},
		{"retbleed", "stuffing", branch.ReturnCallDepth},
	} {
		state, ok := f.Mitigations[c.entry]
		if !ok || b.returnKind == branch.ReturnUnknown {
			continue
		}
		says := strings.Contains(strings.ToLower(state), c.says)
		// The SRSO thunk does the work of the retbleed one too.
		covered := c.kind == branch.ReturnRetbleed && b.returnKind == branch.ReturnSRSO
		switch {
		case says && b.returnKind != c.kind && !covered && !strings.HasPrefix(state, "Vulnerable"):
			differ = append(differ, fmt.Sprintf("/sys %s says %q, but returns in memory are a %s", c.entry, state, b.returnKind))
		case says && b.returnKind == c.kind && strings.HasPrefix(state, "Vulnerable"):
			differ = append(differ, fmt.Sprintf("/sys %s begins with Vulnerable, yet memory has the %s and every return pays "+
				"for it", c.entry, c.kind))
		case !says && b.returnKind == c.kind && state == "Not affected":
			differ = append(differ, fmt.Sprintf("/sys %s says %q, but returns in memory go through the %s", c.entry, state, c.kind))
		}
	}
	if len(differ) == 0 {
		return []Finding{{Name: name, Found: "agree", Level: LevelOK,
			Means: "what /sys says about indirect branches and returns is what the text does"}}
	}
	return []Finding{{Name: name, Found: strings.Join(differ, "; "), Level: LevelNote,
		Means: "trust memory: it is what packets run through"}}
}
