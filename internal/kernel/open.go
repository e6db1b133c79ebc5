package kernel

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// OpenLive opens the running kernel. Its memory is read through BPF, or through
// /proc/kcore where BPF cannot. It returns a [feature.Missing] without root, and on a
// kernel that hides its symbols or its memory. It takes about 0.1 s, which is what
// reading all symbols takes.
//
// Requires at least Linux 5.14, or /proc/kcore.
func OpenLive() (*Kernel, error) { return openLive(ksym.Live) }

// OpenNamed is [OpenLive] with only those symbols that keep returns true for, each with
// its size. It takes a third of the time.
func OpenNamed(keep func(name, module []byte) bool) (*Kernel, error) {
	return openLive(func() (*ksym.Table, error) {
		symbols, err := ksym.Select(keep)
		if err != nil {
			return nil, err
		}
		return ksym.New(symbols)
	})
}

func openLive(symbols func() (*ksym.Table, error)) (*Kernel, error) {
	table, err := symbols()
	if err != nil {
		return nil, err
	}
	text, err := openMemory()
	if err != nil {
		return nil, err
	}
	return &Kernel{
		Text: text, Symbols: table, Arch: runtime.GOARCH, Live: true,
		types: sync.OnceValues(btf.LoadKernelSpec), close: text.Close,
	}, nil
}

// memory is that of the running kernel.
type memory interface {
	ktext.Source
	Close() error
}

func openMemory() (memory, error) {
	live, err := ktext.OpenLive()
	if err == nil {
		return live, nil
	}
	if core, errCore := ktext.OpenKcore(); errCore == nil {
		return core, nil
	}
	return nil, err
}

// OpenTree opens the kernel of a package that is unpacked in a folder, as
// [ktext.OpenTree] finds it, and puts the module of a driver on it, unless that is ""
// or the kernel has no such module: then the driver may be built in. Both "virtio-net"
// and "virtio_net" name the module. What takes more than [unpack.MaxHeld] bytes of memory together, the types included
// when they are read, is an error.
func OpenTree(ctx context.Context, dir, driver string) (*Kernel, error) {
	tree, err := ktext.OpenTree(ctx, dir)
	if err != nil {
		return nil, err
	}
	if tree.Vmlinuz == "" {
		return nil, fmt.Errorf("find kernel in %s: it has modules and no vmlinuz", dir)
	}
	img, err := ktext.OpenFile(ctx, tree.Vmlinuz)
	if err != nil {
		return nil, err
	}
	if img.Table.Len() == 0 {
		return nil, fmt.Errorf("open %s: it has no symbols, and none could be recovered", tree.Vmlinuz)
	}
	if module, ok := tree.Modules[strings.ReplaceAll(driver, "-", "_")]; ok {
		if img, err = ktext.OpenModule(ctx, module, img); err != nil {
			return nil, err
		}
	}
	arch, err := ArchOf(img)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tree.Vmlinuz, err)
	}
	return &Kernel{
		Text: img, Symbols: img.Table, Arch: arch, Release: tree.Release,
		types: sync.OnceValues(func() (*btf.Spec, error) { return typesIn(img.BTF, tree.Vmlinuz, img.Memory()) }),
	}, nil
}

// FileTypes are the types of the kernel in a file, and about how many bytes of memory they take; nil when it holds none.
func FileTypes(ctx context.Context, vmlinuz string) (_ *btf.Spec, memory int, err error) {
	raw, err := ktext.ReadTypes(ctx, vmlinuz)
	if err != nil {
		return nil, 0, err
	}
	types, err := typesIn(raw, vmlinuz, 0)
	return types, typesMemory(raw), err
}

// typesIn are the types in a section of a file, nil without one. So many bytes of memory are in use beside them.
func typesIn(raw []byte, file string, used int) (*btf.Spec, error) {
	if raw == nil {
		return nil, nil
	}
	types, err := loadTypes(raw, used)
	if err != nil {
		return nil, fmt.Errorf("read types of %s: %w", file, err)
	}
	return types, nil
}
