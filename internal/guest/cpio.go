package guest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/unpack"
)

// archive writes a cpio archive in the "newc" format, which is what the kernel
// unpacks as its initramfs (Documentation/driver-api/early-userspace/
// buffer-format.rst). Parent directories are written before what they hold.
type archive struct {
	w    io.Writer
	n    int64 // bytes written
	ino  int
	dirs []string
	err  error
}

// maxInitrd is the largest initramfs, in bytes: a guest has 512 MiB, in which it is
// unpacked.
const maxInitrd = 256 << 20

const (
	modeDir  = 0o040755
	modeFile = 0o100755
)

// file adds a file with mode 0755.
func (a *archive) file(name string, data []byte) {
	a.dir(path.Dir(name))
	a.entry(name, modeFile, int64(len(data)), bytes.NewReader(data))
}

// copy adds a regular file of this machine with mode 0755, until ctx ends.
func (a *archive) copy(ctx context.Context, name, from string) {
	f, size, err := unpack.Open(from, maxInitrd)
	if err != nil {
		a.err = cmp.Or(a.err, err)
		return
	}
	defer f.Close()
	a.dir(path.Dir(name))
	a.entry(name, modeFile, size, unpack.Heard(ctx, f))
}

// dir adds a directory and its parents unless they are there already.
func (a *archive) dir(name string) {
	if name = path.Clean(name); name == "/" || name == "." || slices.Contains(a.dirs, name) {
		return
	}
	a.dir(path.Dir(name))
	a.dirs = append(a.dirs, name)
	a.entry(name, modeDir, 0, nil)
}

// close writes the trailer and returns the first error there was.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, 0, nil)
	return a.err
}

// entry adds an entry, with size bytes of data, which may be nil where there are none.
func (a *archive) entry(name string, mode int, size int64, data io.Reader) {
	name = strings.TrimPrefix(name, "/")
	if name != path.Clean(name) && a.err == nil {
		a.err = &fs.PathError{Op: "archive", Path: name, Err: fs.ErrInvalid}
	}
	a.ino++
	// inode, mode, uid, gid, links, mtime, size, device ×2, rdev ×2, name
	// length with the final NUL, checksum
	a.printf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0)
	a.printf("%s\x00", name)
	a.align()
	a.room(size)
	if a.err == nil && size > 0 {
		n, err := io.CopyN(a.w, data, size)
		a.n += n
		a.err = err
	}
	a.align()
}

func (a *archive) printf(format string, args ...any) { a.write(fmt.Appendf(nil, format, args...)) }

func (a *archive) align() { a.write(make([]byte, -a.n&3)) }

// room sets the error where there is no room for so many bytes.
func (a *archive) room(size int64) {
	if a.err == nil && size > maxInitrd-a.n {
		a.err = fmt.Errorf("more than %d MiB", maxInitrd>>20)
	}
}

func (a *archive) write(b []byte) {
	a.room(int64(len(b)))
	if a.err != nil {
		return
	}
	n, err := a.w.Write(b)
	a.n += int64(n)
	a.err = err
}
