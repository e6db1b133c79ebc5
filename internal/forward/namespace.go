package forward

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadNamespace is the network namespace of the calling thread.
const threadNamespace = "/proc/thread-self/ns/net"

// home is the network namespace that a forwarder was opened in.
type home struct {
	file  *os.File
	inode uint64
}

// openHome is that of the calling thread.
func openHome() (*home, error) {
	f, err := os.Open(threadNamespace)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(fmt.Errorf("stat network namespace: %w", err), f.Close())
	}
	return &home{f, st.Ino}, nil
}

// do runs f on a thread that is in it: the calling one, unless that is in another, as when a process
// has several. That asks for CAP_SYS_ADMIN.
func (h *home) do(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var st unix.Stat_t
	if err := unix.Stat(threadNamespace, &st); err != nil {
		return fmt.Errorf("stat network namespace: %w", err)
	}
	if st.Ino == h.inode {
		return f()
	}
	done := make(chan error)
	go h.enter(f, done)
	return <-done
}

// enter runs f on a thread that enters the namespace, and ends with it.
func (h *home) enter(f func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread cannot be ended, and would stay in the namespace. Another one is taken while this one is held.
		other := make(chan error)
		go h.enter(f, other)
		err := <-other
		runtime.UnlockOSThread()
		done <- err
		return
	}
	if err := unix.Setns(int(h.file.Fd()), unix.CLONE_NEWNET); err != nil {
		done <- fmt.Errorf("enter network namespace: %w", err)
		return
	}
	done <- f()
}

// Close may be called twice, and of none.
func (h *home) Close() error {
	if h == nil {
		return nil
	}
	if err := h.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
