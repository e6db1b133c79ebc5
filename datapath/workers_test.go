package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/xsk"
)

// newWorkers makes workers that are closed, and their UMEM found whole, at the end of the test.
func newWorkers(t testing.TB, c WorkersConfig) *Workers {
	t.Helper()
	w, err := NewWorkers(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		allBalanced(t, w)
		if n := c.UMEM.Available(); n != c.UMEM.Config().Frames {
			t.Errorf("%d of %d chunks came back", n, c.UMEM.Config().Frames)
		}
	})
	return w
}

// allBalanced asks that accounts balance at each worker and over all, and returns the sum of all
// ports and how many frames are on their way between workers.
func allBalanced(t testing.TB, w *Workers) (sum Counters, between uint64) {
	t.Helper()
	for i := range w.Len() {
		balanced(t, w.Worker(i))
	}
	for i, c := range w.Counters(nil) {
		if !c.Balanced() || c.TakenOver > c.HandedOver {
			t.Fatalf("port %d: %+v does not balance", i, c)
		}
		between += c.HandedOver - c.TakenOver
		sum.Add(c)
	}
	if sum.Forwarded != sum.Accepted {
		t.Fatalf("%d forwarded, %d accepted", sum.Forwarded, sum.Accepted)
	}
	return sum, between
}

// pollAll polls each worker once.
func pollAll(t testing.TB, w *Workers) {
	t.Helper()
	for i := range w.Len() {
		if _, err := w.Worker(i).Poll(); err != nil {
			t.Fatal(err)
		}
	}
	allBalanced(t, w)
}

// Frames for a port of another worker leave by it, in order, and their chunks come back.
func TestHandOver(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 512})
	in, out := newMemory(t, u, 64), newMemory(t, u, 64)
	var got [][]byte
	out.Sent = func(parts [][]byte) {
		var frame []byte
		for _, p := range parts {
			frame = append(frame, p...)
		}
		got = append(got, frame)
	}
	w := newWorkers(t, WorkersConfig{
		Config:  Config{UMEM: u, Ports: []Port{in, out}, Program: to(1), Batch: 16},
		Workers: []Worker{{Ports: []int{0}}, {Ports: []int{1}}},
	})
	var want [][]byte
	for i := range 4000 { // many times the chunks that there are
		frame := make([]byte, 1+i*7%9000)
		for j := range frame {
			frame[j] = byte(i)
		}
		if in.Inject(frame) {
			want = append(want, frame)
		}
		pollAll(t, w)
	}
	if n := w.Drain(time.Second); n != 0 {
		t.Fatalf("%d frames in flight", n)
	}
	if len(got) != len(want) || len(want) < 1000 {
		t.Fatalf("%d frames of %d", len(got), len(want))
	}
	for i := range got {
		if !slices.Equal(got[i], want[i]) {
			t.Fatalf("frame %d: %d bytes of %d, want %d of %d", i, len(got[i]), got[i][0], len(want[i]), want[i][0])
		}
	}
	c := w.Counters(nil)
	if n := uint64(len(want)); c[0].HandedOver != n || c[0].TakenOver != n || c[0].Forwarded != n || c[1].Transmitted != n {
		t.Errorf("%+v", c)
	}
	for i, want := range []int{256 - 64, 256 - 64} {
		if _, free := w.Worker(i).Chunks(); free != want {
			t.Errorf("worker %d has %d chunks left, want %d", i, free, want)
		}
	}
}

// What the link has no room for is dropped at the input, and so is what the other worker's port has
// no room for, or is not there for.
func TestHandOverDrops(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 4 * linkSize})
	in, out := newMemory(t, u, 64), newMemory(t, u, 64)
	out.Stall = true
	w := newWorkers(t, WorkersConfig{
		Config:  Config{UMEM: u, Ports: []Port{in, nil, out}, Program: to(1), Lost: func(int, error) {}},
		Workers: []Worker{{Ports: []int{0}}, {Ports: []int{1, 2}}},
	})
	send := func() {
		t.Helper()
		if !in.Inject([]byte("frame")) {
			t.Fatal("no chunk to receive into")
		}
		if _, err := w.Worker(0).Poll(); err != nil {
			t.Fatal(err)
		}
	}
	for range linkSize + 3 { // nobody takes them over
		send()
	}
	c := w.Counters(nil)
	if c[0].HandedOver != linkSize || c[0].DroppedNoRoom != 3 {
		t.Errorf("%+v: want %d handed over and 3 without room", c[0], linkSize)
	}
	for range linkSize {
		pollAll(t, w)
	}
	if c = w.Counters(c); c[0].DroppedNoPort != linkSize {
		t.Errorf("%+v: want %d for a port that is not there", c[0], linkSize)
	}
	if err := w.SetPort(1, newMemory(t, u, 64)); err != nil {
		t.Fatal(err)
	}
	send()
	pollAll(t, w)
	if c = w.Counters(c); c[1].Accepted != 1 {
		t.Errorf("%+v: want one frame for the port that came", c[1])
	}
	if err := w.SetPort(0, newMemory(t, u, 64)); err == nil {
		t.Error("a port was set that is there")
	}
	if err := w.SetPort(7, newMemory(t, u, 64)); err == nil {
		t.Error("a port was set that is not one of them")
	}
	if err := w.Worker(0).SetPort(1, newMemory(t, u, 64)); err == nil {
		t.Error("a port of another worker was set")
	}
	if !w.Present(1) || w.Present(7) || w.Worker(0).Present(1) {
		t.Error("a port is present where it is not")
	}
}

// numbered is what a worker of TestWorkersProperty does with its ports, all in one goroutine.
type numbered struct {
	*Workers
	t     *testing.T
	u     *xsk.UMEM
	index int
	ports map[int]*Memory
	rng   *rand.Rand
	next  uint64 // number of the next frame
	given uint64 // frames that the ports got, without those that went with them
	sent  map[uint64]int
}

// port makes a port that notes the numbers of the frames it sends.
func (n *numbered) port() *Memory {
	p := newMemory(n.t, n.u, 64)
	p.Sent = func(parts [][]byte) { n.sent[binary.NativeEndian.Uint64(parts[0])]++ }
	return p
}

// round gives ports frames, polls, and sometimes takes a port away or puts one back.
func (n *numbered) round() {
	for i, p := range n.ports {
		if p == nil {
			if n.rng.IntN(20) == 0 {
				n.ports[i] = n.port()
				if err := n.SetPort(i, n.ports[i]); err != nil {
					n.t.Error(err)
				}
			}
			continue
		}
		p.Stall = n.rng.IntN(4) == 0
		p.Unsent = n.rng.IntN(2)
		for range n.rng.IntN(20) {
			frame := make([]byte, 8+n.rng.IntN(6000))
			binary.NativeEndian.PutUint64(frame, uint64(i)<<32|n.next) // its input is known when it leaves
			if p.Inject(frame) {
				n.next++
				n.given++
			}
		}
		if n.rng.IntN(200) == 0 {
			p.Lose(errors.New("pulled out"))
			for k := range p.rx.len() {
				if p.rx.at(k).Options&xsk.Continued == 0 {
					n.given--
				}
			}
			n.ports[i] = nil
		}
	}
	if _, err := n.Worker(n.index).Poll(); err != nil {
		n.t.Error(err)
	}
}

// Whatever program, ports and other workers do, and while ports come and go, each frame leaves once
// or is counted as dropped, and each chunk comes back.
func TestWorkersProperty(t *testing.T) {
	const workers, portsEach = 3, 3
	u := newUMEM(t, xsk.Config{Frames: 256 * workers * portsEach})
	all := make([]*numbered, workers)
	c := WorkersConfig{Config: Config{UMEM: u, Batch: 16, Lost: func(int, error) {}}}
	for i := range all {
		n := &numbered{
			t: t, u: u, index: i, ports: make(map[int]*Memory), rng: rand.New(rand.NewPCG(uint64(i), 7)),
			sent: make(map[uint64]int),
		}
		rng := rand.New(rand.NewPCG(8, uint64(i)))
		worker := Worker{Program: func(_ []Frame, actions []Action) {
			for k := range actions {
				actions[k] = Action(rng.IntN(workers*portsEach+2) - 1)
			}
		}}
		for range portsEach {
			port := len(c.Ports)
			n.ports[port] = n.port()
			c.Ports = append(c.Ports, n.ports[port])
			worker.Ports = append(worker.Ports, port)
		}
		c.Workers = append(c.Workers, worker)
		all[i] = n
	}
	w := newWorkers(t, c)
	var wait sync.WaitGroup
	for _, n := range all {
		n.Workers = w
		wait.Go(func() {
			for range 3000 {
				n.round()
			}
		})
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			allBalanced(t, w)
		}
	}
	for _, n := range all {
		for _, p := range n.ports {
			if p != nil {
				p.Stall, p.Unsent = false, 0
			}
		}
	}
	for range 1000 {
		pollAll(t, w)
	}
	if n := w.Drain(time.Second); n != 0 {
		t.Errorf("%d frames in flight", n)
	}
	sum, between := allBalanced(t, w)
	var given, sent uint64
	numbers, byInput := make(map[uint64]int), make([]uint64, workers*portsEach)
	for _, n := range all {
		given += n.given
		for number, times := range n.sent {
			if numbers[number] += times; numbers[number] > 1 {
				t.Fatalf("frame %#x left %d times", number, numbers[number])
			}
			sent += uint64(times)
			byInput[number>>32] += uint64(times)
		}
	}
	for port, c := range w.Counters(nil) {
		if c.Onward.Transmitted != byInput[port] || c.Received != byInput[port]+c.Onward.Unsent+c.Onward.Lost+c.Dropped() {
			t.Errorf("of port %d %d frames left: %+v", port, byInput[port], c)
		}
	}
	if between != 0 || sum.Received != given || sum.Transmitted != sent || sum.Bad != 0 ||
		sum.Received != sum.Transmitted+sum.Unsent+sum.Lost+sum.Dropped() {
		t.Errorf("%d given, %d sent, %d between workers: %+v", given, sent, between, sum)
	}
	for name, n := range map[string]uint64{
		"HandedOver": sum.HandedOver, "DroppedByProgram": sum.DroppedByProgram, "DroppedNoPort": sum.DroppedNoPort,
		"DroppedNoRoom": sum.DroppedNoRoom, "Unsent": sum.Unsent, "Lost": sum.Lost, "Transmitted": sum.Transmitted,
	} {
		if n == 0 {
			t.Errorf("the test made no %s", name)
		}
	}
}

// Each worker runs on its CPUs, wakes for what others hand over, and stops when ctx is done.
func TestWorkersRun(t *testing.T) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	var cpus []int
	for cpu := range maxCPUs {
		if allowed.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	u := newUMEM(t, xsk.Config{Frames: 256})
	ran := make(chan int, 16) // the CPU that the first worker's program ran on
	sent := make(chan string, 16)
	in, out := newMemory(t, u, 32), newMemory(t, u, 32)
	out.Sent = func(parts [][]byte) { sent <- string(parts[0]) }
	w := newWorkers(t, WorkersConfig{
		Config: Config{UMEM: u, Ports: []Port{in, out}, Program: to(1)},
		Workers: []Worker{{Ports: []int{0}, CPUs: cpus[len(cpus)-1:], Program: func(frames []Frame, actions []Action) {
			var on unix.CPUSet
			unix.SchedGetaffinity(0, &on)
			if on.Count() == 1 && on.IsSet(cpus[len(cpus)-1]) {
				ran <- cpus[len(cpus)-1]
			} else {
				ran <- -1
			}
			to(1)(frames, actions)
		}}, {Ports: []int{1}}},
	})
	in.Inject([]byte("one"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	if cpu := <-ran; cpu != cpus[len(cpus)-1] {
		t.Errorf("the worker may run elsewhere than on CPU %d", cpus[len(cpus)-1])
	}
	if got := <-sent; got != "one" {
		t.Errorf("%q was sent", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if w.Busy() == 0 {
		t.Error("the workers were never busy")
	}
	w.config.Workers[1].CPUs = []int{maxCPUs - 1}
	if err := w.Run(t.Context()); !errors.Is(err, unix.EINVAL) {
		t.Errorf("on a CPU that is not there: %v", err)
	}
}

// A worker that waits is woken by what is handed to it, and by nothing else.
func TestBell(t *testing.T) {
	fd, err := newBell()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b := bell{fd: fd}
	rung := func() bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return n == 1 && err == nil
	}
	b.ring()
	if rung() {
		t.Error("rung while nobody waits")
	}
	b.waiting.Store(true)
	b.ring()
	b.ring()
	if !rung() || b.waiting.Load() {
		t.Error("not rung")
	}
	b.hush()
	if rung() {
		t.Error("rung on")
	}
}

// A bell that is rung when its worker has left off waiting ends one wait, and not all that follow.
func TestBellRungLate(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 64})
	w := newWorkers(t, WorkersConfig{
		Config:  Config{UMEM: u, Ports: []Port{newMemory(t, u, 8), newMemory(t, u, 8)}, Program: to(0)},
		Workers: []Worker{{Ports: []int{0}}, {Ports: []int{1}}},
	})
	b := &w.others.bells[0]
	b.waiting.Store(true)
	b.ring()
	w.Worker(0).wait(inFlightPolls)
	fds := []unix.PollFd{{Fd: int32(b.fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); n != 0 || err != nil {
		t.Errorf("the next wait ends at once: %d, %v", n, err)
	}
}

// blocking makes workers, two of which run: the program of the first blocks until release.
func blocking(t *testing.T) (w *Workers, release func()) {
	t.Helper()
	u := newUMEM(t, xsk.Config{Frames: 256})
	in := newMemory(t, u, 32)
	entered, leave := make(chan struct{}), make(chan struct{})
	w = newWorkers(t, WorkersConfig{
		Config: Config{UMEM: u, Ports: []Port{newMemory(t, u, 32), in, newMemory(t, u, 32)}, Program: to(0)},
		Workers: []Worker{{Ports: []int{0}}, {Ports: []int{1}, Program: func([]Frame, []Action) {
			close(entered)
			<-leave
		}}, {Ports: []int{2}}},
	})
	in.Inject([]byte("frame"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	release = sync.OnceFunc(func() { close(leave) })
	t.Cleanup(func() {
		release()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-entered
	return w, release
}

// While the program of a worker blocks and somebody reads counters, the other workers go on, and
// how often each polled can be read.
func TestProgramBlocks(t *testing.T) {
	w, release := blocking(t)
	read := make(chan []Counters, 1)
	go func() { read <- w.Counters(nil) }()
	testutil.Eventually(t, "a reader that waits", func() bool { return w.Worker(1).wanted.Load() > 0 })
	stuck := w.Worker(1).Polls()
	for _, i := range []int{0, 2} {
		from := w.Worker(i).Polls()
		testutil.Eventually(t, "polls of another worker", func() bool { return w.Worker(i).Polls() > from+2 })
	}
	if n := w.Worker(1).Polls(); n != stuck {
		t.Errorf("the worker that stands still polled %d times more", n-stuck)
	}
	select {
	case <-read:
		t.Error("counters were read in the middle of a poll")
	default:
	}
	release()
	if c := <-read; c[1].Received != 1 || c[1].DroppedByProgram != 1 {
		t.Errorf("%+v", c[1])
	}
}

// Workers that are closed while they run end with that, and close no descriptor that another wait has.
func TestCloseBesideRun(t *testing.T) {
	for range 20 {
		u := newUMEM(t, xsk.Config{Frames: 64})
		w := newWorkers(t, WorkersConfig{
			Config:  Config{UMEM: u, Ports: []Port{newMemory(t, u, 8), newMemory(t, u, 8)}, Program: to(0)},
			Workers: []Worker{{Ports: []int{0}}, {Ports: []int{1}}},
		})
		done := make(chan error, 1)
		go func() { done <- w.Run(t.Context()) }()
		b, d := &w.others.bells[0], w.Worker(0)
		locked := func(f func()) { d.lock(); defer d.mu.Unlock(); f() }
		testutil.Eventually(t, "a wait", func() (polled bool) {
			locked(func() { polled = b.polled })
			return polled
		})
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		locked(func() {
			if b.polled && b.fd < 0 {
				t.Error("the bell was closed while its worker waits for it")
			}
		})
		if err := <-done; !errors.Is(err, xsk.ErrClosed) {
			t.Errorf("run ended with %v, want %v", err, xsk.ErrClosed)
		}
		for i := range w.others.bells {
			if fd := w.others.bells[i].fd; fd >= 0 {
				t.Errorf("bell %d is still open", i)
			}
		}
	}
}

// One of several workers is not closed by itself: its chunks are with others.
func TestWorkerRefusesClose(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 64})
	w := newWorkers(t, WorkersConfig{
		Config:  Config{UMEM: u, Ports: []Port{newMemory(t, u, 8), newMemory(t, u, 8)}, Program: to(0)},
		Workers: []Worker{{Ports: []int{0}}, {Ports: []int{1}}},
	})
	if err := w.Worker(0).Close(); err == nil {
		t.Error("a worker was closed without the others")
	}
	pollAll(t, w)
}

// What ports hold when Run has returned is received by polling on, so that all is in a counter.
func TestWorkersPoll(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 256})
	in, out := newMemory(t, u, 64), newMemory(t, u, 64)
	w := newWorkers(t, WorkersConfig{
		Config:  Config{UMEM: u, Ports: []Port{in, out}, Program: to(1), Batch: 4},
		Workers: []Worker{{Ports: []int{0}}, {Ports: []int{1}}},
	})
	for range 30 {
		if !in.Inject([]byte("frame")) {
			t.Fatal("no chunk to receive into")
		}
	}
	for n := 1; n > 0; {
		var err error
		if n, err = w.Poll(); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.Drain(time.Second); n != 0 {
		t.Errorf("%d frames in flight", n)
	}
	if c := w.Counters(nil); c[0].Received != 30 || c[1].Transmitted != 30 {
		t.Errorf("%+v", c)
	}
	out.Lose(errors.New("unplugged"))
	for range 128 { // devices are looked for now and then
		if _, err := w.Poll(); err != nil {
			if !strings.Contains(err.Error(), "worker 1: port 1: ") {
				t.Error(err)
			}
			return
		}
	}
	t.Error("a port that is lost is no error")
}

// A port that is lost while another goroutine drains is reported by a poll, once.
func TestLostWhileDrained(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 128})
	in := newMemory(t, u, 32)
	lost := make(chan int, 10)
	d := newDatapath(t, Config{
		UMEM: u, Ports: []Port{in, newMemory(t, u, 32)}, Program: to(1), Lost: func(port int, _ error) { lost <- port },
	})
	for range 200 {
		out := newMemory(t, u, 32)
		d.mu.Lock()
		d.lose(1, errors.New("unplugged"))
		d.mu.Unlock()
		drained := make(chan struct{})
		go func() {
			d.Drain(0)
			d.mu.Lock()
			d.lose(0, errors.New("unplugged"))
			d.mu.Unlock()
			close(drained)
		}()
		d.Poll()
		<-drained
		d.Poll()
		if a, b := <-lost, <-lost; a+b != 1 || len(lost) != 0 {
			t.Fatalf("ports %d, %d and %d more were reported", a, b, len(lost))
		}
		if err := errors.Join(d.SetPort(1, out), d.SetPort(0, newMemory(t, u, 32))); err != nil {
			t.Fatal(err)
		}
	}
}

// Workers whose ports are still to come leave most of the chunks to those whose ports are there.
func TestShares(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 1600})
	port := newMemory(t, u, 8)
	for name, tt := range map[string]struct {
		ports []Port
		want  []int
	}{
		"all there":  {[]Port{port, port, port, port}, []int{400, 400, 400, 400}},
		"none there": {[]Port{nil, nil, nil, nil}, []int{400, 400, 400, 400}},
		"one there":  {[]Port{port, nil, nil, nil}, []int{998, 200, 201, 201}},
	} {
		c := WorkersConfig{Config: Config{Ports: tt.ports}}
		for i := range tt.ports {
			c.Workers = append(c.Workers, Worker{Ports: []int{i}})
		}
		got := c.shares(1600)
		for i := range got {
			if d := got[i] - tt.want[i]; d < -2 || d > 2 {
				t.Errorf("%s: %v, want about %v", name, got, tt.want)
			}
		}
		sum := 0
		for i, n := range c.shares(len(tt.ports)) {
			if sum += n; n != 1 {
				t.Errorf("%s: worker %d has %d of as many chunks as ports", name, i, n)
			}
		}
	}
}

func TestWorkersConfig(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 16})
	ports := []Port{nil, nil}
	config := Config{UMEM: u, Ports: ports, Program: to(0)}
	for name, c := range map[string]WorkersConfig{
		"no workers": {Config: config},
		"no port":    {Config: config, Workers: []Worker{{Ports: []int{0, 1}}, {}}},
		"had twice":  {Config: config, Workers: []Worker{{Ports: []int{0, 1}}, {Ports: []int{1}}}},
		"not there":  {Config: config, Workers: []Worker{{Ports: []int{0, 1, 2}}}},
		"nobody's":   {Config: config, Workers: []Worker{{Ports: []int{0}}}},
		"no CPU":     {Config: config, Workers: []Worker{{Ports: []int{0, 1}, CPUs: []int{-1}}}},
		"no program": {Config: Config{UMEM: u, Ports: ports}, Workers: []Worker{{Ports: []int{0, 1}}}},
		"few chunks": {Config: Config{UMEM: u, Ports: ports, Program: to(0), Chunks: 1}, Workers: []Worker{{Ports: []int{0, 1}}}},
		"a program of the first alone": {
			Config: Config{UMEM: u, Ports: ports}, Workers: []Worker{{Ports: []int{0}, Program: to(0)}, {Ports: []int{1}}},
		},
		"no UMEM":     {Config: Config{Ports: ports, Program: to(0)}, Workers: []Worker{{Ports: []int{0, 1}}}},
		"large batch": {Config: Config{UMEM: u, Ports: ports, Program: to(0), Batch: MaxBatch + 1}, Workers: []Worker{{Ports: []int{0, 1}}}},
	} {
		if w, err := NewWorkers(c); err == nil {
			w.Close()
			t.Errorf("%s: no error", name)
		}
	}
	if n := u.Available(); n != 16 {
		t.Errorf("%d of 16 chunks are left", n)
	}
}

func TestHandOverAllocatesNothing(t *testing.T) {
	u := newUMEM(t, xsk.Config{Frames: 1024})
	in, out := newMemory(t, u, 256), newMemory(t, u, 256)
	if err := in.Generate(make([]byte, 60)); err != nil {
		t.Fatal(err)
	}
	w := newWorkers(t, WorkersConfig{
		Config:  Config{UMEM: u, Ports: []Port{in, out}, Program: to(1)},
		Workers: []Worker{{Ports: []int{0}}, {Ports: []int{1}}},
	})
	pollAll(t, w) // makes the link
	n := testing.AllocsPerRun(100, func() {
		w.Worker(0).Poll()
		w.Worker(1).Poll()
	})
	if n != 0 {
		t.Errorf("%v allocations a poll", n)
	}
	if c := w.Counters(nil); c[1].Transmitted < 100*DefaultBatch {
		t.Errorf("%+v", c)
	}
}

// BenchmarkHandOver is what it costs a worker more when another has the output: both polls in turn
// on one core.
func BenchmarkHandOver(b *testing.B) {
	for name, workers := range map[string][]Worker{
		"one": {{Ports: []int{0, 1}}}, "two": {{Ports: []int{0}}, {Ports: []int{1}}},
	} {
		b.Run(name, func(b *testing.B) {
			u := newUMEM(b, xsk.Config{Frames: 1024})
			in, out := newMemory(b, u, 256), newMemory(b, u, 256)
			if err := in.Generate(make([]byte, 60)); err != nil {
				b.Fatal(err)
			}
			w := newWorkers(b, WorkersConfig{Config: Config{UMEM: u, Ports: []Port{in, out}, Program: to(1)}, Workers: workers})
			b.ReportAllocs()
			for b.Loop() {
				for i := range w.Len() {
					w.Worker(i).Poll()
				}
			}
			frames := w.Counters(nil)[1].Transmitted
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(frames), "ns/frame")
		})
	}
}

// With busy polling a worker never waits.
func TestBusyPoll(t *testing.T) {
	for _, busy := range []bool{false, true} {
		u := newUMEM(t, xsk.Config{Frames: 256})
		w := newWorkers(t, WorkersConfig{
			Config:  Config{UMEM: u, Ports: []Port{newMemory(t, u, 32)}, Program: to(0), BusyPoll: busy},
			Workers: []Worker{{Ports: []int{0}}},
		})
		d := w.Worker(0)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		var waits, polls int
		for polls < 2*idlePolls {
			d.lock()
			waits, polls = len(d.pollfds), int(d.polls.Load())
			d.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if (waits > 0) == busy {
			t.Errorf("busy polling %v: it waited for %d descriptors", busy, waits)
		}
	}
}
