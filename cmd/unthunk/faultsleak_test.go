package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/forward"
	"github.com/unthunk/unthunk/internal/profile"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/tax"
	"github.com/unthunk/unthunk/internal/testutil"
)

// verbFails runs a command line that must fail.
func verbFails(t *testing.T, args ...string) error {
	t.Helper()
	var stderr bytes.Buffer
	if code := run(t.Context(), args, strings.NewReader(""), io.Discard, &stderr); code == exitDone {
		return nil
	}
	return errors.New(stderr.String())
}

// A thousand errors leave no descriptor, no goroutine and no mapping behind: of input,
// devices, ports, and of the kernel, which refuses system calls and open files in the
// middle of everything.
func TestErrorsLeakNothing(t *testing.T) {
	testutil.Slow(t)
	lab, _ := forwardLab(t)
	dir := t.TempDir()
	bad, object := filepath.Join(dir, "bad.json"), filepath.Join(dir, "bad.o")
	const cut = `{"schema": "unthunk/1", "kind": "bench", "rows": [{"samples": "x"`
	for _, file := range []string{bad, object} {
		if err := os.WriteFile(file, []byte(cut), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var taken net.Listener
	// Not the loopback's address: in the lab that device is down.
	if err := lab.Do(func() (err error) { taken, err = net.Listen("tcp4", "0.0.0.0:0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().String()
	within := func(f func() error) error { return lab.Do(f) }
	inLab := func(args ...string) func() error {
		return func() error { return within(func() error { return verbFails(t, args...) }) }
	}
	withoutCall := func(call uint32, errno unix.Errno, f func() error) func() error {
		return func() error { return testutil.Refuse(t, f, errno, call) }
	}
	verb := func(args ...string) func() error { return func() error { return verbFails(t, args...) } }
	bench := func() error {
		_, err := redirect.Run(t.Context(), redirect.Plan{
			Scenarios: []redirect.Scenario{redirect.Map, redirect.XSK}, Bulks: []int{64}, Schedule: oneSecond,
		}, func(rounds.Progress) {})
		return err
	}
	prices := func() error {
		_, err := tax.Run(t.Context(), tax.Plan{Schedule: oneSecond}, func(rounds.Progress) {})
		return err
	}
	stages := func() error {
		_, err := profile.Run(t.Context(), profile.Plan{Chain: redirect.Plan{Schedule: oneSecond}}, func(rounds.Progress) {})
		return err
	}
	forwarder := func(engine forward.Engine) func() error {
		return func() error {
			return within(func() error {
				pairs := []forward.Pair{{In: "in", Out: "out"}}
				f, err := forward.Open(t.Context(), forward.Config{Engine: engine, Pairs: pairs, Both: true})
				if err == nil {
					err = f.Close()
				}
				return err
			})
		}
	}
	// Once, all that works: what the runtime and libraries keep for good is there then.
	for _, works := range []func() error{bench, prices, stages, forwarder(forward.AFXDP), forwarder(forward.XDP)} {
		if err := works(); err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
	}
	failures := 0
	testutil.Unchanged(t, func() {
		for what, f := range map[string]func() error{
			"a bad record":            verb("report", bad, "-o", filepath.Join(dir, "x.html")),
			"two bad records":         verb("compare", bad, bad),
			"no folder":               verb("history", filepath.Join(dir, "none")),
			"a folder without driver": verb("drivers", filepath.Join(dir, "none")),
			"no tree":                 verb("xray", "--root", dir),
			"no kernel":               verb("lab", object),
			"nowhere to save":         verb("bench", "--save", filepath.Join(dir, "none", "x.json")),
			"no device":               inLab("forward", "--in", "in", "--out", "none"),
			"no device to measure":    inLab("bench", "--in", "none", "--out", "out"),
			"a device without XDP":    inLab("forward", "--in", "lo", "--out", "out"),
			"no object":               inLab("forward", "--in", "in", "--out", "out", "--bpf", object),
			"no object, engine xdp":   inLab("forward", "--in", "in", "--out", "out", "--engine", "xdp", "--bpf", object),
			"a taken port":            inLab("forward", "--in", "in", "--out", "out", "--engine", "xdp", "--metrics", port),
			"a taken port, afxdp":     inLab("forward", "--in", "in", "--out", "out", "--frames", "64", "--metrics", port),
			"a capture nowhere":       inLab("forward", "--in", "in", "--out", "out", "--pcap", filepath.Join(dir, "none", "x")),
			"bench without bpf":       withoutCall(unix.SYS_BPF, unix.EPERM, bench),
			"tax without bpf":         withoutCall(unix.SYS_BPF, unix.ENOSYS, prices),
			"profile without bpf":     withoutCall(unix.SYS_BPF, unix.EPERM, stages),
			"xray without bpf":        withoutCall(unix.SYS_BPF, unix.EPERM, verb("xray")),
			"profile without perf":    withoutCall(unix.SYS_PERF_EVENT_OPEN, unix.EPERM, stages),
		} {
			for range 50 {
				if err := f(); err == nil {
					t.Errorf("%s: no error", what)
				} else {
					failures++
				}
			}
		}
		// The nth file that is opened is one too many.
		for _, test := range []struct {
			what string
			f    func() error
			step int // tax takes a second to fail
		}{
			{"bench", bench, 2},
			{"tax", prices, 4},
			{"profile", stages, 1},
			{"forward, afxdp", forwarder(forward.AFXDP), 1},
			{"forward, xdp", forwarder(forward.XDP), 1},
		} {
			failed := 0
			for n := 0; withFiles(t, n, test.f) != nil; n += test.step {
				failed++
			}
			if failed < 5 {
				t.Errorf("%s fails in %d places only", test.what, failed)
			}
			failures += failed
		}
	})
	t.Logf("%d errors", failures)
	if failures < 1000 {
		t.Errorf("only %d errors", failures)
	}
}

// oneSecond is the schedule of a run whose numbers are of no interest.
var oneSecond = rounds.Schedule{Rounds: 2, Duration: time.Second}

// withFiles runs f while no more than n more files can be opened.
func withFiles(t *testing.T, n int, f func() error) error {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	// Descriptors are given from the lowest on.
	lowest, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(lowest); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: uint64(lowest + n), Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			panic(fmt.Sprintf("set limit of files: %v", err))
		}
	}()
	return f()
}
