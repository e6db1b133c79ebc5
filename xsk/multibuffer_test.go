package xsk

import (
	"bytes"
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// Larger frames than a chunk come in parts.
func TestMultiBuffer(t *testing.T) {
	w := newWire(t)
	setMTU(t, w, 9000)
	u := fakeUMEM(t, Config{Frames: 64})
	s := w.open(t, u, Options{Interface: w.near.Index, MultiBuffer: true})
	fill(t, s, 32)
	w.attach(t, w.near.Index, ProgramOptions{MultiBuffer: true}, s)
	want := make([]byte, 9014)
	copy(want, veth.Frame(t, 60))
	for i := 60; i < len(want); i++ {
		want[i] = byte(i * 7)
	}
	w.send(t, want)
	parts := (len(want) + u.Capacity() - 1) / u.Capacity()
	got := take(t, s, parts)
	var whole []byte
	for i, d := range got {
		if last := i == parts-1; (d.Options&Continued == 0) != last {
			t.Errorf("part %d of %d has options %#x", i, parts, d.Options)
		}
		whole = append(whole, u.Data(d)...)
	}
	if !bytes.Equal(whole, want) {
		t.Fatalf("received %d bytes that are not the %d sent", len(whole), len(want))
	}
	if n := s.TX.Put(got); n != parts {
		t.Fatalf("TX ring took %d", n)
	}
	if err := s.Kick(); err != nil {
		t.Fatal(err)
	}
	if back := w.receive(t); !bytes.Equal(back, want) {
		t.Errorf("sent back %d bytes that are not the %d received", len(back), len(want))
	}
	complete(t, s, parts)
}

func setMTU(t testing.TB, w *wire, mtu int) {
	t.Helper()
	err := w.Do(func() error {
		for _, ifindex := range []int{w.near.Index, w.far.Index} {
			l, err := netlink.LinkByIndex(ifindex)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMTU(l, mtu); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A frame that does not fit is counted by the kernel, and says nothing else.
func TestFrameLargerThanChunk(t *testing.T) {
	w := newWire(t)
	setMTU(t, w, 1900)
	u := fakeUMEM(t, Config{Frames: 64, FrameSize: 2048})
	s := w.open(t, u, Options{Interface: w.near.Index})
	fill(t, s, 32)
	w.attach(t, w.near.Index, ProgramOptions{}, s)
	w.send(t, make([]byte, 1900))
	w.send(t, veth.Frame(t, 60))
	take(t, s, 1)
	if st, err := s.Statistics(); err != nil || st.RXDropped != 1 {
		t.Errorf("statistics %+v, %v; want one dropped", st, err)
	}
}

// Without multi-buffer a program is not taken by a device whose frames need it.
func TestMTUNeedsMultiBuffer(t *testing.T) {
	w := newWire(t)
	setMTU(t, w, 9000)
	err := w.Do(func() error {
		p, err := Attach(w.near.Index, ProgramOptions{})
		if err == nil {
			p.Close()
		}
		return err
	})
	want := "attach XDP program: the MTU of near, of a veth that of its peer, is too large without multi-buffer: numerical result out of range"
	if !errors.Is(err, unix.ERANGE) || err.Error() != want {
		t.Errorf("attach: %v, want %s", err, want)
	}
}
