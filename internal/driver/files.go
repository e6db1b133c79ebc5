package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/ktext"
)

// File is a module to look at.
type File struct {
	path  string
	types *btf.Spec // of its kernel, nil when unknown
	named bool      // by the user, and not found in a folder
}

// Find finds the modules that paths name: a module, a folder of modules, or one that a
// kernel package is unpacked in. Without paths they are those of the running kernel.
// Of a whole kernel they are the modules of network drivers.
func Find(ctx context.Context, paths []string) (files []File, err error) {
	if len(paths) == 0 {
		return running(ctx)
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
			files = append(files, File{path: path, named: true})
			continue
		}
		var types *btf.Spec
		if tree, err := ktext.OpenTree(ctx, path); err == nil && tree.Vmlinuz != "" {
			if types, err = kernel.FileTypes(ctx, tree.Vmlinuz); err != nil {
				return nil, err
			}
		}
		found, err := under(ctx, path, types)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	return files, nil
}

// running are the modules of the running kernel.
func running(ctx context.Context) ([]File, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("find running kernel: %w", err)
	}
	dir := filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:]))
	if _, err := os.Stat(dir); err != nil {
		return nil, &feature.Missing{Feature: dir, Help: "name a kernel package's folder, or modules"}
	}
	types, _ := btf.LoadKernelSpec() // without types functions are told by their names
	return under(ctx, dir, types)
}

// under are the modules under a folder: those of network drivers where there are any.
func under(ctx context.Context, dir string, types *btf.Spec) ([]File, error) {
	var all, net []File
	if to, err := filepath.EvalSymlinks(dir); err == nil { // WalkDir follows no link
		dir = to
	}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err := cmp.Or(err, ctx.Err()); err != nil || e.IsDir() {
			return err
		}
		if _, ok := ktext.ModuleName(path); ok {
			f := File{path: path, types: types}
			all = append(all, f)
			if strings.Contains(path, "/drivers/net/") {
				net = append(net, f)
			}
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
