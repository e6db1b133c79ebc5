package datapath

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
	"github.com/unthunk/unthunk/xsk"
)

// bench is two pairs of veths in a namespace: generator gen → in, out → sink. A
// program on sink drops what it gets.
type bench struct {
	*netlab.Namespace
	gen, in, out, sink netlab.Device
	source             *ebpf.Program // sends out of gen
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{Namespace: veth.Namespace(t)}
	b.gen, b.in = veth.Pair(t, b.Namespace, "gen", "in")
	b.out, b.sink = veth.Pair(t, b.Namespace, "out", "sink")
	if err := b.sink.Attach(veth.Program(t, asm.Mov.Imm(asm.R0, 1 /* XDP_DROP */), asm.Return()), 0); err != nil {
		t.Fatal(err)
	}
	b.source = veth.Source(t, b.gen.Index)
	return b
}

// port opens a socket on a device; with receive, the device's frames go to it.
func (b *bench) port(t testing.TB, u *xsk.UMEM, ifindex int, receive bool) *XSK {
	t.Helper()
	var s *xsk.Socket
	err := b.Do(func() (err error) {
		s, err = xsk.Open(t.Context(), u, xsk.Options{Interface: ifindex})
		return err
	})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() }) // when no datapath got it
	if receive {
		b.claim(t, ifindex, s)
	}
	return NewXSK(s)
}

func (b *bench) claim(t testing.TB, ifindex int, s *xsk.Socket) {
	t.Helper()
	var p *xsk.Program
	err := b.Do(func() (err error) {
		p, err = xsk.Attach(ifindex, xsk.ProgramOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Add(s); err != nil {
		t.Fatal(err)
	}
}

// flood sends frames from gen in bulk.
func (b *bench) flood(t testing.TB, frames int) {
	t.Helper()
	veth.Burst(t, b.Namespace, b.source, frames)
}

func (b *bench) statistics(t testing.TB, ifindex int) *netlink.LinkStatistics {
	t.Helper()
	var s *netlink.LinkStatistics
	err := b.Do(func() error {
		l, err := netlink.LinkByIndex(ifindex)
		if err == nil {
			s = l.Attrs().Statistics
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *bench) change(t testing.TB, ifindex int, f func(netlink.Link) error) {
	t.Helper()
	err := b.Do(func() error {
		l, err := netlink.LinkByIndex(ifindex)
		if err != nil {
			return err
		}
		return f(l)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// start runs a datapath until stop, which returns what Run said.
func start(d *Datapath) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- d.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

// At overload every frame the device received is in a counter: ours, or the
// kernel's.
func TestAccountsBalanceOnVeth(t *testing.T) {
	b := newBench(t)
	u := newUMEM(t, xsk.Config{Frames: 8192})
	in, out := b.port(t, u, b.in.Index, true), b.port(t, u, b.out.Index, false)
	seen := 0
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Program: func(frames []Frame, actions []Action) {
		for i := range actions {
			if seen++; seen%3 != 0 {
				actions[i] = Redirect(1)
			}
		}
	}})
	stop := start(d)
	const frames = 1 << 18
	b.flood(t, frames)
	// What is under way arrives.
	received := func() (got, device uint64) {
		kernel, err := in.Socket().Statistics()
		if err != nil {
			t.Fatal(err)
		}
		return d.Counters(nil)[0].Received + kernel.RXDropped + kernel.RXRingFull, b.statistics(t, b.in.Index).RxPackets
	}
	testutil.Eventually(t, "every frame in a counter", func() bool { got, device := received(); return got == device })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := d.Drain(time.Second); n != 0 {
		t.Errorf("%d frames in flight", n)
	}
	balanced(t, d)
	c := d.Counters(nil)
	kernel, err := in.Socket().Statistics()
	if err != nil {
		t.Fatal(err)
	}
	device := b.statistics(t, b.in.Index)
	if got := c[0].Received + kernel.RXDropped + kernel.RXRingFull; c[0].Received == 0 || got != device.RxPackets {
		t.Errorf("received %d, with the kernel's drops %d; the device had %d", c[0].Received, got, device.RxPackets)
	}
	if want := (c[0].Received + 2) / 3; c[0].DroppedByProgram > want || c[0].DroppedByProgram+1 < want {
		t.Errorf("%d dropped by the program of %d", c[0].DroppedByProgram, c[0].Received)
	}
	if sent := b.statistics(t, b.out.Index).TxPackets; sent != c[1].Transmitted {
		t.Errorf("transmitted %d, the device says %d", c[1].Transmitted, sent)
	}
	t.Logf("of %d frames the device received %d: %+v, %+v", frames, device.RxPackets, c, kernel)
}

// A link that goes down, and a device that goes away and comes back, while
// frames arrive.
func TestLinksComeAndGo(t *testing.T) {
	b := newBench(t)
	u := newUMEM(t, xsk.Config{Frames: 8192})
	in, out := b.port(t, u, b.in.Index, true), b.port(t, u, b.out.Index, false)
	lost := make(chan int, 10)
	d := newDatapath(t, Config{
		UMEM: u, Ports: []Port{in, out}, Program: to(1),
		Lost: func(port int, err error) {
			if !errors.Is(err, xsk.ErrGone) {
				t.Errorf("port %d: %v", port, err)
			}
			lost <- port
		},
	})
	stop := start(d)
	b.flood(t, 1<<14)
	b.change(t, b.out.Index, netlink.LinkSetDown)
	b.flood(t, 1<<14)
	b.change(t, b.out.Index, netlink.LinkSetUp)
	b.flood(t, 1<<14)
	b.change(t, b.sink.Index, netlink.LinkSetDown) // no carrier
	b.flood(t, 1<<14)
	b.change(t, b.sink.Index, netlink.LinkSetUp)
	b.change(t, b.out.Index, netlink.LinkDel)
	select {
	case port := <-lost:
		if port != 1 {
			t.Errorf("lost port %d, want 1", port)
		}
	case <-time.After(time.Minute):
		t.Fatal("nobody noticed that the device is gone")
	}
	b.flood(t, 1<<14)
	out2, sink2, err := b.VethPair("out", "sink")
	if err != nil {
		t.Fatal(err)
	}
	b.out, b.sink = out2, sink2
	if err := d.SetPort(1, b.port(t, u, b.out.Index, false)); err != nil {
		t.Fatal(err)
	}
	before := d.Counters(nil)[1].Transmitted
	b.flood(t, 1<<14)
	testutil.Eventually(t, "transmitting again", func() bool { return d.Counters(nil)[1].Transmitted > before })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	d.Drain(time.Second)
	balanced(t, d)
	c := d.Counters(nil)
	if c[1].Transmitted == before || c[1].InFlight != 0 {
		t.Errorf("after the device came back: %+v", c[1])
	}
	// While the link is down frames find no room, or the kernel takes and drops them.
	if c[0].DroppedNoRoom+c[1].Unsent == 0 || c[0].DroppedNoPort == 0 {
		t.Errorf("no drops for a link that was down: %+v", c)
	}
}

// An input that has nothing to transmit is lost too.
func TestInputGone(t *testing.T) {
	b := newBench(t)
	u := newUMEM(t, xsk.Config{Frames: 8192})
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{b.port(t, u, b.in.Index, true), b.port(t, u, b.out.Index, false)}, Program: to(1)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error)
	go func() { done <- d.Run(ctx) }()
	b.change(t, b.in.Index, netlink.LinkDel)
	if err := <-done; !errors.Is(err, xsk.ErrGone) {
		t.Errorf("run: %v, want a device that is gone", err)
	}
}

// BenchmarkVeth is the datapath between two veths in copy mode, flooded.
func BenchmarkVeth(b *testing.B) {
	lab := newBench(b)
	u := newUMEM(b, xsk.Config{Frames: 8192})
	in, out := lab.port(b, u, lab.in.Index, true), lab.port(b, u, lab.out.Index, false)
	d := newDatapath(b, Config{UMEM: u, Ports: []Port{in, out}, Program: to(1)})
	stop := start(d)
	b.ReportAllocs()
	for b.Loop() {
		lab.flood(b, 1<<20)
	}
	c := d.Counters(nil)
	b.ReportMetric(float64(c[1].Transmitted)/b.Elapsed().Seconds()/1e6, "Mpps")
	b.ReportMetric(float64(d.Busy().Nanoseconds())/float64(c[0].Received), "ns/frame")
	b.ReportMetric(float64(c[0].Received)/float64(c[0].Batches), "frames/batch")
	if err := stop(); err != nil {
		b.Fatal(err)
	}
}
