package lab

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/pkgfile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/unpack"
)

// ownBuild is what a guest finds of the build that runs in it. Programs are a sum of the BPF programs that count. What cannot
// be read is left out: a kernel shows no copy of its configuration without CONFIG_IKCONFIG_PROC.
func ownBuild(compiler string, programs [sha256.Size]byte) *record.LabBuild {
	b := &record.LabBuild{Compiler: compiler, Unthunk: counting(programs, countingVersion)}
	if line, err := os.ReadFile("/proc/cmdline"); err == nil {
		b.CommandLine = printable(string(line), record.MaxCommandLine)
	}
	if f, err := os.Open("/proc/config.gz"); err == nil {
		defer f.Close()
		if text, err := gzip.NewReader(f); err == nil {
			b.Config, b.Options, _ = readConfig(text)
		}
	}
	return b
}

// maxConfig is the most of a kernel's configuration in bytes: Debian's has 280 KB.
const maxConfig = 4 << 20

// unsummed begin the options that name the build or its tools, which are compared by themselves.
var unsummed = []string{
	"CONFIG_BUILD_SALT=", "CONFIG_LOCALVERSION", "CONFIG_CC_VERSION_TEXT=", "CONFIG_GCC_VERSION=", "CONFIG_CLANG_VERSION=",
	"CONFIG_AS_VERSION=", "CONFIG_LD_VERSION=", "CONFIG_LLD_VERSION=", "CONFIG_PAHOLE_VERSION=", "CONFIG_RUSTC_VERSION",
	"CONFIG_RUSTC_LLVM_VERSION=", "CONFIG_BINDGEN_VERSION_TEXT=",
}

// weighty begin the options that change what is executed for a packet on a kernel of another configuration most often: those
// of the path, of mitigations, of what checks, counts or traces, and of the compiler.
var weighty = regexp.MustCompile("^CONFIG_(64BIT|X86_|CPU_|MITIGATION|RETPOLINE|RETHUNK|SLS|CALL_|CFI|FINEIBT|BPF|XDP|NET|VETH|" +
	"PAGE_POOL|PREEMPT|HZ|NO_HZ|TICK|RCU|SMP|NR_CPUS|NUMA|NODES|SLUB|SLAB|MEMCG|INIT_|HARDENED|FORTIFY|STACK|UBSAN|KASAN|" +
	"KCSAN|KMSAN|KFENCE|DEBUG_|LOCK|PROVE|TRACE|FTRACE|FUNCTION|DYNAMIC_FTRACE|KPROBE|UPROBE|PERF|JUMP_LABEL|CC_OPTIMIZE|LTO|" +
	"GCC_PLUGIN|RANDOM|RANDSTRUCT|CGROUP_NET|SOCK_|RPS|XPS|IRQ|PARAVIRT|DMA|SWIOTLB|IOMMU|TRANSPARENT|VMAP|SCHED|LIST_|BUG|" +
	"STATIC)[A-Z0-9_]*=([yn]|-?[0-9]+|0x[0-9A-Fa-f]+)$")

// readConfig is a SHA-256 of the options that a kernel's configuration sets, in whichever order, and those of them that are
// kept, without their CONFIG_.
func readConfig(r io.Reader) (sum string, kept []string, err error) {
	text, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	switch {
	case err != nil:
		return "", nil, fmt.Errorf("read configuration: %w", err)
	case len(text) > maxConfig:
		return "", nil, fmt.Errorf("read configuration: more than %d MiB", maxConfig>>20)
	}
	var set []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "CONFIG_") && !slices.ContainsFunc(unsummed, func(s string) bool { return strings.HasPrefix(line, s) }) {
			set = append(set, line)
		}
	}
	if len(set) == 0 {
		return "", nil, errors.New("read configuration: it sets no option")
	}
	slices.Sort(set)
	for _, line := range set {
		if len(line) <= record.MaxOption && len(kept) < record.MaxOptions && weighty.MatchString(line) {
			kept = append(kept, strings.TrimPrefix(line, "CONFIG_"))
		}
	}
	all := sha256.Sum256([]byte(strings.Join(set, "\n")))
	return hex.EncodeToString(all[:]), kept, nil
}

// configOf is [readConfig] of what lies beside a kernel, or is in its image; empty where neither is.
func configOf(k guest.Kernel) (sum string, kept []string, err error) {
	text, err := k.ConfigText()
	if err != nil || text == nil {
		return "", nil, err
	}
	return readConfig(bytes.NewReader(text))
}

// maxImage is the most that is read of a kernel's image, in bytes: a vmlinux with debug information has some hundred MB.
const maxImage = 2 << 30

// imageSum is the SHA-256 of a kernel's image.
func imageSum(ctx context.Context, k guest.Kernel) (string, error) {
	f, size, err := unpack.Open(k.Image, maxImage)
	if err != nil {
		return "", fmt.Errorf("open image: %w", err)
	}
	defer f.Close()
	sum, err := pkgfile.Sum(ctx, io.NewSectionReader(f, 0, size))
	if err != nil {
		return "", fmt.Errorf("read image: %w", err)
	}
	return sum, nil
}

// sumBytes are how many bytes of a SHA-256 tell the BPF programs of one unthunk from those of another.
const sumBytes = 6

// countingVersion is raised with a change of unthunk after which the same BPF programs count something else of the same kernel: rows of
// two versions are not in one record, and a gate does not compare them. The first is that of records up to 2026-11-30.
const countingVersion = 1

// counting says by which BPF programs and by which version of the code around them a guest counts. The first version is not named.
func counting(programs [sha256.Size]byte, version int) string {
	sum := hex.EncodeToString(programs[:sumBytes])
	if version == 1 {
		return sum
	}
	return fmt.Sprintf("%s.%d", sum, version)
}

// programSum says which unthunk counted: the version of its file, and what the guest said that it counts by, see [counting]: a sum of
// the BPF programs that send, redirect and receive packets, or that replay them. Counts hold their instructions, and those of the
// dispatcher, which finds them by their addresses. The same source built otherwise counts the same.
func programSum(path, said string) (string, error) {
	digits, version, versioned := strings.Cut(said, ".")
	sum, err := hex.DecodeString(digits)
	if n, errVersion := strconv.Atoi(version); err != nil || len(sum) != sumBytes || versioned && (errVersion != nil || n < 2) {
		return "", fmt.Errorf("the guest says that it counts by %.40q", said)
	}
	f, size, err := unpack.Open(path, unpack.Max)
	if err != nil {
		return "", fmt.Errorf("read the guest's program: %w", err)
	}
	defer f.Close()
	info, err := buildinfo.Read(io.NewSectionReader(f, 0, size))
	if err != nil {
		return "", fmt.Errorf("read the guest's program: %w", err)
	}
	return info.Main.Version + " " + said, nil
}

// completeBuild adds to what a guest found of its build what is known outside of it.
func completeBuild(ctx context.Context, m *guest.Machine, got *Measurement) {
	if got.Build == nil {
		got.Build = new(record.LabBuild)
	}
	b := got.Build
	b.CPU, b.Arch = cmp.Or(m.CPU, "max"), m.Kernel.Arch
	b.Image, _ = imageSum(ctx, m.Kernel)
	if b.Config == "" {
		b.Config, b.Options, _ = configOf(m.Kernel) // what cannot be read is not known
	}
	b.QEMU, _ = m.QEMU.Version(ctx)
	b.Unthunk, _ = programSum(m.Init, b.Unthunk) // of a program that says none it is not known
}
