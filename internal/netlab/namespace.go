package netlab

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// ErrClosed is returned by a namespace after Close.
var ErrClosed = errors.New("network namespace is closed")

// Namespace is a private network namespace and the one thread that lives in
// it. That thread is pinned to one CPU.
type Namespace struct {
	work chan func()
	quit chan struct{} // closed by Close
	done chan struct{} // closed when the thread has ended
	// Inode is the namespace's inode number, as in /proc/PID/ns/net.
	Inode uint32

	links map[int]link.Link // XDP, by interface index
	// withoutAddresses says that IPv6 could not be disabled: devices get no address of it,
	// so that they send nothing either.
	withoutAddresses bool
}

// New makes an empty namespace whose thread runs on cpu. It returns a
// [feature.Missing] without CAP_SYS_ADMIN.
func New(cpu int) (*Namespace, error) {
	n := &Namespace{
		work: make(chan func()), quit: make(chan struct{}), done: make(chan struct{}),
		links: make(map[int]link.Link),
	}
	started := make(chan error)
	go n.serve(cpu, started)
	if err := <-started; err != nil {
		return nil, err
	}
	return n, nil
}

// serve runs on a thread of its own and never unlocks it: the runtime ends
// the thread with the goroutine, and the namespace goes with the thread.
func (n *Namespace) serve(cpu int, started chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread cannot be ended, and would hold the namespace as
		// long as the process lives. Another one is taken while this one is
		// held.
		first := make(chan error)
		go n.serve(cpu, first)
		err := <-first
		runtime.UnlockOSThread()
		if err != nil {
			started <- err
			return
		}
		close(started)
		return
	}
	defer close(n.done)
	if err := n.enter(cpu); err != nil {
		started <- err
		return
	}
	close(started)
	for {
		select {
		case f := <-n.work:
			f()
		case <-n.quit:
			return
		}
	}
}

func (n *Namespace) enter(cpu int) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if errors.Is(err, unix.EPERM) {
			return feature.Refused(fmt.Errorf("unshare network namespace: %w", err), unix.CAP_SYS_ADMIN)
		}
		return fmt.Errorf("unshare network namespace: %w", err)
	}
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin thread to CPU %d: %w", cpu, err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return fmt.Errorf("stat network namespace: %w", err)
	}
	n.Inode = uint32(st.Ino)
	// No router solicitations between the counted frames. Absent without
	// IPv6.
	err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	switch {
	case err == nil, errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM): // as in containers
		n.withoutAddresses = true
		return nil
	}
	return fmt.Errorf("disable IPv6 in namespace: %w", err)
}

// Do runs f on the namespace's thread and returns what it returns. BPF calls
// that take an interface index must be made here: the kernel looks the index
// up in the namespace of the calling thread.
func (n *Namespace) Do(f func() error) error {
	result := make(chan error, 1)
	select {
	case n.work <- func() { result <- f() }:
		return <-result
	case <-n.done:
		return ErrClosed
	}
}

// Close detaches the programs and ends the thread, and the namespace with it.
// The kernel removes the devices a moment later.
func (n *Namespace) Close() error {
	err := n.Do(func() error {
		var errs []error
		for _, l := range n.links {
			errs = append(errs, l.Close())
		}
		return errors.Join(errs...)
	})
	if errors.Is(err, ErrClosed) {
		return nil
	}
	close(n.quit)
	<-n.done
	return err
}
