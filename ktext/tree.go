package ktext

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/unthunk/unthunk/internal/unpack"
)

// Tree is a kernel package unpacked in a folder.
type Tree struct {
	// Dir is the folder, Release the kernel's, as uname -r prints it.
	Dir, Release string
	// Vmlinuz and Config are files, empty where there is none.
	Vmlinuz, Config string
	// Modules are files by name: "veth".
	Modules map[string]string
}

// OpenTree looks for one kernel under dir as Debian's and Fedora's packages
// unpack: boot/vmlinuz-RELEASE, and lib/modules/RELEASE or usr/lib/modules/RELEASE.
// More than one, or none, is an error that names them. Links that lead out of dir are no part of
// the tree; a kernel that is one is an error. When ctx ends OpenTree returns the error of ctx.
func OpenTree(ctx context.Context, dir string) (_ *Tree, err error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() { // to open a pipe waits
		return nil, fmt.Errorf("find kernel: %w", cmp.Or(err, error(&fs.PathError{Op: "open", Path: dir, Err: syscall.ENOTDIR})))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("find kernel: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	folders := unpack.NewFolders(ctx, root.FS())
	found := make(map[string]*Tree)
	tree := func(release string) *Tree {
		if found[release] == nil {
			found[release] = &Tree{Dir: dir, Release: release, Modules: make(map[string]string)}
		}
		return found[release]
	}
	for _, pattern := range []string{"boot/vmlinuz-*", "vmlinuz-*"} {
		names, err := fs.Glob(folders, pattern)
		if err := cmp.Or(err, folders.Err()); err != nil {
			return nil, fmt.Errorf("find kernel: %w", err)
		}
		for _, name := range names {
			if _, err := root.Stat(name); cmp.Or(err, ctx.Err()) != nil {
				return nil, fmt.Errorf("find kernel in %s: %w", dir, cmp.Or(err, ctx.Err()))
			}
			t := tree(strings.TrimPrefix(path.Base(name), "vmlinuz-"))
			t.Vmlinuz = filepath.Join(dir, name)
			if config := path.Join(path.Dir(name), "config-"+t.Release); exists(root, config) {
				t.Config = filepath.Join(dir, config)
			}
		}
	}
	for _, pattern := range []string{"lib/modules/*", "usr/lib/modules/*"} {
		names, err := fs.Glob(folders, pattern)
		if err := cmp.Or(err, folders.Err()); err != nil {
			return nil, fmt.Errorf("find modules: %w", err)
		}
		for _, name := range names {
			t := tree(path.Base(name))
			if image := path.Join(name, "vmlinuz"); t.Vmlinuz == "" && exists(root, image) {
				t.Vmlinuz = filepath.Join(dir, image)
			}
			if err := t.modules(folders, root, name); err != nil {
				return nil, err
			}
		}
	}
	var names []string
	for release := range found {
		names = append(names, release)
	}
	slices.Sort(names)
	switch len(names) {
	case 0:
		return nil, fmt.Errorf("find kernel in %s: no boot/vmlinuz-* and no lib/modules", dir)
	case 1:
		return found[names[0]], nil
	}
	return nil, fmt.Errorf("find kernel in %s: there are %d: %s", dir, len(names), strings.Join(names, ", "))
}

// exists tells whether root has a file, or a link to one in it.
func exists(root *os.Root, name string) bool {
	_, err := root.Stat(name)
	return err == nil
}

// modules adds those in a folder of root, which may be a link.
func (t *Tree) modules(folders *unpack.Folders, root *os.Root, folder string) error {
	err := fs.WalkDir(folders, folder, func(file string, e fs.DirEntry, err error) error {
		if err := cmp.Or(err, folders.Err()); err != nil || e.IsDir() {
			return err
		}
		if name, ok := ModuleName(file); ok && exists(root, file) {
			t.Modules[name] = filepath.Join(t.Dir, file)
		}
		if len(t.Modules) > unpack.MaxNames {
			return fmt.Errorf("%s has more than %d", folder, unpack.MaxNames)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("find modules: %w", err)
	}
	return nil
}

// ModuleName is the name of the module in a file: "virtio_net" of
// virtio-net.ko.xz. ok is false for other files.
func ModuleName(path string) (name string, ok bool) {
	name, rest, _ := strings.Cut(filepath.Base(path), ".")
	return strings.ReplaceAll(name, "-", "_"), rest == "ko" || strings.HasPrefix(rest, "ko.")
}
