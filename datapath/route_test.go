package datapath

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/traffic"
	"github.com/unthunk/unthunk/xsk"
)

// A route says where all frames of a port go, whatever kind of port it is.
func TestRoute(t *testing.T) {
	frame, err := traffic.UDPFrame(60)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		to   Action
		want Counters // of the input; but for Batches and bytes
	}{
		"port":    {Redirect(1), Counters{Received: 100, Forwarded: 100}},
		"back":    {Redirect(0), Counters{Received: 100, Forwarded: 100}},
		"drop":    {Drop, Counters{Received: 100, DroppedByProgram: 100}},
		"no port": {Redirect(7), Counters{Received: 100, DroppedNoPort: 100}},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUMEM(t, xsk.Config{Frames: 1024, FrameSize: 2048})
			in, out := newMemory(t, u, 256), newMemory(t, u, 256)
			asked := 0
			d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Route: func(port int) Action {
				asked++
				if port != 0 {
					t.Errorf("asked where frames of port %d go", port)
				}
				return tt.to
			}})
			for range 100 {
				if !in.Inject(frame) {
					t.Fatal("no room for a frame")
				}
			}
			for n := 1; n > 0; {
				if n, err = d.Poll(); err != nil {
					t.Fatal(err)
				}
			}
			c := d.Counters(nil)[0]
			got := Counters{Received: c.Received, Forwarded: c.Forwarded, DroppedByProgram: c.DroppedByProgram, DroppedNoPort: c.DroppedNoPort}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
			if !c.Balanced() || asked != 2 {
				t.Errorf("asked %d times for 2 batches: %+v", asked, c)
			}
		})
	}
}

func TestRouteRefuses(t *testing.T) {
	program, route := func([]Frame, []Action) {}, func(int) Action { return Drop }
	for name, c := range map[string]Config{
		"neither": {}, "both": {Program: program, Route: route},
	} {
		c.UMEM = newUMEM(t, xsk.Config{Frames: 64})
		c.Ports = []Port{nil}
		if d, err := New(c); err == nil {
			d.Close()
			t.Errorf("%s: no error", name)
		}
		if w, err := NewWorkers(WorkersConfig{Config: c, Workers: []Worker{{Ports: []int{0}}}}); err == nil {
			w.Close()
			t.Errorf("%s, of workers: no error", name)
		}
	}
}

// A worker with a program of its own has that in place of the route of all.
func TestRouteOfWorkers(t *testing.T) {
	frame, err := traffic.UDPFrame(60)
	if err != nil {
		t.Fatal(err)
	}
	u := newUMEM(t, xsk.Config{Frames: 1024, FrameSize: 2048})
	a, b := newMemory(t, u, 64), newMemory(t, u, 64)
	w := newWorkers(t, WorkersConfig{
		Config: Config{UMEM: u, Ports: []Port{a, b}, Route: func(port int) Action { return Redirect(port) }},
		Workers: []Worker{{Ports: []int{0}}, {Ports: []int{1}, Program: func(frames []Frame, actions []Action) {
			clear(actions)
		}}},
	})
	for _, p := range []*Memory{a, b} {
		if !p.Inject(frame) {
			t.Fatal("no room for a frame")
		}
	}
	if _, err := w.Poll(); err != nil {
		t.Fatal(err)
	}
	c := w.Counters(nil)
	if c[0].Forwarded != 1 || c[1].DroppedByProgram != 1 {
		t.Errorf("%+v", c)
	}
}

// Between AF_XDP ports frames go from ring to ring, and no program sees them; where they cannot, by the way of programs.
func TestRelay(t *testing.T) {
	for name, tt := range map[string]struct {
		config xsk.Config
		seen   bool
	}{
		"pages":     {xsk.Config{Frames: 8192}, false},
		"half":      {xsk.Config{Frames: 8192, FrameSize: 2048}, false},
		"unaligned": {xsk.Config{Frames: 8192, FrameSize: 3000, Unaligned: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			u := newUMEM(t, tt.config)
			in, out := b.port(t, u, b.in.Index, true), b.port(t, u, b.out.Index, false)
			d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Route: func(int) Action { return Redirect(1) }})
			seen, general := 0, d.config.Program
			d.config.Program = func(frames []Frame, actions []Action) {
				seen += len(frames)
				general(frames, actions)
			}
			const frames, bursts = 100, 60 // more than the rings have entries
			poll := func() {
				if _, err := d.Poll(); err != nil {
					t.Fatal(err)
				}
			}
			for i := range uint64(bursts) {
				b.flood(t, frames)
				testutil.Eventually(t, "received", func() bool { poll(); return d.Counters(nil)[0].Received == frames*(i+1) })
			}
			if left := d.Drain(time.Second); left > 0 {
				t.Errorf("%d frames are in flight", left)
			}
			c := d.Counters(nil)
			if c[0].Received != frames*bursts || c[1].Transmitted != frames*bursts || !c[0].Balanced() || !c[1].Balanced() ||
				c[0].Bad+c[1].Bad > 0 || c[0].ReceivedBytes != c[1].AcceptedBytes || c[0].ReceivedBytes < 60*frames*bursts {
				t.Errorf("%+v", c)
			}
			if want := map[bool]int{true: frames * bursts}[tt.seen]; seen != want {
				t.Errorf("a program saw %d frames, want %d", seen, want)
			}
			if got := b.statistics(t, b.sink.Index).RxPackets; got < frames*bursts {
				t.Errorf("%d frames of %d arrived", got, frames*bursts)
			}
			testutil.Eventually(t, "free", func() bool {
				poll()
				_, free := d.Chunks()
				return free >= 8192-in.FillSize()-out.FillSize()
			})
		})
	}
}
