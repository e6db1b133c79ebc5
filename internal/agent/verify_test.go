package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/verify"
)

// A redirect on another CPU hardly gets slower while an agent measures: neither by what CPUs share, nor by the interrupts
// with which the kernel tells all CPUs of code that changed. It is compared with when a loop has the agent's CPU: on a shared
// machine an idle one would take other tasks away from the redirect.
func TestVerifyBeside(t *testing.T) {
	testutil.Root(t)
	testutil.AMD64(t)
	usable, err := rounds.UsableCPUs()
	if err != nil {
		t.Fatal(err)
	}
	if len(usable) < 2 {
		testutil.Missing(t, "a second CPU")
	}
	const most = 0.5 // percent
	verify.Run(t, verify.Check{
		Claim: fmt.Sprintf("a redirect on another CPU loses at most %v %% while an agent measures", most),
		CPU:   usable[0],
		Measure: func(t *testing.T, short bool) verify.Finding {
			runs := 25
			if short {
				runs = 1
			}
			with, without := beside(t, usable[0], usable[len(usable)-1], runs)
			d := stat.Paired(without, with)
			figure := fmt.Sprintf("%+.2f %% ns a packet [%+.2f, %+.2f], %d pairs of %v", d.Median, d.Low, d.High, len(with), sliceTime)
			t.Log(figure) // of each try
			if !(d.High <= most || d.Low >= most) {
				return verify.Finding{Figure: figure, Unknown: "the interval is too wide"}
			}
			return verify.Finding{Figure: figure, Holds: d.High <= most}
		},
	})
}

// A measurement and a loop have a CPU in turns, for sliceTime each. What a redirect on another one takes is compared between
// neighbors, which the drift of the machine hardly parts; sliceEdge is left out after each change.
const (
	sliceTime = 50 * time.Millisecond
	sliceEdge = time.Millisecond
	// leastWindows is of how many windows a slice is the mean: one of fewer fell into the time between two slots.
	leastWindows = 16
)

// slice is from when to when, by CLOCK_MONOTONIC in ns, a measurement had the CPU, or the loop.
type slice struct {
	from, until int64
	measured    bool
}

// window is when a part of a slot of the redirect began, in ns, and what it took of a packet.
type window struct {
	at int64
	ns float64
}

// beside times a redirect on one CPU while measurements, one after another, and a loop have another one in turns: mean ns a packet of
// neighboring slices. Windows in which another task had the CPU are left out: the machine may be shared.
func beside(t *testing.T, production, measured, runs int) (with, without []float64) {
	t.Helper()
	namespace, err := netlab.New(production)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer namespace.Close()
	// On a shared machine other tasks have to wait for the redirect, and for the measurement.
	if err := namespace.Do(func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -20) }); err != nil {
		t.Log(err)
	}
	chain, err := redirect.Build(t.Context(), namespace, 0, redirect.Map, production)
	if err != nil {
		t.Fatal(err)
	}
	defer chain.Close()
	m, err := chain.Measure(t.Context(), 64)
	if err != nil {
		t.Fatal(err)
	}
	m.Lengthen(4)
	done := make(chan struct{})
	var slices []slice
	var errTurns error
	go func() {
		defer close(done)
		slices, errTurns = takeTurns(t.Context(), measured, runs, t.Logf)
	}()
	var windows []window
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
			s, ok, err := m.Span(t.Context())
			if err != nil {
				<-done
				t.Fatal(err)
			}
			if !ok {
				continue
			}
			at := s.Start
			for _, ns := range s.Windows {
				windows = append(windows, window{int64(at), float64(ns) / float64(s.Window)})
				at += ns
			}
		}
	}
	if errTurns != nil {
		t.Fatal(errTurns)
	}
	return neighbors(slices, windows)
}

// neighbors are the means of windows in slices that stand beside each other, one of a measurement and one of the loop.
func neighbors(slices []slice, windows []window) (with, without []float64) {
	mean := make([]float64, len(slices))
	for i, s := range slices {
		var in []float64
		for len(windows) > 0 && windows[0].at < s.until {
			if windows[0].at >= s.from+sliceEdge.Nanoseconds() {
				in = append(in, windows[0].ns)
			}
			windows = windows[1:]
		}
		if mean[i] = math.NaN(); len(in) >= leastWindows {
			mean[i] = undisturbedMean(in)
		}
	}
	for i := 0; i+1 < len(slices); i += 2 {
		a, b := mean[i], mean[i+1]
		if math.IsNaN(a) || math.IsNaN(b) || slices[i].measured == slices[i+1].measured {
			continue
		}
		if !slices[i].measured {
			a, b = b, a
		}
		with, without = append(with, a), append(without, b)
	}
	return with, without
}

// undisturbedMean is the mean of windows but those that took longer than half as much again as the middle one: in these
// another task had the CPU. An interrupt is much shorter.
func undisturbedMean(windows []float64) float64 {
	limit := 1.5 * stat.Median(windows)
	sum, n := 0.0, 0
	for _, w := range windows {
		if w < limit {
			sum, n = sum+w, n+1
		}
	}
	return sum / float64(n)
}

// takeTurns makes measurements on a CPU, one after another, and stops each again and again to let a loop have the CPU. Both are
// not humble: what got no CPU time would disturb nobody.
func takeTurns(ctx context.Context, cpu, runs int, logf func(format string, args ...any)) (slices []slice, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(runs+1)*10*time.Second)
	defer cancel()
	runtime.LockOSThread() // and never unlocked: the thread, whose CPU and priority the children inherit, ends with this
	var set unix.CPUSet
	set.Set(cpu)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20) // where it may not the claim is about what it got
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return nil, err
	}
	loop := exec.CommandContext(ctx, "/proc/self/exe", "agent-limited", "spin", "600")
	loop.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := loop.Start(); err != nil {
		return nil, err
	}
	defer func() {
		cancel()
		_ = loop.Wait() // it was killed
	}()
	for range runs {
		more, err := measureInTurns(ctx, loop.Process, cpu, logf)
		if err != nil {
			return nil, err
		}
		slices = append(slices, more...)
	}
	return slices, nil
}

// measureInTurns makes one measurement, of which there are no slices where it is refused, and lets the loop have the CPU half of the
// time: in turns A B B A, as what drifts would be on the side of the second of each pair.
func measureInTurns(
	ctx context.Context, loop *os.Process, cpu int, logf func(format string, args ...any),
) (slices []slice, err error) {
	if err := loop.Signal(unix.SIGSTOP); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "agent-part", string(MeasurePart), strconv.Itoa(cpu))
	cmd.Env = append(os.Environ(), humbled+"="+string(MeasurePart), "GOMAXPROCS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var answer, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &answer, &said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	measures := true
	for i := 0; ; i++ {
		if now := i%4 == 0 || i%4 == 3; now != measures {
			stopped, continued := cmd.Process, loop
			if now {
				stopped, continued = loop, cmd.Process
			}
			_ = stopped.Signal(unix.SIGSTOP) // where it has ended that is seen below
			_ = continued.Signal(unix.SIGCONT)
			measures = now
		}
		s := slice{from: monotonic(), measured: measures}
		select {
		case err := <-ended:
			var m Measured
			if err := errors.Join(err, json.Unmarshal(answer.Bytes(), &m)); err != nil {
				return nil, fmt.Errorf("%w: %s", err, &said)
			}
			if m.Refused != nil && m.Refused.Reason != record.RefusedTime { // of which it had half
				logf("not measured: %s", m.Refused.Text)
				return nil, nil
			}
			return slices, nil
		case <-time.After(sliceTime):
		}
		s.until = monotonic()
		slices = append(slices, s)
	}
}

func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // it does not fail (clock_gettime(2))
	}
	return ts.Nano()
}
