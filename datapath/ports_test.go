package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/xsk"
)

// until polls until a condition holds.
func until(t testing.TB, d *Datapath, what string, holds func() bool) {
	t.Helper()
	for range 20_000 {
		poll(t, d)
		if holds() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("not in 20 s: %s", what)
}

func sizes() [][]byte {
	var list [][]byte
	for _, size := range []int{60, 1514, 1792, 1793, 5000, 9014} {
		f := bytes.Repeat([]byte{byte(size)}, size)
		copy(f, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5})
		list = append(list, f)
	}
	return list
}

// sameFrames compares what came with what was sent.
func sameFrames(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("frame %d has %d bytes, want %d: %x", i, len(got[i]), len(want[i]), got[i][:min(20, len(got[i]))])
		}
	}
}

// A link goes down only when it was up: one that is down from the beginning is not counted.
func TestLinkDowns(t *testing.T) {
	p := NewXSK(&xsk.Socket{})
	var got []uint64
	for _, err := range []error{xsk.ErrDown, xsk.ErrDown, nil, xsk.ErrDown, xsk.ErrDown, nil, nil, xsk.ErrDown} {
		if err := p.checked(err); err != nil {
			t.Fatal(err)
		}
		got = append(got, p.takeDowns())
	}
	if want := []uint64{0, 0, 0, 1, 0, 0, 0, 1}; !slices.Equal(got, want) {
		t.Errorf("went down %v times, want %v", got, want)
	}
}

// A link that is down and a device without a program are two things, and no end of a port. A driver that is reset says
// "down" too: a check of the socket, which this one passes, decides.
func TestXSKWaits(t *testing.T) {
	p := NewXSK(&xsk.Socket{})
	for _, tt := range []struct {
		err       error
		noProgram bool
	}{
		{fmt.Errorf("kick: %w", xsk.ErrNoProgram), true},
		{fmt.Errorf("kick: %w", xsk.ErrDown), false},
		{fmt.Errorf("kick: %w", xsk.ErrDown), false},
		{nil, false},
	} {
		if err := p.flushed(tt.err); err != nil || p.Down || p.NoProgram() != tt.noProgram {
			t.Errorf("%v: %v, down %v, no program %v", tt.err, err, p.Down, p.NoProgram())
		}
	}
	if n := p.takeDowns(); n > 0 {
		t.Errorf("went down %d times", n)
	}
	if err := p.checked(xsk.ErrDown); err != nil || !p.Down {
		t.Errorf("%v, down %v", err, p.Down)
	}
	if err := p.flushed(nil); err != nil || !p.Down {
		t.Errorf("%v, down %v: only a check can tell that the link is up again", err, p.Down)
	}
	p.flushed(xsk.ErrNoProgram)
	if err := p.checked(nil); err != nil || !p.NoProgram() {
		t.Errorf("%v, no program %v: only a flush can tell that it is back", err, p.NoProgram())
	}
	if err := p.flushed(xsk.ErrGone); err != xsk.ErrGone {
		t.Errorf("%v, want %v", err, xsk.ErrGone)
	}
}

// Frames from one packet socket to another, over a wire between two datapaths'
// ports, and back into memory.
func TestPacket(t *testing.T) {
	b := newBench(t)
	for _, ifindex := range []int{b.gen.Index, b.in.Index} {
		b.change(t, ifindex, func(l netlink.Link) error { return netlink.LinkSetMTU(l, 9000) })
	}
	u := newUMEM(t, xsk.Config{Frames: 8192})
	var ports [2]*Packet
	for i, ifindex := range []int{b.gen.Index, b.in.Index} {
		err := b.Do(func() (err error) { ports[i], err = NewPacket(u, ifindex); return err })
		if err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
	}
	from, into := newMemory(t, u, 1024), newMemory(t, u, 1024)
	var got [][]byte
	into.Sent = func(parts [][]byte) { got = append(got, bytes.Join(parts, nil)) }
	// memory → gen, in → memory
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{from, ports[0], ports[1], into}, Program: func(frames []Frame, actions []Action) {
		for i := range frames {
			actions[i] = Redirect(map[uint16]int{0: 1, 2: 3}[frames[i].Port])
		}
	}})
	want := sizes()
	tagged := append([]byte(nil), want[0]...)
	copy(tagged[12:], []byte{0x81, 0, 0x20, 5, 0x88, 0xb5})
	want = append(want, tagged)
	for _, f := range want {
		if !from.Inject(f) {
			t.Fatal("no room")
		}
	}
	until(t, d, "all frames", func() bool { return len(got) == len(want) })
	sameFrames(t, got, want)
	// Longer than the device takes: refused, and counted.
	from.Inject(make([]byte, 9100))
	until(t, d, "a frame refused", func() bool { return d.Counters(nil)[0].DroppedRefused == 1 })
	if n, err := ports[1].KernelDrops(); n != 0 || err != nil {
		t.Errorf("%d drops, %v", n, err)
	}
	b.change(t, b.in.Index, netlink.LinkDel)
	for range 1000 {
		if _, err := d.Poll(); err != nil {
			if !errors.Is(err, xsk.ErrGone) {
				t.Error(err)
			}
			return
		}
	}
	t.Error("nobody noticed that the device is gone")
}

func TestTAP(t *testing.T) {
	b := newBench(t)
	u := newUMEM(t, xsk.Config{Frames: 8192})
	var tap *TAP
	packet := -1
	err := b.Do(func() (err error) {
		if tap, err = NewTAP(u, "tap%d"); err != nil {
			return err
		}
		l, err := netlink.LinkByName(tap.Name)
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetMTU(l, 9000), netlink.LinkSetUp(l)); err != nil {
			return err
		}
		if packet, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		return unix.Bind(packet, &unix.SockaddrLinklayer{Protocol: ethPAll, Ifindex: l.Attrs().Index})
	})
	if tap != nil {
		t.Cleanup(func() { tap.Close() })
	}
	if packet >= 0 {
		t.Cleanup(func() { unix.Close(packet) })
	}
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	mem := newMemory(t, u, 1024)
	var got [][]byte
	mem.Sent = func(parts [][]byte) { got = append(got, bytes.Join(parts, nil)) }
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{tap, mem}, Program: func(frames []Frame, actions []Action) {
		for i := range frames {
			actions[i] = Redirect(1 - int(frames[i].Port))
		}
	}})
	want := sizes()
	for _, f := range want {
		if _, err := unix.Write(packet, f); err != nil {
			t.Fatal(err)
		}
	}
	until(t, d, "all frames", func() bool { return len(got) == len(want) })
	sameFrames(t, got, want)
	// The other way.
	var back [][]byte
	for _, f := range want {
		mem.Inject(f)
	}
	mem.Inject(make([]byte, 5)) // no Ethernet frame
	buf := make([]byte, 1<<16)
	until(t, d, "all frames back", func() bool {
		for {
			n, from, err := unix.Recvfrom(packet, buf, 0)
			if err != nil {
				return len(back) == len(want)
			}
			if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING {
				back = append(back, append([]byte(nil), buf[:n]...))
			}
		}
	})
	sameFrames(t, back, want)
	if n := d.Counters(nil)[1].DroppedRefused; n != 1 {
		t.Errorf("%d refused, want 1", n)
	}
}

func TestPcap(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 4096})
	var first, second bytes.Buffer
	mem := newMemory(t, u, 1024)
	w, err := NewPcapWriter(u, &first)
	if err != nil {
		t.Fatal(err)
	}
	want := sizes()
	t.Run("write", func(t *testing.T) {
		d := newDatapath(t, Config{UMEM: u, Ports: []Port{mem, w}, Program: to(1)})
		for _, f := range want {
			mem.Inject(f)
		}
		until(t, d, "all written", func() bool { return d.Counters(nil)[1].Transmitted == uint64(len(want)) })
	})
	t.Run("read", func(t *testing.T) {
		r, err := NewPcapReader(u, bytes.NewReader(first.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		w, err := NewPcapWriter(u, &second)
		if err != nil {
			t.Fatal(err)
		}
		d := newDatapath(t, Config{UMEM: u, Ports: []Port{r, w}, Program: to(1)})
		until(t, d, "the end", func() bool { done, err := r.Done(); return done && err == nil })
		d.Drain(time.Second)
	})
	a, b := first.Bytes(), second.Bytes()
	if len(a) != len(b) {
		t.Fatalf("%d bytes, want %d", len(b), len(a))
	}
	for at := 24; at < len(a); {
		n := int(binary.NativeEndian.Uint32(a[at+8:]))
		if !bytes.Equal(a[at+8:at+16+n], b[at+8:at+16+n]) {
			t.Fatalf("the frame at %d differs", at)
		}
		at += 16 + n
	}
}

func TestPcapRefuses(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 64})
	pcapng := []byte{0x0a, 0x0d, 0x0d, 0x0a}
	other := PcapHeader()
	other[20] = 101
	for name, b := range map[string][]byte{"empty": nil, "pcapng": append(pcapng, make([]byte, 40)...),
		"short": PcapHeader()[:20], "link type": other} {
		if _, err := NewPcapReader(u, bytes.NewReader(b)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	cut := append(PcapHeader(), make([]byte, 16)...)
	cut[24+8] = 60
	r, err := NewPcapReader(u, bytes.NewReader(append(cut, 1, 2, 3)))
	if err != nil {
		t.Fatal(err)
	}
	r.Fill([]uint64{0, 2048})
	if n, _ := r.Receive(make([]xsk.Desc, 4)); n != 0 {
		t.Errorf("%d frames of a file that is cut", n)
	}
	if done, err := r.Done(); !done || err == nil {
		t.Errorf("done %v, %v", done, err)
	}
}

// Whatever is in the file, frames lie in chunks.
func FuzzPcap(f *testing.F) {
	h := PcapHeader()
	f.Add(append(append(h, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0), 1, 2, 3))
	u := newUMEM(f, xsk.Config{Frames: 128})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewPcapReader(u, bytes.NewReader(b))
		if err != nil {
			return
		}
		chunks := make([]uint64, 64)
		for i := range chunks {
			chunks[i] = uint64(i) * 2048
		}
		r.Fill(chunks)
		descs := make([]xsk.Desc, 32)
		for range 100 {
			n, err := r.Receive(descs)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range descs[:n] {
				if !u.Valid(d) {
					t.Fatalf("%+v", d)
				}
			}
			if n == 0 {
				return
			}
		}
	})
}
