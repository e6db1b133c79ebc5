package forward

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/internal/testutil"
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
		testutil.Eventually(t, "frames that wait", func() bool {
			w.flood(t, 64)
			got, err := f.Totals()
			return err == nil && got.Directions[0].InFlight > 0
		})
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
