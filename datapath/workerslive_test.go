package datapath

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
	"github.com/unthunk/unthunk/xsk"
)

// lane is two pairs of veths with queues: generator gen → in, out → sink. A program on sink drops
// what it gets.
type lane struct {
	*netlab.Namespace
	queues       int
	in, out      netlab.Device
	source       *ebpf.Program // sends out of gen
	umem         *xsk.UMEM
	ports        []Port // the queues of in, then those of out
	inlets, outs []*xsk.Socket
}

func newLane(t testing.TB, lab *netlab.Namespace, name string, queues, ring int) *lane {
	t.Helper()
	l := &lane{Namespace: lab, queues: queues}
	pair := func(a, b string) (netlab.Device, netlab.Device) {
		x, y, err := lab.VethQueues(a, b, queues)
		if err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
		return x, y
	}
	var gen, sink netlab.Device
	gen, l.in = pair("gen"+name, "in"+name)
	l.out, sink = pair("out"+name, "sink"+name)
	if err := sink.Attach(veth.Program(t, asm.Mov.Imm(asm.R0, 1 /* XDP_DROP */), asm.Return()), 0); err != nil {
		t.Fatal(err)
	}
	l.source = veth.Source(t, gen.Index)
	l.umem = newUMEM(t, xsk.Config{Frames: 4 * queues * ring, FrameSize: 2048})
	var all []xsk.Options
	for _, d := range []netlab.Device{l.in, l.out} {
		for q := range queues {
			all = append(all, xsk.Options{Interface: d.Index, Queue: q, Fill: ring, Completion: ring, RX: ring, TX: ring})
		}
	}
	var sockets []*xsk.Socket
	err := lab.Do(func() (err error) { sockets, err = xsk.OpenAll(t.Context(), l.umem, all); return err })
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	for _, s := range sockets {
		l.ports = append(l.ports, NewXSK(s))
	}
	l.inlets, l.outs = sockets[:queues], sockets[queues:]
	return l
}

// attach gives the frames of in to its sockets.
func (l *lane) attach(t testing.TB) {
	t.Helper()
	var p *xsk.Program
	err := l.Do(func() (err error) {
		p, err = xsk.Attach(l.in.Index, xsk.ProgramOptions{Sockets: l.inlets})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

// fill sends frames to each queue of in: a veth takes redirected frames to the queue of the CPU
// that redirects (veth_select_rxq). It leaves the namespace's thread on the last CPU.
func (l *lane) fill(t testing.TB, frames int) { l.fillFrom(t, 0, frames) }

// fillFrom is fill from CPUs from the first on.
func (l *lane) fillFrom(t testing.TB, first, frames int) {
	t.Helper()
	for q := range l.queues {
		if err := l.Do(func() error { return runOn([]int{first + q}) }); err != nil {
			t.Fatal(err)
		}
		veth.Burst(t, l.Namespace, l.source, frames)
	}
}

// program forwards from each queue to that of the same number, crossed to another worker's.
func (l *lane) program(cross int) Program {
	return func(frames []Frame, actions []Action) {
		to := Redirect(l.queues + (int(frames[0].Port)+cross)%l.queues)
		for i := range actions {
			actions[i] = to
		}
	}
}

// byQueue are workers that have a queue of in and the same of out each.
func (l *lane) byQueue() (workers []Worker) {
	for q := range l.queues {
		workers = append(workers, Worker{Ports: []int{q, l.queues + q}, CPUs: []int{q}})
	}
	return workers
}

// Frames of two queues are forwarded by two workers, to ports of their own or of each other; each
// frame that the device received is in a counter, and the output's device sent what they say.
func TestWorkersOnQueues(t *testing.T) {
	secondCPU(t)
	for cross, name := range []string{"own", "crossed"} {
		t.Run(name, func(t *testing.T) {
			lab := veth.Namespace(t)
			l := newLane(t, lab, "", 2, 2048)
			w := newWorkers(t, WorkersConfig{
				Config: Config{UMEM: l.umem, Ports: l.ports, Program: l.program(cross)}, Workers: l.byQueue(),
			})
			l.attach(t)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- w.Run(ctx) }()
			for range 8 {
				l.fill(t, 1<<13)
				allBalanced(t, w)
			}
			b := &bench{Namespace: lab}
			testutil.Eventually(t, "every frame in a counter", func() bool {
				var got uint64
				for port, c := range w.Counters(nil)[:l.queues] {
					kernel, err := l.inlets[port].Statistics()
					if err != nil {
						t.Fatal(err)
					}
					got += c.Received + kernel.RXDropped + kernel.RXRingFull
				}
				return got == b.statistics(t, l.in.Index).RxPackets
			})
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if n := w.Drain(time.Second); n != 0 {
				t.Errorf("%d frames in flight", n)
			}
			sum, between := allBalanced(t, w)
			c := w.Counters(nil)
			if between != 0 || (sum.HandedOver > 0) != (cross == 1) || c[0].Received == 0 || c[1].Received == 0 {
				t.Errorf("%d between workers: %+v", between, c)
			}
			if sent := b.statistics(t, l.out.Index).TxPackets; sent != sum.Transmitted {
				t.Errorf("transmitted %d, the device says %d", sum.Transmitted, sent)
			}
			t.Logf("%+v", c)
		})
	}
}

// secondCPU skips a test that wants CPUs 0 and 1.
func secondCPU(t testing.TB) {
	t.Helper()
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	if !allowed.IsSet(0) || !allowed.IsSet(1) {
		testutil.Missing(t, "a second CPU")
	}
}

// pinned polls a worker on a CPU, each time that it is told to, until there is nothing left.
type pinned struct {
	begin chan struct{}
	took  chan took
}

// took is how long a worker took, and how long it had its core.
type took struct{ wall, core time.Duration }

// pin makes one whose thread has its CPU for itself: other work on the machine, of which two threads would meet twice as
// much, waits for some ms. A nice value would not do, as the scheduler has one for each session too (autogroup).
// It skips the benchmark where SCHED_FIFO is refused, as without CAP_SYS_NICE.
func pin(b *testing.B, d *Datapath, cpu int) *pinned {
	b.Helper()
	p := &pinned{make(chan struct{}), make(chan took)}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := runOn([]int{cpu}); err != nil {
			panic(err)
		}
		fifo := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
		err := unix.SchedSetAttr(0, &fifo, 0)
		started <- err
		if err != nil {
			return
		}
		for range p.begin {
			start, core := time.Now(), coreTime()
			for idle := false; !idle; {
				n, err := d.Poll()
				if err != nil {
					panic(err)
				}
				idle = n == 0 && !slices.ContainsFunc(d.slots, func(s slot) bool { return s.counters.InFlight > 0 })
			}
			p.took <- took{time.Since(start), coreTime() - core}
		}
		close(p.took)
	}()
	switch err := <-started; {
	case errors.Is(err, unix.EPERM):
		testutil.Missing(b, "SCHED_FIFO")
	case err != nil:
		b.Fatal(err)
	}
	return p
}

// coreTime is how long the calling thread had a core.
func coreTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// BenchmarkWorkers forwards what is in the rings of two queues, by one worker on one core and by
// two on two, in turn. Each round fills the rings before its time begins, and ends when the last
// frame left: kernel work of the output's far end, which runs on the worker's core, is in it, the
// generator is not. times is how many times as fast two are, the median of the pairs of rounds;
// core-times the same by the time that workers had their cores. bound is times for two that have
// nothing in common, neither devices nor memory: what two cores of this machine reach.
func BenchmarkWorkers(b *testing.B) {
	secondCPU(b)
	lab := veth.Namespace(b)
	lanes := func(queues int, workers func(l *lane) []Worker, names ...string) (set laneSet) {
		for _, name := range names {
			l := newLane(b, lab, name, queues, benchRing)
			w := newWorkers(b, WorkersConfig{Config: Config{UMEM: l.umem, Ports: l.ports, Program: l.program(0)}, Workers: workers(l)})
			l.attach(b)
			set = append(set, &onLane{l, w})
		}
		return set
	}
	together := func(*lane) []Worker { return []Worker{{Ports: []int{0, 1, 2, 3}}} }
	one, two, apart := lanes(2, together, "one"), lanes(2, (*lane).byQueue, "two"), lanes(1, (*lane).byQueue, "a", "b")
	on := func(l *onLane, worker, cpu int) *pinned {
		p := pin(b, l.Worker(worker), cpu)
		b.Cleanup(func() { close(p.begin); <-p.took })
		return p
	}
	// One alone is on each CPU in turn.
	alone := []*pinned{on(one[0], 0, 0), on(one[0], 0, 1)}
	both := []*pinned{on(two[0], 0, 0), on(two[0], 1, 1)}
	foreign := []*pinned{on(apart[0], 0, 0), on(apart[1], 0, 1)}
	var mpps, byCore [3][]float64
	for n := 0; b.Loop(); n++ {
		rows := []func(){
			func() { one.round(b, alone[n/2%2:n/2%2+1], &mpps[0], &byCore[0]) },
			func() { two.round(b, both, &mpps[1], &byCore[1]) },
			func() { apart.round(b, foreign, &mpps[2], &byCore[2]) },
		}
		if n%2 == 1 {
			slices.Reverse(rows)
		}
		for _, row := range rows {
			row()
		}
	}
	times := func(a, b []float64) float64 {
		var each []float64
		for i := range a {
			each = append(each, a[i]/b[i])
		}
		return stat.Median(each)
	}
	b.ReportMetric(stat.Median(mpps[0]), "Mpps/one")
	b.ReportMetric(stat.Median(mpps[1]), "Mpps/two")
	b.ReportMetric(times(mpps[1], mpps[0]), "times")
	b.ReportMetric(times(byCore[1], byCore[0]), "core-times")
	b.ReportMetric(times(mpps[2], mpps[0]), "bound")
	b.ReportMetric(0, "ns/op")
}

// benchRing is the length of rings in BenchmarkWorkers.
const benchRing = 8192

// onLane are workers on a lane.
type onLane struct {
	*lane
	*Workers
}

// laneSet are lanes that are used at once: one with a queue for each CPU, or one for each with one queue.
type laneSet []*onLane

func (s laneSet) transmitted(b *testing.B) (frames uint64) {
	for _, l := range s {
		sum, _ := allBalanced(b, l.Workers)
		frames += sum.Transmitted
	}
	return frames
}

// round fills the rings, has runners empty them, and notes at which rate they did, by the clock and by the time
// that they had their cores: the later one's.
func (s laneSet) round(b *testing.B, runners []*pinned, mpps, byCore *[]float64) {
	for i, l := range s {
		l.fillFrom(b, i, benchRing)
	}
	before := s.transmitted(b)
	for _, p := range runners {
		p.begin <- struct{}{}
	}
	var longest took
	for _, p := range runners {
		t := <-p.took
		longest.wall, longest.core = max(longest.wall, t.wall), max(longest.core, t.core)
	}
	frames := float64(s.transmitted(b) - before)
	*mpps = append(*mpps, frames/longest.wall.Seconds()/1e6)
	*byCore = append(*byCore, frames/longest.core.Seconds()/1e6)
}

// BenchmarkTouch forwards frames that another core received, in copy mode, with the cache lines of a batch read ahead and
// without, in turn. times is how many times as fast it is with.
func BenchmarkTouch(b *testing.B) {
	secondCPU(b)
	lab := veth.Namespace(b)
	l := newLane(b, lab, "", 1, xsk.DefaultRing)
	w := newWorkers(b, WorkersConfig{Config: Config{UMEM: l.umem, Ports: l.ports, Program: l.program(0)}, Workers: l.byQueue()})
	l.attach(b)
	p := pin(b, w.Worker(0), 1)
	b.Cleanup(func() { close(p.begin); <-p.took })
	in := l.ports[0].(*XSK)
	var ns [2][]float64
	for n := 0; b.Loop(); n++ {
		for k := range 2 {
			touch := (n + k) % 2
			in.copies = touch == 1
			l.fillFrom(b, 0, xsk.DefaultRing)
			before, _ := allBalanced(b, w)
			p.begin <- struct{}{}
			t := <-p.took
			after, _ := allBalanced(b, w)
			ns[touch] = append(ns[touch], float64(t.wall.Nanoseconds())/float64(after.Transmitted-before.Transmitted))
		}
	}
	var times []float64
	for i := range ns[0] {
		times = append(times, ns[0][i]/ns[1][i])
	}
	b.ReportMetric(stat.Median(ns[0]), "ns/frame-without")
	b.ReportMetric(stat.Median(ns[1]), "ns/frame")
	b.ReportMetric(stat.Median(times), "times")
	b.ReportMetric(0, "ns/op")
}
