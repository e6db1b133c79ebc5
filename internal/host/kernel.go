package host

import (
	"errors"
	"regexp"
	"strings"
)

func (m *machine) kernel(f *Fingerprint) []Finding {
	var rows []Finding
	banner, err := m.read("proc/version")
	if err != nil {
		rows = append(rows, unseen("kernel", err), unseen("compiler", err))
	} else {
		v := parseVersion(banner)
		f.Kernel, f.KernelBuild, f.Compiler = v.release, v.build, v.compiler
		row := Finding{Name: "kernel", Found: v.release + " " + v.build, Level: LevelOK}
		if strings.Contains(v.build, "PREEMPT_RT") {
			row.Level = LevelNote
			row.Means = "softirqs run in threads with locks around them: redirecting costs more than on other kernels"
		}
		rows = append(rows, row, compilerRow(v.compiler))
	}
	line, err := m.read("proc/cmdline")
	if err != nil {
		return append(rows, unseen("boot-params", err))
	}
	params := bootParams(line)
	f.BootParams = strings.Join(params, " ")
	row := Finding{Name: "boot-params", Found: f.BootParams, Level: LevelOK}
	if len(params) == 0 {
		row.Found = "none that matter"
		row.Means = "mitigations, IOMMU and idle states are as the kernel was built"
	} else {
		row.Level = LevelNote
		row.Means = "these change mitigations, DMA mapping or the quiet of a core: only machines with the same parameters can be compared"
	}
	return append(rows, row)
}

func compilerRow(compiler string) Finding {
	row := Finding{Name: "compiler", Found: compiler, Level: LevelOK}
	if compiler == "" {
		return unseen("compiler", errors.New("/proc/version does not name it"))
	}
	row.Means = "it decides whether indirect calls could be built as thunk calls at all; a new one under the same source moves the rate"
	return row
}

type version struct{ release, build, compiler string }

// parseVersion reads the banner of /proc/version:
//
//	Linux version RELEASE (user@host) (COMPILER, LINKER) BUILD
//
// Before Linux 5.8 the compiler had the second parentheses to itself, as in
// "(gcc version 4.8.5 20150623 (Red Hat 4.8.5-36) (GCC) )".
func parseVersion(banner string) version {
	var v version
	rest, ok := strings.CutPrefix(banner, "Linux version ")
	if !ok {
		return v
	}
	v.release, rest, _ = strings.Cut(rest, " ")
	_, rest = parentheses(rest)
	tools, rest := parentheses(rest)
	v.build = strings.TrimSpace(rest)
	// The linker is what follows the last comma outside of parentheses.
	depth, cut := 0, len(tools)
	for i, c := range tools {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				cut = i
			}
		}
	}
	v.compiler = compiler(strings.TrimSpace(tools[:cut]))
	return v
}

// compiler makes "gcc 12.2.0 (Debian 12.2.0-14+deb12u1)" of the forms that
// gcc and clang print.
func compiler(s string) string {
	old := regexp.MustCompile(`^(gcc|clang) version (\S+)`)
	if m := old.FindStringSubmatch(s); m != nil {
		return m[1] + " " + m[2]
	}
	clang := regexp.MustCompile(`clang version (\S+)`)
	if m := clang.FindStringSubmatch(s); m != nil {
		return "clang " + m[1]
	}
	// "x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14) 12.2.0", "gcc (GCC) 15.3.0"
	gcc := regexp.MustCompile(`^\S*gcc\S* \((.*)\) (\S+)`)
	if m := gcc.FindStringSubmatch(s); m != nil {
		if m[1] == "GCC" {
			return "gcc " + m[2]
		}
		return "gcc " + m[2] + " (" + m[1] + ")"
	}
	return s
}

// parentheses splits s after its first balanced pair of parentheses.
func parentheses(s string) (inside, rest string) {
	start := strings.IndexByte(s, '(')
	if start < 0 {
		return "", s
	}
	depth := 0
	for i := start; i < len(s); i++ {
		switch s[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return s[start+1 : i], s[i+1:]
			}
		}
	}
	return s[start+1:], ""
}

// matters are boot parameters of Documentation/admin-guide/
// kernel-parameters.txt that change what a redirected packet runs through,
// or how steady its core is. A trailing dot stands for a module's own ones.
const matters = `
mitigations spectre_v1 spectre_v2 spectre_v2_user spectre_bhi nospectre_v1 nospectre_v2 retbleed spec_rstack_overflow
spec_store_bypass_disable nospec_store_bypass_disable indirect_target_selection mds mmio_stale_data l1tf srbds tsa tsx
tsx_async_abort gather_data_sampling reg_file_data_sampling vmscape attack_vector pti nopti l1d_flush kvm.nx_huge_pages
cfi ibt nosmep nosmap lockdown microcode dis_ucode_ldr clearcpuid
iommu intel_iommu amd_iommu iommu.strict iommu.passthrough swiotlb dma_debug dma_debug_driver pci pcie_aspm
isolcpus nohz nohz_full rcu_nocbs rcu_nocb_poll irqaffinity kthread_cpus threadirqs preempt skew_tick nosmt maxcpus nr_cpus
idle intel_idle. processor. cpuidle. cpuidle_haltpoll. haltpoll. intel_pstate amd_pstate cpufreq. noapic nox2apic
tsc clocksource hpet nowatchdog nmi_watchdog nosoftlockup audit numa_balancing transparent_hugepage hugepages hugepagesz
default_hugepagesz init_on_alloc init_on_free page_poison page_owner slub_debug slab_debug slab_nomerge kasan kasan. kfence. kmemleak
debug_pagealloc ftrace trace_event psi bpf_jit_enable`

func bootParams(line string) []string {
	known := make(map[string]bool)
	for _, name := range strings.Fields(matters) {
		known[name] = true
	}
	var out []string
	for _, param := range strings.Fields(line) {
		if param == "--" { // what follows is for init
			break
		}
		// The kernel takes - and _ for the same in names.
		name, _, _ := strings.Cut(param, "=")
		name = strings.ReplaceAll(name, "-", "_")
		module, _, isModule := strings.Cut(name, ".")
		if known[name] || isModule && known[module+"."] {
			out = append(out, param)
		}
	}
	return out
}

func (m *machine) bpf(f *Fingerprint) []Finding {
	const dir = "proc/sys/net/core/"
	var rows []Finding
	jit, err := m.read(dir + "bpf_jit_enable")
	switch {
	case err != nil:
		rows = append(rows, unseen("bpf-jit", err))
	case jit == "0":
		f.BPFJIT = "off"
		rows = append(rows, Finding{Name: "bpf-jit", Found: "off", Level: LevelWarn,
			Means: "XDP programs are interpreted, several times slower",
			Do:    "sysctl net.core.bpf_jit_enable=1"})
	case jit == "2":
		f.BPFJIT = "on, debug"
		rows = append(rows, Finding{Name: "bpf-jit", Found: "on, with debug output", Level: LevelNote,
			Means: "loading a program fills the kernel log; running it is not slower",
			Do:    "sysctl net.core.bpf_jit_enable=1"})
	default:
		f.BPFJIT = "on"
		rows = append(rows, Finding{Name: "bpf-jit", Found: "on", Level: LevelOK,
			Means: "XDP programs run as machine code, with the same thunks as the kernel's own"})
	}
	harden, err := m.read(dir + "bpf_jit_harden")
	switch {
	case err != nil:
		rows = append(rows, unseen("bpf-jit-harden", err))
	case harden == "2":
		f.BPFHarden = "for all"
		rows = append(rows, Finding{Name: "bpf-jit-harden", Found: "for all programs", Level: LevelWarn,
			Means: "every constant of an XDP program is blinded: more instructions per packet",
			Do:    "sysctl net.core.bpf_jit_harden=1 if policy allows, then load the programs again"})
	case harden == "1":
		f.BPFHarden = "for unprivileged"
		rows = append(rows, Finding{Name: "bpf-jit-harden", Found: "for unprivileged programs only", Level: LevelOK,
			Means: "programs loaded by root are not touched"})
	default:
		f.BPFHarden = "off"
		rows = append(rows, Finding{Name: "bpf-jit-harden", Found: "off", Level: LevelOK})
	}
	kallsyms, err := m.read(dir + "bpf_jit_kallsyms")
	switch {
	case err != nil:
		rows = append(rows, unseen("bpf-jit-kallsyms", err))
	case kallsyms == "0" || harden == "1" || harden == "2":
		// bpf_jit_kallsyms_enabled: hardening hides programs from kallsyms.
		row := Finding{Name: "bpf-jit-kallsyms", Found: "programs not shown", Level: LevelNote,
			Means: "profilers see XDP programs as unknown addresses",
			Do:    "sysctl net.core.bpf_jit_kallsyms=1"}
		if kallsyms != "0" {
			row.Found = "programs not shown, as hardening hides them"
			row.Do = "sysctl net.core.bpf_jit_harden=0 while profiling"
		}
		rows = append(rows, row)
	default:
		rows = append(rows, Finding{Name: "bpf-jit-kallsyms", Found: "programs shown", Level: LevelOK,
			Means: "profilers see XDP programs by name"})
	}
	if stats, err := m.read("proc/sys/kernel/bpf_stats_enabled"); err == nil {
		row := Finding{Name: "bpf-stats", Found: "off", Level: LevelOK}
		if stats != "0" {
			row.Found, row.Level = "on", LevelWarn
			row.Means = "the clock is read twice around every run of a BPF program: tax prices that as run-statistics"
			row.Do = "sysctl kernel.bpf_stats_enabled=0"
		}
		rows = append(rows, row)
	}
	return rows
}
