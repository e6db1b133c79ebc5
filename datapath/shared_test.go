package datapath

import (
	"errors"
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

// A port that takes frames and sends only some says which: of these each input has its own, also when they come back in another
// order.
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
	bad := out.filled.at(0)
	out.refused = append(out.refused, bad, out.refused[0])
	poll(t, d)
	out.refused, out.Stall = nil, false
	poll(t, d)
	c := d.Counters(nil)
	got := []uint64{c[0].Onward.Transmitted, c[0].Onward.Unsent, c[1].Onward.Transmitted, c[1].Onward.Unsent, c[2].Unsent, c[2].Bad}
	if diff := cmp.Diff([]uint64{2, 1, 1, 2, 3, 2}, got); diff != "" {
		t.Errorf("transmitted, unsent of both inputs; unsent, bad of the output (-want +got):\n%s", diff)
	}
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
