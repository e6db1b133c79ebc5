package xsk

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil/nics"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// These tests run in guests with NICs that have zero copy: internal/guest boots them.

// onWires are a guest's NICs for the helpers of these tests.
func onWires(t *testing.T) (w *wire, all *nics.Wires, driver string) {
	t.Helper()
	all = nics.Take(t)
	w = &wire{Namespace: all.Namespace, near: all.In, far: all.Gen}
	if err := w.Do(func() error { driver = nicOf(w.near.Index).driver; return nil }); err != nil {
		t.Fatal(err)
	}
	return w, all, driver
}

// try opens a socket that may be refused.
func (w *wire) try(t *testing.T, u *UMEM, o Options) (s *Socket, err error) {
	err = w.Do(func() (err error) { s, err = Open(t.Context(), u, o); return err })
	return s, err
}

// What a driver would cut is not bound without copies, and comes whole with copies.
func TestWiresSmallChunks(t *testing.T) {
	w, wires, driver := onWires(t)
	u := fakeUMEM(t, Config{Frames: 1024, FrameSize: 2048})
	s, err := w.try(t, u, Options{Interface: w.near.Index, Mode: ZeroCopy})
	want := ZeroCopy
	if inKiB[driver] {
		want = Copy
		if !errors.Is(err, ErrNoZeroCopy) || !strings.Contains(err.Error(), driver+" receives 1024 bytes into a chunk of 2048") {
			t.Fatalf("%v, want %v", err, ErrNoZeroCopy)
		}
	} else {
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s = w.open(t, u, Options{Interface: w.near.Index})
	if s.Mode() != want || (s.WhyCopy() == nil) != (want == ZeroCopy) {
		t.Errorf("%v mode, as %v, want %v", s.Mode(), s.WhyCopy(), want)
	}
	fill(t, s, 512)
	w.attach(t, w.near.Index, ProgramOptions{Sockets: []*Socket{s}})
	wires.AwaitUp(t)
	for size := 60; size <= 1514; size += 97 {
		frame := veth.Frame(t, size)
		w.send(t, frame)
		if got := take(t, s, 1); !bytes.Equal(u.Data(got[0]), frame) {
			t.Errorf("of %d bytes %d came, %.40x…", size, got[0].Len, u.Data(got[0]))
		}
	}
}

// The order bind, fill, attach is asked for, and with it frames come from the first on.
func TestWiresOrder(t *testing.T) {
	w, wires, _ := onWires(t)
	u := fakeUMEM(t, Config{Frames: 1024})
	s := w.open(t, u, Options{Interface: w.near.Index, Mode: ZeroCopy})
	err := w.Do(func() error {
		p, err := Attach(w.near.Index, ProgramOptions{Sockets: []*Socket{s}})
		if err == nil {
			p.Close()
		}
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "put chunks into its fill ring before") {
		t.Fatalf("attached before the fill ring has chunks: %v", err)
	}
	if n := wires.Programs(t); n > 0 {
		t.Errorf("%d devices have a program", n)
	}
	fill(t, s, 1024)
	w.attach(t, w.near.Index, ProgramOptions{Sockets: []*Socket{s}})
	wires.AwaitUp(t)
	for range 3 { // more than the fill ring has
		for range 8 {
			for range 64 {
				w.send(t, veth.Frame(t, 1514))
			}
			for _, d := range take(t, s, 64) {
				if d.Len != 1514 || !bytes.Equal(u.Data(d), veth.Frame(t, 1514)) {
					t.Fatalf("%+v came", d)
				}
				s.Fill.Put([]uint64{d.Addr})
			}
		}
	}
}

// A device that only transmits needs a program with some drivers, and says so.
func TestWiresTransmit(t *testing.T) {
	w, wires, driver := onWires(t)
	u := fakeUMEM(t, Config{Frames: 64})
	s := w.open(t, u, Options{Interface: w.near.Index, Mode: ZeroCopy})
	fill(t, s, 32)
	w.arrived = veth.Listen(t, w.Namespace, w.far.Index)
	chunk := make([]uint64, 1)
	u.Alloc(chunk)
	frame := veth.Frame(t, 1514)
	s.TX.Put([]Desc{{Addr: chunk[0], Len: uint32(copy(u.Bytes()[chunk[0]:], frame))}})
	err := s.Kick()
	if wants := driver == "igb"; errors.Is(err, ErrNoProgram) != wants || !wants && err != nil {
		t.Errorf("%s without a program: %v", driver, err)
	}
	w.attach(t, w.near.Index, ProgramOptions{})
	wires.AwaitUp(t)
	if err := s.Kick(); err != nil {
		t.Error(err)
	}
	if got := w.receive(t); !bytes.Equal(got, frame) {
		t.Errorf("%d bytes arrived: %.40x…", len(got), got)
	}
	complete(t, s, 1)
}

// A second device that cannot do without copies takes the first into copy mode.
func TestWiresMixed(t *testing.T) {
	w, wires, _ := onWires(t)
	near, _, err := w.VethPair("mixed", "mixedfar")
	if err != nil {
		t.Fatal(err)
	}
	u := fakeUMEM(t, Config{Frames: 64})
	first := w.open(t, u, Options{Interface: w.near.Index})
	if first.Mode() != ZeroCopy {
		t.Fatalf("%v mode: %v", first.Mode(), first.WhyCopy())
	}
	if _, err := w.try(t, u, Options{Interface: near.Index}); !errors.Is(err, ErrNoZeroCopy) || !strings.Contains(err.Error(), " mixed ") {
		t.Errorf("%v, want %v of mixed", err, ErrNoZeroCopy)
	}
	first.Close()
	all := func(mode Mode, devices ...netlab.Device) (sockets []*Socket, err error) {
		var options []Options
		for _, d := range devices {
			options = append(options, Options{Interface: d.Index, Mode: mode})
		}
		err = w.Do(func() (err error) { sockets, err = OpenAll(t.Context(), u, options); return err })
		for _, s := range sockets {
			t.Cleanup(func() { s.Close() })
		}
		return sockets, err
	}
	if sockets, err := all(ZeroCopy, w.near, near); !errors.Is(err, ErrNoZeroCopy) || sockets != nil {
		t.Errorf("%v, %v, want %v", sockets, err, ErrNoZeroCopy)
	}
	sockets, err := all(Auto, w.near, near)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sockets {
		if why := s.WhyCopy(); s.Mode() != Copy || !errors.Is(why, ErrNoZeroCopy) || !strings.Contains(why.Error(), " mixed ") {
			t.Errorf("%v mode, as %v", s.Mode(), why)
		}
		s.Close()
	}
	if sockets, err = all(Auto, wires.In, wires.Out); err != nil {
		t.Fatal(err)
	}
	for _, s := range sockets {
		if s.Mode() != ZeroCopy {
			t.Errorf("%v mode, as %v", s.Mode(), s.WhyCopy())
		}
	}
}
