package forward

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
	"github.com/unthunk/unthunk/xsk"
)

// newQueues makes wires whose devices have queues.
func newQueues(t *testing.T, queues int) *wires {
	t.Helper()
	w := &wires{Namespace: veth.Namespace(t)}
	for _, names := range [][2]string{{"gen", "in"}, {"out", "sink"}} {
		a, b, err := w.VethQueues(names[0], names[1], queues)
		if err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
		far := a
		if names[0] == "gen" {
			w.gen = a
		} else {
			w.sink, far = b, b
		}
		if err := far.Attach(veth.Program(t, asm.Mov.Imm(asm.R0, passed), asm.Return()), 0); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// setQueues is ethtool -L. A veth with an XDP program needs as many receive queues as its peer has
// for transmission.
func (w *wires) setQueues(t *testing.T, name string, rx, tx int) error {
	t.Helper()
	return w.Do(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		c, err := e.GetChannels(name)
		if err != nil {
			return err
		}
		c.RxCount, c.TxCount = uint32(rx), uint32(tx)
		_, err = e.SetChannels(name, c)
		return err
	})
}

// flows sends one frame of each of many flows, which a veth spreads over its queues, and waits for
// each.
func (w *wires) flows(t *testing.T, receive func() []byte, flows int) {
	t.Helper()
	for i := range flows {
		frame := veth.Frame(t, 60)
		frame[35] = byte(i) // the source port
		veth.Send(t, w.Namespace, w.gen.Index, frame)
		if got := receive(); !slices.Equal(got, frame) {
			t.Fatalf("flow %d: received %x, want %x", i, got, frame)
		}
	}
}

// send sends one frame of each of many flows.
func (w *wires) send(t *testing.T, flows int) {
	t.Helper()
	for i := range flows {
		frame := veth.Frame(t, 60)
		frame[35] = byte(i) // the source port
		veth.Send(t, w.Namespace, w.gen.Index, frame)
	}
}

// used are the queues of a device that frames came by.
func used(t *testing.T, f Forwarder, device string) (list []int) {
	t.Helper()
	got, err := f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range got.Queues {
		if q.Device == device && q.Received > 0 {
			list = append(list, q.Queue)
		}
	}
	return list
}

// In the kernel each queue has a count of its own, also of a device that does not say how many it has, as lo.
func TestKernelCountsQueues(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		q            queues
		counted, has int
	}{
		{channels("lo"), maxQueues, maxQueues}, {queues{now: 2, most: 4}, 4, 2},
	} {
		has := 0
		for test.q.has(has) && has < maxQueues {
			has++
		}
		if n := test.q.counted(); n != test.counted || has != test.has {
			t.Errorf("%+v: %d are counted and %d there, want %d and %d", test.q, n, has, test.counted, test.has)
		}
	}
}

// Workers share the queues, on CPUs of theirs.
func TestWorkers(t *testing.T) {
	for _, workers := range []int{1, 2, 3, 4} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			w := newQueues(t, 4)
			receive := veth.Listen(t, w.Namespace, w.sink.Index)
			f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Frames: 4096, Workers: workers, CPUs: []int{0}})
			w.flows(t, receive, 64)
			got, err := f.Totals()
			if err != nil {
				t.Fatal(err)
			}
			if got.Workers != workers || len(got.Queues) != 8 || got.Directions[0].Received != 64 {
				t.Errorf("%+v", got)
			}
			for _, q := range got.Queues {
				if q.Worker != q.Queue%workers {
					t.Errorf("%+v", q)
				}
			}
			if n := len(used(t, f, "in")); n < 2 {
				t.Errorf("frames came by %d queues", n)
			}
		})
	}
}

// An output with fewer queues than the input has them from several workers.
func TestWorkersFewerOutputs(t *testing.T) {
	w := newQueues(t, 4)
	if err := w.setQueues(t, "out", 1, 1); err != nil {
		t.Fatal(err)
	}
	receive := veth.Listen(t, w.Namespace, w.sink.Index)
	f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Frames: 4096, Workers: 2}).(*afxdp)
	w.flows(t, receive, 64)
	var handed uint64
	for _, c := range f.path.Counters(nil) {
		handed += c.HandedOver
	}
	if handed == 0 {
		t.Error("no frame was handed from one worker to the other")
	}
	if n := len(used(t, f, "out")); n != 0 {
		t.Errorf("frames came by %d queues of the output", n)
	}
}

// Of a limited number of queues the first are used, and the frames of others are the stack's.
func TestQueueLimit(t *testing.T) {
	w := newQueues(t, 4)
	f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Frames: 4096, Queues: 2})
	w.send(t, 64)
	testutil.Eventually(t, "two queues", func() bool { return slices.Equal(used(t, f, "in"), []int{0, 1}) })
	got, err := f.Totals()
	if err != nil || len(got.Queues) != 4 || got.Directions[0].Received >= 64 {
		t.Errorf("%+v, %v", got, err)
	}
}

// Of queues that an input has not got yet it is said so.
func TestQueuesNotThereYet(t *testing.T) {
	w := newQueues(t, 4)
	if err := errors.Join(w.setQueues(t, "in", 1, 1), w.setQueues(t, "gen", 1, 1)); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 100)
	w.open(t, Config{Pairs: pair, Engine: AFXDP, Frames: 4096, Queues: 3, Warn: func(s string) { said <- s }})
	waitFor(t, said, "in has 1 of 3 queues now")
}

// A queue that no frame came by is in the counts, also when its device is gone.
func TestQueueWithoutFrames(t *testing.T) {
	w := newWires(t)
	said := make(chan string, 100)
	f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Warn: func(s string) { said <- s }})
	queues := func(want ...Queue) {
		t.Helper()
		got, err := f.Totals()
		if diff := cmp.Diff(want, got.Queues); err != nil || diff != "" {
			t.Errorf("%v, queues (-want +got):\n%s", err, diff)
		}
	}
	queues(Queue{Device: "in", Up: true}, Queue{Device: "out", Up: true})
	w.remove(t, "out")
	waitFor(t, said, "out is lost")
	testutil.Eventually(t, "its socket is closed", func() bool {
		got, err := f.Totals()
		return err == nil && len(got.Queues) == 2 && !got.Queues[1].Up
	})
	queues(Queue{Device: "in", Up: true}, Queue{Device: "out"})
}

// Queues that devices get while frames flow are forwarded too, without those that were there
// before losing anything.
func TestQueuesCome(t *testing.T) {
	w := newQueues(t, 4)
	for _, name := range []string{"in", "gen", "out", "sink"} {
		if err := w.setQueues(t, name, 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	receive := veth.Listen(t, w.Namespace, w.sink.Index)
	said := make(chan string, 100)
	f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Workers: 2, Warn: func(s string) { said <- s }})
	w.flows(t, receive, 16)
	if got := used(t, f, "in"); !slices.Equal(got, []int{0}) {
		t.Errorf("frames came by queues %v, want 0", got)
	}
	for _, far := range []struct{ name, peer string }{{"in", "gen"}, {"out", "sink"}} {
		if err := errors.Join(w.setQueues(t, far.name, 3, 1), w.setQueues(t, far.peer, 3, 3)); err != nil {
			t.Fatal(err)
		}
		waitFor(t, said, far.name+" has a queue more, 2")
	}
	w.flows(t, receive, 64)
	if got := used(t, f, "in"); len(got) < 2 {
		t.Errorf("frames came by queues %v", got)
	}
	got, err := f.Totals()
	if d := got.Directions[0]; err != nil || d.Received != 80 || d.Sent != 80 || d.Dropped() != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	// What has a socket does not go, and goes without.
	if err := w.setQueues(t, "gen", 1, 1); err != nil {
		t.Fatal(err)
	}
	if err := w.setQueues(t, "in", 1, 1); err == nil {
		t.Error("the kernel took a queue away that has a socket")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "queues without sockets go", func() bool { return w.setQueues(t, "in", 1, 1) == nil })
}

// A queue that comes and for which no memory is left is said to be unused, once.
func TestQueuesComeWithoutMemory(t *testing.T) {
	w := newQueues(t, 4)
	for _, name := range []string{"in", "gen", "out", "sink"} {
		if err := w.setQueues(t, name, 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	said := make(chan string, 100)
	w.open(t, Config{Pairs: pair, Engine: AFXDP, Frames: 64, Warn: func(s string) { said <- s }})
	if err := w.setQueues(t, "in", 2, 1); err != nil {
		t.Fatal(err)
	}
	waitFor(t, said, "in has more queues, and they cannot be used")
}

// What keeps new queues from use is said once while it lasts, and again when it comes again.
func TestComplainsAgain(t *testing.T) {
	w := newQueues(t, 4)
	for _, name := range []string{"in", "gen", "out", "sink"} {
		if err := w.setQueues(t, name, 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	said := 0
	f := w.openIdle(t, Config{Pairs: pair, Engine: AFXDP, Frames: 64, Do: w.Do, Warn: func(s string) { said++; t.Log(s) }})
	if _, err := f.path.Poll(); err != nil { // which takes the chunks to receive into
		t.Fatal(err)
	}
	for i, step := range []struct{ queues, said int }{{2, 1}, {2, 1}, {1, 1}, {2, 2}, {2, 2}} {
		if err := w.setQueues(t, "in", step.queues, 1); err != nil {
			t.Fatal(err)
		}
		if f.follow(t.Context()); said != step.said {
			t.Errorf("step %d: %d complaints, want %d", i, said, step.said)
		}
	}
}

// The kernel engine counts frames by queue and CPU. Queues of a device that came back with more than before have no count of
// their own, and are in the direction's.
func TestKernelQueues(t *testing.T) {
	w := newQueues(t, 2)
	said := make(chan string, 100)
	f := w.open(t, Config{Pairs: pair, Engine: XDP, Warn: func(s string) { said <- s }})
	check := func(total uint64) {
		t.Helper()
		w.send(t, 64)
		var d Direction
		var queues []Queue
		testutil.Eventually(t, "all flows", func() bool {
			got, err := f.Totals()
			if err != nil {
				t.Fatal(err)
			}
			d, queues = got.Directions[0], got.Queues
			return d.Received >= total && d.Sent == d.Received
		})
		if len(queues) != 2 {
			t.Fatalf("queues %+v, want 2", queues)
		}
		var sum uint64
		for i, q := range queues {
			var byCPU uint64
			for _, n := range q.ByCPU {
				byCPU += n
			}
			if q.Device != "in" || q.Queue != i || !q.Up || q.Received == 0 || byCPU != q.Received {
				t.Errorf("%+v", q)
			}
			sum += q.Received
		}
		if more := total > 64; sum > d.Received || !more && sum != d.Received || more && sum == d.Received {
			t.Errorf("%d frames by queues, %d in all", sum, d.Received)
		}
	}
	check(64)
	w.remove(t, "in")
	waitFor(t, said, "in is lost")
	if got, err := f.Totals(); err != nil || len(got.Queues) != 2 || got.Queues[0].Up {
		t.Errorf("%+v, %v, want two queues that are not up", got.Queues, err)
	}
	var err error
	if w.gen, _, err = w.VethQueues("gen", "in", 4); err != nil {
		t.Fatal(err)
	}
	waitFor(t, said, "in is back")
	check(128)
}

// A device that comes back with another number of queues is forwarded by as many.
func TestDeviceComesBackWithQueues(t *testing.T) {
	for _, queues := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(queues), func(t *testing.T) {
			w := newQueues(t, 2)
			receive := veth.Listen(t, w.Namespace, w.sink.Index)
			said := make(chan string, 100)
			f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Frames: 4096, Workers: 2, Warn: func(s string) { said <- s }})
			w.flows(t, receive, 16)
			w.remove(t, "in")
			var err error
			waitFor(t, said, "in is lost")
			var gen netlab.Device
			if gen, _, err = w.VethQueues("gen", "in", queues); err != nil {
				t.Fatal(err)
			}
			waitFor(t, said, "in is back")
			w.gen = gen
			before, err := f.Totals()
			if err != nil {
				t.Fatal(err)
			}
			// It has at most the queues that there is room for.
			w.send(t, 64)
			testutil.Eventually(t, "frames of the new device", func() bool {
				got, err := f.Totals()
				return err == nil && got.Directions[0].Sent > before.Directions[0].Sent
			})
			up := 0
			got, err := f.Totals()
			for _, q := range got.Queues {
				if q.Device == "in" && q.Up {
					up++
				}
			}
			if err != nil || up != min(queues, 2) {
				t.Errorf("%d queues are up, %v", up, err)
			}
		})
	}
}

// With busy polling frames pass as without.
func TestBusyPoll(t *testing.T) {
	w := newQueues(t, 2)
	receive := veth.Listen(t, w.Namespace, w.sink.Index)
	w.open(t, Config{Pairs: pair, Engine: AFXDP, Workers: 2, BusyPoll: 20 * time.Microsecond})
	w.flows(t, receive, 32)
}

// What the kernel does not have is refused in a line that names it, and says why.
func TestKernelRefuses(t *testing.T) {
	for want, c := range map[string]Config{
		"zero copy":    {Mode: xsk.Copy},
		"sampled":      {Sample: &Sample{}},
		"queues":       {Queues: 1},
		"RSS":          {RSS: true},
		"workers":      {Workers: 1},
		"CPUs":         {CPUs: []int{0}},
		"busy polling": {BusyPoll: time.Millisecond},
		"a batch":      {Batch: 32},
		"memory":       {Frames: 4096},
		"BPF object":   {Object: "x", Source: net.HardwareAddr{2, 0, 0, 0, 0, 1}},
	} {
		c.Pairs, c.Engine = pair, XDP
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), ": ") {
			t.Errorf("%+v: %v, want %q, and why", c, err, want)
		}
	}
	if err := (Config{Pairs: pair, Engine: XDP}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestRefusesWorkers(t *testing.T) {
	w := newQueues(t, 2)
	for want, c := range map[string]Config{
		"300 queues":                     {Queues: 300},
		"3 queues: in has 2 at most":     {Queues: 3},
		"-1 workers":                     {Workers: -1},
		"3 workers: the devices have 2 ": {Workers: 3},
		"busy polling for 1ns":           {BusyPoll: 1},
		"on CPUs [1023]":                 {CPUs: []int{1023}},
	} {
		c.Pairs = pair
		if c.Engine == "" {
			c.Engine = AFXDP
		}
		err := w.Do(func() error {
			f, err := Open(t.Context(), c)
			if err == nil {
				err = f.Run(t.Context())
				f.Close()
			}
			return err
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Flows are spread anew when they were spread over another number of queues or on another device, until that succeeds.
func TestSpreadAgain(t *testing.T) {
	w := newQueues(t, 2)
	f := w.openIdle(t, Config{Pairs: pair, Engine: AFXDP, Do: w.Do})
	f.config.RSS = true // no veth has it
	in := f.numbers["in"]
	index := f.devices[in].Index
	for _, c := range []struct {
		done spreading
		want string
	}{
		{spreading{nil, index, 2}, ""},
		{spreading{nil, index, 1}, "in does not give flows to all queues that are used: "},
		{spreading{nil, index + 100, 2}, "in does not give flows to all queues that are used: "},
	} {
		f.rss[in] = c.done
		for range 2 {
			err := w.Do(func() error { return f.addQueues(t.Context(), in) })
			if c.want == "" && err != nil || c.want != "" && (feature.AsMissing(err) == nil || !strings.HasPrefix(err.Error(), c.want)) {
				t.Errorf("spread as %+v: %v, want %q", c.done, err, c.want)
			}
		}
	}
}

// failing is what cannot be closed so often.
type failing struct {
	times int
	err   error
}

func (c *failing) Close() error {
	if c.times--; c.times >= 0 {
		return c.err
	}
	return nil
}

// A table that cannot be given back is not taken for what the device had.
func TestSpreadKeepsTable(t *testing.T) {
	w := newQueues(t, 2)
	f := w.openIdle(t, Config{Pairs: pair, Engine: AFXDP, Do: w.Do})
	f.config.RSS = true // no veth has it
	in := f.numbers["in"]
	f.rss[in] = spreading{&failing{2, errors.New("refused")}, f.devices[in].Index, 1}
	for i, want := range []string{"refused", "refused", "an RSS table of in is missing"} {
		err := w.Do(func() error { return f.spread(t.Context(), in) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("spread %d: %v, want %q", i, err, want)
		}
		if _, kept := f.rss[in]; kept != (want == "refused") {
			t.Errorf("after %v what there was before is kept: %v", err, kept)
		}
	}
}

// A table that the device keeps is forgotten with a warning, once, and flows are spread.
func TestSpreadAfterKept(t *testing.T) {
	w := newQueues(t, 2)
	var said []string
	f := w.openIdle(t, Config{Pairs: pair, Engine: AFXDP, Do: w.Do})
	f.config.RSS = true // no veth has it
	f.config.Warn = func(s string) { f.linkList(); said = append(said, s) }
	in := f.numbers["in"]
	warning := "in: " + xsk.ErrRSSKept.Error()
	f.rss[in] = spreading{&failing{9, xsk.ErrRSSKept}, f.devices[in].Index, 1}
	for range 2 {
		if err := w.Do(func() error { return f.spread(t.Context(), in) }); err == nil {
			t.Error("a veth has a table")
		}
	}
	if _, kept := f.rss[in]; kept || !slices.Equal(said, []string{warning}) {
		t.Errorf("kept %v, said %q, want %q once", kept, said, warning)
	}
}

// While a device is lost the table that it had is kept: one that was only moved to another namespace is the same device when it is
// back, and has the table that it was given.
func TestSpreadWhileAway(t *testing.T) {
	w := newQueues(t, 2)
	f := w.openIdle(t, Config{Pairs: pair, Engine: AFXDP, Do: w.Do})
	f.config.RSS = true // no veth has it
	in := f.numbers["in"]
	f.rss[in] = spreading{&failing{}, f.devices[in].Index, 2}
	if err := f.reopen(t.Context(), in); err == nil { // as the worker still has its ports
		t.Error("ports were put where some are")
	}
	if err := w.Do(func() error { return f.spread(t.Context(), in) }); err != nil {
		t.Error(err)
	}
	if kept := f.rss[in]; kept.rss == nil || kept.queues != 2 {
		t.Errorf("%+v, want what there was", kept)
	}
}

// Where a device has no RSS table that is said, and nothing is left on the devices.
func TestNoRSS(t *testing.T) {
	w := newQueues(t, 2)
	err := w.Do(func() error {
		f, err := Open(t.Context(), Config{Pairs: []Pair{{"in", "out"}}, Engine: AFXDP, Queues: 1, RSS: true})
		if err == nil {
			f.Close()
		}
		return err
	})
	if feature.AsMissing(err) == nil || !strings.Contains(err.Error(), "an RSS table of in is missing") {
		t.Errorf("%v, want that in has no RSS table", err)
	}
	err = w.Do(func() error {
		link, err := netlink.LinkByName("in")
		if err == nil && link.Attrs().Xdp != nil && link.Attrs().Xdp.Attached {
			err = errors.New("in still has a program")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
