package outfile

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Check fails when [Write] to path would, so that a run does not end with nowhere to put
// its result. It leaves nothing behind.
func Check(path string) error {
	t, err := regular(path)
	if err != nil {
		return failed(path, err)
	}
	defer t.close()
	f, name, err := t.temporary()
	if err != nil {
		return failed(path, err)
	}
	return failed(path, errors.Join(f.Close(), unix.Unlinkat(t.dir, name, 0)))
}

// Write writes b to path. The file appears whole or not at all: it is written beside
// path, flushed to disk and renamed. A file that was there is replaced by one with its
// mode, its owner and its group, as far as the caller has the right to give files away.
func Write(path string, b []byte) error { return WriteFrom(path, bytes.NewReader(b)) }

// WriteFrom is [Write] of what from has.
func WriteFrom(path string, from io.WriterTo) error {
	t, err := regular(path)
	if err != nil {
		return failed(path, err)
	}
	return t.write(path, from)
}

// Replace is [Write] to a name that the user did not choose: a link that is there is replaced and not followed, whoever made
// it. Links to the folder are followed.
func Replace(path string, b []byte) error {
	t, err := target{replaces: true}.walk(path, false)
	switch {
	case errors.Is(err, unix.EISDIR):
		return failed(path, errors.New("it is a directory"))
	case err != nil:
		return failed(path, err)
	case t.old != nil && t.old.Mode&unix.S_IFMT != unix.S_IFREG:
		t.close()
		return failed(path, errors.New("it is not a regular file"))
	}
	return t.write(path, bytes.NewReader(b))
}

// write writes what from has to t, which it closes.
func (t target) write(path string, from io.WriterTo) error {
	defer t.close()
	f, name, err := t.temporary()
	if err != nil {
		return failed(path, err)
	}
	_, err = from.WriteTo(f)
	if err == nil {
		err = f.Sync()
	}
	if errClose := f.Close(); err == nil {
		err = errClose
	}
	if err == nil {
		err = unix.Renameat(t.dir, name, t.dir, t.name)
	}
	if err != nil {
		unix.Unlinkat(t.dir, name, 0)
		return failed(path, err)
	}
	// The rename itself is durable once the folder is. Not every file system can say so;
	// the file is there either way.
	if dir, err := unix.Openat(t.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		unix.Fsync(dir)
		unix.Close(dir)
	}
	return nil
}

// CheckStream fails when [Stream] of path would. It opens nothing.
func CheckStream(path string) error {
	t, err := stream(path)
	if err != nil {
		return failed(path, err)
	}
	defer t.close()
	if t.descriptor {
		return nil
	}
	if t.old == nil {
		return failed(path, unix.Faccessat(t.dir, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS))
	}
	return failed(path, unix.Faccessat(t.dir, t.name, unix.W_OK, unix.AT_EACCESS))
}

// Stream opens path for what grows while it is read by others, as a capture. A new file
// is for its owner alone (mode 0600). A file that was there is emptied, and keeps its mode
// and owner. A named pipe and a descriptor (/dev/stdout) are streams too.
func Stream(path string) (*os.File, error) {
	t, err := stream(path)
	if err != nil {
		return nil, failed(path, err)
	}
	defer t.close()
	// A pipe that nobody reads is an error: waiting for a reader would hear no signal.
	flags := unix.O_WRONLY | unix.O_CLOEXEC | unix.O_NONBLOCK
	switch {
	case t.descriptor: // a link of /proc leads to the open file itself
	case t.old == nil:
		flags |= unix.O_NOFOLLOW | unix.O_CREAT | unix.O_EXCL
	default:
		flags |= unix.O_NOFOLLOW // emptied once it is known to be what was looked at
	}
	fd, err := unix.Openat(t.dir, t.name, flags, 0o600)
	if errors.Is(err, unix.ENXIO) {
		err = errors.New("no process reads this pipe")
	}
	if err == nil && t.old != nil {
		err = t.empty(fd)
	}
	if err != nil {
		return nil, failed(path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// empty empties the open file fd, when it is the one that was there: another may have its
// name by now. It closes fd when it fails.
func (t target) empty(fd int) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	old := t.old
	if err == nil && (st.Dev != old.Dev || st.Ino != old.Ino || st.Uid != old.Uid || st.Nlink != old.Nlink) {
		err = errors.New("another process changed it")
	}
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		err = unix.Ftruncate(fd, 0)
	}
	if err != nil {
		unix.Close(fd)
	}
	return err
}

// regular resolves a path that is a regular file or nothing: renaming over /dev/null
// would replace it.
func regular(path string) (target, error) {
	t, err := named(path)
	if err == nil && (t.descriptor || t.old != nil && t.old.Mode&unix.S_IFMT != unix.S_IFREG) {
		t.close()
		return t, errors.New("it is not a regular file")
	}
	return t, err
}

// stream resolves a path that can be written to in place.
func stream(path string) (target, error) {
	t, err := named(path)
	if err == nil && t.old != nil && t.old.Mode&unix.S_IFMT != unix.S_IFREG && t.old.Mode&unix.S_IFMT != unix.S_IFIFO {
		t.close()
		return t, errors.New("it is neither a regular file nor a pipe")
	}
	if err == nil && t.old != nil && t.old.Mode&unix.S_IFMT == unix.S_IFREG && t.old.Nlink > 1 {
		t.close()
		return t, errors.New("it has other names (hard links), whose content would go with its own: remove it first")
	}
	return t, err
}

func named(path string) (target, error) {
	if path == "" {
		return target{}, errors.New("no file name")
	}
	name := strings.TrimRight(path, "/")
	t, err := resolve(cmp.Or(name, "/"))
	switch {
	case errors.Is(err, unix.EISDIR):
		return t, errors.New("it is a directory")
	case err == nil && name != path:
		t.close()
		return t, errors.New("it is not a file name")
	}
	return t, err
}

// temporary makes a new file in t's folder. Where there is an old file, the new one has
// its mode and its owner.
func (t target) temporary() (f *os.File, name string, err error) {
	name = ".unthunk-" + rand.Text()
	mode := uint32(0o666) // less the umask
	if t.old != nil {
		mode = 0o600
	}
	fd, err := unix.Openat(t.dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return nil, "", err
	}
	f = os.NewFile(uintptr(fd), name)
	if t.old != nil {
		if err := t.inherit(fd); err != nil {
			return nil, "", errors.Join(err, f.Close(), unix.Unlinkat(t.dir, name, 0))
		}
	}
	return f, name, nil
}

// inherit gives a new and empty file the mode and owner of the old one. Who may not give
// files away keeps it; without the old group, the mode's rights of the group go.
func (t target) inherit(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	mode := t.old.Mode & 0o777
	group := unix.Fchown(fd, -1, int(t.old.Gid))
	if group != nil && st.Gid != t.old.Gid {
		mode &^= 0o070
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	if st.Uid != t.old.Uid {
		if err := unix.Fchown(fd, int(t.old.Uid), -1); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return nil
}

// failed names the user's file, not the one beside it.
func failed(path string, err error) error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*os.PathError](err); ok {
		err = p.Err
	}
	if path == "" {
		return fmt.Errorf("save: %w", err)
	}
	return fmt.Errorf("save %s: %w", path, err)
}
