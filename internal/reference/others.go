package reference

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Waited is how long threads were runnable and did not run, by thread.
type Waited map[int]time.Duration

// ReadWaited reads it of the threads of a process, whose folder is tasks, that keep says yes to. The second number of
// schedstat is in ns; kernels without CONFIG_SCHED_INFO say 0 (fs/proc/base.c, proc_pid_schedstat).
func ReadWaited(tasks fs.FS, keep func(tid int) bool) Waited {
	w := make(Waited)
	entries, err := fs.ReadDir(tasks, ".")
	if err != nil {
		return w
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil || !keep(tid) {
			continue
		}
		b, err := fs.ReadFile(tasks, path.Join(e.Name(), "schedstat"))
		if err != nil {
			continue // it ended
		}
		var ran, delay uint64
		if n, _ := fmt.Sscan(string(b), &ran, &delay); n == 2 {
			w[tid] = time.Duration(delay)
		}
	}
	return w
}

// Since is how long the threads waited since before. A thread that was not there before waited all its life.
func (w Waited) Since(before Waited) (sum time.Duration) {
	for tid, delay := range w {
		sum += delay - before[tid]
	}
	return sum
}

// Pinned tells whether a thread may run on the CPU and on no other.
func Pinned(tid, cpu int) bool {
	var set unix.CPUSet
	return unix.SchedGetaffinity(tid, &set) == nil && set.Count() == 1 && set.IsSet(cpu)
}

// Times are what a CPU did since boot.
type Times struct {
	// Tasks is the time of tasks, Busy that of tasks and interrupts, Stolen that which the hypervisor had the CPU.
	Tasks, Busy, Stolen time.Duration
}

// tick is the unit of /proc/stat (USER_HZ, which is 100 on each architecture that BPF has a JIT for).
const tick = 10 * time.Millisecond

// ReadTimes reads the times of a CPU from /proc/stat (proc_stat(5)); ok is false when it is not there.
func ReadTimes(proc fs.FS, cpu int) (t Times, ok bool) {
	b, err := fs.ReadFile(proc, "stat")
	if err != nil {
		return t, false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 9 || f[0] != "cpu"+strconv.Itoa(cpu) {
			continue
		}
		var ticks [8]time.Duration
		for i := range ticks {
			n, err := strconv.ParseInt(f[i+1], 10, 64)
			if err != nil {
				return t, false
			}
			ticks[i] = time.Duration(n) * tick
		}
		// user, nice, system, idle, iowait, irq, softirq, steal
		tasks := ticks[0] + ticks[1] + ticks[2]
		return Times{Tasks: tasks, Busy: tasks + ticks[5] + ticks[6], Stolen: ticks[7]}, true
	}
	return t, false
}

// SiblingOf returns the other thread of a CPU's core; ok is false when it has none, or the kernel does not tell.
func SiblingOf(sys fs.FS, cpu int) (other int, ok bool) {
	b, err := fs.ReadFile(sys, fmt.Sprintf("devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu))
	if err != nil {
		return 0, false
	}
	// "1,33", or "2-3".
	for _, field := range strings.FieldsFunc(strings.TrimSpace(string(b)), func(r rune) bool { return r == ',' || r == '-' }) {
		if n, err := strconv.Atoi(field); err == nil && n != cpu {
			return n, true
		}
	}
	return 0, false
}

// mark is what others had done at a moment.
type mark struct {
	at           time.Time
	waited       Waited
	times, other Times
	// known and otherKnown say whether there are times.
	known, otherKnown bool
}

func (w *Watch) mark() mark {
	m := mark{at: time.Now()}
	m.waited = ReadWaited(os.DirFS("/proc/self/task"), func(tid int) bool { return Pinned(tid, w.cpu) })
	proc := os.DirFS("/proc")
	m.times, m.known = ReadTimes(proc, w.cpu)
	if w.hasSibling {
		m.other, m.otherKnown = ReadTimes(proc, w.sibling)
	}
	return m
}
