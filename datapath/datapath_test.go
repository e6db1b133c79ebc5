package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/traffic"
	"github.com/unthunk/unthunk/xsk"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

func newUMEM(t testing.TB, c xsk.Config) *xsk.UMEM {
	t.Helper()
	u, err := xsk.NewUMEM(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

func newMemory(t testing.TB, u *xsk.UMEM, size int) *Memory {
	t.Helper()
	m, err := NewMemory(u, size)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// newDatapath makes a datapath that is closed, and its UMEM found whole, at the
// end of the test.
func newDatapath(t testing.TB, c Config) *Datapath {
	t.Helper()
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		balanced(t, d)
		if n := c.UMEM.Available(); n != c.UMEM.Config().Frames {
			t.Errorf("%d of %d chunks came back", n, c.UMEM.Config().Frames)
		}
	})
	return d
}

func balanced(t testing.TB, d *Datapath) {
	t.Helper()
	var sum Counters
	for i, c := range d.Counters(nil) {
		if !c.Balanced() {
			t.Fatalf("port %d: %+v does not balance", i, c)
		}
		sum.Add(c)
	}
	if sum.Forwarded != sum.Accepted {
		t.Fatalf("%d forwarded, %d accepted", sum.Forwarded, sum.Accepted)
	}
}

func poll(t testing.TB, d *Datapath) int {
	t.Helper()
	n, err := d.Poll()
	if err != nil {
		t.Fatal(err)
	}
	balanced(t, d)
	return n
}

// to sends all frames to one port.
func to(port int) Program {
	return func(_ []Frame, actions []Action) {
		for i := range actions {
			actions[i] = Redirect(port)
		}
	}
}

// A full batch does not go through the queue of its port, unless something waits there: frames stay in order, and
// what finds no room is counted for the input that it came from.
func TestFullBatch(t *testing.T) {
	const batch = 32
	u := newUMEM(t, xsk.Config{Frames: 512})
	ports := []*Memory{newMemory(t, u, 64), newMemory(t, u, 64), newMemory(t, u, 64)}
	var got [2][]byte
	ports[2].Sent = func(parts [][]byte) {
		from := parts[0][0]
		got[from] = append(got[from], parts[0][1])
	}
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{ports[0], ports[1], ports[2]}, Program: to(2), Batch: batch})
	inject := func(from, n int, next *byte) {
		for range n {
			if !ports[from].Inject([]byte{byte(from), *next}) {
				t.Fatal("no room for a frame")
			}
			*next++
		}
	}
	var next [2]byte
	for first := range batch + 1 {
		inject(0, first, &next[0])
		inject(1, batch, &next[1])
		poll(t, d)
	}
	for from, frames := range got {
		want := []int{batch * (batch + 1) / 2, batch * (batch + 1)}[from]
		if len(frames) != want {
			t.Fatalf("port %d: %d frames sent, want %d", from, len(frames), want)
		}
		for i, n := range frames {
			if n != byte(i) {
				t.Fatalf("port %d: frame %d was sent as frame %d", from, n, i)
			}
		}
	}
	before := d.Counters(nil)
	ports[2].Stall = true
	for range 3 {
		inject(1, batch, &next[1])
		poll(t, d)
	}
	c := d.Counters(nil)
	if c[0] != before[0] || c[1].DroppedNoRoom != batch || c[2].InFlight != 2*batch {
		t.Errorf("three batches, and room for two: %+v", c)
	}
	ports[2].Stall = false
	poll(t, d)
}

// The queues of a memory port go round with any batch: no chunk is lost, and none comes twice.
func TestMemoryGoesRound(t *testing.T) {
	for _, batch := range []int{1, 7, 48, 64} {
		u := newUMEM(t, xsk.Config{Frames: 256})
		in, out := newMemory(t, u, 64), newMemory(t, u, 32)
		if err := in.Generate(make([]byte, 60)); err != nil {
			t.Fatal(err)
		}
		d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Program: to(1), Batch: batch})
		received := 0
		for range 100 {
			received += poll(t, d)
		}
		c := d.Counters(nil)
		if received != 100*batch || c[1].Transmitted != uint64(received) || c[0].Bad+c[1].Bad != 0 {
			t.Errorf("batches of %d: received %d of %d, transmitted %d, bad %d", batch, received, 100*batch,
				c[1].Transmitted, c[0].Bad+c[1].Bad)
		}
	}
}

func TestForward(t *testing.T) {
	for _, c := range []xsk.Config{{Frames: 256}, {Frames: 256, FrameSize: 3000, Unaligned: true},
		{Frames: 256, FrameSize: 4096, Headroom: 64}} {
		u := newUMEM(t, c)
		in, out := newMemory(t, u, 64), newMemory(t, u, 64)
		var got [][]byte
		out.Sent = func(parts [][]byte) { got = append(got, bytes.Join(parts, nil)) }
		d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Program: to(1), Batch: 16})
		var want [][]byte
		for i := range 1000 {
			f := bytes.Repeat([]byte{byte(i)}, 1+i%5000)
			if in.Inject(f) {
				want = append(want, f)
			}
			if i%7 == 0 {
				poll(t, d)
			}
		}
		for poll(t, d) > 0 {
		}
		if len(got) != len(want) {
			t.Fatalf("%+v: %d frames, want %d", c, len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("%+v: frame %d has %d bytes of %d, want %d of %d", c, i, len(got[i]), got[i][0], len(want[i]), want[i][0])
			}
		}
		counters := d.Counters(nil)
		if n := uint64(len(want)); counters[0].Received != n || counters[1].Transmitted != n || counters[1].InFlight != 0 {
			t.Errorf("%+v: %+v", c, counters)
		}
	}
}

// Every frame is accounted for whatever happens: full outputs, frames that
// cannot be sent, actions of ports that are not there, frames in parts, ports
// that are lost and come back.
func TestAccountsBalance(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	u := newUMEM(t, xsk.Config{Frames: 300})
	ports := make([]*Memory, 4)
	list := make([]Port, len(ports))
	sent := 0
	byInput := make([]uint64, len(ports))
	for i := range ports {
		ports[i] = newMemory(t, u, 64)
		ports[i].Sent = func(parts [][]byte) {
			sent++
			byInput[parts[0][0]]++
		}
		list[i] = ports[i]
	}
	var lost []int
	d := newDatapath(t, Config{
		UMEM: u, Ports: list, Batch: 32, Lost: func(port int, _ error) { lost = append(lost, port) },
		Program: func(frames []Frame, actions []Action) {
			for i := range frames {
				actions[i] = Action(rng.IntN(8) - 1)
			}
		},
	})
	injected := uint64(0)
	for round := range 5000 {
		i := rng.IntN(len(ports))
		p := ports[i]
		p.Stall = rng.IntN(4) == 0
		p.Unsent = rng.IntN(3)
		p.MaxLen = uint32(rng.IntN(2) * 1500)
		for range rng.IntN(40) {
			frame := make([]byte, rng.IntN(6000))
			if len(frame) > 0 { // others are refused by each output
				frame[0] = byte(i)
			}
			if p.Inject(frame) {
				injected++
			}
		}
		poll(t, d)
		if round%100 == 99 {
			p.Lose(errors.New("pulled out"))
			left := p.rx.len()
			for k := range left {
				if p.rx.at(k).Options&xsk.Continued == 0 {
					injected--
				}
			}
			poll(t, d)
			if len(lost) != 1 || lost[0] != i || d.Present(i) {
				t.Fatalf("lost ports %v, want %d", lost, i)
			}
			lost = nil
			poll(t, d)
			ports[i] = newMemory(t, u, 64)
			ports[i].Sent = p.Sent
			if err := d.SetPort(i, ports[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, p := range ports {
		p.Stall = false
	}
	for poll(t, d) > 0 {
	}
	if n := d.Drain(0); n != 0 {
		t.Errorf("%d frames in flight", n)
	}
	var sum Counters
	for i, c := range d.Counters(nil) {
		sum.Add(c)
		if c.Onward.Transmitted != byInput[i] || c.Received != byInput[i]+c.Onward.Unsent+c.Onward.Lost+c.Dropped() {
			t.Errorf("of port %d %d frames left: %+v", i, byInput[i], c)
		}
	}
	if sum.Received != injected || sum.Transmitted != uint64(sent) {
		t.Errorf("%d injected, %d sent; %+v", injected, sent, sum)
	}
	for name, n := range map[string]uint64{
		"DroppedByProgram": sum.DroppedByProgram, "DroppedNoPort": sum.DroppedNoPort, "DroppedNoRoom": sum.DroppedNoRoom,
		"DroppedRefused": sum.DroppedRefused, "Unsent": sum.Unsent, "Lost": sum.Lost,
	} {
		if n == 0 {
			t.Errorf("the test made no %s", name)
		}
	}
	all, free := d.Chunks()
	if free != all-4*64 {
		t.Errorf("%d of %d chunks are free with four full ports", free, all)
	}
}

// An output that does not go on gets no more than it has room for, and the input
// goes on receiving.
func TestOverload(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 512})
	in, out := newMemory(t, u, 64), newMemory(t, u, 64)
	frame, err := traffic.UDPFrame(60)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Generate(frame); err != nil {
		t.Fatal(err)
	}
	out.Stall = true
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Program: to(1)})
	for range 100 {
		if n := poll(t, d); n != 64 {
			t.Fatalf("%d frames received", n)
		}
	}
	c := d.Counters(nil)
	if c[1].InFlight != 64 || c[0].DroppedNoRoom != 99*64 {
		t.Errorf("in flight %d, dropped %d", c[1].InFlight, c[0].DroppedNoRoom)
	}
	out.Stall = false
	poll(t, d)
	if c := d.Counters(c); c[1].InFlight != 0 || c[1].Transmitted != 128 {
		t.Errorf("in flight %d, transmitted %d", c[1].InFlight, c[1].Transmitted)
	}
}

// Chains as no kernel makes them are refused and nothing of them is kept.
func TestLongChain(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 256})
	in, out := newMemory(t, u, 128), newMemory(t, u, 64)
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Program: to(1), Batch: 16})
	longest := MaxParts * u.Capacity()
	for _, size := range []int{longest, longest + 1, 3 * longest, 60} {
		if !in.Inject(make([]byte, size)) {
			t.Fatalf("no room for %d bytes", size)
		}
		for range 10 {
			poll(t, d)
		}
	}
	c := d.Counters(nil)
	if c[0].Received != 4 || c[0].DroppedRefused != 2 || c[1].Transmitted != 2 {
		t.Errorf("%+v", c)
	}
	if all, free := d.Chunks(); free != all-128-64 {
		t.Errorf("%d of %d chunks are free", free, all)
	}
}

// What a port gives twice, or never had, is not taken.
func TestChunksOfOthers(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 256})
	in, out := newMemory(t, u, 64), newMemory(t, u, 64)
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Program: to(1), Batch: 16})
	in.Inject(make([]byte, 60))
	twice := in.rx.at(0)
	in.InjectDesc(twice)
	in.InjectDesc(xsk.Desc{Addr: out.filled.at(0) + 256, Len: 60})
	out.tx.push(xsk.Desc{Addr: in.filled.at(3), Len: 60})
	out.done++
	if n := poll(t, d); n != 1 {
		t.Errorf("%d frames, want 1", n)
	}
	if c := d.Counters(nil); c[0].Bad != 2 || c[1].Bad != 1 {
		t.Errorf("bad: %d and %d, want 2 and 1", c[0].Bad, c[1].Bad)
	}
	// The frame's chunk again, which was given to receive into.
	out.tx.push(xsk.Desc{Addr: twice.Addr, Len: 60})
	out.done++
	in.Inject(make([]byte, 60))
	poll(t, d)
	if c := d.Counters(nil); c[0].Bad != 2 || c[1].Bad != 2 || c[1].Transmitted != 2 {
		t.Errorf("bad: %d and %d, want 2 and 2; %d transmitted, want 2", c[0].Bad, c[1].Bad, c[1].Transmitted)
	}
}

// What a memory port has sent keeps its place until Complete returns it.
func TestMemoryFull(t *testing.T) {
	const size = 64
	u := newUMEM(t, xsk.Config{Frames: 2 * size})
	p, frames, chunks := newMemory(t, u, size), make([]xsk.Desc, 2*size), make([]uint64, 10)
	for i := range frames {
		frames[i] = xsk.Desc{Addr: uint64(i * u.Config().FrameSize), Len: 60}
	}
	for _, want := range []int{size, 0, len(chunks), 0} {
		if n, err := p.Transmit(frames); n != want || err != nil {
			t.Errorf("took %d frames, %v, want %d", n, err, want)
		}
		if _, err := p.Flush(); err != nil {
			t.Fatal(err)
		}
		if want == 0 && p.Complete(chunks) != len(chunks) {
			t.Error("what was sent did not come back")
		}
	}
}

// few is a port that takes few chunks at a time.
type few struct{ *Memory }

func (p few) Fill(chunks []uint64) int { return p.Memory.Fill(chunks[:min(len(chunks), 3)]) }

// Chunks that come back and that no port takes are free.
func TestRecycleLeavesSome(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 128})
	in, out := few{newMemory(t, u, 64)}, newMemory(t, u, 64)
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Program: to(1)})
	for range 64 {
		poll(t, d)
	}
	for range 32 {
		in.Inject(make([]byte, 60))
	}
	poll(t, d)
	// Three by recycle and three by refill.
	all, free := d.Chunks()
	if in.filled.len() != 64-32+6 || d.slots[0].filled != in.filled.len() || free != all-in.filled.len()-64 {
		t.Errorf("%d chunks to receive into, %d of %d free", in.filled.len(), free, all)
	}
	for _, a := range d.free {
		if o := d.owner[d.index(a)]; o != unused {
			t.Errorf("chunk %#x is free, and its owner is %d", a, o)
		}
	}
}

func TestConfig(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 16})
	for name, c := range map[string]Config{
		"no UMEM":     {Program: to(0), Ports: []Port{nil}},
		"no program":  {UMEM: u, Ports: []Port{nil}},
		"no ports":    {UMEM: u, Program: to(0)},
		"large batch": {UMEM: u, Program: to(0), Ports: []Port{nil}, Batch: MaxBatch + 1},
		"no batch":    {UMEM: u, Program: to(0), Ports: []Port{nil}, Batch: -1},
	} {
		if d, err := New(c); err == nil {
			d.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPollAllocatesNothing(t *testing.T) {
	d := generator(t, 64)
	if n := testing.AllocsPerRun(1000, func() { poll1(t, d) }); n != 0 {
		t.Errorf("%v allocations a poll", n)
	}
}

func poll1(t testing.TB, d *Datapath) {
	if n, err := d.Poll(); n == 0 || err != nil {
		t.Fatal(n, err)
	}
}

// generator is a datapath whose port 0 receives without end and sends to port 1.
func generator(t testing.TB, batch int) *Datapath {
	t.Helper()
	u := newUMEM(t, xsk.Config{Frames: 1024})
	in, out := newMemory(t, u, 512), newMemory(t, u, 256)
	frame, err := traffic.UDPFrame(60)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Generate(frame); err != nil {
		t.Fatal(err)
	}
	return newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Batch: batch, Program: to(1)})
}

// BenchmarkPoll is the datapath's own cost: ports that cost next to nothing, a
// program that only redirects.
func BenchmarkPoll(b *testing.B) {
	for _, batch := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			d := generator(b, batch)
			b.ReportAllocs()
			for b.Loop() {
				d.Poll()
			}
			frames := d.Counters(nil)[1].Transmitted
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(frames), "ns/frame")
		})
	}
}

// flushes counts those of a port.
type flushes struct {
	*Memory
	n int
}

func (p *flushes) Flush() ([]uint64, error) { p.n++; return p.Memory.Flush() }

// A port that holds is flushed once for as many full batches as it may hold, and at once when it got less than one.
func TestHeld(t *testing.T) {
	const batch = 16
	frame, err := traffic.UDPFrame(60)
	if err != nil {
		t.Fatal(err)
	}
	for hold, want := range map[uint64]int{0: 10, 2*batch - 1: 10, 2 * batch: 5, 4*batch - 1: 4, 4 * batch: 3, 16 * batch: 1} {
		u := newUMEM(t, xsk.Config{Frames: 1024, FrameSize: 2048})
		in, out := newMemory(t, u, 256), &flushes{Memory: newMemory(t, u, 256)}
		d := newDatapath(t, Config{UMEM: u, Ports: []Port{in, out}, Program: work(t), Batch: batch})
		d.slots[1].hold = hold
		for range 9*batch + 1 {
			if !in.Inject(frame) {
				t.Fatal("no room for a frame")
			}
		}
		for n := 1; n > 0; {
			if n, err = d.Poll(); err != nil {
				t.Fatal(err)
			}
		}
		if c := d.Counters(nil)[1]; out.n != want || c.Transmitted != 9*batch+1 {
			t.Errorf("hold %d: %d flushes for %d frames, want %d for %d", hold, out.n, c.Transmitted, want, 9*batch+1)
		}
	}
}
