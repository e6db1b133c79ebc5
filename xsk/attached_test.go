package xsk

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// A program that somebody else took off is known to be, frames pass it by, and a new one brings them
// to the same socket again.
func TestProgramTakenOff(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 64})
	s := w.open(t, u, Options{Interface: w.near.Index})
	fill(t, s, 32)
	attached := func(p *Program, want bool) {
		t.Helper()
		if is, err := p.Attached(); err != nil || is != want {
			t.Fatalf("attached %v, %v: want %v", is, err, want)
		}
	}
	p := w.attach(t, w.near.Index, ProgramOptions{}, s)
	attached(p, true)
	w.send(t, veth.Frame(t, 60))
	take(t, s, 1)

	// By netlink the kernel does not let anybody.
	err := w.Do(func() error {
		l, err := netlink.LinkByIndex(w.near.Index)
		if err != nil {
			return err
		}
		return netlink.LinkSetXdpFd(l, -1)
	})
	if !errors.Is(err, unix.EBUSY) {
		t.Errorf("ip link set xdp off: %v, want it refused", err)
	}
	attached(p, true)

	veth.DetachXDP(t, w.Namespace, w.near.Index)
	attached(p, false)
	w.send(t, veth.Frame(t, 60))
	w.attach(t, w.near.Index, ProgramOptions{}, s)
	w.send(t, veth.Frame(t, 61))
	if got := take(t, s, 1); got[0].Len != 61 {
		t.Errorf("received %d bytes, want the 61 after the program came back", got[0].Len)
	}

	another := w.attach(t, w.far.Index, ProgramOptions{})
	attached(another, true)
	other := veth.Program(t, asm.Mov.Imm(asm.R0, xdpPass), asm.Return())
	if err := another.link.Update(other); err != nil {
		t.Fatal(err)
	}
	attached(another, false)
	if err := another.Close(); err != nil {
		t.Fatal(err)
	}
	attached(another, false)
}
