package verify

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

// The test binary is a busy loop too.
func TestMain(m *testing.M) {
	if os.Getenv("VERIFY_LOOP") != "" {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		}
		return
	}
	testutil.NoLeaks(m)
}

func TestJudge(t *testing.T) {
	t.Parallel()
	quiet := disturbance{took: time.Second}
	busy := disturbance{took: time.Second, waited: 340 * time.Millisecond, cpu: 1}
	good, bad := Finding{Figure: "1 %", Holds: true}, Finding{Figure: "9 %"}
	unknown := Finding{Figure: "-", Unknown: "no pair can tell"}
	type try struct {
		f Finding
		d disturbance
	}
	const said = "the machine was busy: other tasks ran on CPU 1 for 34 % of the time"
	for _, tt := range []struct {
		name  string
		tries []try
		want  Result
		left  int
	}{
		{"holds", []try{{good, quiet}, {bad, quiet}}, Result{"x", "1 %", Passed, ""}, 1},
		{"does not hold", []try{{bad, quiet}, {good, quiet}}, Result{"x", "9 %", Failed, ""}, 1},
		{"repeated and holds", []try{{bad, busy}, {good, quiet}}, Result{"x", "1 %", Passed, ""}, 0},
		{"repeated and does not", []try{{good, busy}, {good, busy}, {bad, quiet}}, Result{"x", "9 %", Failed, ""}, 0},
		{"unknown", []try{{unknown, quiet}, {unknown, quiet}, {unknown, quiet}}, Result{"x", "-", NotJudged, "no pair can tell"}, 0},
		{"known at last", []try{{unknown, quiet}, {good, quiet}, {bad, quiet}}, Result{"x", "1 %", Passed, ""}, 1},
		{"never quiet", []try{{bad, busy}, {bad, busy}, {good, busy}, {good, quiet}}, Result{"x", "1 %", NotJudged, said}, 1},
	} {
		left := tt.tries
		got := judge("x", func() (Finding, disturbance) {
			one := left[0]
			left = left[1:]
			return one.f, one.d
		})
		if diff := cmp.Diff(tt.want, got); diff != "" || len(left) != tt.left {
			t.Errorf("%s: %d tries left, want %d; result (-want +got):\n%s", tt.name, len(left), tt.left, diff)
		}
	}
}

func TestDisturbance(t *testing.T) {
	t.Parallel()
	second := disturbance{cpu: 3, took: time.Second}
	with := func(change func(*disturbance)) disturbance {
		d := second
		change(&d)
		return d
	}
	for want, d := range map[string]disturbance{
		"": with(func(d *disturbance) { d.waited, d.stolen, d.before, d.after = 9e6, 9e6, 3.0e9, 3.05e9 }),
		"other tasks ran on CPU 3 for 20 % of the time":      with(func(d *disturbance) { d.waited = 200e6 }),
		"the hypervisor took CPU 3 away for 2 % of the time": with(func(d *disturbance) { d.stolen = 20e6 }),
		"the core's clock went from 3.00 to 2.50 GHz":        with(func(d *disturbance) { d.before, d.after = 3e9, 2.5e9 }),
		"other tasks ran on CPU 3 for 50 % of the time, the hypervisor took CPU 3 away for 50 % of the time, " +
			"the core's clock went from 1.00 to 2.00 GHz": with(func(d *disturbance) {
			d.waited, d.stolen, d.before, d.after = 5e8, 5e8, 1e9, 2e9
		}),
	} {
		if got := d.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestSteal(t *testing.T) {
	t.Parallel()
	const stat = "cpu  1 2 3 4 5 6 7 99 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu1 1 2 3 4 5 6 7 12 0 0\ncpu10 1 2 3\n"
	proc := fstest.MapFS{"stat": {Data: []byte(stat)}}
	for cpu, want := range map[int]time.Duration{0: 80 * time.Millisecond, 1: 120 * time.Millisecond} {
		if got, ok := steal(proc, cpu); got != want || !ok {
			t.Errorf("CPU %d: %v, %v, want %v", cpu, got, ok, want)
		}
	}
	for _, cpu := range []int{2, 10} {
		if got, ok := steal(proc, cpu); ok {
			t.Errorf("CPU %d: %v", cpu, got)
		}
	}
}

// Only waiting of the threads that are asked for counts, and only since the watch began.
func TestWaited(t *testing.T) {
	t.Parallel()
	tasks := func(one, two string) fstest.MapFS {
		return fstest.MapFS{
			"1/schedstat": {Data: []byte(one)}, "2/schedstat": {Data: []byte(two)},
			"3/comm": {}, "x/schedstat": {},
		}
	}
	last := make(map[int]time.Duration)
	first := func(tid int) bool { return tid == 1 }
	if got := waited(tasks("5 100 1\n", "5 100 1\n"), last, first); got != 0 {
		t.Errorf("at first %v", got)
	}
	if got := waited(tasks("5 170 1\n", "5 999 1\n"), last, first); got != 70 {
		t.Errorf("then %v, want 70 ns", got)
	}
	if got := waited(tasks("nothing", "5 999 1\n"), last, first); got != 0 {
		t.Errorf("of a file with no numbers %v", got)
	}
}

// A busy loop on the CPU shows.
func TestWatch(t *testing.T) {
	if b, err := os.ReadFile("/proc/self/schedstat"); err != nil || strings.HasPrefix(string(b), "0 0 ") {
		testutil.Missing(t, "CONFIG_SCHED_INFO")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		t.Fatal(err)
	}
	cpu := 0
	for !old.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	defer unix.SchedSetaffinity(0, &old)
	// A child runs where its parent's thread may.
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "VERIFY_LOOP=1")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	w := watch(cpu)
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
	}
	d := w.stop()
	if share := d.waited.Seconds() / d.took.Seconds(); share < 0.1 {
		t.Errorf("waited for %v of %v beside a busy loop", d.waited, d.took)
	}
	if again := w.stop(); again != d {
		t.Errorf("stopped again: %+v, first %+v", again, d)
	}
}
