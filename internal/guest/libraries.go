package guest

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/unpack"
)

// libraryDirs are where the loader looks (ld.so(8)), and the folders of Debian's
// multiarch.
var libraryDirs = []string{"/lib64", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
	"/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib", "/usr/lib"}

// loaders are the names that a program's loader may have: a program may name any file here.
var loaders = []string{"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "ld-musl-x86_64.so.1", "ld-musl-aarch64.so.1"}

// Libraries are the loader and the shared libraries that a program of this machine needs in a guest,
// none for one that is static: path there → path here. All are in folders of the system.
func Libraries(program string) (map[string]string, error) {
	files := make(map[string]string)
	todo := []string{program}
	for len(todo) > 0 {
		path := todo[0]
		todo = todo[1:]
		loader, names, err := needs(path)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if loader != "" && files[loader] == "" {
			files[loader] = loader
		}
		for _, name := range names {
			found, err := library(name)
			if err != nil {
				return nil, err
			}
			// Where it is here the loader looks for it there.
			if files[found] == "" {
				files[found] = found
				todo = append(todo, found)
			}
		}
	}
	return files, nil
}

// needs are the loader that a program or a library asks for, "" for none, and the names of libraries.
func needs(path string) (loader string, names []string, err error) {
	f, _, err := unpack.Open(path, maxInitrd)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	e, err := elf.NewFile(f)
	if err != nil {
		return "", nil, err
	}
	if loader = interpreter(e); loader != "" {
		if dir, name := filepath.Split(loader); !slices.Contains(libraryDirs, filepath.Clean(dir)) || !slices.Contains(loaders, name) {
			return "", nil, fmt.Errorf("its loader %.60q is none of %v in %v", loader, loaders, libraryDirs)
		}
	}
	names, err = e.ImportedLibraries()
	return loader, names, err
}

// interpreter is the loader a program asks for, "" for a static one.
func interpreter(f *elf.File) string {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(io.LimitReader(p.Open(), 4096))
			if err != nil {
				return ""
			}
			return strings.TrimRight(string(b), "\x00")
		}
	}
	return ""
}

func library(name string) (string, error) {
	if strings.Contains(name, "/") {
		return "", fmt.Errorf("find library %.60q for the guest: it is named by a path", name)
	}
	for _, dir := range libraryDirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("find library %.60s for the guest: it is in none of %v; build unthunk with CGO_ENABLED=0", name, libraryDirs)
}
