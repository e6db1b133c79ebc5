// Package veth gives tests pairs of veths in a namespace of their own, and frames on
// them.
package veth

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/traffic"
)

// Namespace makes a network namespace that is closed at the end of the test. It skips
// the test without root.
func Namespace(t testing.TB) *netlab.Namespace {
	t.Helper()
	testutil.Root(t)
	lab, err := netlab.New(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

// Pair makes two connected devices.
func Pair(t testing.TB, lab *netlab.Namespace, nameA, nameB string) (a, b netlab.Device) {
	t.Helper()
	a, b, err := lab.VethPair(nameA, nameB)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	return a, b
}

// Program loads an XDP program that takes frames of several buffers, until the end of
// the test.
func Program(t testing.TB, ins ...asm.Instruction) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: ins, Flags: unix.BPF_F_XDP_HAS_FRAGS,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// Frame makes a UDP frame of size bytes.
func Frame(t testing.TB, size int) []byte {
	t.Helper()
	f, err := traffic.UDPFrame(size)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Source loads a program that sends what it is run on out of a device, for [Burst].
func Source(t testing.TB, ifindex int) *ebpf.Program {
	t.Helper()
	return Program(t, asm.Mov.Imm(asm.R1, int32(ifindex)), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return())
}

// Burst sends frames of 60 bytes by a source in bulk, as fast as the kernel makes them. Signals wait meanwhile: one of the runtime
// would end it early. What else interrupts the call may; then not all are sent.
func Burst(t testing.TB, lab *netlab.Namespace, source *ebpf.Program, frames int) (all bool) {
	t.Helper()
	live := traffic.Live{Frame: Frame(t, 60), Batch: 64, Program: source}
	err := lab.Do(func() error { // on a thread that is locked
		var all, before unix.Sigset_t
		for i := range all.Val {
			all.Val[i]--
		}
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &before); err != nil {
			return err
		}
		_, err := live.Send(t.Context(), frames)
		return errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil))
	})
	if err != nil && !errors.Is(err, unix.EINTR) {
		t.Fatal(err)
	}
	return err == nil
}

// Send sends frames out of a device through a packet socket.
func Send(t testing.TB, lab *netlab.Namespace, ifindex int, frames ...[]byte) {
	t.Helper()
	err := lab.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: ifindex}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ethPAll is htons(ETH_P_ALL).
const ethPAll = 0x0300

// Listen opens a packet socket on a device, until the end of the test. receive returns
// the next frame that the device received; nil when none comes in 2 s.
func Listen(t testing.TB, lab *netlab.Namespace, ifindex int) (receive func() []byte) {
	t.Helper()
	fd := -1
	err := lab.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, ethPAll)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		// Room for bursts: each frame takes some 2 KiB.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 2<<20); err != nil {
			return err
		}
		wait := unix.NsecToTimeval(int64(2 * time.Second))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ethPAll, Ifindex: ifindex})
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() []byte {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if errors.Is(err, unix.EAGAIN) {
				return nil
			}
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			// What was sent on the device comes too.
			if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING {
				return buf[:n]
			}
		}
	}
}

// DetachXDP takes the XDP program off a device, as somebody else would (bpftool link detach).
func DetachXDP(t testing.TB, lab *netlab.Namespace, ifindex int) {
	t.Helper()
	// Indexes of devices are those of a namespace, IDs of programs the machine's.
	var program uint32
	err := lab.Do(func() error {
		l, err := netlink.LinkByIndex(ifindex)
		if err == nil && l.Attrs().Xdp != nil {
			program = l.Attrs().Xdp.ProgId
		}
		return err
	})
	if err != nil || program == 0 {
		t.Fatalf("XDP program %d of device %d: %v", program, ifindex, err)
	}
	var all link.Iterator
	defer all.Close()
	for all.Next() {
		info, err := all.Link.Info()
		if err != nil {
			t.Fatal(err)
		}
		detacher, ok := all.Link.(interface{ Detach() error })
		if uint32(info.Program) != program || !ok {
			continue
		}
		if err := detacher.Detach(); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("XDP program %d of device %d has no link: %v", program, ifindex, all.Err())
}

// Move moves a device from one namespace to another, where it is down.
func Move(t testing.TB, from, to *netlab.Namespace, name string) {
	t.Helper()
	fd := -1
	err := to.Do(func() (err error) {
		fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err = from.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkSetNsFd(l, fd)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// StepClock sets the machine's clock on by some time, or back, and back to what it should be at the end of
// the test. It skips the test but in a guest that was booted for that, by the parameter unthunk.clock.
func StepClock(t testing.TB, by time.Duration) {
	t.Helper()
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(strings.Fields(string(line)), "unthunk.clock") {
		testutil.Missing(t, "a guest whose clock is the test's (make test-kernels)")
	}
	set := func(at time.Time) {
		tv := unix.NsecToTimeval(at.UnixNano())
		if err := unix.Settimeofday(&tv); err != nil {
			t.Fatal(err)
		}
	}
	set(time.Now().Add(by))
	t.Cleanup(func() { set(time.Now().Add(-by)) })
}
