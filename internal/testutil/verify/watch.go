package verify

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/clock"
)

// interval is between two looks at the threads. A thread that ends takes at most
// one interval of its waiting with it. A look takes 0.2 ms with 15 threads.
const interval = 100 * time.Millisecond

// watcher adds up what disturbs one CPU.
type watcher struct {
	quit    chan struct{}
	done    chan disturbance
	stopped *disturbance
}

// watch begins to watch a CPU, for the threads of this process that are pinned to it.
func watch(cpu int) *watcher {
	w := &watcher{quit: make(chan struct{}), done: make(chan disturbance, 1)}
	d := disturbance{cpu: cpu, before: coreClock(cpu)}
	begun := time.Now()
	stolen, known := steal(os.DirFS("/proc"), cpu)
	go func() {
		last := make(map[int]time.Duration)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			d.waited += waited(os.DirFS("/proc/self/task"), last, func(tid int) bool { return pinned(tid, cpu) })
			select {
			case <-tick.C:
				continue
			case <-w.quit:
			}
			d.took = time.Since(begun)
			if now, ok := steal(os.DirFS("/proc"), cpu); ok && known {
				d.stolen = now - stolen
			}
			w.done <- d
			return
		}
	}()
	return w
}

// stop ends the watch and returns what it saw, the same when it is called again.
func (w *watcher) stop() disturbance {
	if w.stopped == nil {
		close(w.quit)
		d := <-w.done
		d.after = coreClock(d.cpu)
		w.stopped = &d
	}
	return *w.stopped
}

// waited returns for how long the threads that keep says yes to were runnable and did
// not run, since the last call with the same map. The second number of schedstat is in
// ns; kernels without CONFIG_SCHED_INFO say 0 (fs/proc/base.c, proc_pid_schedstat).
func waited(tasks fs.FS, last map[int]time.Duration, keep func(tid int) bool) (sum time.Duration) {
	entries, err := fs.ReadDir(tasks, ".")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := fs.ReadFile(tasks, path.Join(e.Name(), "schedstat"))
		if err != nil {
			continue // it ended
		}
		var ran, delay uint64
		if n, _ := fmt.Sscan(string(b), &ran, &delay); n != 2 {
			continue
		}
		now := time.Duration(delay)
		before, seen := last[tid]
		last[tid] = now
		// What a thread waited before the watch is not this measurement's.
		if seen && keep(tid) {
			sum += now - before
		}
	}
	return sum
}

// pinned says whether a thread may run on the CPU and on no other.
func pinned(tid, cpu int) bool {
	var set unix.CPUSet
	return unix.SchedGetaffinity(tid, &set) == nil && set.Count() == 1 && set.IsSet(cpu)
}

// steal returns how long the hypervisor had a CPU since boot: the eighth number of its
// line in /proc/stat (proc_stat(5)), in hundredths of a second.
func steal(proc fs.FS, cpu int) (time.Duration, bool) {
	b, err := fs.ReadFile(proc, "stat")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 8 && f[0] == "cpu"+strconv.Itoa(cpu) {
			n, err := strconv.ParseInt(f[8], 10, 64)
			return time.Duration(n) * 10 * time.Millisecond, err == nil
		}
	}
	return 0, false
}

// coreClock returns the clock of a core in Hz, or 0: the fastest of 200 readings of
// 8 µs, as what interrupts one makes it slower.
func coreClock(cpu int) (hz float64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, one unix.CPUSet
	if unix.SchedGetaffinity(0, &old) != nil {
		return 0
	}
	one.Set(cpu)
	if unix.SchedSetaffinity(0, &one) != nil {
		return 0
	}
	defer unix.SchedSetaffinity(0, &old)
	for range 200 {
		hz = max(hz, clock.Core())
	}
	return hz
}
