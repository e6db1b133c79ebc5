package guest

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// libraryDirs are where the loader looks (ld.so(8)), and the folders of Debian's
// multiarch.
var libraryDirs = []string{"/lib64", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
	"/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib", "/usr/lib"}

// Libraries are the loader and the shared libraries that a program needs in a guest,
// none for one that is static: path there → path here.
func Libraries(program string) (map[string]string, error) {
	files := make(map[string]string)
	todo := []string{program}
	for len(todo) > 0 {
		path := todo[0]
		todo = todo[1:]
		f, err := elf.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		names, err := f.ImportedLibraries()
		loader := interpreter(f)
		f.Close()
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
	for _, dir := range libraryDirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("find library %s for the guest: it is in none of %v; build unthunk with CGO_ENABLED=0", name, libraryDirs)
}
