package perf

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/verify"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// onCPU runs f on a thread that stays on one CPU.
func onCPU(t testing.TB, cpu int, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		t.Fatal(err)
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	defer unix.SchedSetaffinity(0, &old)
	f()
}

// sleepOn sleeps some times on one CPU.
func sleepOn(t testing.TB, cpu int) {
	t.Helper()
	onCPU(t, cpu, func() {
		for range 3 {
			nap := unix.NsecToTimespec(1e6)
			if err := unix.Nanosleep(&nap, nil); err != nil && !errors.Is(err, unix.EINTR) {
				t.Error(err)
			}
		}
	})
}

// busy works in the kernel on one CPU for d.
func busy(t testing.TB, cpu int, d time.Duration) {
	t.Helper()
	f, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1<<20)
	onCPU(t, cpu, func() {
		for end := time.Now().Add(d); time.Now().Before(end); {
			if _, err := f.Read(b); err != nil {
				t.Error(err)
				return
			}
		}
	})
}

// samples are what a sampler saw of a CPU that works in the kernel.
type samples struct {
	all, inKernel, unwound int
	weight, first, last    uint64
}

func (n *samples) read(t *testing.T, s *Sampler) {
	t.Helper()
	s.Read(func(s *Sample) {
		if s.CPU != 0 || s.Time < n.last {
			t.Errorf("CPU %d, time %d after %d", s.CPU, s.Time, n.last)
		}
		if n.first == 0 {
			n.first = s.Time
		}
		n.last = s.Time
		n.weight += s.Period
		n.all++
		if s.Kernel {
			n.inKernel++
			if s.Chain[0]>>63 == 0 {
				t.Errorf("call chain %#x", s.Chain)
			}
			if len(s.Chain) > 1 {
				n.unwound++
			}
		}
	})
}

// sampled starts a sampler, works for some tenths of a second, and stops it.
func sampled(t *testing.T, s *Sampler, tenths int) (n samples) {
	t.Helper()
	if n.read(t, s); n.all > 0 {
		t.Error("samples before the start")
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	for range tenths {
		busy(t, 0, 100*time.Millisecond)
		n.read(t, s)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	n.read(t, s)
	return n
}

func sampler(t *testing.T) *Sampler {
	t.Helper()
	testutil.Root(t)
	s, err := NewSampler(Clock, 0, 5000)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSampler(t *testing.T) {
	s := sampler(t)
	// Long enough for the ring to go round: a sample takes 150 bytes or more.
	n := sampled(t, s, 40)
	if c := s.Counts(); c.Lost != 0 || c.Bad != 0 {
		t.Errorf("%+v", c)
	}
	if n.all == 0 {
		t.Error("no sample in four seconds")
	}
	before := n.all
	busy(t, 0, 20*time.Millisecond)
	if n.read(t, s); n.all != before {
		t.Error("samples after the end")
	}
}

// Samples stand for the time that went by, and are where the work is.
func TestVerifySampler(t *testing.T) {
	testutil.Root(t)
	verify.Run(t, verify.Check{
		Claim: "samples stand for the time within 25 %, half of them are in the busy kernel, 9 of 10 of these have a caller",
		Measure: func(t *testing.T, short bool) verify.Finding {
			tenths := 40
			if short {
				tenths = 10
			}
			n := sampled(t, sampler(t), tenths)
			// The hypervisor may hold timers up, and takes time.
			took := n.last - n.first
			return verify.Finding{
				Figure: fmt.Sprintf("%d samples stand for %d of %d ms, %d in the kernel, %d with a caller",
					n.all, n.weight/1e6, took/1e6, n.inKernel, n.unwound),
				Holds: n.weight >= took*3/4 && n.weight <= took*5/4 && n.inKernel >= n.all/2 && n.unwound >= n.inKernel*9/10,
			}
		},
	})
}

// TestLost leaves a ring unread until it is full.
func TestLost(t *testing.T) {
	testutil.Root(t)
	s, err := NewSampler(Clock, 0, MaxRateOfClock)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	n := 0
	busy(t, 0, 2*time.Second)
	// What was lost is said by the next record that has room.
	s.Read(func(*Sample) { n++ })
	busy(t, 0, 50*time.Millisecond)
	s.Read(func(*Sample) { n++ })
	if c := s.Counts(); c.Lost == 0 || c.Bad != 0 || n == 0 {
		t.Errorf("%d samples, %+v", n, c)
	}
}

func TestBest(t *testing.T) {
	testutil.Root(t)
	e, err := Best(0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSampler(e, 0, 100)
	if err != nil {
		t.Fatalf("%s: %v", e.Name, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func TestNoEvent(t *testing.T) {
	testutil.Root(t)
	if _, err := NewSampler(Event{Name: "none", Type: 1, Config: 1 << 40}, 0, 100); !errors.Is(err, ErrNoEvent) {
		t.Errorf("an event that does not exist: %v", err)
	}
	if _, err := NewSampler(Clock, 1<<16, 100); err == nil {
		t.Error("a CPU that does not exist: no error")
	}
}

func TestCounters(t *testing.T) {
	testutil.Root(t)
	events := []Event{
		Clock,
		{Name: "none", Type: unix.PERF_TYPE_SOFTWARE, Config: 1 << 40},
		{Name: "page-faults", Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_PAGE_FAULTS},
	}
	c, err := NewCounters(events, AllTasks, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if names := c.Names(); len(names) != 2 || names[0] != "cpu-clock" {
		t.Errorf("counts %v", names)
	}
	// The clock is read somewhere between the moments around each call.
	begun := time.Now()
	before, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	busy(t, 0, 100*time.Millisecond)
	end := time.Now()
	after, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	least, most := float64(end.Sub(start)), float64(time.Since(begun))
	if ns := after.Since(before)["cpu-clock"]; ns < 0.99*least || ns > 1.01*most {
		t.Errorf("the clock of a CPU counted %.0f ns, want %.0f to %.0f", ns, least, most)
	}
	// Stopped it counts nothing, and goes on from there.
	stand := func() count {
		t.Helper()
		busy(t, 0, time.Millisecond)
		r, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		return r["cpu-clock"]
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	stopped := stand()
	if again := stand(); again != stopped {
		t.Errorf("stopped at %+v, and stands at %+v", stopped, again)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if again := stand(); again.value <= stopped.value || again.running <= stopped.running {
		t.Errorf("started again at %+v, and stands at %+v", stopped, again)
	}
}

// Counters of a task stand still while its CPU does something else.
func TestCountersOfTask(t *testing.T) {
	testutil.Root(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := NewCounters([]Event{Clock}, unix.Gettid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// other has another thread work on the CPU: this one waits.
	other := func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			busy(t, 0, 20*time.Millisecond)
		}()
		<-done
	}
	counted := func(work func()) float64 {
		t.Helper()
		before, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		work()
		after, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		return after.Since(before)["cpu-clock"]
	}
	own := counted(func() { busy(t, 0, 20*time.Millisecond) })
	if others := counted(other); own <= 0 || others > own/2 {
		t.Errorf("%.0f ns of its own work, %.0f of another's", own, others)
	}
}

func TestSince(t *testing.T) {
	old := Reading{"a": {10, 100, 100}, "b": {10, 100, 100}}
	now := Reading{"a": {20, 300, 150}, "b": {10, 300, 100}}
	got := now.Since(old)
	if len(got) != 1 || got["a"] != 40 {
		t.Errorf("%v, want a counted 10 times in a quarter of the time", got)
	}
}

func TestMaxRate(t *testing.T) {
	for text, want := range map[string]int{"100000\n": 100_000, "4000\n": 4000, "1": 1, "0\n": 100_000, "": 100_000, "a": 100_000} {
		if got := maxRate([]byte(text), nil); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if got := maxRate(nil, errors.New("no file")); got != 100_000 {
		t.Errorf("without a file: %d", got)
	}
}
