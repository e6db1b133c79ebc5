package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/memory"
)

// Part is a part of a run that a child of the process does, for what it takes to be gone with it, also when it is killed.
type Part string

// The parts, as the hidden verb takes them.
const (
	ReadPart    Part = "read"
	MeasurePart Part = "measure"
	// EmulatedPart is MeasurePart on a CPU that is emulated.
	EmulatedPart Part = "measure-emulated"
)

// Limits of a child.
const (
	// childHeap is where its collector begins to work hard, childData the most memory that it can have. Reading takes 60 to
	// 90 MiB here, most of which is the kernel's symbols.
	childHeap = 96 << 20
	childData = 512 << 20
	// readTime and measureTime are how long they may take: then they are killed. Before it measures, a child reads the
	// symbols of the kernel and the code of the pairs.
	readTime    = 20 * time.Second
	measureTime = MeasureTime + 500*time.Millisecond
	// dyingTime is how long one that was killed is waited for: it dies when the kernel gives it the CPU.
	dyingTime = 500 * time.Millisecond
	// cpuSeconds is how much CPU time a child may have: then it ends, or a second later the kernel ends it.
	cpuSeconds = 9
	// maxAnswer is the longest answer of a child, in bytes.
	maxAnswer = 64 << 20
)

// usage is what a child took.
type usage struct {
	seconds, cpuSeconds float64
	peakBytes           uint64
}

// add adds that of another child, which ran at another time.
func (u *usage) add(o usage) {
	u.seconds += o.seconds
	u.cpuSeconds += o.cpuSeconds
	u.peakBytes = max(u.peakBytes, o.peakBytes)
}

// errKilled says that a child took too long, errCPUTime that it took too much CPU time.
var (
	errKilled  = errors.New("it was ended as it took too long")
	errCPUTime = fmt.Errorf("it ended as it took %d s of CPU time", cpuSeconds)
)

// child does a part in a child of the process, on one CPU, and decodes its answer into out. The child goes when the process
// is killed. It is gone when child returns, unless ctx ended or it took too long: then it has been killed, and may need a
// moment, as all others go before it.
func child(ctx context.Context, command []string, part Part, cpu int, limit time.Duration, out any) (usage, error) {
	type result struct {
		used usage
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// The child is killed when the thread ends that started it: it stays until then, and does not end after it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		used, err := start(ctx, command, part, cpu, limit, out)
		done <- result{used, err}
	}()
	select {
	case r := <-done:
		return r.used, r.err
	case <-ctx.Done():
		return usage{}, ctx.Err()
	case <-time.After(limit + dyingTime):
		return usage{seconds: (limit + dyingTime).Seconds()}, fmt.Errorf("%s: %w", part, errKilled)
	}
}

func start(ctx context.Context, command []string, part Part, cpu int, limit time.Duration, out any) (used usage, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	args := append(command[1:len(command):len(command)], string(part), strconv.Itoa(cpu))
	cmd := exec.CommandContext(ctx, command[0], args...)
	// With that of a part the child would keep what it does not need.
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, humbled+"=") })
	cmd.Env = append(env, fmt.Sprintf("GOMEMLIMIT=%d", childHeap), "GOMAXPROCS=1", fmt.Sprintf("%s=%d", parent, os.Getpid()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	answer, said := memory.NewHead(maxAnswer), memory.NewHead(4<<10)
	cmd.Stdout, cmd.Stderr = answer, said
	began := time.Now()
	err = cmd.Run()
	used.seconds = time.Since(began).Seconds()
	if state := cmd.ProcessState; state != nil {
		used.cpuSeconds = (state.UserTime() + state.SystemTime()).Seconds()
		if r, ok := state.SysUsage().(*syscall.Rusage); ok {
			used.peakBytes = uint64(r.Maxrss) << 10 // KiB: getrusage(2)
		}
	}
	switch {
	case err == nil && answer.Cut():
		return used, fmt.Errorf("%s: its answer is longer than %d bytes", part, maxAnswer)
	case err == nil:
		if err := json.Unmarshal(answer.Bytes(), out); err != nil {
			return used, fmt.Errorf("%s: read its answer: %w", part, err)
		}
		return used, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return used, fmt.Errorf("%s: %w", part, errKilled)
	case ctx.Err() != nil:
		return used, ctx.Err()
	}
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == exitCPUTime {
		return used, fmt.Errorf("%s: %w", part, errCPUTime)
	}
	if text := saidLine(said.String()); text != "" {
		err = errors.New(text)
	}
	return used, fmt.Errorf("%s: %w", part, err)
}

// exitCPUTime is the exit code of a process that ended at its limit of CPU time.
const exitCPUTime = 24 // SIGXCPU

// endAtCPUTime ends this process with [exitCPUTime] at the soft limit of its CPU time: the kernel sends SIGXCPU, which Go leaves to who
// asks for it, and SIGKILL at the hard one, which may come from anybody.
func endAtCPUTime() {
	over := make(chan os.Signal, 1)
	signal.Notify(over, unix.SIGXCPU)
	go func() {
		<-over
		os.Exit(exitCPUTime)
	}()
}

// limitCPUTime has the kernel tell this process, and those that it executes, that it took so many seconds of CPU time, and kill it a
// second later.
func limitCPUTime(seconds uint64) error {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CPU, &old); err != nil {
		return err
	}
	hard := min(seconds+1, old.Max)
	return unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: min(seconds, hard), Max: hard})
}

// saidLine is the line of what a child said that says why it ended: the last, or the first before a trace of the runtime.
func saidLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range lines {
		for _, begins := range []string{"fatal error: ", "runtime: out of memory", "panic: "} {
			if strings.HasPrefix(line, begins) {
				return line
			}
		}
	}
	return lines[len(lines)-1]
}

// In the environment of a child: who started it, and that it has given away what it does not need.
const (
	parent  = "UNTHUNK_AGENT_PID"
	humbled = "UNTHUNK_AGENT_PART"
)

// endWithParent has the kernel kill this process when the one ends that started it, also by SIGKILL, for as long as the calling
// thread lives. What was set before it was executed is of the thread that was the first then, and is lost where another one
// executes, and where execve gives capabilities (prctl(2)). A parent that has ended already is an error.
func endWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("end with parent: %w", err)
	}
	if pid, set := os.LookupEnv(parent); set && pid != strconv.Itoa(os.Getppid()) {
		return fmt.Errorf("process %s, which started this one, has ended", pid)
	}
	return nil
}

// humble takes from this process all CPUs but one, the right to it where others want it, and to more memory and CPU time
// than a part needs; then it executes the program anew, so that all its threads are as the calling one, which is locked.
func humble(part Part, cpu int) error {
	if os.Getenv(humbled) == string(part) {
		return nil
	}
	if err := limitCPUTime(cpuSeconds); err != nil {
		return fmt.Errorf("limit CPU time: %w", err)
	}
	for resource, most := range map[int]uint64{unix.RLIMIT_DATA: childData, unix.RLIMIT_CORE: 0} {
		var old unix.Rlimit
		if err := unix.Getrlimit(resource, &old); err != nil {
			return fmt.Errorf("read limit: %w", err)
		}
		most = min(most, old.Max)
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("set limit: %w", err)
		}
	}
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin thread to CPU %d: %w", cpu, err)
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 19); err != nil { // 0: the thread
		return fmt.Errorf("set nice value: %w", err)
	}
	if part != ReadPart { // runs only when no other task wants the CPU (sched(7))
		if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
			return fmt.Errorf("set scheduling class: %w", err)
		}
	}
	err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), humbled+"="+string(part)))
	return fmt.Errorf("execute this program: %w", err)
}

// Answer does a part on a CPU and writes its answer: it is what the hidden verb does in a child.
func Answer(ctx context.Context, part Part, cpu int, w io.Writer) error {
	runtime.LockOSThread() // the kernel ends the process with its parent by this thread, which execve makes the first
	defer runtime.UnlockOSThread()
	if err := endWithParent(); err != nil {
		return err
	}
	if err := humble(part, cpu); err != nil {
		return err
	}
	endAtCPUTime()
	var (
		answer any
		err    error
	)
	switch part {
	case ReadPart:
		answer, err = Read(ctx)
	case MeasurePart, EmulatedPart:
		answer, err = answerMeasure(ctx, cpu, part == EmulatedPart)
	default:
		return fmt.Errorf("no part %q", part)
	}
	if err != nil {
		return err
	}
	b, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	_, err = w.Write(b)
	return err
}

// answerMeasure is Measure whose errors are refusals.
func answerMeasure(ctx context.Context, cpu int, emulated bool) (*Measured, error) {
	m, err := Measure(ctx, cpu, emulated)
	if err != nil {
		m = &Measured{Refused: refusal(reasonOf(err), "%s", oneLine(err))}
	}
	return m, nil
}
