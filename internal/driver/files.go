package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/unpack"
	"github.com/unthunk/unthunk/ktext"
)

// Modules are modules to look at, of one kernel.
type Modules struct {
	paths []string
	named bool // by the user, and not found in a folder
	// types reads those of the kernel, nil when unknown, and says about how many bytes of memory they take. They are read
	// when the modules are, and not before: those of one kernel may take most of the memory that there is.
	types func(context.Context) (_ *btf.Spec, memory int, err error)
}

// Find finds the modules that paths name: a module, a folder of modules, or one that a
// kernel package is unpacked in. Without paths they are those of the running kernel.
// Of a whole kernel they are the modules of network drivers.
func Find(ctx context.Context, paths []string) (all []Modules, err error) {
	if len(paths) == 0 {
		m, err := running(ctx)
		return []Modules{m}, err
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			if failed, ok := errors.AsType[*os.PathError](err); ok {
				err = failed.Err // the message has the name already
			}
			return nil, fmt.Errorf("find modules in %s: %w", path, err)
		}
		if !info.IsDir() {
			if last := len(all) - 1; last >= 0 && all[last].named {
				all[last].paths = append(all[last].paths, path)
			} else {
				all = append(all, Modules{paths: []string{path}, named: true, types: noTypes})
			}
			continue
		}
		m := Modules{types: noTypes}
		if tree, err := ktext.OpenTree(ctx, path); err == nil && tree.Vmlinuz != "" {
			m.types = func(ctx context.Context) (*btf.Spec, int, error) { return fileTypes(ctx, tree.Vmlinuz) }
		}
		if m.paths, err = under(ctx, path); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func noTypes(context.Context) (*btf.Spec, int, error) { return nil, 0, nil }

// fileTypes are the types of a kernel in a file. Reading them counts as reading a module does;
// what they take afterwards is left out of what modules may take.
func fileTypes(ctx context.Context, vmlinuz string) (*btf.Spec, int, error) {
	release, err := unpack.Reserve(ctx, vmlinuz)
	if err != nil {
		return nil, 0, fmt.Errorf("open kernel code: %w", err)
	}
	defer release()
	return kernel.FileTypes(ctx, vmlinuz)
}

// running are the modules of the running kernel.
func running(ctx context.Context) (m Modules, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("find running kernel: %w", err)
	}
	dir := filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:]))
	if _, err := os.Stat(dir); err != nil {
		return m, &feature.Missing{Feature: dir, Help: "name a kernel package's folder, or modules"}
	}
	m.types = func(context.Context) (*btf.Spec, int, error) {
		types, _ := btf.LoadKernelSpec() // without types functions are told by their names
		return types, 0, nil             // nobody made them large
	}
	m.paths, err = under(ctx, dir)
	return m, err
}

// under are the modules under a folder: those of network drivers where there are any.
func under(ctx context.Context, dir string) ([]string, error) {
	var all, net []string
	if to, err := filepath.EvalSymlinks(dir); err == nil { // WalkDir follows no link
		dir = to
	}
	folders := unpack.NewFolders(ctx, os.DirFS(dir))
	err := fs.WalkDir(folders, ".", func(name string, e fs.DirEntry, err error) error {
		if err := cmp.Or(err, folders.Err()); err != nil || e.IsDir() {
			return err
		}
		if _, ok := ktext.ModuleName(name); ok {
			path := filepath.Join(dir, name)
			all = append(all, path)
			if strings.Contains(path, "/drivers/net/") {
				net = append(net, path)
			}
		}
		if len(all) > unpack.MaxNames {
			return fmt.Errorf("%s has more than %d", dir, unpack.MaxNames)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("find modules: %w", err)
	case len(all) == 0:
		return nil, errors.New("no modules (*.ko, *.ko.xz, …) in " + dir)
	case len(net) > 0:
		return net, nil
	}
	return all, nil
}
