package forward

import (
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/internal/testutil"
)

// soakEnv is for how long TestSoak runs; see make soak.
const soakEnv = "UNTHUNK_SOAK"

// At overload, while links go down and up and the output's pair of devices is
// taken away and returned, accounts balance, no chunk is lost, memory stays, and
// what the output's device says it sent is what the forwarder says.
func TestSoak(t *testing.T) {
	length := 2 * time.Second
	if s := os.Getenv(soakEnv); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	w := newWires(t)
	said := make(chan string, 1000)
	f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Warn: func(s string) {
		select {
		case said <- s:
		default:
		}
	}})
	rng := rand.New(rand.NewPCG(5, 6))
	totals := func() Direction {
		t.Helper()
		got, err := f.Totals()
		if err != nil {
			t.Fatal(err)
		}
		d := got.Directions[0]
		if d.Received != d.Sent+d.InFlight+own(d) {
			t.Fatalf("%+v does not balance", d)
		}
		return d
	}
	change := func(name string, do func(netlink.Link) error) {
		t.Helper()
		err := w.Do(func() error {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			return do(l)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// compare compares what the output's device sent in its life with the
	// forwarder's count, once nothing is under way.
	sentBefore := uint64(0)
	compare := func() {
		t.Helper()
		var d Direction
		tries := 0
		testutil.Eventually(t, "counted as the device counts", func() bool {
			d = totals()
			var device uint64
			change("out", func(l netlink.Link) error { device = l.Attrs().Statistics.TxPackets; return nil })
			if tries++; d.InFlight > 0 {
				return tries > 1000
			}
			return d.Sent-sentBefore == device
		})
		sentBefore = d.Sent
	}
	var after runtime.MemStats
	heap := uint64(0)
	lives, downs := 0, 0
	for start := time.Now(); time.Since(start) < length; {
		w.flood(t, 1<<15)
		totals()
		switch rng.IntN(8) {
		case 0, 1:
			name := []string{"out", "sink", "in", "gen"}[rng.IntN(4)]
			change(name, netlink.LinkSetDown)
			if name != "gen" { // the generator sends by it
				w.flood(t, 1<<13)
			}
			change(name, netlink.LinkSetUp)
			downs++
		case 2:
			compare()
			change("out", netlink.LinkDel)
			w.flood(t, 1<<13)
			waitFor(t, said, "out is lost")
			var err error
			if _, w.sink, err = w.VethPair("out", "sink"); err != nil {
				t.Fatal(err)
			}
			waitFor(t, said, "out is back")
			if err := w.sink.EnableGRO(); err != nil {
				t.Fatal(err)
			}
			// What was lost with the old device is not Sent.
			sentBefore = totals().Sent
			lives++
			runtime.GC()
			runtime.ReadMemStats(&after)
			if heap == 0 {
				heap = after.HeapAlloc
			}
		}
	}
	compare()
	d := totals()
	if d.Sent == 0 || downs == 0 {
		t.Errorf("%+v after %d links down", d, downs)
	}
	if heap > 0 && after.HeapAlloc > heap+4<<20 {
		t.Errorf("the heap grew from %d to %d bytes", heap, after.HeapAlloc)
	}
	t.Logf("%d times a link went down, %d times a device went: %+v; heap %d then %d bytes", downs, lives, d, heap, after.HeapAlloc)
}

// waitFor waits for a warning.
func waitFor(t testing.TB, said chan string, word string) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case s := <-said:
			if strings.Contains(s, word) {
				return
			}
		case <-timeout:
			t.Fatalf("nobody said %q", word)
		}
	}
}
