package xsk

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// wire is a pair of veths in a namespace, with a packet socket on the far end.
type wire struct {
	*netlab.Namespace
	near, far netlab.Device
	arrived   func() []byte // the next frame at the far end
}

func newWire(t testing.TB) *wire {
	t.Helper()
	w := &wire{Namespace: veth.Namespace(t)}
	w.near, w.far = veth.Pair(t, w.Namespace, "near", "far")
	w.arrived = veth.Listen(t, w.Namespace, w.far.Index)
	return w
}

func (w *wire) send(t testing.TB, frame []byte) {
	t.Helper()
	veth.Send(t, w.Namespace, w.far.Index, frame)
}

func (w *wire) receive(t testing.TB) []byte {
	t.Helper()
	f := w.arrived()
	if f == nil {
		t.Fatal("no frame arrived in 2 s")
	}
	return f
}

func (w *wire) open(t testing.TB, u *UMEM, o Options) *Socket {
	t.Helper()
	var s *Socket
	err := w.Do(func() (err error) {
		s, err = Open(t.Context(), u, o)
		return err
	})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (w *wire) attach(t testing.TB, ifindex int, o ProgramOptions, sockets ...*Socket) *Program {
	t.Helper()
	var p *Program
	err := w.Do(func() (err error) {
		p, err = Attach(ifindex, o)
		return err
	})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, s := range sockets {
		if err := p.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func fill(t testing.TB, s *Socket, n int) {
	t.Helper()
	chunks := make([]uint64, n)
	if got := s.umem.Alloc(chunks); got != n {
		t.Fatalf("%d chunks, want %d", got, n)
	}
	if got := s.Fill.Put(chunks); got != n {
		t.Fatalf("fill ring took %d, want %d", got, n)
	}
}

// take waits until there are n descriptors.
func take(t testing.TB, s *Socket, n int) []Desc {
	t.Helper()
	frames := make([]Desc, n)
	have := 0
	for range 20_000 {
		if have += s.RX.Take(frames[have:]); have == n {
			return frames
		}
		if err := s.Wait(time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	st, _ := s.Statistics()
	t.Fatalf("%d descriptors in 2 s, want %d; %+v", have, n, st)
	return nil
}

func complete(t testing.TB, s *Socket, n int) []uint64 {
	t.Helper()
	chunks := make([]uint64, n)
	have := 0
	for range 20_000 {
		if have += s.Completion.Take(chunks[have:]); have == n {
			return chunks
		}
		if err := s.Kick(); err != nil && !errors.Is(err, ErrDropped) {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Microsecond)
	}
	t.Fatalf("%d completions, want %d", have, n)
	return nil
}

func TestReceiveAndTransmit(t *testing.T) {
	for name, c := range map[string]Config{
		"2048":      {Frames: 64, FrameSize: 2048},
		"4096":      {Frames: 64, FrameSize: 4096, Headroom: 32},
		"unaligned": {Frames: 64, FrameSize: 3000, Unaligned: true},
		"huge":      {Frames: 64, HugePages: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t)
			u := fakeUMEM(t, c)
			s := w.open(t, u, Options{Interface: w.near.Index, Fill: 64, Completion: 64, RX: 64, TX: 64})
			if s.Mode() != Copy {
				t.Errorf("a veth is in %v mode", s.Mode())
			}
			fill(t, s, 32)
			w.attach(t, w.near.Index, ProgramOptions{}, s)
			for round := range 5 {
				want := veth.Frame(t, 60+round)
				w.send(t, want)
				got := take(t, s, 1)
				if !bytes.Equal(u.Data(got[0]), want) {
					t.Fatalf("received %x, want %x", u.Data(got[0]), want)
				}
				// The frame leaves as it lies.
				u.Data(got[0])[0] = 4
				want[0] = 4
				if n := s.TX.Put(got); n != 1 {
					t.Fatalf("TX ring took %d", n)
				}
				if err := s.Kick(); err != nil {
					t.Fatal(err)
				}
				if back := w.receive(t); !bytes.Equal(back, want) {
					t.Fatalf("sent back %x, want %x", back, want)
				}
				done := complete(t, s, 1)
				if u.Base(done[0]) != u.Base(got[0].Addr) {
					t.Fatalf("completed %#x, want %#x", done[0], got[0].Addr)
				}
				if n := s.Fill.Put(done); n != 1 {
					t.Fatalf("fill ring took %d", n)
				}
			}
			if st, err := s.Statistics(); err != nil || st.RXDropped+st.RXInvalidDescs+st.TXInvalidDescs+st.RXRingFull+st.FillRingEmpty != 0 {
				t.Errorf("statistics %+v, %v", st, err)
			}
		})
	}
}

// Two sockets on two devices share a UMEM: what one receives the other sends,
// without a copy between them.
func TestSharedUMEM(t *testing.T) {
	w := newWire(t)
	outA, outB, err := w.VethPair("outa", "outb")
	if err != nil {
		t.Fatal(err)
	}
	u := fakeUMEM(t, Config{Frames: 64})
	in := w.open(t, u, Options{Interface: w.near.Index})
	out := w.open(t, u, Options{Interface: outA.Index})
	sink := w.open(t, u, Options{Interface: outB.Index})
	fill(t, in, 16)
	fill(t, sink, 16)
	w.attach(t, w.near.Index, ProgramOptions{}, in)
	w.attach(t, outB.Index, ProgramOptions{}, sink)
	want := veth.Frame(t, 100)
	w.send(t, want)
	got := take(t, in, 1)
	out.TX.Put(got)
	if err := out.Kick(); err != nil {
		t.Fatal(err)
	}
	arrived := take(t, sink, 1)
	if !bytes.Equal(u.Data(arrived[0]), want) {
		t.Errorf("received %x, want %x", u.Data(arrived[0]), want)
	}
	complete(t, out, 1)
	if err := u.Close(); !errors.Is(err, ErrInUse) {
		t.Errorf("close a UMEM in use: %v", err)
	}
	// The owner of the registration may go first; another socket shares on.
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	again := w.open(t, u, Options{Interface: w.near.Index})
	fill(t, again, 16)
}

// More than a kick's budget leaves in one kick where the kernel can.
func TestTXBudget(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 256})
	s := w.open(t, u, Options{Interface: w.near.Index, TX: 128})
	chunks := make([]uint64, 128)
	u.Alloc(chunks)
	frames := make([]Desc, len(chunks))
	for i, a := range chunks {
		frames[i] = Desc{Addr: a, Len: uint32(copy(u.Bytes()[a:], veth.Frame(t, 60)))}
	}
	if n := s.TX.Put(frames); n != 128 {
		t.Fatalf("TX ring took %d", n)
	}
	kicks := 0
	for s.TX.Pending() > 0 && kicks < 100 {
		if err := s.Kick(); err != nil {
			t.Fatal(err)
		}
		kicks++
	}
	if want := 128 / s.TXBudget(); kicks > want+1 {
		t.Errorf("%d kicks with a budget of %d", kicks, s.TXBudget())
	}
	complete(t, s, 128)
}

func TestTXRefusesBadDescriptors(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 4})
	s := w.open(t, u, Options{Interface: w.near.Index})
	for _, d := range []Desc{{}, {Addr: 2048, Len: 2049}, {Addr: 1 << 50, Len: 60}, {Len: 60, Options: 1 << 5}} {
		if n := s.TX.Put([]Desc{d}); n != 0 {
			t.Errorf("TX ring took %+v", d)
		}
	}
	if s.TX.Bad != 4 {
		t.Errorf("%d bad, want 4", s.TX.Bad)
	}
	// The kernel sends runts back as completed or not at all; none is lost.
	if n := s.TX.Put([]Desc{{Addr: 0, Len: 1}, {Addr: 2048, Len: 13}, {Addr: 4096, Len: 14}}); n != 3 {
		t.Fatalf("TX ring took %d", n)
	}
	complete(t, s, 3)
}

// What the filter does not claim goes to the stack.
func TestClaim(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 64})
	s := w.open(t, u, Options{Interface: w.near.Index})
	fill(t, s, 32)
	// Frames whose first byte is 2.
	w.attach(t, w.near.Index, ProgramOptions{Claim: asm.Instructions{
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, 1),
		asm.JGT.Reg(asm.R4, asm.R3, PassLabel),
		asm.LoadMem(asm.R4, asm.R2, 0, asm.Byte),
		asm.JEq.Imm(asm.R4, 2, ClaimLabel),
		asm.Ja.Label(PassLabel),
	}}, s)
	other := veth.Frame(t, 60)
	other[0] = 6
	before, err := w.near.StackDrops()
	if err != nil {
		t.Fatal(err)
	}
	other[12], other[13] = 0x88, 0xb5 // no protocol's
	w.send(t, other)
	mine := veth.Frame(t, 70)
	w.send(t, mine)
	if got := take(t, s, 1); !bytes.Equal(u.Data(got[0]), mine) {
		t.Errorf("received %x, want %x", u.Data(got[0]), mine)
	}
	after, err := w.near.StackDrops()
	if err != nil {
		t.Fatal(err)
	}
	if after-before != 1 {
		t.Errorf("the stack got %d frames, want 1", after-before)
	}
}

// Links that go down and devices that go away are error values.
func TestLinkDownAndGone(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 64})
	s := w.open(t, u, Options{Interface: w.near.Index})
	fill(t, s, 16)
	w.attach(t, w.near.Index, ProgramOptions{}, s)
	chunk := make([]uint64, 1)
	u.Alloc(chunk)
	d := []Desc{{Addr: chunk[0], Len: uint32(copy(u.Bytes()[chunk[0]:], veth.Frame(t, 60)))}}
	link := func(f func(netlink.Link) error) {
		t.Helper()
		err := w.Do(func() error {
			l, err := netlink.LinkByIndex(w.near.Index)
			if err != nil {
				return err
			}
			return f(l)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// The kernel is at its end before the driver's turn.
	if err := s.Check(); err != nil || state(s.fd) != unix.EOPNOTSUPP {
		t.Errorf("check of a link that is up: %v, %v", err, state(s.fd))
	}
	link(netlink.LinkSetDown)
	s.TX.Put(d)
	if err := s.Kick(); !errors.Is(err, ErrDown) {
		t.Errorf("kick of a link that is down: %v", err)
	}
	if err := s.Check(); !errors.Is(err, ErrDown) {
		t.Errorf("check of a link that is down: %v", err)
	}
	link(netlink.LinkSetUp)
	complete(t, s, 1)
	// The other end down: no carrier.
	err := w.Do(func() error {
		l, err := netlink.LinkByIndex(w.far.Index)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.TX.Put(d)
	if err := s.Kick(); !errors.Is(err, ErrDropped) || s.Dropped() != d[0] {
		t.Errorf("kick without carrier: %v, dropped %+v, want %+v", err, s.Dropped(), d[0])
	}
	if n := s.Completion.Take(chunk); n != 1 {
		t.Errorf("%d completions of a dropped frame", n)
	}
	link(netlink.LinkDel)
	s.TX.Put(d)
	if err := s.Kick(); !errors.Is(err, ErrGone) {
		t.Errorf("kick of a device that is gone: %v", err)
	}
	if err := s.Wait(time.Millisecond); !errors.Is(err, ErrGone) {
		t.Errorf("wait on a device that is gone: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Kick(); !errors.Is(err, ErrClosed) {
		t.Errorf("kick after close: %v", err)
	}
	// A UMEM whose sockets are all gone is registered anew.
	near, _, err := w.VethPair("near", "far")
	if err != nil {
		t.Fatal(err)
	}
	w.open(t, u, Options{Interface: near.Index})
}

// What a driver answers is told apart from the end of its device, which only the kernel knows: igc says ENXIO without a program, and
// drivers that are reset say that they are down.
func TestDriverAnswers(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 16})
	s := w.open(t, u, Options{Interface: w.near.Index})
	answers := func(mode Mode, wants map[unix.Errno]error) {
		t.Helper()
		s.mode = mode
		for errno, want := range wants {
			if err := s.wakeError("kick", errno); !errors.Is(err, want) {
				t.Errorf("%v, %v: %v, want %v", mode, errno, err, want)
			}
		}
	}
	answers(ZeroCopy, map[unix.Errno]error{unix.EINVAL: ErrNoProgram, unix.ENXIO: ErrNoProgram, unix.ENETDOWN: ErrDown})
	answers(Copy, map[unix.Errno]error{unix.EINVAL: unix.EINVAL, unix.ENXIO: ErrGone, unix.ENETDOWN: ErrDown})
	if err := w.Do(func() error { return netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Index: w.near.Index}}) }); err != nil {
		t.Fatal(err)
	}
	answers(ZeroCopy, map[unix.Errno]error{unix.ENXIO: ErrGone, unix.ENETDOWN: ErrGone})
	answers(Copy, map[unix.Errno]error{unix.ENXIO: ErrGone, unix.ENETDOWN: ErrGone})
}

// The budget of busy polling is what was asked for, also less than what it is otherwise.
func TestBusyPollBudget(t *testing.T) {
	for asked, want := range map[int]int{0: 64, 1: 1, 63: 63, 100: 100} {
		if got := (Options{BusyPollBudget: asked}).withDefaults().BusyPollBudget; got != want {
			t.Errorf("budget %d became %d, want %d", asked, got, want)
		}
	}
}

// With busy polling the driver is called also while it does not ask for it: that is seen when the
// link is down.
func TestBusyPoll(t *testing.T) {
	w := newWire(t)
	for _, busy := range []time.Duration{0, 20 * time.Microsecond} {
		u := fakeUMEM(t, Config{Frames: 16})
		s := w.open(t, u, Options{Interface: w.near.Index, BusyPoll: busy, BusyPollBudget: 32, BindWait: time.Minute})
		fill(t, s, 8)
		if s.Fill.NeedsWakeup() {
			t.Fatal("a veth asks for a call")
		}
		link := func(change func(netlink.Link) error) {
			t.Helper()
			err := w.Do(func() error {
				l, err := netlink.LinkByIndex(w.near.Index)
				if err != nil {
					return err
				}
				return change(l)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.WakeFill(); err != nil {
			t.Error(err)
		}
		link(netlink.LinkSetDown)
		if err := s.WakeFill(); errors.Is(err, ErrDown) != (busy > 0) {
			t.Errorf("busy polling for %v: %v", busy, err)
		}
		link(netlink.LinkSetUp)
		s.Close()
	}
	o := Options{Interface: w.near.Index, BusyPoll: time.Nanosecond}.withDefaults()
	if err := o.validate(); err == nil {
		t.Error("less than 1 µs is no error")
	}
}

// A filter takes the place of another between two frames, and counts go on.
func TestReplace(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 64})
	s := w.open(t, u, Options{Interface: w.near.Index})
	fill(t, s, 32)
	// The last byte of the destination says whose a frame is.
	claim := func(last int32) asm.Instructions {
		return asm.Instructions{
			asm.LoadMem(asm.R4, asm.R2, 5, asm.Byte), asm.JEq.Imm(asm.R4, last, ClaimLabel), asm.Ja.Label(PassLabel),
		}
	}
	frame := func(last byte) []byte {
		f := veth.Frame(t, 60)
		f[5] = last
		return f
	}
	p := w.attach(t, w.near.Index, ProgramOptions{Sockets: []*Socket{s}, Claim: claim(1)})
	for _, tt := range []struct {
		claim asm.Instructions
		want  []byte
	}{{claim(1), []byte{1}}, {claim(2), []byte{2}}, {nil, []byte{1, 2}}, {claim(1), []byte{1}}} {
		if err := p.Replace(tt.claim); err != nil {
			t.Fatal(err)
		}
		for _, last := range []byte{1, 2} {
			w.send(t, frame(last))
		}
		for _, last := range tt.want {
			if got := u.Data(take(t, s, 1)[0]); got[5] != last {
				t.Errorf("the frame to %d came, want %d", got[5], last)
			}
		}
	}
	if n, err := p.Passed(); err != nil || n < 3 {
		t.Errorf("%d frames passed, %v", n, err)
	}
	if err := p.Replace(asm.Instructions{asm.Mov.Reg(asm.R0, asm.R9)}); err == nil {
		t.Error("a program was taken that reads what nobody wrote")
	}
	if err := p.ReplaceProgram(p.program, p.sockets, nil); err == nil {
		t.Error("the default program was replaced by a caller's")
	}
	own := veth.Program(t, asm.Mov.Imm(asm.R0, xdpPass), asm.Return())
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Replace(nil); err == nil {
		t.Error("replaced after it was closed")
	}
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer sockets.Close()
	err = w.Do(func() (err error) { p, err = AttachProgram(w.near.Index, own, sockets, false); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.ReplaceProgram(own, sockets, []*Socket{s}); err != nil {
		t.Error(err)
	}
	if err := p.Replace(nil); err == nil {
		t.Error("a caller's program was replaced by the default one")
	}
	if err := p.ReplaceProgram(own, newArray(t), nil); err == nil {
		t.Error("an array was taken for an XSKMAP")
	}
}

func newArray(t *testing.T) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}
