package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
)

// ended is how a command ended.
type ended struct {
	code           int
	stdout, stderr string
}

// exits runs a command by start, which is where and how; nil is cmd.Run.
func exits(t *testing.T, cmd *exec.Cmd, start func(run func() error) error) ended {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if start == nil {
		start = func(run func() error) error { return run() }
	}
	if err := start(cmd.Run); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return ended{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// refused says whether a command did nothing, with this exit code and one line that has
// all of want.
func (e ended) refused(code int, want ...string) bool {
	for _, text := range want {
		if !strings.Contains(e.stderr, text) {
			return false
		}
	}
	oneLine := strings.HasPrefix(e.stderr, "unthunk: ") && strings.Count(e.stderr, "\n") == 1
	return e.code == code && e.stdout == "" && oneLine
}

// works says whether a command did what it was asked for, to its end: a machine that stays busy lets profile measure, but leaves
// its answer too uncertain.
func (e ended) works() bool {
	busy := e.code == exitFailed && strings.HasPrefix(e.stderr, "unthunk: no answer: a packet’s time is uncertain by ")
	return e.stdout != "" && (e.code == exitDone && e.stderr == "" || busy)
}

// unlessBusy runs a command again when the machine was too busy for a number.
func unlessBusy(run func() ended) (e ended) {
	for range 5 {
		e = run()
		if !strings.Contains(e.stderr, "no row has a number") && !strings.Contains(e.stderr, "no answer") {
			break
		}
	}
	return e
}

// quickly makes a run short. Its numbers are of no interest.
const quickly = " --rounds 2 --duration 1s"

// measuring are the verbs that measure, each as short as it can be.
func measuring() []string {
	return []string{
		"bench --bulk 64" + quickly, "bench --bulk 64 --scenario redirect-xsk,redirect-cpu" + quickly,
		"tax --pair ndo-xdp-xmit" + quickly, "tax" + quickly, "profile --rounds 7 --duration 3s", "run" + quickly, "xray",
	}
}

// With few open files a verb works, or says how many it needs.
func TestFewFiles(t *testing.T) {
	testutil.Root(t)
	exe := build(t)
	limited := func(n, args string) ended {
		shell := append([]string{"-c", "ulimit -n " + n + `; exec "$@"`, "sh", exe}, strings.Fields(args)...)
		return unlessBusy(func() ended { return exits(t, exec.Command("sh", shell...), nil) })
	}
	for _, args := range append(measuring(), "tax --pair bpf-prog"+quickly, "check", "prog list", "version", "history testdata/saved") {
		e := limited("64", args)
		if !e.works() && !e.refused(exitMissing, "room for ", "the limit is 64: raise it with ulimit -n ") {
			t.Errorf("%s with 64 files: %+v", args, e)
		}
		// With fewer the runtime of Go ends in a stack trace: how many that is depends on what
		// was inherited.
		for _, n := range []string{"20", "12"} {
			if e := limited(n, args); !e.refused(exitMissing, "room for ", "the limit is "+n+": raise it with ulimit -n ") {
				t.Errorf("%s with %s files: %+v", args, n, e)
			}
		}
	}
	// As many as are asked for do.
	for _, args := range measuring() {
		_, need, ok := strings.Cut(limited("12", args).stderr, "ulimit -n ")
		if e := limited(strings.TrimSpace(need), args); !ok || !e.works() || strings.Contains(e.stdout, "open files") {
			t.Errorf("%s with %s files: %+v", args, need, e)
		}
	}
}

// What runs out of open files in spite of that says how to have more.
func TestExplainFiles(t *testing.T) {
	err := explain(errors.Join(errors.New("x"), &exec.Error{Name: "apt", Err: unix.EMFILE}))
	if text := oneLine(err); !strings.HasPrefix(text, "room for more open files is missing (x exec: \"apt\"") ||
		!strings.HasSuffix(text, ": raise it with ulimit -n") {
		t.Error(text)
	}
	if err := explain(unix.EPERM); err != unix.EPERM {
		t.Error(err)
	}
}

// In a container /proc/sys is read-only.
func TestReadOnlySysctl(t *testing.T) {
	testutil.Root(t)
	exe := build(t)
	readOnly := func(run func() error) error { return testutil.ReadOnly(t, "/proc/sys", run) }
	for _, args := range append(measuring(), "check", "prog list") {
		e := unlessBusy(func() ended { return exits(t, exec.Command(exe, strings.Fields(args)...), readOnly) })
		if !e.works() {
			t.Errorf("%s: %+v", args, e)
		}
	}
}

// A container's seccomp filter refuses system calls, by one error or another. What needs
// the call says so; what does not works.
func TestRefusedCalls(t *testing.T) {
	lab, gen := forwardLab(t)
	exe := build(t)
	var ns *os.File
	if err := lab.Do(func() (err error) { ns, err = os.Open("/proc/thread-self/ns/net"); return err }); err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	all := append(measuring(), "check", "prog list", "forward --in in --out out --duration 1s",
		"forward --in in --out out --engine xdp --duration 1s", "bench --in in --out out"+quickly)
	stop := flood.Start(t, lab, gen)
	defer stop()
	for _, test := range []struct {
		call  uint32
		errno unix.Errno
		want  string
		needs func(args string) bool
	}{
		{unix.SYS_BPF, unix.EPERM, ": operation not permitted): CAP_", needsBPF},
		{unix.SYS_BPF, unix.ENOSYS, "the system call bpf is missing (function not implemented): the", needsBPF},
		{unix.SYS_PERF_EVENT_OPEN, unix.EPERM, "(open perf event: operation not permitted): CAP_PERFMON is there", needsPerf},
		{unix.SYS_PERF_EVENT_OPEN, unix.ENOSYS, "perf events is missing (function not implemented): needs", needsPerf},
		{unix.SYS_UNSHARE, unix.EPERM, "(unshare network namespace: operation not permitted): CAP_", needsNamespace},
		{unix.SYS_UNSHARE, unix.ENOSYS, "a system call is missing (unshare network namespace: function not", needsNamespace},
	} {
		for _, args := range all {
			filtered := func(run func() error) error {
				return testutil.Refuse(t, func() error {
					if strings.Contains(args, " --in ") {
						if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
							return err
						}
					}
					return run()
				}, test.errno, test.call)
			}
			e := unlessBusy(func() ended { return exits(t, exec.Command(exe, strings.Fields(args)...), filtered) })
			// A busy machine may leave no number five times: no call refused that.
			ok := e.works() || strings.HasSuffix(e.stderr, "no row has a number: the rows say why\n")
			if test.needs(args) {
				ok = e.refused(exitMissing, test.want)
			}
			if !ok {
				t.Errorf("%s, to which call %d says %v: %+v", args, test.call, test.errno, e)
			}
		}
	}
}

func needsBPF(args string) bool { return args != "check" && args != "prog list" }

func needsPerf(args string) bool { return strings.HasPrefix(args, "profile") }

func needsNamespace(args string) bool { return needsBPF(args) && !strings.Contains(args, " --in ") }

// In a cgroup with 100 MB of memory all verbs work. A record that is too large for it is
// refused, before the kernel ends the process.
func TestLittleMemory(t *testing.T) {
	cgroup := testutil.MemoryCgroup(t, 100_000_000)
	exe := build(t)
	limited := func(args string) ended {
		script := "echo $$ >" + cgroup + `/cgroup.procs && exec "$@"`
		shell := append([]string{"-c", script, "sh", exe}, strings.Fields(args)...)
		return exits(t, exec.Command("sh", shell...), nil)
	}
	saved := filepath.Join(t.TempDir(), "bench.json")
	for _, args := range append(measuring(),
		"check", "prog list", "tax --duration 4s", "profile --duration 4s", "run --duration 10s",
		"bench --quick --save "+saved, "report "+saved+" --format csv",
		"compare "+saved+" "+saved, "history testdata/saved",
	) {
		if e := unlessBusy(func() ended { return limited(args) }); !e.works() {
			t.Errorf("%s: %+v", args, e)
		}
	}
	page := filepath.Join(t.TempDir(), "run.html")
	if e := limited("report testdata/saved/run.json -o " + page); e.code != exitDone || e.stderr != "" {
		t.Errorf("report: %+v", e)
	}
	large := filepath.Join(t.TempDir(), "large.json")
	text := []byte(`{"schema": "unthunk/1", "kind": "bench", "rows": [` + strings.Repeat(`{"name": "a"},`, 1<<20) + `{}]}`)
	if err := os.WriteFile(large, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"report " + large + " -o " + page, "compare " + large + " " + large} {
		if e := limited(args); !e.refused(exitFailed, "there is no memory here") {
			t.Errorf("%s: %+v", args, e)
		}
	}
}

// Output that goes nowhere because standard output was closed is a failure, before anything
// is measured. /dev/null is the user's wish.
func TestClosedOutput(t *testing.T) {
	exe := build(t)
	file := filepath.Join(t.TempDir(), "page.html")
	for _, test := range []struct {
		redirect, args string
		code           int
	}{
		{">&-", "history testdata/saved", exitFailed},
		{">&-", "bench --duration 5m", exitFailed},
		{">&- <&-", "history testdata/saved", exitFailed},
		{">&-", "version", exitDone}, // its exit code says that it is there
		{">/dev/null", "history testdata/saved", exitDone},
		{"1<>/dev/null 0<&1", "history testdata/saved", exitDone}, // as a daemon has
		{">&-", "report testdata/saved/bench.json -o " + file, exitDone},
		{">&-", "compare testdata/saved/bench.json testdata/saved/bench.json", exitDone}, // its exit code says it
	} {
		shell := append([]string{"-c", `exec "$@" ` + test.redirect, "sh", exe}, strings.Fields(test.args)...)
		e := exits(t, exec.Command("sh", shell...), nil)
		ok := e.code == exitDone && e.stderr == ""
		if test.code == exitFailed {
			ok = e.refused(exitFailed, "stdout is closed")
		}
		if !ok {
			t.Errorf("%s %s: %+v", test.args, test.redirect, e)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

// Who starts the program with /dev/null as Python's subprocess.DEVNULL, which is opened for
// reading and writing, is not told that stdout is closed: for stdout and stderr, and for
// stdout alone of a verb that has another result. A seccomp filter that refuses kcmp(2)
// changes nothing for a daemon's streams.
func TestNullOutput(t *testing.T) {
	exe := build(t)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	start := func(args string, alone bool, wrap func(*exec.Cmd) error) int {
		cmd := exec.Command(exe, strings.Fields(args)...)
		cmd.Stdout = null
		if !alone {
			cmd.Stderr = null
		}
		if err := wrap(cmd); cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode()
	}
	file := filepath.Join(t.TempDir(), "page.html")
	for _, test := range []struct {
		args  string
		alone bool
	}{
		{"history testdata/saved", false},
		{"compare testdata/saved/bench.json testdata/saved/bench.json", true},
		{"report testdata/saved/bench.json -o " + file, true},
		{"version", true},
	} {
		if code := start(test.args, test.alone, (*exec.Cmd).Run); code != exitDone {
			t.Errorf("%s, stdout alone %v: exit code %d", test.args, test.alone, code)
		}
	}
	refused := func(cmd *exec.Cmd) error { return testutil.Refuse(t, cmd.Run, unix.EPERM, unix.SYS_KCMP) }
	if code := start("history testdata/saved", false, refused); code != exitDone {
		t.Errorf("without kcmp: exit code %d", code)
	}
}
