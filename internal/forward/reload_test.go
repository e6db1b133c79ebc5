package forward

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/filter"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

func claimOf(t *testing.T, expression string) asm.Instructions {
	t.Helper()
	program, err := filter.Compile(expression)
	if err != nil {
		t.Fatal(err)
	}
	claim, err := filter.Claim(program)
	if err != nil {
		t.Fatal(err)
	}
	return claim
}

// remove takes a device away, and its peer with it.
func (w *wires) remove(t *testing.T, name string) {
	t.Helper()
	err := w.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// arrives sends frames of these sizes by way of gen, and asks that the first that arrives at sink is one of want bytes.
func (w *wires) arrives(t *testing.T, want int, sizes ...int) {
	t.Helper()
	receive := veth.Listen(t, w.Namespace, w.sink.Index)
	for _, size := range sizes {
		veth.Send(t, w.Namespace, w.gen.Index, veth.Frame(t, size))
	}
	if got := receive(); !bytes.Equal(got, veth.Frame(t, want)) {
		t.Errorf("received %x, want a frame of %d bytes", got, want)
	}
}

// received is how many frames a device received.
func (w *wires) received(t *testing.T, name string) (frames uint64) {
	t.Helper()
	err := w.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err == nil {
			frames = l.Attrs().Statistics.RxPackets
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return frames
}

// Another filter decides from one frame to the next, also none.
func TestReload(t *testing.T) {
	for _, engine := range Engines() {
		t.Run(string(engine), func(t *testing.T) {
			w := newWires(t)
			receive := veth.Listen(t, w.Namespace, w.sink.Index)
			large, small := claimOf(t, "udp and greater 100"), claimOf(t, "udp and less 99")
			f := w.open(t, Config{Pairs: pair, Engine: engine, Claim: large})
			sizes := func(want ...int) {
				t.Helper()
				veth.Send(t, w.Namespace, w.gen.Index, veth.Frame(t, 99), veth.Frame(t, 100))
				for _, size := range want {
					if got := receive(); len(got) != size {
						t.Errorf("received %d bytes, want %d", len(got), size)
					}
				}
			}
			sizes(100)
			for range 3 {
				if err := f.Reload(t.Context(), small); err != nil {
					t.Fatal(err)
				}
				sizes(99)
				if err := f.Reload(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				sizes(99, 100)
				if err := f.Reload(t.Context(), large); err != nil {
					t.Fatal(err)
				}
				sizes(100)
			}
			// What no kernel takes changes nothing.
			if err := f.Reload(t.Context(), asm.Instructions{asm.Mov.Reg(asm.R0, asm.R9)}); err == nil {
				t.Error("a program was taken that reads what nobody wrote")
			}
			sizes(100)
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if err := f.Reload(t.Context(), small); engine == XDP && err == nil {
				t.Error("reloaded after it was closed")
			}
		})
	}
}

// While the filter is replaced again and again each frame that the device receives is forwarded,
// dropped for a reason, or left to the network stack.
func TestReloadLosesNothing(t *testing.T) {
	w := newWires(t)
	f := w.open(t, Config{Pairs: pair, Engine: AFXDP})
	claims := []asm.Instructions{nil, claimOf(t, "udp"), claimOf(t, "tcp")}
	for i := range 60 {
		done := make(chan bool)
		go func() { done <- f.Reload(t.Context(), claims[i%len(claims)]) == nil }()
		w.flood(t, 1<<10)
		if !<-done {
			t.Fatal("reload failed")
		}
	}
	var d Direction
	testutil.Eventually(t, "each frame in a counter", func() bool {
		got, err := f.Totals()
		if err != nil {
			t.Fatal(err)
		}
		d = got.Directions[0]
		kernel := d.Dropped() - own(d)
		return d.InFlight == 0 && d.Received+d.Passed+kernel == w.received(t, "in")
	})
	if d.Sent == 0 || d.Passed == 0 {
		t.Errorf("%+v: the filters made no difference", d)
	}
}

// While the program of an object is replaced again and again each frame that it redirects is in a counter, and none
// is the network stack's.
func TestReloadObjectLosesNothing(t *testing.T) {
	w := newWires(t)
	f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Object: compile(t, "-DMAP=BPF_MAP_TYPE_XSKMAP")})
	frames := slices.Repeat([][]byte{veth.Frame(t, 100)}, 500)
	for range 20 {
		done := make(chan error)
		go func() { done <- f.Reload(t.Context(), nil) }()
		veth.Send(t, w.Namespace, w.gen.Index, frames...)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	testutil.Eventually(t, "each frame in a counter", func() bool {
		got, err := f.Totals()
		if err != nil {
			t.Fatal(err)
		}
		d := got.Directions[0]
		return d.InFlight == 0 && d.Sent > 0 && d.Received+d.Dropped()-own(d) == w.received(t, "in")
	})
}

// The object's file is read again; one that cannot be read changes nothing.
func TestReloadObject(t *testing.T) {
	for engine, define := range map[Engine]string{AFXDP: "-DMAP=BPF_MAP_TYPE_XSKMAP", XDP: "-DMAP=BPF_MAP_TYPE_DEVMAP"} {
		t.Run(string(engine), func(t *testing.T) {
			w := newWires(t)
			object := compile(t, define)
			f := w.open(t, Config{Pairs: pair, Engine: engine, Object: object})
			w.arrives(t, 100, 100)
			for range 3 {
				if err := f.Reload(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				w.arrives(t, 100, 100)
			}
			if err := f.Reload(t.Context(), claimOf(t, "udp")); !errors.Is(err, errFilterAndObject) {
				t.Errorf("%v, want %v", err, errFilterAndObject)
			}
			if err := os.WriteFile(object, []byte("no object"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := f.Reload(t.Context(), nil); err == nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("no object: %v", err)
			}
			w.arrives(t, 100, 100)
		})
	}
}

// A program that is attached gets another filter also while its device still counts as away.
func TestReloadBeforeBack(t *testing.T) {
	w := newWires(t)
	f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Claim: claimOf(t, "udp and greater 100")}).(*afxdp)
	f.mu.Lock()
	f.away[f.numbers["in"]] = true // as between attach and that it is said to be back
	f.mu.Unlock()
	if err := f.Reload(t.Context(), claimOf(t, "udp and less 99")); err != nil {
		t.Fatal(err)
	}
	w.arrives(t, 99, 100, 99)
}

// In the kernel an input that is gone keeps no other from its new program.
func TestReloadWithoutDevice(t *testing.T) {
	w := newWires(t)
	veth.Pair(t, w.Namespace, "gone", "peer")
	f := w.open(t, Config{Pairs: []Pair{{"gone", "out"}, {"in", "out"}}, Engine: XDP, Claim: claimOf(t, "udp and greater 100")})
	w.remove(t, "gone")
	if err := f.Reload(t.Context(), claimOf(t, "udp and less 99")); err != nil {
		t.Fatal(err)
	}
	w.arrives(t, 99, 100, 99)
}

// A device that comes back has the object that was loaded, whatever is in the file by then.
func TestObjectWhileAway(t *testing.T) {
	for engine, define := range map[Engine]string{AFXDP: "-DMAP=BPF_MAP_TYPE_XSKMAP", XDP: "-DMAP=BPF_MAP_TYPE_DEVMAP"} {
		t.Run(string(engine), func(t *testing.T) {
			w := newWires(t)
			said := make(chan string, 100)
			object := compile(t, define)
			w.open(t, Config{Pairs: pair, Engine: engine, Object: object, Warn: func(s string) { said <- s }})
			if err := os.WriteFile(object, []byte("no object"), 0o644); err != nil {
				t.Fatal(err)
			}
			w.remove(t, "in")
			waitFor(t, said, "in is lost")
			var err error
			if w.gen, _, err = w.VethPair("gen", "in"); err != nil {
				t.Fatal(err)
			}
			waitFor(t, said, "in is back")
			w.arrives(t, 100, 100)
			w.remove(t, "out")
			waitFor(t, said, "out is lost")
			w.renewSink(t)
			waitFor(t, said, "out is back")
			w.arrives(t, 100, 100)
		})
	}
}

// A device that comes back has the filter that was set while it was away.
func TestReloadWhileAway(t *testing.T) {
	for _, engine := range Engines() {
		t.Run(string(engine), func(t *testing.T) { reloadWhileAway(t, engine) })
	}
}

func reloadWhileAway(t *testing.T, engine Engine) {
	w := newWires(t)
	said := make(chan string, 100)
	f := w.open(t, Config{Pairs: pair, Engine: engine, Claim: claimOf(t, "udp and greater 100"), Warn: func(s string) { said <- s }})
	w.remove(t, "in")
	waitFor(t, said, "in is lost")
	if err := f.Reload(t.Context(), claimOf(t, "udp and less 99")); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.gen, _, err = w.VethPair("gen", "in"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, said, "in is back")
	w.arrives(t, 99, 100, 99)
}

// A worker that loses a port does not wait for a reload, which may take the kernel long.
func TestLostWhileReloading(t *testing.T) {
	w := newWires(t)
	said := make(chan string, 100)
	f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Warn: func(s string) { said <- s }}).(*afxdp)
	f.mu.Lock() // as Reload does
	w.remove(t, "out")
	testutil.Eventually(t, "the port is lost", func() bool { return !f.path.Present(f.portsOf(f.numbers["out"])[0]) })
	before := f.path.Worker(0).Polls()
	testutil.Eventually(t, "the worker goes on", func() bool { return f.path.Worker(0).Polls() > before+2 })
	f.mu.Unlock()
	waitFor(t, said, "out is lost")
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// running says whether a goroutine was started by a function, or is in it.
func running(t *testing.T, function string) bool {
	t.Helper()
	var stacks strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	return strings.Contains(stacks.String(), function)
}

// While the verifier reads an object all else goes on, and the end is heard.
func TestReloadSlowObject(t *testing.T) {
	for engine, m := range map[Engine]string{AFXDP: "-DMAP=BPF_MAP_TYPE_XSKMAP", XDP: "-DMAP=BPF_MAP_TYPE_DEVMAP"} {
		t.Run(string(engine), func(t *testing.T) {
			w := newWires(t)
			object := compile(t, m)
			f := w.open(t, Config{Pairs: pair, Engine: engine, Object: object})
			before := descriptors(t)
			if err := os.Rename(compile(t, m, "-DSLOW"), object); err != nil {
				t.Fatal(err)
			}
			var lock *sync.Mutex
			switch f := f.(type) {
			case *afxdp:
				lock = &f.reloading
			case *inKernel:
				lock = &f.reloading
			}
			reloading := func() bool {
				if lock.TryLock() {
					lock.Unlock()
					return false
				}
				return true
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- f.Reload(ctx, nil) }()
			for meanwhile := false; !meanwhile; {
				select {
				case err := <-done:
					t.Fatalf("the totals waited for the reload (%v)", err)
				default:
				}
				began := reloading()
				if _, err := f.Totals(); err != nil {
					t.Fatal(err)
				}
				meanwhile = began && reloading()
			}
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Reload returned %v, want that it was canceled", err)
			}
			// The verifier goes on to its end, or has yet to begin.
			testutil.Eventually(t, "ended what loads too late", func() bool { return !running(t, "internal/verifier.Await") })
			testutil.Eventually(t, "closed what was loaded too late", func() bool { return descriptors(t) <= before })
			w.arrives(t, 100, 100)
		})
	}
}
