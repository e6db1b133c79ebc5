package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/netlab"
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
			pairs := 40
			if short {
				pairs = 1
			}
			with, without := beside(t, usable[0], usable[len(usable)-1], pairs)
			d := stat.Paired(without, with)
			figure := fmt.Sprintf("%+.2f %% ns a packet [%+.2f, %+.2f], %d pairs of %d ms", d.Median, d.Low, d.High, pairs, spanTime.Milliseconds())
			t.Log(figure) // of each try
			if d.High > most && d.Low < most {
				return verify.Finding{Figure: figure, Unknown: "the interval is too wide"}
			}
			return verify.Finding{Figure: figure, Holds: d.High <= most}
		},
	})
}

// spanTime is how long a redirect is timed: less than a measurement takes.
const spanTime = 1500 * time.Millisecond

// beside times a redirect on one CPU with and without a measurement on the other, in turn: mean ns a packet of each time.
// Windows in which another task had the CPU are left out: the machine may be shared.
func beside(t *testing.T, production, measured, pairs int) (with, without []float64) {
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
	span := func() float64 {
		var windows []float64
		for end := time.Now().Add(spanTime); time.Now().Before(end); {
			s, ok, err := m.Span(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				continue
			}
			for _, ns := range s.Windows {
				windows = append(windows, float64(ns)/float64(s.Window))
			}
		}
		return undisturbedMean(windows)
	}
	for i := range pairs {
		for k := range 2 {
			start, times := measureBeside, &with
			if (i+k)%2 == 0 {
				start, times = spinBeside, &without
			}
			ended := start(t, measured)
			time.Sleep(300 * time.Millisecond) // it reads symbols first
			*times = append(*times, span())
			ended()
		}
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

// spinBeside keeps a CPU busy. It returns what ends that.
func spinBeside(t *testing.T, cpu int) (ended func()) {
	t.Helper()
	var stop atomic.Bool
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		var set unix.CPUSet
		set.Set(cpu)
		err := errors.Join(unix.SchedSetaffinity(0, &set), unix.Setpriority(unix.PRIO_PROCESS, 0, -20))
		for !stop.Load() {
		}
		done <- err
	}()
	return func() {
		stop.Store(true)
		if err := <-done; err != nil {
			t.Log(err)
		}
	}
}

// measureBeside starts a measurement that is not humble: one that got no CPU time would disturb nobody. It returns what
// waits for it.
func measureBeside(t *testing.T, cpu int) (ended func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "agent-part", string(MeasurePart), strconv.Itoa(cpu))
	cmd.Env = append(os.Environ(), humbled+"="+string(MeasurePart), "GOMAXPROCS=1")
	var answer, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &answer, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, cmd.Process.Pid, -20)
	return func() {
		defer cancel()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, &said)
		}
		var m Measured
		if err := json.Unmarshal(answer.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		if m.Refused != nil {
			t.Logf("not measured: %+v", *m.Refused)
		}
	}
}
