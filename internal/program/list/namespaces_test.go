package list

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What stands where a namespace was found is not opened: a pipe waits, a device does something.
func TestOpenNamespace(t *testing.T) {
	const own = "/proc/thread-self/ns/net"
	inode, err := inodeOf(own)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := open(own, inode)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if _, err := open(own, inode+1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another namespace: %v", err)
	}
	dir := t.TempDir()
	pipe, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "file")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	for _, path := range []string{pipe, file} {
		if _, err := unix.InotifyAddWatch(watch, path, unix.IN_OPEN); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{pipe, file, filepath.Join(dir, "none")} {
		inode, err := inodeOf(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := enter(&namespace{inode: inode, paths: []string{path}}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := unix.Read(watch, make([]byte, 4096)); err != unix.EAGAIN {
		t.Errorf("one was opened: %v", err)
	}
}
