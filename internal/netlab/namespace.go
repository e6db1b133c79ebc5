package netlab

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
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
			return feature.Root(err)
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
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("disable IPv6 in namespace: %w", err)
	}
	return nil
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

// VethPair makes two connected devices with one queue each, up, and returns
// their interface indices.
func (n *Namespace) VethPair(a, b string) (ifA, ifB int, err error) {
	err = n.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = a, 1, 1
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: b, PeerNumTxQueues: 1, PeerNumRxQueues: 1}
		if err := netlink.LinkAdd(veth); err != nil {
			if errors.Is(err, unix.EOPNOTSUPP) {
				return &feature.Missing{Feature: "veth", Help: "modprobe veth", Err: err}
			}
			return fmt.Errorf("add veth %s: %w", a, err)
		}
		for i, name := range []string{a, b} {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return fmt.Errorf("find %s: %w", name, err)
			}
			if err := netlink.LinkSetUp(l); err != nil {
				return fmt.Errorf("set %s up: %w", name, err)
			}
			if i == 0 {
				ifA = l.Attrs().Index
			} else {
				ifB = l.Attrs().Index
			}
		}
		return nil
	})
	return ifA, ifB, err
}

// Take moves a device of this thread's network namespace here, sets it up, to receive
// frames for any address, and returns its index. When the namespace ends the kernel gives hardware back to the first one.
func (n *Namespace) Take(name string) (ifindex int, err error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	var here *os.File
	if err := n.Do(func() (err error) {
		here, err = os.Open("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		return 0, fmt.Errorf("open network namespace: %w", err)
	}
	defer here.Close()
	if err := netlink.LinkSetNsFd(l, int(here.Fd())); err != nil {
		return 0, fmt.Errorf("move %s: %w", name, err)
	}
	err = n.Do(func() error {
		if l, err = netlink.LinkByName(name); err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if err := netlink.SetPromiscOn(l); err != nil {
			return fmt.Errorf("set %s promiscuous: %w", name, err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
		return nil
	})
	return l.Attrs().Index, err
}

// Attach attaches an XDP program to a device until the namespace is closed.
// Requires at least Linux 5.9.
func (n *Namespace) Attach(p *ebpf.Program, ifindex int, flags link.XDPAttachFlags) error {
	return n.Do(func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: ifindex, Flags: flags})
		if err != nil {
			return fmt.Errorf("attach XDP program: %w", err)
		}
		n.links[ifindex] = l
		return nil
	})
}

// Detach detaches what Attach attached to a device.
func (n *Namespace) Detach(ifindex int) error {
	return n.Do(func() error {
		l, ok := n.links[ifindex]
		if !ok {
			return fmt.Errorf("detach XDP program: interface %d has none", ifindex)
		}
		delete(n.links, ifindex)
		if err := l.Close(); err != nil {
			return fmt.Errorf("detach XDP program: %w", err)
		}
		return nil
	})
}

// EnableGRO turns generic receive offload on, which gives a veth without an
// XDP program a NAPI, so that it can receive redirected frames.
func (n *Namespace) EnableGRO(name string) error {
	return n.Do(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return fmt.Errorf("open ethtool: %w", err)
		}
		defer e.Close()
		if err := e.Change(name, map[string]bool{"rx-gro": true}); err != nil {
			return fmt.Errorf("turn on GRO of %s: %w", name, err)
		}
		return nil
	})
}

// StackDrops returns how many frames the network stack has dropped on a
// device because no protocol wanted them (rx_dropped).
func (n *Namespace) StackDrops(ifindex int) (frames uint64, err error) {
	err = n.Do(func() error {
		l, err := netlink.LinkByIndex(ifindex)
		if err != nil {
			return fmt.Errorf("read statistics: %w", err)
		}
		frames = l.Attrs().Statistics.RxDropped
		return nil
	})
	return frames, err
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
