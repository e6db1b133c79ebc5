package forward

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/filter"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
	"github.com/unthunk/unthunk/xsk"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// wires are two pairs of veths: gen – in, out – sink, with an XDP program that
// lets all pass on both far ends.
type wires struct {
	*netlab.Namespace
	gen, sink netlab.Device
	source    *ebpf.Program // what sends by way of gen
}

func newWires(t testing.TB) *wires {
	t.Helper()
	w := &wires{Namespace: veth.Namespace(t)}
	w.gen, _ = veth.Pair(t, w.Namespace, "gen", "in")
	_, w.sink = veth.Pair(t, w.Namespace, "out", "sink")
	for _, d := range []netlab.Device{w.gen, w.sink} {
		p := veth.Program(t, asm.Mov.Imm(asm.R0, passed), asm.Return())
		if err := d.Attach(p, 0); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *wires) open(t testing.TB, c Config) Forwarder {
	t.Helper()
	if c.Do == nil {
		c.Do = w.Do
	}
	if c.Warn == nil {
		c.Warn = func(s string) { t.Log(s) }
	}
	if c.Happened == nil {
		c.Happened = func(h Happening) { c.Warn(h.Text) }
	}
	var f Forwarder
	if err := w.Do(func() (err error) { f, err = Open(t.Context(), c); return err }); err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		err := <-done
		if errors.Is(err, xsk.ErrClosed) { // by the test
			err = nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Error(err)
		}
		got, err := f.Totals()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range got.Directions {
			if c.Engine == AFXDP && d.Received != d.Sent+d.InFlight+own(d) {
				t.Errorf("%+v does not balance", d)
			}
		}
		if c.Engine == AFXDP {
			agree(t, got)
		}
	})
	return f
}

// agree asks that queues have the drops that directions have.
func agree(t testing.TB, got Totals) {
	t.Helper()
	var byDirection, byQueue uint64
	for _, d := range got.Directions {
		byDirection += d.Dropped()
	}
	for _, q := range got.Queues {
		byQueue += q.Dropped
	}
	if byDirection != byQueue {
		t.Errorf("directions dropped %d frames, queues %d: %+v", byDirection, byQueue, got)
	}
}

// openKernel opens a forwarder in the kernel, whose devices are followed only when the test asks for it.
func (w *wires) openKernel(t testing.TB, c Config) *inKernel {
	t.Helper()
	c.Engine, c.Do = XDP, w.Do
	return w.openUnrun(t, c).(*inKernel)
}

// openIdle opens a forwarder in user space that does not run.
func (w *wires) openIdle(t testing.TB, c Config) *afxdp {
	t.Helper()
	return w.openUnrun(t, c).(*afxdp)
}

func (w *wires) openUnrun(t testing.TB, c Config) (f Forwarder) {
	t.Helper()
	if err := w.Do(func() (err error) { f, err = Open(t.Context(), c); return err }); err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// own are the drops of frames that were received.
func own(d Direction) (n uint64) {
	for _, drop := range d.Drops {
		if drop.Reason != dropKernel && drop.Reason != dropRingFull {
			n += drop.Frames
		}
	}
	return n
}

// flood sends frames by way of gen, and says whether all were sent.
func (w *wires) flood(t testing.TB, frames int) (all bool) {
	t.Helper()
	if w.source == nil {
		w.source = veth.Source(t, w.gen.Index)
	}
	return veth.Burst(t, w.Namespace, w.source, frames)
}

var pair = []Pair{{"in", "out"}}

func TestForward(t *testing.T) {
	for _, engine := range Engines() {
		t.Run(string(engine), func(t *testing.T) {
			w := newWires(t)
			atSink, atGen := veth.Listen(t, w.Namespace, w.sink.Index), veth.Listen(t, w.Namespace, w.gen.Index)
			f := w.open(t, Config{
				Pairs: pair, Both: true, Engine: engine,
				Source: net.HardwareAddr{2, 1, 1, 1, 1, 1}, Destination: net.HardwareAddr{2, 9, 9, 9, 9, 9},
			})
			for _, way := range []struct {
				from    int
				receive func() []byte
			}{{w.gen.Index, atSink}, {w.sink.Index, atGen}} {
				for size := 60; size < 1500; size += 360 {
					want := veth.Frame(t, size)
					veth.Send(t, w.Namespace, way.from, want)
					copy(want, []byte{2, 9, 9, 9, 9, 9, 2, 1, 1, 1, 1, 1})
					if got := way.receive(); !bytes.Equal(got, want) {
						t.Fatalf("received %x, want %x", got, want)
					}
				}
			}
			// A frame is counted after it is on its way.
			var got Totals
			testutil.Eventually(t, "counted", func() (done bool) {
				var err error
				if got, err = f.Totals(); err != nil {
					t.Fatal(err)
				}
				return !slices.ContainsFunc(got.Directions, func(d Direction) bool { return d.Sent < 4 })
			})
			if len(got.Directions) != 2 {
				t.Fatalf("%d directions", len(got.Directions))
			}
			for _, d := range got.Directions {
				if d.Received != 4 || d.Sent != 4 || d.Dropped() != 0 || d.Bytes != 60+420+780+1140 {
					t.Errorf("%+v", d)
				}
			}
		})
	}
}

// Frames of all sizes pass, in parts where they need it, and change on the way
// only as asked.
func TestJumbo(t *testing.T) {
	for _, engine := range Engines() {
		t.Run(string(engine), func(t *testing.T) {
			w := newWires(t)
			for _, name := range []string{"gen", "in", "out", "sink"} {
				err := w.Do(func() error {
					l, err := netlink.LinkByName(name)
					if err != nil {
						return err
					}
					return netlink.LinkSetMTU(l, 9000)
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			receive := veth.Listen(t, w.Namespace, w.sink.Index)
			w.open(t, Config{Pairs: pair, Engine: engine, Source: net.HardwareAddr{2, 1, 1, 1, 1, 1}})
			for _, size := range []int{14, 15, 59, 1514, 1792, 1793, 3584, 3585, 8192, 9014} {
				want := bytes.Repeat([]byte{byte(size)}, size)
				copy(want, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5})
				veth.Send(t, w.Namespace, w.gen.Index, want)
				copy(want[6:], []byte{2, 1, 1, 1, 1, 1})
				if got := receive(); !bytes.Equal(got, want) {
					t.Errorf("%d bytes: received %d", size, len(got))
				}
			}
		})
	}
}

// All queues of a device are forwarded, also to one that has fewer.
func TestQueues(t *testing.T) {
	w := newWires(t)
	var gen int
	err := w.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = "many", 4, 4
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "flows", PeerNumTxQueues: 4, PeerNumRxQueues: 4}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		for _, name := range []string{"many", "flows"} {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			gen = l.Attrs().Index
			if err := netlink.LinkSetUp(l); err != nil {
				return err
			}
		}
		if q := channels("many"); q != (queues{4, 4, 4, false}) {
			t.Errorf("queues: %+v", q)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	receive := veth.Listen(t, w.Namespace, w.sink.Index)
	f := w.open(t, Config{Pairs: []Pair{{"many", "out"}}, Engine: AFXDP, Frames: 4096}).(*afxdp)
	const flows = 64
	for i := range flows {
		frame := veth.Frame(t, 60)
		frame[35] = byte(i) // the source port
		veth.Send(t, w.Namespace, gen, frame)
		if got := receive(); !bytes.Equal(got, frame) {
			t.Fatalf("received %x, want %x", got, frame)
		}
	}
	used := 0
	for _, c := range f.path.Counters(nil) {
		if c.Received > 0 {
			used++
		}
	}
	if used < 2 {
		t.Errorf("frames came by %d queues", used)
	}
	if got, err := f.Totals(); err != nil || got.Directions[0].Sent != flows {
		t.Errorf("%+v, %v", got, err)
	}
}

// Frames the filter does not claim are the stack's.
func TestFilter(t *testing.T) {
	program, err := filter.Compile("udp port 9 and greater 100")
	if err != nil {
		t.Fatal(err)
	}
	claim, err := filter.Claim(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, engine := range Engines() {
		t.Run(string(engine), func(t *testing.T) {
			w := newWires(t)
			atSink := veth.Listen(t, w.Namespace, w.sink.Index)
			f := w.open(t, Config{Pairs: pair, Engine: engine, Claim: claim, Source: net.HardwareAddr{2, 1, 1, 1, 1, 1}})
			veth.Send(t, w.Namespace, w.gen.Index, veth.Frame(t, 99), veth.Frame(t, 100))
			if got := atSink(); len(got) != 100 {
				t.Errorf("received %d bytes, want 100", len(got))
			}
			got, err := f.Totals()
			if err != nil {
				t.Fatal(err)
			}
			if d := got.Directions[0]; d.Received != 1 || d.Passed < 1 { // the namespace sends a few of its own
				t.Errorf("%+v", d)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			closed, err := f.Totals()
			if err != nil || closed.Directions[0].Passed < got.Directions[0].Passed {
				t.Errorf("closed: %+v, %v", closed, err)
			}
		})
	}
}

func TestFlood(t *testing.T) {
	for _, engine := range Engines() {
		t.Run(string(engine), func(t *testing.T) {
			w := newWires(t)
			f := w.open(t, Config{Pairs: pair, Engine: engine})
			all := w.flood(t, 1<<17)
			var got Totals
			var d Direction
			testutil.Eventually(t, "at rest", func() bool {
				var err error
				if got, err = f.Totals(); err != nil {
					t.Fatal(err)
				}
				before := d.Received
				d = got.Directions[0]
				return d.Sent > 0 && d.InFlight == 0 && d.Received == before && (engine != XDP || !all || d.Received == 1<<17)
			})
			t.Logf("%+v", got)
		})
	}
}

// A device that goes and comes back under its name is forwarded from and to
// again.
func TestDeviceComesBack(t *testing.T) {
	for _, engine := range Engines() {
		for _, name := range []string{"in", "out"} {
			t.Run(string(engine)+"/"+name, func(t *testing.T) {
				w := newWires(t)
				said := make(chan string, 100)
				f := w.open(t, Config{Pairs: pair, Engine: engine, Warn: func(s string) { said <- s }})
				w.flood(t, 1000)
				w.remove(t, name)
				waitFor(t, said, name+" is lost")
				if got, err := f.Totals(); err != nil || got.Directions[0].Up {
					t.Errorf("without %s the direction is up: %v", name, err)
				}
				if name == "out" {
					w.flood(t, 1000)
					w.renewSink(t)
				} else {
					var err error
					if w.gen, _, err = w.VethPair("gen", "in"); err != nil {
						t.Fatal(err)
					}
					w.source = nil
				}
				waitFor(t, said, name+" is back")
				w.arrives(t, 77, 77)
				resumes(t, w, f, name, eventLost, 1)
				resumes(t, w, f, name, eventBack, 1)
			})
		}
	}
}

// renewSink makes out and sink anew, ready for redirected frames.
func (w *wires) renewSink(t testing.TB) {
	t.Helper()
	var err error
	if _, w.sink, err = w.VethPair("out", "sink"); err == nil {
		err = w.sink.EnableGRO()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A device that comes back and is taken by another's program before it has ours is not up, and
// tries leave nothing behind.
func TestDeviceComesBackOccupied(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("own program %v", own), func(t *testing.T) {
			w := newWires(t)
			said := make(chan string, 100)
			var occupy atomic.Bool
			occupant := make(chan link.Link, 1)
			pass := veth.Program(t, asm.Mov.Imm(asm.R0, passed), asm.Return())
			c := Config{Pairs: pair, Engine: AFXDP, Warn: func(s string) { said <- s }}
			var f *afxdp
			var before *xsk.Socket
			c.Do = func(do func() error) error {
				return w.Do(func() error {
					if err := do(); err != nil || !occupy.Load() {
						return err
					}
					f.mu.Lock()
					s := f.sockets[0]
					f.mu.Unlock()
					if s == nil || s == before || !occupy.CompareAndSwap(true, false) {
						return nil
					}
					// It has sockets, and no program yet.
					in, err := net.InterfaceByName("in")
					if err != nil {
						return err
					}
					l, err := link.AttachXDP(link.XDPOptions{Program: pass, Interface: in.Index, Flags: link.XDPDriverMode})
					occupant <- l
					return err
				})
			}
			if own {
				c.Object = compile(t, "-DMAP=BPF_MAP_TYPE_XSKMAP")
			}
			f = w.open(t, c).(*afxdp)
			f.mu.Lock()
			before = f.sockets[0]
			f.mu.Unlock()
			w.remove(t, "in")
			var err error
			waitFor(t, said, "in is lost")
			occupy.Store(true)
			if w.gen, _, err = w.VethPair("gen", "in"); err != nil {
				t.Fatal(err)
			}
			waitFor(t, said, "in cannot be used yet: attach XDP program: in has one already")
			if got, err := f.Totals(); err != nil || got.Directions[0].Up {
				t.Errorf("without its program in is up: %v", err)
			}
			f.mu.Lock()
			if f.programs[0] != nil || f.objects[0] != nil {
				t.Error("a failed try left a program or an object")
			}
			f.mu.Unlock()
			if err := (<-occupant).Close(); err != nil {
				t.Fatal(err)
			}
			waitFor(t, said, "in is back")
			if got, err := f.Totals(); err != nil || !got.Directions[0].Up {
				t.Errorf("in is back, and not up: %v", err)
			}
			w.arrives(t, 100, 100)
		})
	}
}

// An own program that cannot get its sockets is detached again.
func TestObjectWithoutSockets(t *testing.T) {
	w := newWires(t)
	object := compile(t, "-DMAP=BPF_MAP_TYPE_XSKMAP")
	f := w.openIdle(t, Config{Pairs: pair, Engine: AFXDP})
	f.config.Object = object
	var err error
	if f.file, err = readObject(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	err = w.Do(func() error {
		if err := f.closeProgram(0); err != nil {
			return err
		}
		if err := f.sockets[0].Close(); err != nil {
			return err
		}
		for range 2 { // what the first leaves would be in the way of the second
			p, err := f.attachInput(t.Context(), 0)
			if p != nil || err == nil || !strings.Contains(err.Error(), "put socket into XSKMAP") {
				t.Errorf("%v, %v, want that the socket is refused", p, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An output without copies has a program that gives frames to nobody: to stop it is no error,
// whatever queues the device has.
func TestStopOutputQueues(t *testing.T) {
	w := newWires(t)
	f := w.openIdle(t, Config{Pairs: pair, Engine: AFXDP})
	f.mode = xsk.ZeroCopy // what veths have not
	f.devices[1].most = 4
	if err := w.Do(func() error { return f.attach(t.Context(), 1) }); err != nil {
		t.Fatal(err)
	}
	if err := f.stopInputs(); err != nil {
		t.Error(err)
	}
	if f.programs[0] != nil || f.programs[1] == nil {
		t.Error("the program of the input must go, that of the output stay")
	}
}

// What lies in the rings when a forwarder stops is received and sent, and in a counter.
func TestCloseReceivesRest(t *testing.T) {
	w := newWires(t)
	f := w.openIdle(t, Config{Pairs: pair, Engine: AFXDP, Do: w.Do, Warn: func(s string) { t.Log(s) }})
	const frames = 500
	w.flood(t, frames)
	testutil.Eventually(t, "frames in the ring", func() bool { return w.received(t, "in") == frames })
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	d := got.Directions[0]
	if d.Received != frames || d.Received != d.Sent+own(d) || d.InFlight != 0 {
		t.Errorf("%+v, want %d received", d, frames)
	}
}

// Each queue has chunks to receive into, also where there are few.
func TestFewFrames(t *testing.T) {
	for _, frames := range []int{2, 100, 1024} {
		t.Run(fmt.Sprint(frames), func(t *testing.T) {
			w := newWires(t)
			receive := veth.Listen(t, w.Namespace, w.gen.Index)
			w.open(t, Config{Pairs: pair, Both: true, Engine: AFXDP, Frames: frames})
			want := veth.Frame(t, 77)
			veth.Send(t, w.Namespace, w.sink.Index, want)
			if got := receive(); !bytes.Equal(got, want) {
				t.Errorf("received %x, want %x", got, want)
			}
		})
	}
}

func TestSample(t *testing.T) {
	w := newWires(t)
	var file bytes.Buffer
	s := NewSample(3)
	if err := s.Start(&file); err != nil {
		t.Fatal(err)
	}
	t.Run("run", func(t *testing.T) {
		receive := veth.Listen(t, w.Namespace, w.sink.Index)
		w.open(t, Config{Pairs: pair, Engine: AFXDP, Sample: s})
		for i := range 9 {
			veth.Send(t, w.Namespace, w.gen.Index, veth.Frame(t, 60+i))
			receive()
		}
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.Written() != 3 || s.Missed() != 0 {
		t.Errorf("%d written, %d missed", s.Written(), s.Missed())
	}
	b := file.Bytes()
	if magic := binary.NativeEndian.Uint32(b); magic != 0xa1b23c4d {
		t.Errorf("magic %#x", magic)
	}
	b = b[24:]
	for _, size := range []int{60, 63, 66} {
		if n := int(binary.NativeEndian.Uint32(b[8:])); n != size || !bytes.Equal(b[16:16+n], veth.Frame(t, size)) {
			t.Fatalf("a frame of %d bytes, want %d", n, size)
		}
		b = b[16+size:]
	}
	if len(b) != 0 {
		t.Errorf("%d bytes are left", len(b))
	}
}

func TestRefuses(t *testing.T) {
	w := newWires(t)
	for name, c := range map[string]Config{
		"none":      {Engine: AFXDP},
		"engine":    {Pairs: pair, Engine: "dpdk"},
		"same":      {Pairs: []Pair{{"in", "in"}}, Engine: AFXDP},
		"twice":     {Pairs: []Pair{{"in", "out"}, {"in", "sink"}}, Engine: AFXDP},
		"no output": {Pairs: []Pair{{"in", ""}}, Engine: XDP},
		"no device": {Pairs: []Pair{{"in", "nowhere"}}, Engine: XDP},
		"occupied":  {Pairs: []Pair{{"in", "sink"}}, Engine: AFXDP},
		"address":   {Pairs: pair, Engine: AFXDP, Source: net.HardwareAddr{1, 2}},
		"no object": {Pairs: pair, Engine: AFXDP, Object: "/nonexistent"},
		"sample":    {Pairs: pair, Engine: XDP, Sample: &Sample{}},
		"frames":    {Pairs: pair, Engine: AFXDP, Frames: 1},
	} {
		err := w.Do(func() error {
			f, err := Open(t.Context(), c)
			if err == nil {
				f.Close()
			}
			return err
		})
		if err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// That veths have no zero copy is nothing to warn of: none of the devices has.
func TestNoWarning(t *testing.T) {
	w := newWires(t)
	w.openIdle(t, Config{Pairs: pair, Engine: AFXDP, Warn: func(s string) { t.Errorf("warning: %s", s) }})
}
