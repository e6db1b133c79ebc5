package forward

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// What an output was to send and had when it went is a drop of its queue too; and a queue that was open to the end is up.
func TestQueuesAgree(t *testing.T) {
	for _, both := range []bool{false, true} {
		w := newQueues(t, 2)
		said := make(chan string, 100)
		f := w.open(t, Config{Pairs: pair, Both: both, Engine: AFXDP, Frames: 4096, Warn: func(s string) { said <- s }})
		drops := func(reason string) {
			t.Helper()
			testutil.Eventually(t, reason, func() bool {
				w.flood(t, 64)
				got, err := f.Totals()
				if err != nil {
					t.Fatal(err)
				}
				agree(t, got)
				return slices.ContainsFunc(got.Directions[0].Drops, func(d Drop) bool { return d.Reason == reason && d.Frames > 0 })
			})
		}
		w.set(t, "sink", netlink.LinkSetDown)
		drops(dropLinkDown)
		w.set(t, "out", netlink.LinkSetDown)
		waitFor(t, said, "the link of out went down")
		w.await(t, f)
		w.remove(t, "out")
		waitFor(t, said, "out is lost")
		drops(dropLost)
		drops(dropNoPort)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := f.Totals()
		if err != nil || len(got.Queues) != 4 {
			t.Fatalf("%+v, %v", got, err)
		}
		for _, q := range got.Queues {
			if q.Up != (q.Device == "in") {
				t.Errorf("in the end: %+v", q)
			}
		}
	}
}

// await sends until frames wait with the output.
func (w *wires) await(t *testing.T, f Forwarder) {
	t.Helper()
	testutil.Eventually(t, "frames that wait", func() bool {
		w.flood(t, 64)
		got, err := f.Totals()
		return err == nil && got.Directions[0].InFlight > 0
	})
}

// What an output still has when the forwarder ends is lost with it, though no output was.
func TestLostAtEnd(t *testing.T) {
	w := newWires(t)
	said := make(chan string, 100)
	f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Warn: func(s string) { said <- s }})
	w.set(t, "out", netlink.LinkSetDown)
	waitFor(t, said, "the link of out went down")
	w.await(t, f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	d := got.Directions[0]
	if !d.Up || d.InFlight != 0 || !slices.ContainsFunc(d.Drops, func(d Drop) bool { return d.Reason == dropLost && d.Frames > 0 }) {
		t.Errorf("in the end: %+v", d)
	}
}

// Two inputs share an output, and more frames come by one than by the other: each row has the counts of its own frames, to the
// frame, with one worker and where another worker than the input's has the output.
func TestSharedOutput(t *testing.T) {
	for name, workers := range map[string]int{"one worker": 1, "two workers": 2} {
		t.Run(name, func(t *testing.T) { sharedOutput(t, workers) })
	}
}

func sharedOutput(t *testing.T, workers int) {
	w := newQueues(t, workers)
	if err := w.setQueues(t, "out", 1, 1); err != nil {
		t.Fatal(err)
	}
	other, _ := veth.Pair(t, w.Namespace, "gen2", "in2")
	if err := other.Attach(veth.Program(t, asm.Mov.Imm(asm.R0, passed), asm.Return()), 0); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 100)
	f := w.open(t, Config{
		Pairs: []Pair{{"in", "out"}, {"in2", "out"}}, Engine: AFXDP, Frames: 4096, Workers: workers, Warn: func(s string) { said <- s },
	})
	type row struct {
		Received, Sent, InFlight uint64
		Drops                    map[string]uint64
	}
	want := [2]row{{Drops: make(map[string]uint64)}, {Drops: make(map[string]uint64)}}
	// send sends frames of several flows by both inputs, in turns, and adds to what is wanted what is to become of them.
	send := func(frames [2]int, became func(r *row, frames uint64)) {
		t.Helper()
		for flow := range 8 {
			for i, from := range []int{w.gen.Index, other.Index} {
				for range frames[i] {
					frame := veth.Frame(t, 60)
					frame[35] = byte(flow) // the source port
					veth.Send(t, w.Namespace, from, frame)
				}
				want[i].Received += uint64(frames[i])
				became(&want[i], uint64(frames[i]))
			}
		}
		var diff string
		defer func() {
			if diff != "" {
				t.Logf("rows (-want +got):\n%s", diff)
			}
		}()
		testutil.Eventually(t, "each row has its own", func() bool {
			got, err := f.Totals()
			if err != nil {
				t.Fatal(err)
			}
			agree(t, got)
			var rows [2]row
			for i, d := range got.Directions {
				rows[i] = row{d.Received, d.Sent, d.InFlight, make(map[string]uint64)}
				for _, drop := range d.Drops {
					if drop.Frames > 0 {
						rows[i].Drops[drop.Reason] = drop.Frames
					}
				}
			}
			diff = cmp.Diff(want, rows)
			return diff == ""
		})
	}
	dropped := func(reason string) func(*row, uint64) {
		return func(r *row, frames uint64) { r.Drops[reason] += frames }
	}
	sent := func(r *row, frames uint64) { r.Sent += frames }
	send([2]int{3, 7}, sent)
	w.set(t, "sink", netlink.LinkSetDown)
	send([2]int{2, 5}, dropped(dropLinkDown))
	w.set(t, "sink", netlink.LinkSetUp)
	send([2]int{6, 1}, sent)
	w.set(t, "out", netlink.LinkSetDown)
	waitFor(t, said, "the link of out went down")
	send([2]int{1, 4}, func(r *row, frames uint64) { r.InFlight += frames })
	w.remove(t, "out")
	waitFor(t, said, "out is lost")
	for i := range want {
		want[i].Drops[dropLost], want[i].InFlight = want[i].InFlight, 0
	}
	send([2]int{2, 3}, dropped(dropNoPort))
}

// A bulk with frames of two queues of an input is one.
func TestBulksOfQueues(t *testing.T) {
	w := newQueues(t, 2)
	if err := w.setQueues(t, "out", 1, 1); err != nil {
		t.Fatal(err)
	}
	f := w.openIdle(t, Config{
		Pairs: pair, Engine: AFXDP, Frames: 4096, Workers: 1, Destination: make([]byte, 6), Do: w.Do, Warn: func(s string) { t.Log(s) },
	})
	var waiting []unix.PollFd
	for _, port := range f.portsOf(f.numbers["in"]) {
		waiting = append(waiting, unix.PollFd{Fd: int32(f.sockets[port].FD()), Events: unix.POLLIN})
	}
	for flow := range 16 {
		frame := veth.Frame(t, 60)
		frame[35] = byte(flow) // the source port
		veth.Send(t, w.Namespace, w.gen.Index, frame)
	}
	testutil.Eventually(t, "frames by both queues", func() bool {
		n, err := unix.Poll(waiting, 0)
		return err == nil && n == 2
	})
	if n, err := f.path.Poll(); n < 2 || err != nil {
		t.Fatalf("%d frames, %v", n, err)
	}
	got, err := f.Totals()
	if d := got.Directions[0]; err != nil || d.Batches != 2 || d.Bulks != 1 {
		t.Errorf("%+v, want 2 batches, 1 bulk; %v", d, err)
	}
}
