package host

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// tree reads one-line files of proc and sys.
type tree struct{ fsys fs.FS }

// read returns a file without its last newline.
func (t tree) read(name string) (string, error) {
	b, err := fs.ReadFile(t.fsys, name)
	if err != nil {
		return "", why(name, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// get is read for files whose absence says nothing.
func (t tree) get(name string) string {
	s, _ := t.read(name)
	return s
}

// list returns the names in a directory, sorted.
func (t tree) list(dir string) []string {
	entries, _ := fs.ReadDir(t.fsys, dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (t tree) exists(name string) bool {
	_, err := fs.Stat(t.fsys, name)
	return err == nil
}

// base is the last element of a symbolic link's target, as drivers and
// IOMMU groups are named in sys.
func (t tree) base(link string) string {
	target, err := fs.ReadLink(t.fsys, link)
	if err != nil {
		return ""
	}
	return path.Base(target)
}

// why shortens an error of the file system to what a reader can act on.
func why(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("/%s needs root", name)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no /%s", name)
	}
	return fmt.Errorf("read /%s: %w", name, err)
}
