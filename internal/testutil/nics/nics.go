// Package nics gives tests the NICs of a guest: two wires with two ends each.
package nics

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// Addresses are those of the NICs: at the far end of the first wire, at its near end, at the
// near end of the second, at its far end.
var Addresses = [4]string{"02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:04"}

// Wires are a guest's, in a namespace of their own until the end of the test. What is sent by
// Gen arrives at In; what is sent by Out arrives at Sink.
type Wires struct {
	*netlab.Namespace
	Gen, In, Out, Sink netlab.Device
}

// Take takes the NICs. It skips the test where a guest has none, and where this is no guest.
func Take(t testing.TB) *Wires {
	t.Helper()
	names := present(t)
	if len(names) < len(Addresses) {
		testutil.Missing(t, "the NICs of a guest (make test-kernels)")
	}
	// The kernel moves them back some time after the namespace has ended.
	t.Cleanup(func() { testutil.Eventually(t, "back", func() bool { return len(present(t)) == len(Addresses) }) })
	w := &Wires{Namespace: veth.Namespace(t)}
	w.take(t, names)
	return w
}

// take moves the NICs into the namespace, from this thread's.
func (w *Wires) take(t testing.TB, names map[string]string) {
	t.Helper()
	for i, to := range []*netlab.Device{&w.Gen, &w.In, &w.Out, &w.Sink} {
		var err error
		if *to, err = w.Namespace.Take(names[Addresses[i]]); err != nil {
			t.Fatal(err)
		}
	}
}

// modules is where a guest has its modules: guest.ModuleDir, whose tests import this package.
const modules = "/modules/"

// ReloadDriver unloads the driver of all NICs, with which they end, and loads it again. They are new ones then, with the
// same names.
func (w *Wires) ReloadDriver(t testing.TB) {
	t.Helper()
	var driver string
	if err := w.Do(func() error { driver = host.Driver(w.In.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := unix.DeleteModule(driver, 0); err != nil {
		t.Fatalf("unload %s: %v", driver, err)
	}
	f, err := os.Open(modules + driver + ".ko")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		t.Fatalf("load %s: %v", driver, err)
	}
	testutil.Eventually(t, "loaded", func() bool { return len(present(t)) == len(Addresses) })
	w.take(t, present(t))
}

// present are the names of the NICs in this thread's network namespace by their addresses.
func present(t testing.TB) map[string]string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]string)
	for _, i := range all {
		if address := i.HardwareAddr.String(); slices.Contains(Addresses[:], address) {
			names[address] = i.Name
		}
	}
	return names
}

// AwaitUp waits for the links, which drivers reset when a program is attached.
func (w *Wires) AwaitUp(t testing.TB) {
	t.Helper()
	err := w.Do(func() error {
		return device.AwaitUp(context.Background(), w.Gen.Index, w.In.Index, w.Out.Index, w.Sink.Index)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Set sets a device up or down.
func (w *Wires) Set(t testing.TB, d netlab.Device, set func(netlink.Link) error) {
	t.Helper()
	err := w.Do(func() error {
		l, err := netlink.LinkByIndex(d.Index)
		if err != nil {
			return err
		}
		return set(l)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Programs says how many of the devices have an XDP program.
func (w *Wires) Programs(t testing.TB) (n int) {
	t.Helper()
	for _, d := range []netlab.Device{w.Gen, w.In, w.Out, w.Sink} {
		w.Set(t, d, func(l netlink.Link) error {
			if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
				n++
			}
			return nil
		})
	}
	return n
}

// burst is how many frames are on their way at most.
const burst = 128

// Exchange sends numbered frames of 60 to 1514 bytes out of a device and wants them at another,
// byte for byte and in order. It returns how many did not come: QEMU's NICs lose some where
// other work has this machine's CPUs, and more than one of 100 is a failure.
func (w *Wires) Exchange(t testing.TB, from, to netlab.Device, frames int) (lost int) {
	t.Helper()
	fd := -1
	err := w.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	arrived := veth.Listen(t, w.Namespace, to.Index)
	for next := 0; next < frames; {
		end := min(next+burst, frames)
		for i := next; i < end; i++ {
			if err := unix.Sendto(fd, numbered(i), 0, &unix.SockaddrLinklayer{Ifindex: from.Index}); err != nil {
				t.Fatal(err)
			}
		}
		for next < end {
			got, n := await(arrived), end
			if got != nil {
				n = numberOf(got)
				if n < next || n >= end || !bytes.Equal(got, numbered(n)) {
					t.Fatalf("after frame %d %d bytes arrived, which none of %d to %d is: %.40x…", next-1, len(got), next, end-1, got)
				}
			}
			if lost += n - next; 100*lost > frames {
				w.log(t)
				t.Fatalf("of the first %d of %d frames %d did not come", n, frames, lost)
			}
			next = min(n+1, end)
		}
	}
	if lost > 0 {
		w.log(t)
		t.Logf("of %d frames %d did not come", frames, lost)
	}
	return lost
}

// log writes what the drivers count.
func (w *Wires) log(t testing.TB) {
	t.Helper()
	for _, d := range []netlab.Device{w.Gen, w.In, w.Out, w.Sink} {
		w.Set(t, d, func(l netlink.Link) error {
			t.Logf("%s: %+v", d.Name, *l.Attrs().Statistics)
			return nil
		})
	}
}

// await returns the next frame, nil when none comes in a minute: other work may have this
// machine's CPUs.
func await(arrived func() []byte) []byte {
	for range 30 {
		if f := arrived(); f != nil {
			return f
		}
	}
	return nil
}

// numbered is a frame of no protocol that is known.
func numbered(n int) []byte {
	const least, most = 60, 1514
	f := make([]byte, least+n*131%(most-least+1))
	copy(f, []byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x88, 0xb5})
	binary.BigEndian.PutUint32(f[14:], uint32(n))
	for i := 18; i < len(f); i++ {
		f[i] = byte(i + n)
	}
	return f
}

// numberOf is a frame's number, or -1.
func numberOf(f []byte) int {
	if len(f) < 18 {
		return -1
	}
	return int(binary.BigEndian.Uint32(f[14:]))
}
