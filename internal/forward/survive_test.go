package forward

import (
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/bpf/observe"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// index is that of a device of the namespace.
func (w *wires) index(t *testing.T, name string) (index int) {
	t.Helper()
	err := w.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err == nil {
			index = l.Attrs().Index
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// set changes a device of the namespace.
func (w *wires) set(t testing.TB, name string, change func(netlink.Link) error) {
	t.Helper()
	err := w.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return change(l)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// resumes asks that frames pass, that what the forwarder received and did not send is in its drops, and
// that an event was counted so often.
func resumes(t *testing.T, w *wires, f Forwarder, device, event string, times uint64) {
	t.Helper()
	direction := func() Direction {
		got, err := f.Totals()
		if err != nil {
			t.Fatal(err)
		}
		return got.Directions[0]
	}
	before := direction().Sent
	testutil.Eventually(t, "frames pass", func() bool {
		w.flood(t, 64)
		return direction().Sent > before+64
	})
	testutil.Eventually(t, "the account balances", func() bool {
		d := direction()
		return d.InFlight == 0 && d.Received == d.Sent+own(d)
	})
	got, err := f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	if want := (Event{device, event, times}); !slices.Contains(got.Events, want) || !got.Directions[0].Up {
		t.Errorf("events %+v, want %+v; up %v", got.Events, want, got.Directions[0].Up)
	}
}

// A program that somebody takes off is attached again, also after somebody else's was there in between.
func TestSurvivesProgramTakenOff(t *testing.T) {
	for _, engine := range Engines() {
		t.Run(string(engine), func(t *testing.T) { programTakenOff(t, engine) })
	}
}

func programTakenOff(t *testing.T, engine Engine) {
	w := newWires(t)
	said := make(chan string, 100)
	f := w.open(t, Config{Pairs: pair, Engine: engine, Warn: func(s string) { said <- s }})
	in := w.index(t, "in")
	w.flood(t, 100)
	for i := range 3 {
		veth.DetachXDP(t, w.Namespace, in)
		waitFor(t, said, "in has its XDP program again")
		resumes(t, w, f, "in", eventNoProgram, uint64(i+1))
		resumes(t, w, f, "in", eventReattached, uint64(i+1))
	}
	// Who is as fast as that takes its place.
	other := veth.Program(t, asm.Mov.Imm(asm.R0, passed), asm.Return())
	var occupied link.Link
	for tries := 0; occupied == nil; tries++ {
		veth.DetachXDP(t, w.Namespace, in)
		err := w.Do(func() (err error) {
			occupied, err = link.AttachXDP(link.XDPOptions{Program: other, Interface: in, Flags: link.XDPDriverMode})
			return err
		})
		if err != nil && tries == 100 {
			t.Fatal(err)
		}
		if occupied == nil {
			waitFor(t, said, "in has its XDP program again")
		}
	}
	waitFor(t, said, "has one already")
	if got, err := f.Totals(); err != nil || got.Directions[0].Up {
		t.Errorf("the direction is up while another's program is there: %v", err)
	}
	if err := occupied.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, said, "in has its XDP program again")
	before, err := f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(before.Events, func(e Event) bool { return e.Device == "in" && e.Name == eventReattached })
	resumes(t, w, f, "in", eventNoProgram, before.Events[i].Times)
}

// A device that is moved to another namespace and back is taken back.
func TestSurvivesNamespaceMove(t *testing.T) {
	for _, engine := range Engines() {
		for _, name := range []string{"in", "out"} {
			t.Run(string(engine)+"/"+name, func(t *testing.T) {
				w := newWires(t)
				elsewhere := veth.Namespace(t)
				said := make(chan string, 100)
				f := w.open(t, Config{Pairs: pair, Engine: engine, Warn: func(s string) { said <- s }})
				w.flood(t, 100)
				for i := range 2 {
					veth.Move(t, w.Namespace, elsewhere, name)
					waitFor(t, said, name+" is lost")
					w.flood(t, 100)
					veth.Move(t, elsewhere, w.Namespace, name)
					w.set(t, name, netlink.LinkSetUp)
					waitFor(t, said, name+" is back")
					resumes(t, w, f, name, eventLost, uint64(i+1))
					resumes(t, w, f, name, eventBack, uint64(i+1))
				}
			})
		}
	}
}

// In the kernel a link that is down is an event, what meets it a drop for that reason, and a device that is gone another.
func TestKernelDrops(t *testing.T) {
	w := newWires(t)
	said := make(chan string, 100)
	f := w.open(t, Config{Pairs: pair, Engine: XDP, Warn: func(s string) { said <- s }})
	drops := func(reason string) {
		t.Helper()
		testutil.Eventually(t, reason, func() bool {
			w.flood(t, 64)
			got, err := f.Totals()
			if err != nil {
				t.Fatal(err)
			}
			return slices.ContainsFunc(got.Directions[0].Drops, func(d Drop) bool { return d.Reason == reason && d.Frames >= 64 })
		})
	}
	w.set(t, "out", netlink.LinkSetDown)
	waitFor(t, said, "the link of out went down")
	drops(dropLinkDown)
	w.set(t, "out", netlink.LinkSetUp)
	resumes(t, w, f, "out", eventLinkDown, 1)
	w.remove(t, "out")
	waitFor(t, said, "out is lost")
	drops(dropNoPort)
}

// Each reason that the kernel has is in one drop, and nothing else is.
func TestKernelDropsByReason(t *testing.T) {
	for _, test := range []struct {
		noPort, refused uint64
		failures        []observe.ErrorCount
		want            [5]uint64 // output-gone, link-down, not-sendable, redirect-failed, xmit-refused
	}{
		{},
		{3, 5, nil, [5]uint64{3, 0, 0, 0, 5}},
		{0, 0, []observe.ErrorCount{{Error: unix.ENETDOWN, Count: 7}}, [5]uint64{1: 7}},
		{0, 0, []observe.ErrorCount{{Error: unix.EMSGSIZE, Count: 11}, {Error: unix.EOPNOTSUPP, Count: 13}}, [5]uint64{2: 24}},
		{0, 0, []observe.ErrorCount{{Error: unix.EINVAL, Count: 17}, {Error: unix.ENXIO, Count: 19}, {Count: 23}}, [5]uint64{3: 59}},
		{1, 2, []observe.ErrorCount{{Error: unix.ENETDOWN, Count: 4}, {Error: unix.EMSGSIZE, Count: 8}, {Error: unix.ENOBUFS, Count: 16}},
			[5]uint64{1, 4, 8, 16, 2}},
	} {
		var want []Drop
		for i, reason := range []string{"output-gone", "link-down", "not-sendable", "redirect-failed", "xmit-refused"} {
			want = append(want, Drop{reason, test.want[i]})
		}
		if diff := cmp.Diff(want, kernelDrops(test.noPort, test.failures, test.refused)); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test, diff)
		}
	}
}

// Frames that an input redirects while it is in another network namespace are seen by nobody: they are in flight until
// nothing more happens, and in a drop from then on.
func TestKernelUncounted(t *testing.T) {
	w := newWires(t)
	elsewhere := veth.Namespace(t)
	f := w.openKernel(t, Config{Pairs: pair})
	direction := func() Direction {
		t.Helper()
		got, err := f.Totals()
		if err != nil {
			t.Fatal(err)
		}
		d := got.Directions[0]
		if d.Received != d.Sent+d.InFlight+d.Dropped() {
			t.Fatalf("%+v does not balance", d)
		}
		return d
	}
	w.flood(t, 64)
	testutil.Eventually(t, "frames pass", func() bool { w.flood(t, 1); return direction().Sent >= 64 })
	veth.Move(t, w.Namespace, elsewhere, "in")
	moved := wires{Namespace: elsewhere}
	moved.set(t, "in", netlink.LinkSetUp)
	testutil.Eventually(t, "frames that nobody sees", func() bool { w.flood(t, 1); return direction().InFlight >= 64 })
	testutil.Eventually(t, "they are in a drop", func() bool {
		f.follow(t.Context())
		d := direction()
		return d.InFlight == 0 && d.Drops[len(d.Drops)-1].Reason == DropUncounted && d.Drops[len(d.Drops)-1].Frames >= 64
	})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if d := direction(); d.InFlight != 0 || d.Up {
		t.Errorf("closed: %+v", d)
	}
}

// What was uncounted stays so when frames leave after all, so that the counter does not fall, and stands for others later.
func TestUncountedStays(t *testing.T) {
	t.Parallel()
	var k kernelDirection
	for i, test := range []struct {
		received, sent, refused, uncounted uint64
		end                                bool
		inFlight, want                     uint64
	}{
		{received: 100, sent: 60, inFlight: 40},
		{received: 100, sent: 60, uncounted: 40, want: 40}, // noted
		{received: 110, sent: 65, refused: 5, want: 40},
		{received: 110, sent: 90, refused: 5, want: 40}, // 25 left after all
		{received: 160, sent: 110, refused: 5, inFlight: 5, want: 40},
		{received: 160, sent: 170, refused: 5, want: 40}, // with frames that others redirect to the output
		{received: 220, sent: 170, refused: 5, end: true, want: 45},
	} {
		k.uncounted += test.uncounted
		d := Direction{Received: test.received, Sent: test.sent, Drops: []Drop{{dropXmit, test.refused}}}
		k.account(&d, test.end)
		if got := d.Drops[1]; d.InFlight != test.inFlight || got != (Drop{DropUncounted, test.want}) {
			t.Errorf("%d: %d in flight, %+v; want %d and %d", i, d.InFlight, got, test.inFlight, test.want)
		}
	}
}

// Who is warned may ask for the totals.
func TestKernelWarns(t *testing.T) {
	w := newWires(t)
	veth.Pair(t, w.Namespace, "dead", "end") // which refuses what is redirected to it: its peer has no program
	var f *inKernel
	said := 0
	f = w.openKernel(t, Config{Pairs: []Pair{{"in", "dead"}}, Warn: func(text string) {
		t.Log(text)
		if said++; f.mu.TryLock() {
			f.mu.Unlock()
		} else {
			t.Error("warned while the lock is held")
		}
	}})
	testutil.Eventually(t, "a warning", func() bool {
		w.flood(t, 64)
		_, err := f.Totals()
		return err == nil && said > 0
	})
	if err := f.Close(); err != nil || said != 1 {
		t.Errorf("%v; warned %d times", err, said)
	}
}

// A device of which a queue is found lost only when it is back is not lost, and gets its program if it has none yet.
func TestLostLate(t *testing.T) {
	for _, attached := range []bool{true, false} {
		w := newWires(t)
		said := make(chan string, 100)
		f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Warn: func(s string) { said <- s }}).(*afxdp)
		in := f.numbers["in"]
		f.mu.Lock()
		f.lost[in], f.away[in] = true, true
		var err error
		if !attached {
			err = f.dropProgram(in)
		}
		f.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { f.recover(t.Context(), in); close(ended) }()
		waitFor(t, said, "in is back")
		<-ended
		resumes(t, w, f, "in", eventBack, 1)
	}
}

// After a step of the clock, on or back, a device that goes is still found again.
func TestSurvivesClockSteps(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -48 * time.Hour} {
		veth.StepClock(t, 0) // or skip
		w := newWires(t)
		said := make(chan string, 100)
		f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Warn: func(s string) { said <- s }})
		resumes(t, w, f, "out", eventLost, 0)
		veth.StepClock(t, by)
		w.remove(t, "out")
		waitFor(t, said, "out is lost")
		w.renewSink(t)
		waitFor(t, said, "out is back")
		resumes(t, w, f, "out", eventLost, 1)
	}
}

// In generic mode what the kernel sends is counted as in native mode.
func TestKernelGeneric(t *testing.T) {
	for name, object := range map[string]string{"default": "", "object": compile(t, "-DMAP=BPF_MAP_TYPE_DEVMAP")} {
		t.Run(name, func(t *testing.T) { kernelGeneric(t, object) })
	}
}

func kernelGeneric(t *testing.T, object string) {
	w := newWires(t)
	f := w.open(t, Config{Pairs: pair, Engine: XDP, Generic: true, Object: object})
	w.arrives(t, 100, 100)
	testutil.Eventually(t, "sent, and nothing in flight", func() bool {
		got, err := f.Totals()
		if err != nil {
			t.Fatal(err)
		}
		d := got.Directions[0]
		return d.Received > 0 && d.Sent == d.Received
	})
}
