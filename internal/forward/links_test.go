package forward

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
	"github.com/unthunk/unthunk/xsk"
)

// times is how often an event of a device was counted.
func times(t *testing.T, f Forwarder, device, event string) uint64 {
	t.Helper()
	got, err := f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(got.Events, func(e Event) bool { return e.Device == device && e.Name == event })
	return got.Events[i].Times
}

// wantLink asks for the state of a device's link, and of the direction.
func wantLink(t *testing.T, f Forwarder, name string, link, up bool) {
	t.Helper()
	got, err := f.Totals()
	if err != nil || !slices.Contains(got.Links, Link{name, link}) || got.Directions[0].Up != up {
		t.Errorf("links %+v, up %v, %v; want %v of %s, and %v", got.Links, got.Directions[0].Up, err, link, name, up)
	}
}

// A link that goes down and up is two events, whether the administrator or the far end did it, and no device is gone for it.
// What becomes of frames meanwhile docs/forward.md says.
func TestLinkGoesDownAndUp(t *testing.T) {
	drops := map[Engine]map[string]string{
		AFXDP: {"out": dropNoRoom, "sink": dropLinkDown},
		XDP:   {"out": dropLinkDown, "sink": dropXmit},
	}
	for _, engine := range Engines() {
		for _, name := range []string{"out", "sink"} { // without its peer a veth has no carrier
			t.Run(string(engine)+"/"+name, func(t *testing.T) {
				w := newWires(t)
				said := make(chan string, 100)
				f := w.open(t, Config{Pairs: pair, Engine: engine, Warn: func(s string) { said <- s }})
				wantLink(t, f, "out", true, true)
				w.set(t, name, netlink.LinkSetDown)
				waitFor(t, said, "the link of out went down")
				wantLink(t, f, "out", false, true)
				var d Direction
				testutil.Eventually(t, "drops", func() bool {
					w.flood(t, 64)
					got, err := f.Totals()
					if err != nil {
						t.Fatal(err)
					}
					d = got.Directions[0]
					return own(d) > 0 && d.Handed >= d.Bulks // also where none of them is sent
				})
				for _, drop := range d.Drops {
					if is := drop.Reason == drops[engine][name]; is != (drop.Frames > 0) && drop.Reason != dropKernel && drop.Reason != dropRingFull {
						t.Errorf("%+v, want %s alone", d.Drops, drops[engine][name])
					}
				}
				if waits := d.InFlight == ring; waits != (engine == AFXDP && name == "out") {
					t.Errorf("%d frames wait", d.InFlight)
				}
				w.set(t, name, netlink.LinkSetUp)
				waitFor(t, said, "the link of out is up")
				wantLink(t, f, "out", true, true)
				resumes(t, w, f, "out", eventLinkUp, 1)
				resumes(t, w, f, "out", eventLinkDown, 1)
			})
		}
	}
}

// A device that goes has no link that went down. It is back before its link is up, which is said, and so is when that is.
func TestBackBeforeItsLink(t *testing.T) {
	for _, engine := range Engines() {
		t.Run(string(engine), func(t *testing.T) {
			w := newWires(t)
			elsewhere := veth.Namespace(t)
			said := make(chan string, 100)
			f := w.open(t, Config{Pairs: pair, Engine: engine, Warn: func(s string) { said <- s }})
			veth.Move(t, w.Namespace, elsewhere, "out")
			waitFor(t, said, "out is lost")
			wantLink(t, f, "out", false, false)
			veth.Move(t, elsewhere, w.Namespace, "out")
			waitFor(t, said, "out is back, and its link is down")
			wantLink(t, f, "out", false, true)
			w.set(t, "out", netlink.LinkSetUp)
			waitFor(t, said, "the link of out is up")
			wantLink(t, f, "out", true, true)
			if n := times(t, f, "out", eventLinkDown); n != 0 {
				t.Errorf("its link went down %d times", n)
			}
		})
	}
}

// A link that is down when a device has its program again, as many drivers take it down for one, is said with that, and is
// no event of its own; that it is up later is one.
func TestReattachedBeforeItsLink(t *testing.T) {
	w := newWires(t)
	var told []string
	f := w.openIdle(t, Config{Pairs: pair, Engine: AFXDP, Do: w.Do, Happened: func(h Happening) { told = append(told, h.Text) }})
	in := f.numbers["in"]
	w.set(t, "gen", netlink.LinkSetDown) // without its peer a veth has no carrier
	veth.DetachXDP(t, w.Namespace, f.devices[in].Index)
	if err := f.reattachDevice(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	f.noteLinks()
	w.set(t, "gen", netlink.LinkSetUp)
	f.noteLinks()
	want := []string{"the XDP program of in was taken off", "in has its XDP program again, and its link is down", "the link of in is up"}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Of a link without a carrier it is said in the beginning.
func TestNoCarrier(t *testing.T) {
	w := newWires(t)
	w.set(t, "sink", netlink.LinkSetDown)
	said := make(chan string, 100)
	f := w.open(t, Config{Pairs: pair, Engine: AFXDP, Warn: func(s string) { said <- s }})
	waitFor(t, said, "the link of out is down: it has no carrier")
	wantLink(t, f, "out", false, true)
}

// docs/formats.md has each reason for a drop, with the engines that have it, and no other.
func TestDropsAreInDocs(t *testing.T) {
	engines := make(map[string]string)
	for _, d := range userDrops(datapath.Counters{}, datapath.Outcome{}, xsk.Statistics{}) {
		engines[d.Reason] = "afxdp"
	}
	for _, d := range append(kernelDrops(0, nil, 0), Drop{Reason: DropUncounted}) {
		if engines[d.Reason] == "" {
			engines[d.Reason] = "xdp"
		} else {
			engines[d.Reason] = "both"
		}
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "formats.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "### Drops of a forwarder\n")
	table, equations, _ := strings.Cut(section, "\nOf each direction")
	documented := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| ([a-z]+) \\| `([a-z-]+)` \\|").FindAllStringSubmatch(table, -1) {
		documented[m[2]] = m[1]
	}
	if diff := cmp.Diff(engines, documented); diff != "" {
		t.Errorf("reasons, and those in docs/formats.md:\n%s", diff)
	}
	user, kernel, _ := strings.Cut(equations, "    xdp:")
	kernel, _, _ = strings.Cut(kernel, "\n\n")
	for reason, engine := range engines {
		if strings.Contains(user, reason) == (engine == "xdp") || strings.Contains(kernel, reason) == (engine == "afxdp") {
			t.Errorf("the equations of docs/formats.md do not have %s of %s", reason, engine)
		}
	}
}

// What a worker found and what is seen later is told once; what is over when it is looked at is told too.
func TestLinkState(t *testing.T) {
	up, noCarrier, off := device.Device{Name: "a", Up: true, Link: true}, device.Device{Name: "a", Up: true}, device.Device{Name: "a"}
	down, again := linkDown("a"), linkUp("a")
	var l linkState
	for i, step := range []struct {
		now   device.Device
		downs uint64 // that a worker found
		want  []note
	}{
		{off, 0, nil},
		{up, 0, []note{again}},
		{up, 0, nil},
		{off, 0, []note{down}}, // the worker has not looked yet
		{off, 1, nil},
		{up, 1, []note{again}},
		{off, 2, []note{down}}, // the worker was first
		{up, 2, []note{again}},
		{noCarrier, 2, []note{down}}, // which no worker finds
		{up, 2, []note{again}},
		{up, 3, []note{down, again}}, // it was short
		{up, 3, nil},
	} {
		if diff := cmp.Diff(step.want, l.change(step.now, step.downs), cmp.AllowUnexported(note{})); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
	}
}

// A worker that stands still is given as many frames as its fill ring has chunks. What comes then the kernel drops, and no
// frame is missing.
func TestStandsStill(t *testing.T) {
	for frames, kept := range map[int]uint64{0: 2048, 700: 512, 32768: 2048} {
		w := newWires(t)
		f := w.openIdle(t, Config{Pairs: pair, Engine: AFXDP, Frames: frames, Do: w.Do})
		if _, err := f.path.Poll(); err != nil { // which takes the chunks to receive into
			t.Fatal(err)
		}
		dropped := func() map[string]uint64 {
			got, err := f.Totals()
			if err != nil {
				t.Fatal(err)
			}
			if q := got.Queues[0]; q.Dropped != got.Directions[0].Dropped() || q.Dropped != q.KernelRX+q.RingFull {
				t.Errorf("%+v, %+v", q, got.Directions[0])
			}
			reasons := map[string]uint64{"received": got.Directions[0].Received}
			for _, d := range got.Directions[0].Drops {
				reasons[d.Reason] = d.Frames
			}
			return reasons
		}
		testutil.Eventually(t, "what there is no room for", func() bool { w.flood(t, 256); return dropped()[dropKernel] >= 640 })
		for {
			if n, err := f.path.Poll(); err != nil {
				t.Fatal(err)
			} else if n == 0 {
				break
			}
		}
		if got := dropped(); got["received"] != kept || got[dropRingFull] != 0 {
			t.Errorf("%d frames: %v, want %d received", frames, got, kept)
		}
	}
}
