package forward

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/nics"
	"github.com/unthunk/unthunk/internal/testutil/veth"
	"github.com/unthunk/unthunk/xsk"
)

// These tests run in guests with NICs that have zero copy: internal/guest boots them.

// onWires forwards between NICs of a guest.
type onWires struct {
	*nics.Wires
	*afxdp
	warnings []string // when it was opened
	stop     func()
}

func openOnWires(t *testing.T, w *nics.Wires, c Config) (f Forwarder, err error) {
	c.Engine, c.Do, c.Happened = AFXDP, w.Do, func(h Happening) { t.Log(h.Text) }
	err = w.Do(func() (err error) { f, err = Open(t.Context(), c); return err })
	return f, err
}

func forwardOnWires(t *testing.T, w *nics.Wires, c Config) *onWires {
	t.Helper()
	f := &onWires{Wires: w}
	if c.Warn == nil {
		c.Warn = func(s string) { f.warnings = append(f.warnings, s); t.Log(s) }
	}
	opened, err := openOnWires(t, w, c)
	if err != nil {
		t.Fatal(err)
	}
	f.afxdp = opened.(*afxdp)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stopped := false
	f.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-done, f.Close()); err != nil {
			t.Error(err)
		}
		if n := w.Programs(t); n > 0 {
			t.Errorf("%d devices still have a program", n)
		}
	}
	t.Cleanup(f.stop)
	w.AwaitUp(t)
	return f
}

// wantAll asks that every frame that was received was sent, and in which mode. Of those that
// the generators sent some may be lost on emulated wires.
func (f *onWires) wantAll(t *testing.T, mode string, lost int, frames ...uint64) {
	t.Helper()
	got, err := f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	if got.Mode != mode {
		t.Errorf("%s mode, want %s", got.Mode, mode)
	}
	for i, d := range got.Directions {
		if d.Received > frames[i] || d.Received+uint64(lost) < frames[i] || d.Sent != d.Received || d.Dropped() != 0 {
			t.Errorf("%+v, want %d frames, %d of which may be lost", d, frames[i], lost)
		}
	}
}

// kicks are the system calls to transmit. It is for when the forwarder is idle.
func (f *onWires) kicks() (n uint64) {
	for _, s := range f.sockets {
		if s != nil { // of queues that are there
			n += s.Kicks()
		}
	}
	return n
}

// Frames pass both ways without copies, each byte of them, also after a link was down; and few
// of them need a system call.
func TestWiresZeroCopy(t *testing.T) {
	w := nics.Take(t)
	f := forwardOnWires(t, w, Config{Pairs: []Pair{{w.In.Name, w.Out.Name}}, Both: true, Mode: xsk.ZeroCopy})
	lost := w.Exchange(t, w.Gen, w.Sink, 3000)
	lost += w.Exchange(t, w.Sink, w.Gen, 3000)
	got, err := f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	// One for each burst that is given to the driver, and some where it answers late: igb never
	// says that it needs none, and took more than one a frame.
	bulks := got.Directions[0].Bulks + got.Directions[1].Bulks
	t.Logf("%.3f kicks a frame, %d in %d bursts", float64(f.kicks())/6000, f.kicks(), bulks)
	if f.kicks() > 2*bulks {
		t.Errorf("%d kicks in %d bursts", f.kicks(), bulks)
	}
	for _, d := range []netlab.Device{w.In, w.Out} {
		w.Set(t, d, netlink.LinkSetDown)
		w.Set(t, d, netlink.LinkSetUp)
		w.AwaitUp(t)
		lost += w.Exchange(t, w.Gen, w.Sink, 500)
		lost += w.Exchange(t, w.Sink, w.Gen, 500)
	}
	f.stop()
	f.wantAll(t, "zero-copy", lost, 4000, 4000)
}

// The output has a program of its own while it is one, and nobody needs to ask for zero copy.
func TestWiresOneWay(t *testing.T) {
	w := nics.Take(t)
	for range 2 {
		w.AwaitUp(t) // igb takes its link down when its program goes
		f := forwardOnWires(t, w, Config{Pairs: []Pair{{w.In.Name, w.Out.Name}}})
		if n := w.Programs(t); n != 2 {
			t.Errorf("%d devices have a program, want 2", n)
		}
		lost := w.Exchange(t, w.Gen, w.Sink, 1000)
		f.stop()
		f.wantAll(t, "zero-copy", lost, 1000)
		if len(f.warnings) > 0 {
			t.Errorf("warnings: %q", f.warnings)
		}
	}
}

// An output whose program somebody takes away sends nothing with some drivers. That is said, and
// the link is not taken for down.
func TestWiresProgramGone(t *testing.T) {
	w := nics.Take(t)
	said := make(chan string, 100)
	f := forwardOnWires(t, w, Config{Pairs: []Pair{{w.In.Name, w.Out.Name}}, Mode: xsk.ZeroCopy, Warn: func(s string) { said <- s }})
	f.mu.Lock()
	err := f.closeProgram(1)
	f.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	w.AwaitUp(t)
	send := func() { veth.Send(t, w.Namespace, w.Gen.Index, veth.Frame(t, 100)) }
	var driver string
	if err := w.Do(func() error { driver = host.Driver(w.Out.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	if driver == "igb" {
		testutil.Eventually(t, "said", func() bool {
			send()
			select {
			case s := <-said:
				return strings.Contains(s, w.Out.Name+" sends nothing: its XDP program is gone")
			default:
				return false
			}
		})
	}
	if err := w.Do(func() error { return f.attach(t.Context(), 1) }); err != nil {
		t.Fatal(err)
	}
	w.AwaitUp(t)
	testutil.Eventually(t, "sent", func() bool {
		send()
		got, err := f.Totals()
		if err != nil {
			t.Fatal(err)
		}
		return got.Directions[0].Sent > 0
	})
	got, err := f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range got.Directions[0].Drops {
		if d.Reason == dropLinkDown && d.Frames > 0 {
			t.Errorf("%+v: no link was down", got.Directions[0])
		}
	}
}

// With a device that cannot do without copies all are in copy mode, and it is said which one;
// where zero copy is required, that is the error.
func TestWiresMixed(t *testing.T) {
	w := nics.Take(t)
	near, far, err := w.VethPair("mixed", "mixedfar")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		pair     Pair
		from, to netlab.Device
	}{{Pair{w.In.Name, near.Name}, w.Gen, far}, {Pair{near.Name, w.Out.Name}, far, w.Sink}} {
		pairs := []Pair{tt.pair}
		_, err = openOnWires(t, w, Config{Pairs: pairs, Mode: xsk.ZeroCopy})
		if !errors.Is(err, xsk.ErrNoZeroCopy) || !strings.Contains(err.Error(), "zero-copy AF_XDP on mixed is missing") {
			t.Errorf("%v: %v, want %v of mixed", pairs, err, xsk.ErrNoZeroCopy)
		}
		if n := w.Programs(t); n > 0 {
			t.Errorf("%v: %d devices still have a program", pairs, n)
		}
		f := forwardOnWires(t, w, Config{Pairs: pairs})
		if !slices.ContainsFunc(f.warnings, func(s string) bool {
			return strings.Contains(s, "frames are copied: ") && strings.Contains(s, " mixed ")
		}) {
			t.Errorf("%v: warnings: %q", pairs, f.warnings)
		}
		lost := w.Exchange(t, tt.from, tt.to, 1000)
		f.stop()
		f.wantAll(t, "copy", lost, 1000)
	}
}

// A virtio-net that does not use the DMA API copies, and it is said what it lacks.
func TestPlainVirtio(t *testing.T) {
	w := nics.Take(t)
	pairs := []Pair{{w.In.Name, w.Out.Name}}
	_, err := openOnWires(t, w, Config{Pairs: pairs, Mode: xsk.ZeroCopy})
	if !errors.Is(err, xsk.ErrNoZeroCopy) || !strings.Contains(err.Error(), "iommu_platform=on") {
		t.Errorf("%v, want %v for want of iommu_platform", err, xsk.ErrNoZeroCopy)
	}
	f := forwardOnWires(t, w, Config{Pairs: pairs})
	if !slices.ContainsFunc(f.warnings, func(s string) bool { return strings.Contains(s, "iommu_platform=on") }) {
		t.Errorf("warnings: %q", f.warnings)
	}
	lost := w.Exchange(t, w.Gen, w.Sink, 1000)
	f.stop()
	f.wantAll(t, "copy", lost, 1000)
}
