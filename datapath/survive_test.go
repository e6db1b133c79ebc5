package datapath

import (
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
	"github.com/unthunk/unthunk/xsk"
)

// passes asks that frames pass from now on, and that each frame that the device received in its life is in
// a counter: ours, or the kernel's of the socket.
func (b *bench) passes(t *testing.T, d *Datapath, in *XSK) {
	t.Helper()
	before := d.Counters(nil)[1].Transmitted
	testutil.Eventually(t, "frames passing", func() bool {
		b.flood(t, 64)
		return d.Counters(nil)[1].Transmitted > before+64
	})
	testutil.Eventually(t, "every frame in a counter", func() bool {
		kernel, err := in.Socket().Statistics()
		if err != nil {
			t.Fatal(err)
		}
		return d.Counters(nil)[0].Received+kernel.RXDropped+kernel.RXRingFull == b.statistics(t, b.in.Index).RxPackets
	})
	balanced(t, d)
}

func setMTU(bytes int) func(netlink.Link) error {
	return func(l netlink.Link) error { return netlink.LinkSetMTU(l, bytes) }
}

// Each time that a device is found down is counted, and frames pass again when it is up.
func TestSurvivesLinkDown(t *testing.T) {
	b := newBench(t)
	u := newUMEM(t, xsk.Config{Frames: 8192})
	in := b.port(t, u, b.in.Index, true)
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, b.port(t, u, b.out.Index, false)}, Program: to(1)})
	stop := start(d)
	b.passes(t, d, in)
	for i := range 3 {
		for port, device := range []netlab.Device{b.in, b.out} {
			b.change(t, device.Index, netlink.LinkSetDown)
			testutil.Eventually(t, "a link that went down is counted", func() bool {
				return d.Counters(nil)[port].LinkDowns == uint64(i+1)
			})
			if before := d.Counters(nil)[0].DroppedNoRoom; port == 1 {
				testutil.Eventually(t, "a full TX ring", func() bool {
					b.flood(t, 1000)
					return d.Counters(nil)[0].DroppedNoRoom > before
				})
			}
			b.change(t, device.Index, netlink.LinkSetUp)
			b.passes(t, d, in)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if c := d.Counters(nil); c[0].Losses+c[1].Losses != 0 {
		t.Errorf("%+v: want no port lost", c)
	}
}

// The MTU of all devices changes under traffic. What does not fit into a chunk is counted by the
// kernel; all else passes.
func TestSurvivesMTUChange(t *testing.T) {
	b := newBench(t)
	u := newUMEM(t, xsk.Config{Frames: 8192, FrameSize: 2048})
	in := b.port(t, u, b.in.Index, true)
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, b.port(t, u, b.out.Index, false)}, Program: to(1)})
	stop := start(d)
	for _, mtu := range []int{600, 3000, 1500, 68, 1500} {
		for _, device := range []netlab.Device{b.gen, b.in, b.out, b.sink} {
			b.change(t, device.Index, setMTU(mtu))
			b.flood(t, 64)
		}
		b.passes(t, d, in)
		if mtu != 3000 {
			continue
		}
		before, err := in.Socket().Statistics()
		if err != nil {
			t.Fatal(err)
		}
		long := append(veth.Frame(t, 1514), make([]byte, 1000)...)
		veth.Send(t, b.Namespace, b.gen.Index, long, long)
		testutil.Eventually(t, "frames that do not fit are counted", func() bool {
			now, err := in.Socket().Statistics()
			return err != nil || now.RXDropped == before.RXDropped+2
		})
		b.passes(t, d, in)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// A program that stands still lets the rings run full, which the kernel counts; when it goes on, so
// does all.
func TestSurvivesSlowProgram(t *testing.T) {
	b := newBench(t)
	u := newUMEM(t, xsk.Config{Frames: 8192})
	in := b.port(t, u, b.in.Index, true)
	gate := make(chan struct{}, 1)
	gate <- struct{}{}
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, b.port(t, u, b.out.Index, false)},
		Program: func(frames []Frame, actions []Action) {
			<-gate
			to(1)(frames, actions)
			gate <- struct{}{}
		}})
	stop := start(d)
	b.passes(t, d, in)
	<-gate
	dropped := func() uint64 {
		kernel, err := in.Socket().Statistics()
		if err != nil {
			t.Fatal(err)
		}
		return kernel.RXDropped + kernel.RXRingFull
	}
	before := dropped()
	b.flood(t, 1<<14) // the rings have 2048 entries each
	testutil.Eventually(t, "drops for full rings", func() bool { return dropped() > before })
	gate <- struct{}{}
	b.passes(t, d, in)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// A device that is moved to another namespace is lost, with all that it had counted; back here it
// takes its place again.
func TestSurvivesNamespaceMove(t *testing.T) {
	b := newBench(t)
	elsewhere := veth.Namespace(t)
	u := newUMEM(t, xsk.Config{Frames: 8192})
	in := b.port(t, u, b.in.Index, true)
	lost := make(chan error, 1)
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, b.port(t, u, b.out.Index, false)}, Program: to(1),
		Lost: func(port int, err error) {
			if port != 1 {
				t.Errorf("port %d is lost", port)
			}
			lost <- err
		}})
	stop := start(d)
	b.passes(t, d, in)
	for i := range 2 {
		veth.Move(t, b.Namespace, elsewhere, b.out.Name)
		select {
		case err := <-lost:
			if !errors.Is(err, xsk.ErrGone) {
				t.Errorf("lost by %v, want a device that is gone", err)
			}
		case <-time.After(time.Minute):
			t.Fatal("nobody noticed that the device was moved")
		}
		b.flood(t, 1000)
		veth.Move(t, elsewhere, b.Namespace, b.out.Name)
		var index int
		err := b.Do(func() error {
			l, err := netlink.LinkByName(b.out.Name)
			if err != nil {
				return err
			}
			index = l.Attrs().Index
			return netlink.LinkSetUp(l)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.SetPort(1, b.port(t, u, index, false)); err != nil {
			t.Fatal(err)
		}
		b.passes(t, d, in)
		if c := d.Counters(nil)[1]; c.Losses != uint64(i+1) {
			t.Errorf("%d losses, want %d", c.Losses, i+1)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if c := d.Counters(nil); c[0].DroppedNoPort == 0 {
		t.Errorf("%+v: no frame was dropped for want of the port", c)
	}
}

// Steps of the clock move nothing: frames pass, waits end, and what was busy is no longer than the test.
func TestSurvivesClockSteps(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -48 * time.Hour, 24 * 365 * time.Hour} {
		veth.StepClock(t, 0) // or skip
		b := newBench(t)
		u := newUMEM(t, xsk.Config{Frames: 8192})
		in := b.port(t, u, b.in.Index, true)
		d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, b.port(t, u, b.out.Index, false)}, Program: to(1)})
		begin := time.Now()
		stop := start(d)
		b.passes(t, d, in)
		veth.StepClock(t, by)
		b.passes(t, d, in)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if n := d.Drain(time.Minute); n != 0 {
			t.Errorf("%d frames in flight", n)
		}
		if busy, took := d.Busy(), time.Since(begin); busy <= 0 || busy > took {
			t.Errorf("busy for %v of %v", busy, took)
		}
	}
}
