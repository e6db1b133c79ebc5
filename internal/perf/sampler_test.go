package perf

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// busy works in the kernel on one CPU for d.
func busy(t testing.TB, cpu int, d time.Duration) {
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
	f, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1<<20)
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := f.Read(b); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSampler(t *testing.T) {
	testutil.Root(t)
	const rate = 5000
	s, err := NewSampler(Clock, 0, rate)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var samples, inKernel, unwound int
	var last, time0, weight uint64
	read := func() {
		s.Read(func(s *Sample) {
			if s.CPU != 0 || s.Time < last {
				t.Errorf("CPU %d, time %d after %d", s.CPU, s.Time, last)
			}
			if time0 == 0 {
				time0 = s.Time
			}
			last = s.Time
			weight += s.Period
			samples++
			if s.Kernel {
				inKernel++
				if s.Chain[0]>>63 == 0 {
					t.Errorf("call chain %#x", s.Chain)
				}
				if len(s.Chain) > 1 {
					unwound++
				}
			}
		})
	}
	if read(); samples > 0 {
		t.Error("samples before the start")
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	// Long enough for the ring to go round: a sample takes 150 bytes or more.
	for range 40 {
		busy(t, 0, 100*time.Millisecond)
		read()
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	read()
	if c := s.Counts(); c.Lost != 0 || c.Bad != 0 {
		t.Errorf("%+v", c)
	}
	// The hypervisor may hold timers up, and takes time.
	if took := last - time0; weight < took*3/4 || weight > took*5/4 {
		t.Errorf("%d samples stand for %d ns of %d", samples, weight, took)
	}
	if inKernel < samples/2 {
		t.Errorf("%d of %d samples in the kernel", inKernel, samples)
	}
	if unwound < inKernel*9/10 {
		t.Errorf("%d of %d call chains have a caller", unwound, inKernel)
	}
	before := samples
	busy(t, 0, 20*time.Millisecond)
	if read(); samples != before {
		t.Error("samples after the end")
	}
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
		t.Errorf("an event that is none: %v", err)
	}
	if _, err := NewSampler(Clock, 1<<16, 100); err == nil {
		t.Error("a CPU that is none: no error")
	}
}

func TestCounters(t *testing.T) {
	testutil.Root(t)
	events := []Event{
		Clock,
		{Name: "none", Type: unix.PERF_TYPE_SOFTWARE, Config: 1 << 40},
		{Name: "page-faults", Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_PAGE_FAULTS},
	}
	c, err := NewCounters(events, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if names := c.Names(); len(names) != 2 || names[0] != "cpu-clock" {
		t.Errorf("counts %v", names)
	}
	before, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	busy(t, 0, 100*time.Millisecond)
	after, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	took := float64(time.Since(start).Nanoseconds())
	if ns := after.Since(before)["cpu-clock"]; ns < 0.9*took || ns > 1.1*took {
		t.Errorf("the clock of a CPU counted %.0f ns of %.0f", ns, took)
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
