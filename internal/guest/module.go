package guest

import (
	"bytes"
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

// module is a kernel module, decompressed.
type module struct {
	name string
	data []byte
}

// modules returns the named modules and all they depend on, in the order to
// load them. A module that is built into the kernel is left out. dir is the
// kernel's /lib/modules/RELEASE.
func modules(dir string, names ...string) ([]module, error) {
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if name, ok := moduleName(path); err == nil && ok && !d.IsDir() {
			files[name] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("list built-in modules: %w", err)
	}
	for line := range strings.Lines(string(builtin)) {
		if name, ok := moduleName(strings.TrimSpace(line)); ok {
			files[name] = ""
		}
	}

	var ordered []module
	var add func(string) error
	add = func(name string) error {
		path, ok := files[name]
		switch {
		case !ok:
			return fmt.Errorf("find module %s: %w", name, fs.ErrNotExist)
		case path == "":
			return nil
		}
		files[name] = "" // once
		data, err := readModule(path)
		if err != nil {
			return err
		}
		needs, err := depends(data)
		if err != nil {
			return fmt.Errorf("read dependencies of module %s: %w", name, err)
		}
		for _, n := range needs {
			if err := add(n); err != nil {
				return fmt.Errorf("module %s: %w", name, err)
			}
		}
		ordered = append(ordered, module{name, data})
		return nil
	}
	for _, n := range names {
		if err := add(normal(n)); err != nil {
			return nil, err
		}
	}
	return ordered, nil
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

func readModule(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	if data, err = unpack.ELF(data); err != nil {
		return nil, fmt.Errorf("read module %s: %w", path, err)
	}
	return data, nil
}

// depends returns what the module's .modinfo section says it needs. The
// section is a row of NUL-terminated "key=value".
func depends(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, errors.New("no .modinfo section")
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(list) > 0 {
			names := strings.Split(string(list), ",")
			for i := range names {
				names[i] = normal(names[i])
			}
			return slices.Clip(names), nil
		}
	}
	return nil, nil
}
