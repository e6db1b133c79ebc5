package kernel

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// Kernel is one kernel. It is safe for concurrent use.
//
// A live one is a snapshot of the symbols, while its code is read when it is asked for:
// BPF programs and modules that are loaded later have no symbol in it until [Kernel.Renew].
type Kernel struct {
	// Text gives the code and, when Live, any memory of the kernel.
	Text ktext.Source
	// Symbols names addresses.
	Symbols *ksym.Table
	// Arch is the architecture of its code: "amd64" or "arm64".
	Arch string
	// Live is set for the running kernel, whose code is patched for this machine.
	Live bool
	// Release is what uname -r says of a kernel in files; empty when that is not known,
	// and for the running one.
	Release string

	types func() (*btf.Spec, error)
	close func() error
}

// New is a kernel of x86-64, of parts that the caller has. types may be nil: see [Kernel.Types].
func New(text ktext.Source, symbols *ksym.Table, types *btf.Spec) *Kernel {
	return &Kernel{Text: text, Symbols: symbols, Arch: "amd64", types: func() (*btf.Spec, error) { return types, nil }}
}

// ArchOf is the architecture of the code in a file: "amd64" or "arm64". It returns a [feature.Missing] for any other.
func ArchOf(img *ktext.Image) (string, error) {
	switch img.Machine {
	case elf.EM_X86_64:
		return "amd64", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	}
	return "", &feature.Missing{Feature: fmt.Sprintf("reading code of %v", img.Machine), Help: "code of x86-64 or arm64"}
}

// CheckArch returns a [feature.Missing] for what cannot be done with code of the kernel's architecture.
func (k *Kernel) CheckArch(what string) error {
	if k.Arch != "amd64" && k.Arch != "arm64" {
		return &feature.Missing{Feature: what + " of " + k.Arch, Help: "a machine of x86-64 or arm64"}
	}
	return nil
}

// Types are those of the kernel, read when they are first asked for. They are nil
// without an error for files that hold none. A live kernel without them gives a
// [feature.Missing]; one whose types cannot be read gives the reason.
func (k *Kernel) Types() (*btf.Spec, error) {
	types, err := k.types()
	switch {
	case k.Live && (errors.Is(err, btf.ErrNotSupported) || types == nil && err == nil):
		return nil, &feature.Missing{Feature: "BTF", Config: "CONFIG_DEBUG_INFO_BTF"}
	case k.Live && err != nil:
		return nil, fmt.Errorf("read types of %s: %w", k, err)
	}
	return types, err
}

// ModuleTypes are those of a module of the running kernel, which lead to the kernel's own; nil where it has none that can be
// read, as for a kernel in files.
//
// Requires at least Linux 5.11.
func (k *Kernel) ModuleTypes(name string) *btf.Spec {
	base, err := k.Types()
	if !k.Live || err != nil || name == "" || name != filepath.Base(name) {
		return nil
	}
	f, err := os.Open(filepath.Join("/sys/kernel/btf", name))
	if err != nil {
		return nil
	}
	defer f.Close()
	types, err := btf.LoadSplitSpecFromReader(f, base)
	if err != nil {
		return nil
	}
	return types
}

// UseTypes gives types of the running kernel that the caller has read already: to read them takes 0.1 s. Nothing else may
// use the kernel meanwhile.
func (k *Kernel) UseTypes(types *btf.Spec) { k.types = func() (*btf.Spec, error) { return types, nil } }

// Renew reads all symbols of the running kernel again. Nothing else may use the kernel
// meanwhile.
func (k *Kernel) Renew() error {
	table, err := ksym.Live()
	if err == nil {
		k.Symbols = table
	}
	return err
}

// Close unloads what reads a live kernel. Its symbols and types stay.
func (k *Kernel) Close() error {
	if k.close == nil {
		return nil
	}
	return k.close()
}

// String is how a sentence speaks of the kernel.
func (k *Kernel) String() string {
	if k.Live {
		return "the running kernel"
	}
	return "Linux " + k.Release
}
