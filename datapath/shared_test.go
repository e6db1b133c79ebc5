package datapath

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/xsk"
)

// Of inputs that share an output each has the counts of its own frames, whichever worker has the output: sent, held, not sent, lost.
func TestSharedOutput(t *testing.T) {
	const out = 2
	for name, workers := range map[string][]Worker{
		"one worker":               {{Ports: []int{0, 1, out}}},
		"the output's own input":   {{Ports: []int{0}}, {Ports: []int{1, out}}},
		"a worker for each of all": {{Ports: []int{0}}, {Ports: []int{1}}, {Ports: []int{out}}},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUMEM(t, xsk.Config{Frames: 1024})
			ports := []*Memory{newMemory(t, u, 64), newMemory(t, u, 64), newMemory(t, u, 64)}
			w := newWorkers(t, WorkersConfig{
				Config: Config{
					UMEM: u, Ports: []Port{ports[0], ports[1], ports[out]}, Program: to(out), Batch: 16, Lost: func(int, error) {},
				},
				Workers: workers,
			})
			want := [2]Counters{}
			// send sends frames by both inputs, the first frame of those by each in parts, and adds what is to become of them.
			send := func(frames [2]int, fate func(*Counters) *uint64) {
				t.Helper()
				for input, n := range frames {
					for i := range n {
						frame := make([]byte, 60)
						if i == 0 {
							frame = make([]byte, 9000)
						}
						if !ports[input].Inject(frame) {
							t.Fatal("no room for a frame")
						}
					}
					*fate(&want[input]) += uint64(n)
				}
				for range 4 { // from worker to worker, and back
					pollAll(t, w)
				}
				for input, c := range w.Counters(nil)[:2] {
					c.Onward.Bulks = 0
					got := Counters{Onward: c.Onward, DroppedNoPort: c.DroppedNoPort, DroppedNoRoom: c.DroppedNoRoom}
					if diff := cmp.Diff(want[input], got); diff != "" {
						t.Errorf("input %d (-want +got):\n%s", input, diff)
					}
				}
			}
			transmitted := func(c *Counters) *uint64 { return &c.Onward.Transmitted }
			for range 20 {
				send([2]int{1, 3}, transmitted)
				send([2]int{5, 0}, transmitted)
			}
			ports[out].Unsent = 9
			send([2]int{2, 7}, func(c *Counters) *uint64 { return &c.Onward.Unsent })
			ports[out].Stall = true
			send([2]int{4, 9}, func(c *Counters) *uint64 { return &c.Onward.InFlight })
			ports[out].Lose(errors.New("pulled out"))
			for i := range want {
				want[i].Onward.Lost, want[i].Onward.InFlight = want[i].Onward.InFlight, 0
			}
			send([2]int{0, 0}, transmitted)
			send([2]int{3, 2}, func(c *Counters) *uint64 { return &c.DroppedNoPort })
		})
	}
}

// A bulk counts once for each device that it has frames of, by however many ports of the device and in however many runs they came.
func TestBulksOfDevices(t *testing.T) {
	const out = 2
	one, two := []Worker{{Ports: []int{0, 1, out}}}, []Worker{{Ports: []int{0, 1}}, {Ports: []int{out}}}
	for name, tt := range map[string]struct {
		devices []int
		workers []Worker
		want    []uint64 // of the inputs and the output
	}{
		"one device":                {[]int{1, 1, 0}, one, []uint64{6, 0, 6}},
		"of their own":              {nil, one, []uint64{6, 6, 6}},
		"one device, handed over":   {[]int{1, 1, 0}, two, []uint64{3, 0, 3}},
		"of their own, handed over": {nil, two, []uint64{3, 3, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUMEM(t, xsk.Config{Frames: 1024})
			ports := []*Memory{newMemory(t, u, 64), newMemory(t, u, 64), newMemory(t, u, 64)}
			w := newWorkers(t, WorkersConfig{
				Config:  Config{UMEM: u, Ports: []Port{ports[0], ports[1], ports[out]}, Devices: tt.devices, Program: to(out)},
				Workers: tt.workers,
			})
			for range 3 {
				// Another worker, which has the output, gets the frames of both polls in one bulk, by turns.
				for range 2 {
					for _, in := range ports[:out] {
						in.Inject(make([]byte, 60))
						in.Inject(make([]byte, 60))
					}
					if _, err := w.Worker(0).Poll(); err != nil {
						t.Fatal(err)
					}
				}
				pollAll(t, w)
			}
			c := w.Counters(nil)
			got := []uint64{c[0].Onward.Bulks, c[1].Onward.Bulks, c[out].Bulks}
			if diff := cmp.Diff(tt.want, got); diff != "" || c[out].Transmitted != 24 {
				t.Errorf("%d of 24 frames, bulks (-want +got):\n%s", c[out].Transmitted, diff)
			}
		})
	}
}

func TestDevicesRefuses(t *testing.T) {
	for _, devices := range [][]int{{}, {0}, {0, 2}, {-1, 0}, {0, 1, 1}} {
		u := newUMEM(t, xsk.Config{Frames: 64})
		d, err := New(Config{UMEM: u, Ports: []Port{nil, nil}, Devices: devices, Program: to(0)})
		if err == nil {
			d.Close()
			t.Errorf("%v: no error", devices)
		}
	}
}

// A port that takes frames and sends only some says which: of these each input has its own, also when they come back in another
// order. What it names besides are others, as many as it has.
func TestUnsentOfInput(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 256})
	in := []*Memory{newMemory(t, u, 32), newMemory(t, u, 32)}
	out := &refusing{Memory: newMemory(t, u, 32)}
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in[0], in[1], out}, Program: to(2)})
	out.Stall = true
	for i := range 6 {
		in[i%2].Inject([]byte{byte(i)})
	}
	poll(t, d)
	for i := range out.tx.len() {
		a := out.tx.at(i).Addr
		if n := u.Bytes()[a]; n == 1 || n == 3 || n == 4 { // of input 1, 1 and 0
			out.refused = append(out.refused, a)
		}
	}
	poll(t, d)
	counts := func() []uint64 {
		c := d.Counters(nil)
		return []uint64{
			c[0].Onward.Transmitted, c[0].Onward.Unsent, c[1].Onward.Transmitted, c[1].Onward.Unsent,
			c[2].Unsent, c[2].InFlight, c[2].Bad,
		}
	}
	const what = "transmitted, unsent of both inputs; unsent, in flight, bad of the output (-want +got):\n%s"
	if diff := cmp.Diff([]uint64{0, 1, 0, 2, 3, 3, 0}, counts()); diff != "" {
		t.Errorf(what, diff)
	}
	other := out.filled.at(0)
	out.refused = []uint64{other, out.refused[0], other, other}
	poll(t, d)
	if diff := cmp.Diff([]uint64{0, 1, 0, 2, 3, 3, 1}, counts()); diff != "" {
		t.Errorf(what, diff)
	}
	out.refused, out.Stall = nil, false
	poll(t, d)
	if diff := cmp.Diff([]uint64{0, 3, 0, 3, 6, 0, 1}, counts()); diff != "" {
		t.Errorf(what, diff)
	}
}

// A kernel before Linux 6.17 that sent frames in one call and drops others in the next may have them named by those sent: they
// count as not sent all the same, to the frame.
func TestUnsentLate(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 512})
	in, out := newMemory(t, u, 64), &lagging{Memory: newMemory(t, u, 64)}
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Program: to(1)})
	send := func(frames, unsent int) {
		t.Helper()
		for range frames {
			if !in.Inject(make([]byte, 60)) {
				t.Fatal("no room for a frame")
			}
		}
		out.Unsent = unsent
		poll(t, d)
	}
	send(32, 0)
	send(32, 32)
	c := d.Counters(nil)
	want := Outcome{Transmitted: 32, Unsent: 32, Bulks: 2}
	if diff := cmp.Diff([]Outcome{want, want}, []Outcome{c[0].Onward, c[1].Outcome}); diff != "" || c[1].Bad != 0 {
		t.Errorf("onward, outcome, %d bad (-want +got):\n%s", c[1].Bad, diff)
	}
}

// Whatever frames a kernel before Linux 6.17 has named, as many count as not sent as it dropped.
func TestUnsentLateRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	u := newUMEM(t, xsk.Config{Frames: 300})
	in, out := []*Memory{newMemory(t, u, 64), newMemory(t, u, 64)}, &lagging{Memory: newMemory(t, u, 64)}
	sent := uint64(0)
	out.Sent = func([][]byte) { sent++ }
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in[0], in[1], out}, Program: to(2), Batch: 16})
	for round := range 5000 {
		for range rng.IntN(20) {
			in[rng.IntN(2)].Inject(make([]byte, 1+rng.IntN(6000)))
		}
		if round < 4900 { // then the link is up
			out.Stall, out.Unsent = rng.IntN(4) == 0, rng.IntN(12)
		} else {
			out.Stall, out.Unsent = false, 0
		}
		poll(t, d)
		if !out.Stall && rng.IntN(8) == 0 {
			out.named = len(out.taken) // the kernel found no more, and says so
		}
	}
	for poll(t, d) > 0 {
	}
	if n := d.Drain(0); n != 0 {
		t.Errorf("%d frames in flight", n)
	}
	c := d.Counters(nil)
	onward := c[0].Onward
	onward.add(c[1].Onward)
	if c[2].Transmitted != sent || c[2].Unsent != out.dropped || onward.Transmitted != sent || onward.Unsent != out.dropped || c[2].Bad != 0 {
		t.Errorf("%d sent, %d dropped; %+v, of the inputs %+v", sent, out.dropped, c[2], onward)
	}
	if out.misnamed == 0 {
		t.Error("each frame that was dropped was named")
	}
}

// lagging is a port that names by the order in which it took frames those that were not sent, from the first on of which nobody
// said that they were read: others than it dropped, where it sent some in between.
type lagging struct {
	*Memory
	taken             []uint64 // the last chunk of each frame
	named             int      // how many of them were named, or left out where all were read
	dropped, misnamed uint64
}

func (p *lagging) Transmit(frames []xsk.Desc) (int, error) {
	n, err := p.Memory.Transmit(frames)
	for i := range frames[:n] {
		if frames[i].Options&xsk.Continued == 0 {
			p.taken = append(p.taken, frames[i].Addr)
		}
	}
	return n, err
}

func (p *lagging) Flush() ([]uint64, error) {
	unsent, err := p.Memory.Flush()
	for i, a := range unsent {
		unsent[i] = p.taken[p.named]
		p.named++
		p.dropped++
		if unsent[i] != a {
			p.misnamed++
		}
	}
	return unsent, err
}

// refusing is a port that says of frames that they were not sent.
type refusing struct {
	*Memory
	refused []uint64
}

func (p *refusing) Flush() ([]uint64, error) {
	_, err := p.Memory.Flush()
	return p.refused, err
}
