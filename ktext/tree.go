package ktext

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
// More than one, or none, is an error that names them. When ctx ends OpenTree returns the
// error of ctx.
func OpenTree(ctx context.Context, dir string) (*Tree, error) {
	found := make(map[string]*Tree)
	tree := func(release string) *Tree {
		if found[release] == nil {
			found[release] = &Tree{Dir: dir, Release: release, Modules: make(map[string]string)}
		}
		return found[release]
	}
	for _, pattern := range []string{"boot/vmlinuz-*", "vmlinuz-*"} {
		files, err := glob(dir, pattern)
		if err != nil {
			return nil, fmt.Errorf("find kernel: %w", err)
		}
		for _, f := range files {
			t := tree(strings.TrimPrefix(filepath.Base(f), "vmlinuz-"))
			t.Vmlinuz = f
			if config := filepath.Join(filepath.Dir(f), "config-"+t.Release); exists(config) {
				t.Config = config
			}
		}
	}
	for _, pattern := range []string{"lib/modules/*", "usr/lib/modules/*"} {
		dirs, err := glob(dir, pattern)
		if err != nil {
			return nil, fmt.Errorf("find modules: %w", err)
		}
		for _, d := range dirs {
			t := tree(filepath.Base(d))
			if image := filepath.Join(d, "vmlinuz"); t.Vmlinuz == "" && exists(image) {
				t.Vmlinuz = image
			}
			if err := t.modules(ctx, d); err != nil {
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

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// glob lists the files under dir that match a pattern; dir itself is no pattern.
func glob(dir, pattern string) ([]string, error) {
	names, err := fs.Glob(os.DirFS(dir), pattern)
	for i := range names {
		names[i] = filepath.Join(dir, names[i])
	}
	return names, err
}

func (t *Tree) modules(ctx context.Context, dir string) error {
	// A folder may be a link, which WalkDir does not follow.
	if to, err := filepath.EvalSymlinks(dir); err == nil {
		dir = to
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err := cmp.Or(err, ctx.Err()); err != nil || e.IsDir() {
			return err
		}
		if name, ok := ModuleName(path); ok {
			t.Modules[name] = path
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
