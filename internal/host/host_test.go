package host

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/safchain/ethtool"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

func TestParseVersion(t *testing.T) {
	for _, tt := range []struct {
		banner string
		want   version
	}{
		{"Linux version 6.18.44 (builder@host) (gcc (GCC) 15.3.0, GNU ld (GNU Binutils) 2.46) #1 SMP PREEMPT_DYNAMIC @0",
			version{"6.18.44", "#1 SMP PREEMPT_DYNAMIC @0", "gcc 15.3.0"}},
		{"Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld (GNU " +
			"Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)",
			version{"6.1.0-18-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)", "gcc 12.2.0 (Debian 12.2.0-14)"}},
		{"Linux version 6.8.0-31-generic (buildd@lcy02) (x86_64-linux-gnu-gcc-13 (Ubuntu 13.2.0-23ubuntu4) 13.2.0, GNU ld " +
			"(GNU Binutils for Ubuntu) 2.42) #31-Ubuntu SMP",
			version{"6.8.0-31-generic", "#31-Ubuntu SMP", "gcc 13.2.0 (Ubuntu 13.2.0-23ubuntu4)"}},
		{"Linux version 3.10.0-862.el7.x86_64 (builder@kbuilder.dev.centos.org) (gcc version 4.8.5 20150623 (Red Hat " +
			"4.8.5-28) (GCC) ) #1 SMP Fri Apr 20 16:44:24 UTC 2018",
			version{"3.10.0-862.el7.x86_64", "#1 SMP Fri Apr 20 16:44:24 UTC 2018", "gcc 4.8.5"}},
		{"Linux version 6.10.0 (me@host) (clang version 18.1.8 (Fedora 18.1.8-1.fc40), LLD 18.1.8) #2 SMP",
			version{"6.10.0", "#2 SMP", "clang 18.1.8"}},
		{"Linux version 5.15.0-android (build@host) (Android (8508608, based on r450784e) clang version 14.0.7 " +
			"(https://example.org 4c60), LLD 14.0.7) #1",
			version{"5.15.0-android", "#1", "clang 14.0.7"}},
		{"Linux version 6.0", version{release: "6.0"}},
		{"Linux version 6.0 (a (b", version{release: "6.0"}},
		{"FreeBSD", version{}},
		{"", version{}},
	} {
		if diff := cmp.Diff(tt.want, parseVersion(tt.banner), cmp.AllowUnexported(version{})); diff != "" {
			t.Errorf("%s\n%s", tt.banner, diff)
		}
	}
}

// Whatever a kernel calls itself, what is found is in it.
func FuzzParseVersion(f *testing.F) {
	f.Add("Linux version 6.1.0-28-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld (GNU " +
		"Binutils) 2.40) #1 SMP")
	f.Add("Linux version 3.10 (x) (gcc version 4.8.5 20150623 (Red Hat 4.8.5-36) (GCC) ) #1")
	f.Fuzz(func(t *testing.T, banner string) {
		v := parseVersion(banner)
		if !strings.Contains(banner, v.release) || !strings.Contains(banner, v.build) {
			t.Errorf("%+v of %q", v, banner)
		}
	})
}

func TestBootParams(t *testing.T) {
	got := bootParams("BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet mitigations=off spec-rstack-overflow=off " +
		"intel_idle.max_cstate=1 iommu.strict=0 isolcpus=2-3 kvm.nx_huge_pages=off init=/x -- mitigations=auto")
	want := []string{"mitigations=off", "spec-rstack-overflow=off", "intel_idle.max_cstate=1", "iommu.strict=0",
		"isolcpus=2-3", "kvm.nx_huge_pages=off"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }

// server is a bare-metal machine with an mlx5 behind an IOMMU.
func server() fstest.MapFS {
	v := "sys/devices/system/cpu/vulnerabilities/"
	return fstest.MapFS{
		"proc/version": file("Linux version 6.12.1 (a@b) (gcc (GCC) 14.2.0, GNU ld 2.43) #1 SMP PREEMPT_RT"),
		"proc/cmdline": file("quiet swiotlb=force"),
		"proc/cpuinfo": file("processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold\ncpu family\t: 6\nmodel\t\t: " +
			"106\nstepping\t: 6\nmicrocode\t: 0xd0003d1\n" +
			"flags\t\t: fpu ibrs_enhanced\n\nprocessor\t: 1\nmodel name\t: Intel(R) Xeon(R) Gold\n"),
		"proc/stat":                         file("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3"),
		"proc/sys/net/core/bpf_jit_enable":  file("1"),
		"proc/sys/net/core/bpf_jit_harden":  file("2"),
		"proc/sys/kernel/bpf_stats_enabled": file("1"),
		"sys/devices/system/cpu/smt/active": file("1"), "sys/devices/system/cpu/smt/control": file("on"),
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": file("powersave"),
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_driver":   file("intel_pstate"),
		"sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": file("performance"),
		"sys/devices/system/cpu/cpufreq/boost":                 file("1"),
		v + "spectre_v2":                                       file("Mitigation: Enhanced / Automatic IBRS; IBPB: conditional"),
		v + "mds":                                              file("Not affected"),
		v + "mmio_stale_data":                                  file("Mitigation: Clear CPU buffers; SMT vulnerable"),
		"sys/class/net/lo/ifindex":                             file("1"), "sys/class/net/lo/type": file("772"),
		"sys/class/net/bonding_masters": file(""),
		"sys/class/net/p0/ifindex":      file("2"), "sys/class/net/p0/type": file("1"), "sys/class/net/p0/mtu": file("1500"),
		"sys/class/net/p0/operstate": file("up"), "sys/class/net/p0/speed": file("100000"),
		"sys/class/net/p0/device/numa_node":        file("1"),
		"sys/class/net/p0/device/driver":           {Data: []byte("../../../bus/pci/drivers/mlx5_core"), Mode: fs.ModeSymlink | 0o777},
		"sys/class/net/p0/device/iommu_group/type": file("DMA-FQ"),
		"sys/class/iommu/dmar0":                    file(""),
		"sys/kernel/iommu_groups/0/type":           file("DMA-FQ"),
		"sys/kernel/iommu_groups/1/type":           file("identity"),
	}
}

func find(t *testing.T, rows []Finding, name string) Finding {
	t.Helper()
	for _, r := range rows {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("no row %q", name)
	return Finding{}
}

func TestCheckServer(t *testing.T) {
	f, rows, err := Check(t.Context(), Options{Root: server(), StealWindow: time.Microsecond})
	if err != nil {
		t.Fatal(err)
	}
	if f.CPUs != 2 || f.Virtual != "none" || f.Governor != "performance, powersave" || f.SMT != "on" || f.Drivers["p0"] != "mlx5_core" {
		t.Errorf("%+v", f)
	}
	for _, tt := range []struct {
		name, found string
		level       Level
	}{
		{"cpu", "Xeon(R) Gold, family 6 model 106 stepping 6, microcode 0xd0003d1, 2 CPUs", LevelOK},
		{"virtual-machine", "no", LevelOK},
		{"kernel", "6.12.1 #1 SMP PREEMPT_RT", LevelNote},
		{"compiler", "gcc 14.2.0", LevelOK},
		{"boot-params", "swiotlb=force", LevelNote},
		{"indirect-call", "not seen", LevelUnknown},
		{"sys-and-memory", "not seen", LevelUnknown},
		{"vulnerability-spectre-v2", "Enhanced / Automatic", LevelOK},
		{"vulnerability-mds", "Not affected", LevelOK},
		{"vulnerability-mmio-stale-data", "Clear CPU buffers", LevelNote},
		{"bpf-jit-harden", "for all programs", LevelWarn},
		{"bpf-jit-kallsyms", "not seen: there is no /proc", LevelUnknown},
		{"bpf-stats", "on", LevelWarn},
		{"smt", "siblings online", LevelNote},
		{"cpufreq-governor", "powersave", LevelWarn},
		{"steal-time", "0.0 %", LevelOK},
		{"nic-p0", "mlx5_core, up, 100 Gbit/s, MTU 1500, NUMA node 1, IOMMU DMA-FQ", LevelNote},
		{"iommu", "1 units, groups: 1 DMA-FQ, 1 identity", LevelWarn},
		{"swiotlb", "forced", LevelWarn},
	} {
		r := find(t, rows, tt.name)
		if !strings.Contains(r.Found, tt.found) || r.Level != tt.level {
			t.Errorf("%s: %q, %s", r.Name, r.Found, r.Level)
		}
	}
	kebab := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	seen := make(map[string]bool)
	for _, r := range rows {
		if !kebab.MatchString(r.Name) || seen[r.Name] || r.Found == "" {
			t.Errorf("row %+v", r)
		}
		seen[r.Name] = true
	}
}

// TestCheckNothing runs where neither proc nor sys is.
func TestCheckNothing(t *testing.T) {
	f, rows, err := Check(t.Context(), Options{Root: fstest.MapFS{}, StealWindow: time.Microsecond})
	if err != nil {
		t.Fatal(err)
	}
	if f.CPU != "" || find(t, rows, "cpu").Level != LevelUnknown {
		t.Errorf("%+v", f)
	}
}

// code is that of a made-up kernel: two functions and their thunks.
type code struct {
	thunk, site, ret string
	retName          string
	before           string // of the function
}

const (
	thunkAddr = 0xffffffff82200000
	retAddr   = 0xffffffff82200100
	siteAddr  = 0xffffffff82200200
)

func (c code) read(t *testing.T) branches {
	t.Helper()
	text := make([]byte, 0x300)
	for i := range text {
		text[i] = 0x90
	}
	copy(text, c.thunk)
	copy(text[0x100:], c.ret)
	fn := []byte(c.site)
	// X and R stand for direct distances to the thunk and the return thunk.
	for i := 0; i+5 <= len(fn); i++ {
		target := map[string]uint64{"XXXX": thunkAddr, "RRRR": retAddr}[string(fn[i+1:i+5])]
		if target != 0 {
			binary.LittleEndian.PutUint32(fn[i+1:], uint32(target-(siteAddr+uint64(i)+5)))
		}
	}
	copy(text[0x200:], fn)
	copy(text[0x200-len(c.before):], c.before)
	symbols, err := ksym.New([]ksym.Symbol{
		{Addr: thunkAddr, Size: 32, Type: 'T', Name: "__x86_indirect_thunk_array"},
		{Addr: thunkAddr, Size: 32, Type: 'T', Name: "__x86_indirect_thunk_rax"},
		{Addr: retAddr, Size: 32, Type: 'T', Name: c.retName},
		{Addr: siteAddr, Size: uint64(len(fn)), Type: 't', Name: "bq_xmit_all"},
		{Addr: siteAddr, Type: 't', Name: "veth_poll"},
		{Addr: 0x1000, Size: 10, Type: 't', Name: "dev_map_enqueue"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return readBranches(kernel.New(ktext.Bytes{Addr: thunkAddr, Code: text}, symbols, nil))
}

const retpoline = "\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xc3\xcc"

// On arm64 there are no thunks: check says what stands in the code, what /sys says of it and that there is no dispatcher.
func TestBranchesARM64(t *testing.T) {
	const at = 0xffff800080010000
	text := []byte("\x00\x01\x3f\xd6\xc0\x03\x5f\xd6") // blr x8; ret
	symbols, err := ksym.New([]ksym.Symbol{
		{Addr: at, Size: 8, Type: 't', Name: "bq_xmit_all"}, {Addr: at + 8, Size: 8, Type: 't', Name: "bpf_dispatcher_xdp_func"},
	})
	if err != nil {
		t.Fatal(err)
	}
	k := kernel.New(ktext.Bytes{Addr: at, Code: text}, symbols, nil)
	k.Arch = "arm64"
	b := readBranches(k)
	if b.err != nil {
		t.Fatal(b.err)
	}
	f := Fingerprint{Mitigations: map[string]string{"spectre-v2": "Mitigation: CSV2, BHB"}}
	rows := append(branchRows(&f, nil, b), agreement(f, b)...)
	if f.IndirectThunk != "none" || f.ReturnThunk != "ret" || f.CallSites != "blr and br, as compiled" || f.CFI != "off" {
		t.Errorf("%+v", f)
	}
	for name, want := range map[string]string{
		"indirect-call": "arm64 has no thunks", "call-sites": "make 1 indirect calls and 0", "sys-and-memory": "agree",
	} {
		if got := find(t, rows, name).Found; !strings.Contains(got, want) {
			t.Errorf("%s: %s", name, got)
		}
	}
	if _, _, err := k.Dispatcher(); !errors.Is(err, kernel.ErrNoDispatcher) {
		t.Errorf("dispatcher: %v", err)
	}
	for state, want := range map[string]string{
		"Mitigation: CSV2, BHB": "per syscall", "Mitigation: CSV2, but not BHB": "nothing on syscalls", "Mitigation: CSV2": "nothing on",
		"Mitigation: Branch predictor hardening": "firmware", "Vulnerable": "plain",
	} {
		if means, _ := mitigationCost("spectre_v2", state); !strings.Contains(means, want) {
			t.Errorf("%s: %q, want %q", state, means, want)
		}
	}
}

func TestBranches(t *testing.T) {
	if !x86() {
		testutil.Missing(t, "amd64")
	}
	for _, tt := range []struct {
		name      string
		code      code
		v2, srso  string
		its       string
		thunk     string
		returns   string
		callSites string
		agree     string
	}{
		{"retpoline and srso", code{retpoline, "\xe8XXXX\xe9RRRR", "\xe8\x00\x00\x00\x00\x0f\x0b", "srso_return_thunk", ""},
			"Mitigation: Retpolines; STIBP: disabled", "Mitigation: Safe RET", "Not affected",
			"retpoline", "srso_return_thunk", "through thunks", "agree"},
		{"without microcode", code{retpoline, "\xe8XXXX\xe9RRRR", "\xe8\x00\x00\x00\x00\x0f\x0b", "srso_return_thunk", ""},
			"Mitigation: Retpolines", "Vulnerable: Safe RET, no microcode", "Not affected",
			"retpoline", "srso_return_thunk", "through thunks", "begins with Vulnerable"},
		{"enhanced ibrs", code{"\xff\xe0\xcc", "\xff\xd0\x0f\x1f\x00\xc3\xcc", "\xc3\xcc", "__x86_return_thunk", ""},
			"Mitigation: Enhanced / Automatic IBRS; IBPB", "Not affected", "Not affected",
			"plain jmp", "ret", "rewritten to call *reg", "agree"},
		{"lfence", code{"\x0f\xae\xe8\xff\xe0\xcc", "\x0f\xae\xe8\xff\xd0\xc3\xcc", "\xc3\xcc", "__x86_return_thunk", ""},
			"Mitigation: LFENCE", "Not affected", "Not affected",
			"lfence; jmp", "ret", "rewritten to lfence; call *reg", "agree"},
		{"sys says retpolines, memory does not", code{"\xff\xe0\xcc", "\xff\xd0\x0f\x1f\x00\xc3\xcc", "\xc3\xcc", "__x86_return_thunk", ""},
			"Mitigation: Retpolines", "Not affected", "Not affected",
			"plain jmp", "ret", "rewritten to call *reg", "thunk in memory is a plain jmp"},
		{"retpolines nobody calls", code{retpoline, "\xff\xd0\x0f\x1f\x00\xc3\xcc", "\xc3\xcc", "__x86_return_thunk", ""},
			"Mitigation: Retpolines", "Not affected", "Not affected",
			"retpoline", "ret", "rewritten to call *reg", "call sites are rewritten"},
		{"memory has retpolines, sys does not", code{retpoline, "\xe8XXXX\xc3\xcc", "\xc3\xcc", "__x86_return_thunk", ""},
			"Vulnerable", "Not affected", "Not affected",
			"retpoline", "ret", "through thunks", "go through a retpoline"},
		{"its", code{retpoline, "\xe8XXXX\xe9RRRR", "\xc3\xcc", "its_return_thunk", ""},
			"Mitigation: Retpolines", "Not affected", "Mitigation: Aligned branch/return thunks",
			"retpoline", "its_return_thunk", "through thunks", "agree"},
		{"safe ret that is not there", code{retpoline, "\xe8XXXX\xc3\xcc", "\xc3\xcc", "its_return_thunk", ""},
			"Mitigation: Retpolines", "Mitigation: Safe RET", "Not affected",
			"retpoline", "ret", "through thunks", "but returns in memory are a plain ret"},
		{"no retpolines built", code{"", "\xff\x50\x08\xc3", "", "x", ""},
			"Vulnerable", "Not affected", "Not affected",
			"unknown", "ret", "call *mem, as compiled without retpolines", "agree"},
	} {
		f := Fingerprint{Mitigations: map[string]string{"spectre-v2": tt.v2, "spec-rstack-overflow": tt.srso,
			"indirect-target-selection": tt.its}}
		b := tt.code.read(t)
		if b.err != nil {
			t.Errorf("%s: %v", tt.name, b.err)
			continue
		}
		rows := append(branchRows(&f, nil, b), agreement(f, b)...)
		if f.IndirectThunk != tt.thunk || f.ReturnThunk != tt.returns || f.CallSites != tt.callSites {
			t.Errorf("%s: thunk %q, returns %q, sites %q", tt.name, f.IndirectThunk, f.ReturnThunk, f.CallSites)
		}
		if got := find(t, rows, "sys-and-memory").Found; !strings.Contains(got, tt.agree) {
			t.Errorf("%s: sys and memory: %s", tt.name, got)
		}
		if b.unread != 1 {
			t.Errorf("%s: %d functions unread, want dev_map_enqueue", tt.name, b.unread)
		}
	}
}

// TestCFI reads the mode from code (see branch/cfi.go): nothing in /sys has it.
func TestCFI(t *testing.T) {
	if !x86() {
		testutil.Missing(t, "amd64")
	}
	const (
		hash     = "\x78\x56\x34\x12"
		call     = "\x41\xff\xd3"
		kcfi     = "\x41\xba" + hash + "\x45\x03\x53\xf1\x74\x02\x0f\x0b"
		udb      = "\x41\xba" + hash + "\x45\x03\x53\xf1\x75\x01\xa8\xd6"
		off      = "\xeb\x0c" + hash + "\x45\x03\x53\xf1\x74\x02\x0f\x0b"
		fineibt  = "\xb8" + hash + "\x4d\x8d\x5b\xf0\x0f\x1f\x44\x00\x00"
		paranoid = "\xb8" + hash + "\x41\x3b\x43\xf5\x2e\x4d\x8d\x5b\xf0\x75\xfd"
		preamble = "\xf3\x0f\x1e\xfa\x2d" + hash + "\x2e\x0f\x85\x03\x00\x00\x00"
		poisons  = "\xf3\x0f\x1e\xfa\x2d" + hash + "\x48\x0f\x45\xf8\x2e\x75\x03"
		ret      = "\xc3"
	)
	for _, tt := range []struct {
		site, before string
		mode, found  string
		means        string
		level        Level
	}{
		{call + ret, "", "off", "off: 0 of 1 indirect branches", "", LevelOK},
		{off + call + ret, "", "off", "off: 0 of 1 indirect branches", "a jump over its check", LevelOK},
		{kcfi + call + call + ret, "", "kcfi", "kcfi: 1 of 2 indirect branches", "one of which loads from the text", LevelNote},
		{udb + call + ret, "", "kcfi", "kcfi: 1 of 1 indirect branches", "runs 4 instructions more, one of which loads", LevelNote},
		{fineibt + call + ret, preamble, "fineibt", "fineibt: 1 of 1", "at least 3 more before its first", LevelNote},
		{fineibt + call + ret, poisons, "fineibt,bhi", "fineibt,bhi: 1 of 1", "1 of 1 such functions also set arguments to 0", LevelNote},
		{paranoid + call + ret, preamble, "fineibt,paranoid", "fineibt,paranoid: 1 of 1", "runs 4 instructions more and loads", LevelNote},
		{paranoid + call + ret, poisons, "fineibt,paranoid,bhi", "fineibt,paranoid,bhi: 1 of 1", "1 of 1 such functions", LevelNote},
	} {
		b := code{retpoline, tt.site, "\xc3\xcc", "__x86_return_thunk", tt.before}.read(t)
		if b.err != nil {
			t.Fatal(b.err)
		}
		var f Fingerprint
		row := find(t, branchRows(&f, nil, b), "cfi")
		if f.CFI != tt.mode || !strings.Contains(row.Found, tt.found) || !strings.Contains(row.Means, tt.means) || row.Level != tt.level ||
			(tt.means == "") != (row.Means == "") || (row.Do != "") != (tt.level == LevelNote) {
			t.Errorf("%q, want %q: %+v", f.CFI, tt.mode, row)
		}
	}
}

// A return that the kernel missed goes through a thunk that warns (Linux 6.9).
func TestUnpatchedReturn(t *testing.T) {
	b := branches{returns: branch.Returns{"warn_thunk_thunk": 1}, returnThunk: "__x86_return_thunk", returnKind: branch.ReturnUnpatched}
	b.all.returns = 1
	var f Fingerprint
	if row := returnRow("return-thunk", &f, nil, b); row.Level != LevelWarn || !strings.Contains(row.Means, "left these returns out") {
		t.Errorf("%+v", row)
	}
}

// The states of VMSCAPE and TSA, by vmscape_strings and tsa_strings in arch/x86/kernel/cpu/bugs.c of Linux 7.2.13.
func TestMitigationCostNew(t *testing.T) {
	for _, tt := range []struct {
		entry, state, means string
		level               Level
	}{
		{"vmscape", "Mitigation: IBPB before exit to userspace", "after a guest ran", LevelOK},
		{"vmscape", "Mitigation: IBPB on VMEXIT", "each time a guest is left", LevelOK},
		{"vmscape", "Vulnerable", "not mitigated", LevelNote},
		{"tsa", "Mitigation: Clear CPU buffers", "on return to user space", LevelNote},
		{"tsa", "Mitigation: Clear CPU buffers: user/kernel boundary", "on return to user space", LevelNote},
		{"tsa", "Mitigation: Clear CPU buffers: VM", "before a guest is entered", LevelOK},
		{"tsa", "Vulnerable: No microcode", "not mitigated", LevelNote},
	} {
		means, level := mitigationCost(tt.entry, tt.state)
		if !strings.Contains(means, tt.means) || level != tt.level {
			t.Errorf("%s, %s: %q, %s", tt.entry, tt.state, means, level)
		}
	}
}

func TestBranchesUnseen(t *testing.T) {
	b := branches{err: &feature.Missing{Feature: "root"}}
	var f Fingerprint
	for _, row := range append(branchRows(&f, nil, b), agreement(f, b)...) {
		if row.Level != LevelUnknown {
			t.Errorf("%+v", row)
		}
	}
	if f.IndirectThunk != "" || f.ReturnThunk != "" || f.CallSites != "" || f.CFI != "" {
		t.Errorf("%+v", f)
	}
}

// TestFieldsComplete fails when a field of Fingerprint is not in Fields.
func TestFieldsComplete(t *testing.T) {
	f := Fingerprint{Mitigations: map[string]string{"a": "b"}, Drivers: map[string]string{"eth0": "x"}, CFI: "off"}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	for _, field := range f.Fields() {
		name, _, _ := strings.Cut(field.Name, "/")
		have[name] = true
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(m)), slices.Sorted(maps.Keys(have))); diff != "" {
		t.Error(diff)
	}
}

func TestXDPFeatures(t *testing.T) {
	for x, want := range map[XDPFeatures]string{
		0:                         "none",
		XDPBasic | XDPRedirect:    "basic, redirect",
		XDPNdoXmitSG | 1<<20:      "ndo-xmit-sg, 0x100000",
		XDPXskZerocopy | XDPRxSG:  "xsk-zerocopy, rx-sg",
		XDPHWOffload | XDPNdoXmit: "ndo-xmit, hw-offload",
	} {
		if got := x.String(); got != want {
			t.Errorf("%#x: %q, want %q", uint64(x), got, want)
		}
	}
}

// TestFeaturesLive asks about loopback, which has no XDP of its own.
func TestFeaturesLive(t *testing.T) {
	x, err := Features(1)
	testutil.SkipMissing(t, err)
	if err != nil || x != 0 {
		t.Errorf("%v %v", x, err)
	}
	if _, err := Features(1 << 30); err == nil {
		t.Error("an interface that does not exist has features")
	}
}

func TestIdentifyLive(t *testing.T) {
	f := Identify(Options{})
	if f.Kernel == "" || f.CPUs == 0 {
		t.Errorf("%+v", f)
	}
	testutil.Root(t)
	b := newMachine(Options{}).readBranches()
	testutil.SkipMissing(t, b.err)
	testutil.AMD64(t)
	if b.err != nil {
		t.Fatal(b.err)
	}
	if f.IndirectThunk == string(branch.ThunkUnknown) || b.returnKind == branch.ReturnUnknown {
		t.Errorf("a thunk of this kernel is not known: %+v, %s", b.thunk, b.returnThunk)
	}
	if b.core.functions < 20 || b.core.total() == 0 || b.all.returns == 0 || b.unread > 0 {
		t.Errorf("read too little: %+v", b)
	}
}

func TestHypervisorName(t *testing.T) {
	for in, want := range map[string]string{"KVMKVMKVM": "KVM", "Microsoft Hv": "Hyper-V", "else": "else", "": "",
		"bhyve bhyve": "bhyve", "two words": "two words"} {
		if got := hypervisorName(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestObserversRow(t *testing.T) {
	monitor := Observer{Tracepoint: "xdp_redirect", Program: "xdpmon"}
	for _, tt := range []struct {
		found []Observer
		err   error
		level Level
		said  string
		do    bool
	}{
		{nil, nil, LevelOK, "none attached", false},
		{[]Observer{monitor, {Tracepoint: "xdp_cpumap_kthread"}}, nil, LevelWarn, "at xdp_cpumap_kthread, xdpmon at xdp_redirect", true},
		{[]Observer{{Tracepoint: "xdp_exception", Program: "errors"}}, nil, LevelNote, "errors at xdp_exception", false},
		{nil, fmt.Errorf("list BPF links: %w", fs.ErrPermission), LevelUnknown, "not seen: listing BPF links needs root", false},
		{nil, errors.New("x"), LevelUnknown, "not seen: x", false},
	} {
		row := observersRow(tt.found, tt.err)
		if row.Name != "xdp-observers" || row.Level != tt.level || row.Found != tt.said || (row.Do != "") != tt.do {
			t.Errorf("%v, %v: %+v", tt.found, tt.err, row)
		}
	}
}

func TestDispatcherRow(t *testing.T) {
	for _, tt := range []struct {
		programs int
		err      error
		level    Level
		said     string
		do       bool
	}{
		{0, nil, LevelOK, "0 of 48 dispatcher slots taken", false},
		{48, nil, LevelWarn, "48 of 48 dispatcher slots taken", true},
		{0, kernel.ErrNoDispatcher, LevelNote, "none: this kernel has no BPF dispatcher for XDP", false},
		{0, errors.New("x"), LevelUnknown, "not seen: x", false},
	} {
		row := dispatcherRow(tt.programs, tt.err)
		if row.Name != "xdp-dispatcher" || row.Level != tt.level || row.Found != tt.said || (row.Do != "") != tt.do {
			t.Errorf("%d, %v: %+v", tt.programs, tt.err, row)
		}
	}
}

// Advice is for a device that redirects and has each frame raise an interrupt.
func TestCoalescingRow(t *testing.T) {
	for _, tt := range []struct {
		c               ethtool.Coalesce
		flush, deferred string
		attached        bool
		level           Level
		said            string
		do              bool
	}{
		{ethtool.Coalesce{RxCoalesceUsecs: 8}, "0", "0", true, LevelOK, "rx-usecs 8, rx-frames 0", false},
		{ethtool.Coalesce{UseAdaptiveRxCoalesce: 1}, "0", "0", true, LevelOK, "rx-usecs 0, rx-frames 0, adaptive", false},
		{ethtool.Coalesce{}, "20000", "2", true, LevelOK, "rx-usecs 0, rx-frames 0, polls deferred", false},
		{ethtool.Coalesce{RxMaxCoalescedFrames: 1}, "0", "0", true, LevelNote, "rx-usecs 0, rx-frames 1", true},
		{ethtool.Coalesce{}, "", "", false, LevelNote, "rx-usecs 0, rx-frames 0", false},
	} {
		row := coalescingRow("eth0", tt.c, tt.flush, tt.deferred, tt.attached)
		if row.Name != "nic-eth0-coalescing" || row.Level != tt.level || row.Found != tt.said || (row.Do != "") != tt.do {
			t.Errorf("%+v", row)
		}
	}
}

// One thing that several rows say is one warning.
func TestWarnOnce(t *testing.T) {
	rows := []Finding{
		{Name: "indirect-call", Level: LevelWarn}, {Name: "return-thunk", Level: LevelOK}, {Name: "call-sites", Level: LevelWarn},
		{Name: "vulnerability-spectre-v2", Level: LevelWarn}, {Name: "vulnerability-spec-rstack-overflow", Level: LevelWarn},
	}
	warnOnce(rows)
	for i, want := range []Level{LevelWarn, LevelOK, LevelNote, LevelNote, LevelWarn} {
		if rows[i].Level != want {
			t.Errorf("%s: %s, want %s", rows[i].Name, rows[i].Level, want)
		}
	}
}

// A program at the tracepoint is seen while its link is there.
func TestObserversLive(t *testing.T) {
	testutil.Root(t)
	p, err := price.Load("observer")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	count := func() (n int) {
		found, err := observers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range found {
			if o.Tracepoint == "xdp_redirect" && o.Program == "observer" {
				n++
			}
		}
		return n
	}
	before := count()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "xdp_redirect", Program: p})
	if err != nil {
		t.Fatal(err)
	}
	if got := count(); got != before+1 {
		t.Errorf("%d observers, with one more %d", before, got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// A CPU of arm64 has its name by the MIDR: /proc/cpuinfo says none there.
func TestCPUOfARM64(t *testing.T) {
	m := newMachine(Options{Root: fstest.MapFS{"proc/cpuinfo": file("processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n" +
		"CPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n\nprocessor\t: 1\n")}})
	var f Fingerprint
	if row := m.cpu(&f); f.CPU != "Arm Neoverse N1 r3p1" || row.Found != "Arm Neoverse N1 r3p1, 2 CPUs online" ||
		!strings.Contains(row.Means, "MIDR") {
		t.Errorf("%q, %+v", f.CPU, row)
	}
}
