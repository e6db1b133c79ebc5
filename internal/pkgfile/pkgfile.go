// Package pkgfile unpacks packages (.deb, .rpm) that nobody vouches for.
//
// What comes out are regular files, folders and links that stay inside the folder: all of
// the user who unpacks, none that others can write, none with set-user-ID. Devices, pipes
// and links that lead out of the folder are left out.
package pkgfile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/unpack"
)

// Limits on what all packages of one call hold together. Debian's full 6.12 has 4600 files
// and 110 MB, QEMU with its libraries 2000 files and 600 MB.
const (
	maxEntries = 100_000  // and folders that are made
	maxBytes   = 2 << 30  // that are written
	maxStream  = 4 << 30  // that are unpacked of one package, what is left out included
	maxDepth   = 32       // folders within folders
	maxPath    = 1024     // bytes
	maxNames   = 16 << 20 // bytes of all names, and of where links lead: Debian's 6.12-cloud has 89 KB
)

// Package is a file to unpack.
type Package struct {
	Path string
	// SHA256 is that of the bytes that may be unpacked, in hexadecimal. Where it is empty,
	// all may.
	SHA256 string
}

// Sum is the SHA-256 of what r holds, in hexadecimal. When ctx ends it returns the error
// of ctx.
func Sum(ctx context.Context, r io.Reader) (string, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, unpack.Heard(ctx, r)); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// Unpack unpacks packages into the folder dir, which must be there and empty, and returns
// what it then holds. When ctx ends it returns the error of ctx. What was unpacked until
// an error stays for the caller to remove; so does a package whose SHA-256 is another one.
func Unpack(ctx context.Context, dir string, packages ...Package) (Manifest, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Manifest{}, fmt.Errorf("unpack packages: %w", err)
	}
	defer root.Close()
	t := newTree(ctx, root)
	for _, p := range packages {
		if err := t.unpack(p); err != nil {
			return Manifest{}, fmt.Errorf("unpack %s: %w", p.Path, err)
		}
	}
	if err := t.finish(); err != nil {
		return Manifest{}, fmt.Errorf("unpack packages: %w", err)
	}
	return t.manifest, nil
}

// kind is what an entry of an archive is.
type kind int

const (
	other kind = iota // a device, a pipe
	regular
	folder
	symlink
	hardlink
)

// entry is one of an archive.
type entry struct {
	name       string
	kind       kind
	executable bool
	size       int64
	target     string // of a link
}

// tree is what is unpacked.
type tree struct {
	ctx      context.Context // of one call of Unpack
	root     *os.Root
	manifest Manifest
	links    []entry
	folders  map[string]bool // that were made
	entries  int
	// What may still be written, and what a package may unpack to.
	bytes, stream int64
	names         int // bytes of names that there may still be
}

func newTree(ctx context.Context, root *os.Root) *tree {
	return &tree{ctx: ctx, root: root, manifest: Manifest{Files: make(map[string]string), Links: make(map[string]string)},
		folders: make(map[string]bool),
		bytes:   maxBytes, stream: maxStream, names: maxNames}
}

var (
	errEntries = fmt.Errorf("more than %d files and folders", maxEntries)
	errBytes   = fmt.Errorf("more than %d MiB", maxBytes>>20)
	errNames   = fmt.Errorf("names of more than %d MiB", maxNames>>20)
)

// add makes an entry. Links are made by finish.
func (t *tree) add(e entry, content io.Reader) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if t.entries++; t.entries > maxEntries {
		return errEntries
	}
	if t.names -= len(e.name) + min(len(e.target), maxPath); t.names < 0 {
		return errNames
	}
	name, err := inside(e.name)
	if err != nil || name == "." {
		return err
	}
	e.name = name
	switch e.kind {
	case folder:
		return t.mkdir(name)
	case regular:
		return t.file(e, content)
	case symlink, hardlink:
		if len(e.target) > maxPath {
			return nil
		}
		if !legible(e.target) {
			return fmt.Errorf("the link %.100q leads to a path with control characters or that is not UTF-8", e.name)
		}
		t.links = append(t.links, e)
	}
	return nil
}

// inside is a name of an archive as a path below the folder: os.Root refuses one that leads
// out of it, and what stands here bounds it.
func inside(name string) (string, error) {
	if len(name) > maxPath || strings.Count(name, "/") > maxDepth {
		return "", fmt.Errorf("a path of %d bytes with %d folders", len(name), strings.Count(name, "/"))
	}
	if !legible(name) {
		return "", fmt.Errorf("the path %.100q has control characters or is not UTF-8", name)
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("the path %.100q leads out of the package", name)
	}
	return clean, nil
}

// mkdir makes a folder and those that it is in. Each counts: an entry of 1000 bytes can
// name 32 that are not there.
func (t *tree) mkdir(name string) error {
	for i := range len(name) + 1 {
		if i < len(name) && name[i] != '/' {
			continue
		}
		part := name[:i]
		if part == "." || t.folders[part] {
			continue
		}
		if err := t.ctx.Err(); err != nil {
			return err
		}
		if t.entries++; t.entries > maxEntries {
			return errEntries
		}
		err := t.root.Mkdir(part, 0o755)
		if errors.Is(err, fs.ErrExist) {
			info, e := t.root.Lstat(part)
			if e == nil && !info.IsDir() {
				e = &fs.PathError{Op: "mkdir", Path: part, Err: syscall.ENOTDIR}
			}
			err = e
		}
		if err != nil {
			return err
		}
		t.folders[part] = true
	}
	return nil
}

// legible says that a name is UTF-8 without control characters, as all names of kernel
// packages are: others grow sixfold in the manifest.
func legible(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// file writes a regular file. One that is there already, as two packages may have it, is
// replaced.
func (t *tree) file(e entry, content io.Reader) error {
	if e.size > t.bytes {
		return errBytes
	}
	t.bytes -= e.size
	if err := t.mkdir(path.Dir(e.name)); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if e.executable {
		mode = 0o755
	}
	if err := t.root.Remove(e.name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	delete(t.folders, e.name) // an empty one was removed, too
	f, err := t.root.OpenFile(e.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(content, e.size))
	if err == nil && n < e.size {
		err = io.ErrUnexpectedEOF
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", e.name, err)
	}
	t.manifest.Files[e.name] = hex.EncodeToString(sum.Sum(nil))
	return nil
}

// finish makes the links and removes those that lead nowhere or out of the folder. No link
// is there while files are written, so none is written through one.
func (t *tree) finish() error {
	links := t.manifest.Links
	for _, e := range t.links {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		switch err := t.mkdir(path.Dir(e.name)); {
		case err == nil:
		case errors.Is(err, errEntries), errors.Is(err, t.ctx.Err()):
			return err
		default:
			continue // below a file
		}
		if e.kind == hardlink {
			t.hardlink(e)
			continue
		}
		if path.IsAbs(e.target) {
			continue
		}
		// One that is there already stays.
		if err := t.root.Symlink(e.target, e.name); err == nil {
			links[e.name] = e.target
		}
	}
	for name := range links {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		// Stat follows links, and fails where they lead out of the root.
		if _, err := t.root.Stat(name); err != nil {
			if err := t.root.Remove(name); err != nil {
				return err
			}
			delete(links, name)
		}
	}
	return nil
}

// hardlink links to a file of the package that was written.
func (t *tree) hardlink(e entry) {
	target, err := inside(e.target)
	if sum, ok := t.manifest.Files[target]; err == nil && ok && t.root.Link(target, e.name) == nil {
		t.manifest.Files[e.name] = sum
	}
}
