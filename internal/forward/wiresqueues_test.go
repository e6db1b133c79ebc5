package forward

import (
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/header"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil/nics"
	"github.com/unthunk/unthunk/internal/testutil/veth"
	"github.com/unthunk/unthunk/xsk"
)

// These tests run in guests with two CPUs, whose NICs have two queues: internal/guest boots them.

// flows are frames from as many IPv4 addresses, which RSS spreads over the queues.
func flows(t *testing.T, n int) (frames [][]byte) {
	t.Helper()
	for i := range n {
		f := veth.Frame(t, 64)
		eth, _ := header.ParseEthernet(f)
		_, rest := eth.Payload()
		ip, ok := header.ParseIPv4(rest)
		if !ok {
			t.Fatalf("no IPv4: %x", f)
		}
		ip.SetSource(netip.AddrFrom4([4]byte{198, 18, 1, byte(i)}))
		frames = append(frames, f)
	}
	return frames
}

// exchangeFlows sends flows, a burst at a time, and returns what each queue of the input received and how many frames did not
// come: emulated wires lose some where other work has this machine's CPUs, and more than one of 100 is a failure.
func (f *onWires) exchangeFlows(t *testing.T, bursts int) (byQueue [2]uint64, lost int) {
	t.Helper()
	before := f.receivedByQueue(t)
	frames, gone := flows(t, 64), 0
	for burst := range bursts {
		veth.Send(t, f.Namespace, f.Gen.Index, frames...)
		sent := (burst + 1) * len(frames)
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			byQueue = f.receivedByQueue(t)
			for q := range byQueue {
				byQueue[q] -= before[q]
			}
			if lost = sent - int(byQueue[0]+byQueue[1]); lost <= gone {
				break
			}
		}
		if gone = lost; 100*lost > bursts*len(frames) {
			t.Fatalf("of %d frames %d did not come", sent, lost)
		}
	}
	return byQueue, lost
}

func (f *onWires) receivedByQueue(t *testing.T) (n [2]uint64) {
	t.Helper()
	got, err := f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range got.Queues {
		if q.Device == f.In.Name {
			n[q.Queue] = q.Received
		}
	}
	return n
}

// Two workers forward without copies, each what its queue receives; with RSS on the first queue alone
// that one's has all.
func TestTwoQueues(t *testing.T) {
	w := nics.Take(t)
	f := forwardOnWires(t, w, Config{Pairs: []Pair{{w.In.Name, w.Out.Name}}, Mode: xsk.ZeroCopy, Workers: 2, CPUs: []int{0, 1}})
	got, err := f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	if got.Workers != 2 || len(got.Queues) != 4 || got.Mode != "zero-copy" {
		t.Fatalf("%d workers, %d queues, %s mode, want 2, 4, zero-copy", got.Workers, len(got.Queues), got.Mode)
	}
	both, lost := f.exchangeFlows(t, 20)
	t.Logf("by queue: %v", both)
	if both[0] == 0 || both[1] == 0 {
		t.Errorf("frames by queue: %v, want some by each", both)
	}
	f.stop()
	f.wantAll(t, "zero-copy", lost, 20*64)

	f = forwardOnWires(t, w, Config{Pairs: []Pair{{w.In.Name, w.Out.Name}}, Mode: xsk.ZeroCopy, Queues: 1, RSS: true})
	if one, _ := f.exchangeFlows(t, 20); one[1] > 0 {
		t.Errorf("frames by queue: %v, want all by the first", one)
	}
	f.stop()
	// What it had is given back.
	f = forwardOnWires(t, w, Config{Pairs: []Pair{{w.In.Name, w.Out.Name}}})
	if again, _ := f.exchangeFlows(t, 20); again[0] == 0 || again[1] == 0 {
		t.Errorf("frames by queue: %v, want some by each again", again)
	}
}

// Workers that poll busily get frames out of the driver by that, and what they transmit leaves: with two queues igb
// transmits by NAPIs that a busy poll does not run.
func TestTwoQueuesBusyPoll(t *testing.T) {
	w := nics.Take(t)
	for setting, value := range map[string]string{"napi_defer_hard_irqs": "100", "gro_flush_timeout": "10000000"} {
		for _, d := range []netlab.Device{w.In, w.Out} {
			if err := d.SetAttribute(setting, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, poll := range []time.Duration{0, 20 * time.Microsecond} {
		f := forwardOnWires(t, w, Config{
			Pairs: []Pair{{w.In.Name, w.Out.Name}}, Mode: xsk.ZeroCopy, BusyPoll: poll, Workers: 2, CPUs: []int{0, 1},
		})
		before := busyPolled(t, w)
		sent, lost := f.exchangeFlows(t, 50)
		polled := busyPolled(t, w) - before
		f.stop()
		f.wantAll(t, "zero-copy", lost, 50*64)
		t.Logf("busy polling for %v: by queue %v, %d of them by busy polls", poll, sent, polled)
		if sent[0] == 0 || sent[1] == 0 {
			t.Errorf("frames by queue: %v, want some by each", sent)
		}
		if (polled > 0) != (poll > 0) {
			t.Errorf("busy polling for %v: %d frames by busy polls", poll, polled)
		}
	}
}

// busyPolled is how many frames busy polls received in the wires' namespace (BusyPollRxPackets).
func busyPolled(t *testing.T, w *nics.Wires) (n int) {
	t.Helper()
	var text []byte
	err := w.Do(func() (err error) { text, err = os.ReadFile("/proc/thread-self/net/netstat"); return err })
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) { // of names, and of values
		fields := strings.Fields(line)
		if i := slices.Index(names, "BusyPollRxPackets"); i >= 0 && len(fields) == len(names) {
			if n, err = strconv.Atoi(fields[i]); err != nil {
				t.Fatal(err)
			}
			return n
		}
		names = fields
	}
	t.Fatalf("no BusyPollRxPackets in %q", text)
	return 0
}
