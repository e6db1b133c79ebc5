package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

// unthunk runs the command line args and returns its exit code and output.
func unthunk(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestBenchRefuses(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	refuses(t, "bench", []refused{
		{"unknown flag", []string{"--bluk", "1"}, exitUsage, "--bluk"},
		{"argument", []string{"eth0"}, exitUsage, `"eth0"`},
		{"bulk 0", []string{"--bulk", "0"}, exitUsage, "bulk 0"},
		{"bulk 1000", []string{"--bulk", "1000"}, exitUsage, "bulk 1000"},
		{"bulk x", []string{"--bulk", "x"}, exitUsage, "--bulk"},
		{"scenario", []string{"--scenario", "redirect-maps"}, exitUsage, "redirect-maps"},
		{"operation", []string{"--operation", "swap"}, exitUsage, `"swap"`},
		{"mode", []string{"--mode", "offload"}, exitUsage, `"offload"`},
		{"size", []string{"--size", "9000"}, exitUsage, "9000"},
		{"rounds", []string{"--rounds", "0"}, exitUsage, "0 rounds"},
		{"duration", []string{"--duration", "10ms"}, exitUsage, "10ms"},
		{"format", []string{"--format", "xml"}, exitUsage, `"xml"`},
		{"two formats", []string{"--format", "bench", "--json"}, exitUsage, "choose one"},
		{"CPU", []string{"--cpu", "9999"}, exitUsage, "CPU 9999"},
		{"in alone", []string{"--in", "lo"}, exitUsage, "--in alone needs --scenario drop, tx or pass"},
		{"redirect from in alone", []string{"--in", "lo", "--scenario", "redirect-map"}, exitUsage, "needs both devices"},
		{"out alone", []string{"--out", "lo"}, exitUsage, "needs the one that frames come in by"},
		{"drop with out", []string{"--in", "lo", "--out", "x", "--scenario", "drop"}, exitUsage, "drop does not redirect"},
		{"cpumap on a device", []string{"--in", "lo", "--scenario", "redirect-cpu"}, exitUsage, "real devices can run"},
		{"two scenarios on a device", []string{"--in", "lo", "--scenario", "drop,tx"}, exitUsage, "one --scenario at a time"},
		{"live without a device", []string{"--live"}, exitUsage, "--live goes with --in"},
		{"tracepoints without a device", []string{"--tracepoints"}, exitUsage, "--tracepoints goes with --in"},
		{"device twice", []string{"--in", "lo", "--out", "lo"}, exitUsage, "named twice"},
		{"no such device", []string{"--in", "lo", "--out", "no-such-dev"}, exitFailed, "no-such-dev"},
		{"devices and bulk", []string{"--in", "lo", "--out", "x", "--bulk", "1"}, exitUsage, "--bulk"},
		{"save nowhere", []string{"--save", filepath.Join(dir, "no", "dir", "x.json")}, exitFailed, "no such file or directory"},
		{"save on a folder", []string{"--save", dir}, exitFailed, dir},
	})
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The command contract of --json: one document, its names and units.
func TestBenchJSON(t *testing.T) {
	testutil.Root(t)
	file := filepath.Join(t.TempDir(), "run.json")
	code, stdout, stderr := unthunk(t, "bench", "--bulk", "4,64", "--rounds", "6", "--duration", "4s", "--json", "--save", file)
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if stderr != "" {
		t.Errorf("stderr, which is no terminal: %s", stderr)
	}
	var doc struct {
		Schema   string
		Kind     string
		Host     map[string]any
		Warnings []any
		Rows     []struct {
			Name     string
			Mpps, Ns struct {
				Median, Low, High float64
				N                 int
				Unit              string
			}
		}
	}
	dec := json.NewDecoder(strings.NewReader(stdout))
	if err := dec.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if dec.More() {
		t.Error("more than one document on stdout")
	}
	if doc.Schema != "unthunk/1" || doc.Kind != "bench" || doc.Host["kernel"] == "" || doc.Warnings == nil {
		t.Errorf("head of the document: %+v", doc)
	}
	for i, want := range []string{"redirect-map/bulk=4", "redirect-map/bulk=64"} {
		row := doc.Rows[i]
		if row.Name != want || row.Mpps.Unit != "Mpps" || row.Ns.Unit != "ns" {
			t.Errorf("row %d: %+v", i, row)
		}
		if row.Ns.N == 6 && !(row.Ns.Low > 0 && row.Ns.Low <= row.Ns.Median && row.Ns.Median <= row.Ns.High) {
			t.Errorf("row %d: interval does not hold the median: %+v", i, row.Ns)
		}
	}
	saved, err := record.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(saved.Bench().Rows) != 2 || saved.Bench().Rows[0].Ns.Median != doc.Rows[0].Ns.Median {
		t.Error("the saved record is not the printed one")
	}
	if code, _, stderr := unthunk(t, "compare", file, file); code != exitDone {
		t.Errorf("compare with itself: exit code %d: %s", code, stderr)
	}
}

func TestBenchFormat(t *testing.T) {
	testutil.Root(t)
	code, stdout, stderr := unthunk(t, "bench", "--bulk", "64", "--rounds", "2", "--duration", "1s", "--format", "bench")
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if n := strings.Count(stdout, "\nBenchmarkXDP/scenario=redirect-map/bulk=64 "); n != 2 {
		t.Errorf("%d lines for 2 rounds:\n%s", n, stdout)
	}
}

// On real interfaces that nothing comes in by there is no number, and that is
// a failure.
func TestBenchIdleDevices(t *testing.T) {
	testutil.Root(t)
	lab, err := netlab.New(0)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	for _, pair := range [][2]string{{"in0", "in1"}, {"out0", "out1"}} {
		_, peer, err := lab.VethPair(pair[0], pair[1])
		if err == nil {
			err = peer.EnableGRO() // or out0 would take no redirected frames
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	lab.Do(func() error {
		code, stdout, stderr := unthunk(t, "bench", "--in", "in0", "--out", "out0", "--rounds", "1", "--duration", "1s")
		if code != exitFailed || !strings.Contains(stdout, "nothing arrived on in0") || !strings.Contains(stderr, "no row has a number") {
			t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
		}
		return nil
	})
}

// build builds the command where anybody can run it. In a guest, which has no Go, it is process 1.
func build(t *testing.T) string {
	t.Helper()
	if guest.Guest() {
		return "/init"
	}
	dir, err := os.MkdirTemp("", "unthunk-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "unthunk")
	if out, err := exec.Command("go", "build", "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return exe
}

func TestWithoutRoot(t *testing.T) {
	testutil.Root(t)
	exe := build(t)
	for _, test := range []struct {
		args []string
		code int
	}{
		{[]string{"bench"}, exitMissing},
		{nil, exitMissing},
		{[]string{"check"}, exitDone},
		{[]string{"version"}, exitDone},
	} {
		cmd := exec.Command(exe, test.args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		err := cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != test.code {
			t.Errorf("%v: exit code %d, want %d (%v)", test.args, code, test.code, err)
		}
		if test.code == exitMissing && stderr.String() != "unthunk: root is missing: run with sudo\n" {
			t.Errorf("%v: %s", test.args, &stderr)
		}
	}
}

func TestInterrupt(t *testing.T) {
	testutil.Root(t)
	// Two rounds of five minutes each.
	cmd := exec.Command(build(t), "bench", "--json", "--duration", "10m", "--rounds", "2")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	told := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
		t.Errorf("exit: %v, want %d", err, exitFailed)
	}
	// Half a second on an idle machine, most of it RCU grace periods while
	// programs leave the dispatcher: what is tested is that it does not wait
	// for the round.
	if took := time.Since(told); took > time.Minute {
		t.Errorf("stopped after %v", took)
	}
	var doc record.Document[record.BenchRow]
	if err := json.Unmarshal(stdout.Bytes(), &doc); err != nil {
		t.Fatalf("what was measured: %v\n%s", err, &stdout)
	}
	if !doc.Incomplete || len(doc.Rows) != 7 {
		t.Errorf("incomplete %v, %d rows, want 7", doc.Incomplete, len(doc.Rows))
	}
	if !strings.Contains(stderr.String(), "incomplete") {
		t.Errorf("stderr: %s", &stderr)
	}
}

// A context that ends is an interrupt too.
func TestStoppedAtOnce(t *testing.T) {
	testutil.Root(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"bench"}, nil, &out, &errs); code != exitFailed {
		t.Errorf("exit code %d: %s", code, &errs)
	}
}
