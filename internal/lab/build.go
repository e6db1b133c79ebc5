package lab

import (
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
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/bpf/replay"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/unpack"
)

// ownBuild is what a guest finds of the build that runs in it. What cannot be read is left out: a kernel has no
// copy of its configuration without CONFIG_IKCONFIG_PROC.
func ownBuild(compiler string) *record.LabBuild {
	b := &record.LabBuild{Compiler: compiler}
	if line, err := os.ReadFile("/proc/cmdline"); err == nil {
		b.CommandLine = printable(string(line), record.MaxCommandLine)
	}
	if f, err := os.Open("/proc/config.gz"); err == nil {
		defer f.Close()
		if text, err := gzip.NewReader(f); err == nil {
			b.Config, _ = configSum(text)
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

// configSum is a SHA-256 of the options that a kernel's configuration sets, in whichever order.
func configSum(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read configuration: %w", err)
	case len(text) > maxConfig:
		return "", fmt.Errorf("read configuration: more than %d MiB", maxConfig>>20)
	}
	var set []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "CONFIG_") && !slices.ContainsFunc(unsummed, func(s string) bool { return strings.HasPrefix(line, s) }) {
			set = append(set, line)
		}
	}
	if len(set) == 0 {
		return "", errors.New("read configuration: it sets no option")
	}
	slices.Sort(set)
	sum := sha256.Sum256([]byte(strings.Join(set, "\n")))
	return hex.EncodeToString(sum[:]), nil
}

// configOf is the sum of the configuration of a kernel that lies beside it; "" where none does.
func configOf(k guest.Kernel) (string, error) {
	if k.Config == "" || k.Config == k.Image {
		return "", nil
	}
	f, size, err := unpack.Open(k.Config, maxConfig)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return configSum(io.NewSectionReader(f, 0, size))
}

// programSum says which unthunk counts: its version, and the beginning of a SHA-256 of the BPF programs that send, redirect
// and receive packets, or that replay them. Counts hold their instructions, and those of the dispatcher, which finds them by
// their addresses.
// The same source built otherwise counts the same.
func programSum(path string, m *Measurement) (string, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read this program: %w", err)
	}
	sum := chain.Sum()
	if m.Program != nil {
		sum = replay.Sum()
	}
	return info.Main.Version + " " + hex.EncodeToString(sum[:6]), nil
}

// completeBuild adds to what a guest found of its build what is known outside of it.
func completeBuild(ctx context.Context, m *guest.Machine, got *Measurement) {
	if got.Build == nil {
		got.Build = new(record.LabBuild)
	}
	b := got.Build
	b.CPU = cmp.Or(m.CPU, "max")
	if b.Config == "" {
		b.Config, _ = configOf(m.Kernel) // what cannot be read is not known
	}
	b.QEMU, _ = m.QEMU.Version(ctx)
	b.Unthunk, _ = programSum(m.Init, got)
}
