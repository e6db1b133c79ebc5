package unpack

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

// What is no regular file is not even opened: to open a device does something.
func TestOpenOpensNothing(t *testing.T) {
	dir := t.TempDir()
	pipe, file, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("pipe", link); err != nil {
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
	events := make([]byte, 4096)
	for _, path := range []string{pipe, link} {
		if f, _, err := Open(path, 10); err == nil {
			f.Close()
			t.Errorf("%s was opened", path)
		}
	}
	if _, err := unix.Read(watch, events); err != unix.EAGAIN {
		t.Errorf("a pipe was opened: %v", err)
	}
	f, size, err := Open(file, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.Read(watch, events); err != nil || size != 1 || f.Name() != file { // the watch sees what is opened
		t.Errorf("%v, %d bytes, %s", err, size, f.Name())
	}
}

// A file that another process has a lease on is an error at once: to wait for its end takes 45 s (/proc/sys/fs/lease-break-time).
func TestOpenLeased(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	holder, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		testutil.Missing(t, "leases of files")
	}
	if f, _, err := Open(path, 10); !errors.Is(err, unix.EAGAIN) {
		f.Close()
		t.Errorf("%v", err)
	}
}
