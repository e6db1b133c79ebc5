package guest

import (
	"bytes"
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/unpack"
)

// modules reads the named modules and all they depend on, gives each to write until that
// returns an error, and returns their names in the order to load them. A module that is built
// into the kernel is left out, and so is one that may be, for all that is known of a kernel.
func (k *Kernel) modules(
	ctx context.Context, write func(name string, data []byte) error, names ...string,
) (order []string, err error) {
	files, err := k.moduleFiles(ctx)
	if err != nil {
		return nil, err
	}
	read := 0
	var add func(name, by string) error
	add = func(name, by string) error {
		path, ok := files[name]
		if k.Tree && path != "" {
			if path = beside(k.Modules, path, strings.TrimPrefix(path, "kernel/")); path == "" {
				return fmt.Errorf("find module %s: %w: make modules", name, fs.ErrNotExist)
			}
		} else if path != "" {
			in, err := inside(k.Modules, path)
			if err != nil {
				return fmt.Errorf("find module %s: %w", name, err)
			}
			path = in
		}
		switch {
		case !ok && by != "":
			return fmt.Errorf("find module %s, which %s needs: %w", name, by, fs.ErrNotExist)
		case !ok:
			if err := k.without(name); err != nil {
				return fmt.Errorf("find module %s: %w", name, err)
			}
			if _, err := os.Stat(filepath.Join(k.Modules, "modules.builtin")); k.Modules != "" && k.options == nil && err == nil {
				return fmt.Errorf("find module %s: %w", name, fs.ErrNotExist)
			}
			return nil
		case path == "":
			return nil
		}
		if read++; read > maxModules {
			return fmt.Errorf("more than %d modules", maxModules)
		}
		files[name] = "" // once
		needs, err := readModule(ctx, path, func(data []byte) error { return write(name, data) })
		if err != nil {
			return fmt.Errorf("read module %s: %w", name, err)
		}
		for _, n := range needs {
			if err := add(n, name); err != nil {
				return err
			}
		}
		order = append(order, name)
		return nil
	}
	for _, n := range names {
		if err := add(normal(n), ""); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// having are those of modules that are files of the kernel's.
func (k *Kernel) having(ctx context.Context, names []string) (has []string, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	files, err := k.moduleFiles(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		path := files[normal(n)]
		if path == "" || k.Tree && beside(k.Modules, path, strings.TrimPrefix(path, "kernel/")) == "" {
			continue
		}
		has = append(has, n)
	}
	return has, nil
}

// maxModules is how many modules a guest may need: igb needs six.
const maxModules = 128

// maxDepends is the longest list of what one module needs, in bytes: those of Debian's 6.12 for clouds have up to 147.
const maxDepends = 16 << 10

// maxBuiltin is the largest list of built-in modules, in bytes: Debian's have 10 KB.
const maxBuiltin = 4 << 20

// moduleFiles are the files of a kernel's modules by name, "" for those that are built in.
func (k *Kernel) moduleFiles(ctx context.Context) (map[string]string, error) {
	if k.Modules == "" {
		return nil, nil
	}
	list := walkModules
	if k.Tree {
		list = treeModules
	}
	files, err := list(ctx, k.Modules)
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	builtin, err := unpack.ReadFile(filepath.Join(k.Modules, "modules.builtin"), maxBuiltin)
	if errors.Is(err, fs.ErrNotExist) {
		return files, nil // Debian's is in a package of its own, linux-base
	}
	if err != nil {
		return nil, fmt.Errorf("list built-in modules: %w", err)
	}
	for line := range strings.Lines(string(builtin)) {
		if name, ok := moduleName(strings.TrimSpace(line)); ok {
			files[name] = ""
		}
	}
	return files, nil
}

// walkModules are the files of the modules in a folder, by name, from the folder.
func walkModules(ctx context.Context, dir string) (map[string]string, error) {
	files := make(map[string]string)
	return files, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err := cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
		name, ok := moduleName(path)
		if !ok || d.IsDir() {
			return nil
		}
		files[name], err = filepath.Rel(dir, path)
		return err
	})
}

// treeModules are the files of the modules that a tree builds, from the tree. Its list of them names what they
// were linked of from Linux 6.4 on (.o), and a folder "kernel" before them up to 5.17.
func treeModules(ctx context.Context, dir string) (map[string]string, error) {
	files := make(map[string]string)
	list, err := unpack.ReadFile(filepath.Join(dir, "modules.order"), maxBuiltin)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		path := strings.TrimSpace(line)
		path = strings.TrimSuffix(strings.TrimSuffix(path, ".o"), ".ko") + ".ko"
		if name, ok := moduleName(path); ok {
			files[name] = path
		}
	}
	return files, ctx.Err()
}

// moduleName returns the name of the module in a file, "virtio_net" of
// virtio-net.ko.xz; ok is false when the file is no module.
func moduleName(path string) (name string, ok bool) {
	name, rest, _ := strings.Cut(filepath.Base(path), ".")
	return normal(name), rest == "ko" || strings.HasPrefix(rest, "ko.")
}

// normal spells a module's name as the kernel does: file names may have a
// hyphen where the name has an underscore.
func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }

// readModule gives a module's ELF file to write, and returns what it depends on.
func readModule(ctx context.Context, path string, write func([]byte) error) (needs []string, err error) {
	release, err := unpack.Reserve(ctx, path)
	if err != nil {
		return nil, err
	}
	defer release()
	data, err := unpack.File(ctx, path)
	if err != nil {
		return nil, err
	}
	// What is no module is nobody's to read in a guest.
	if needs, err = depends(data); err != nil {
		return nil, err
	}
	return needs, write(data)
}

// depends returns what the module's .modinfo section says it needs. The
// section is a row of NUL-terminated "key=value".
func depends(data []byte) ([]string, error) {
	if err := unpack.CheckHeaders(data); err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil || s.Flags&elf.SHF_COMPRESSED != 0 {
		return nil, errors.New("no .modinfo section")
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(list) > 0 {
			if len(list) > maxDepends {
				return nil, fmt.Errorf("%d bytes of modules that it needs", len(list))
			}
			names := strings.Split(string(list), ",")
			for i := range names {
				names[i] = normal(names[i])
			}
			return slices.Clip(names), nil
		}
	}
	return nil, nil
}
