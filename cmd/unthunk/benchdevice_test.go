package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil/flood"
)

// One device alone, under its own traffic: a line a second on stderr, queues and CPUs in the
// table and in JSON.
func TestBenchDevice(t *testing.T) {
	lab, gen := forwardLab(t)
	stop := flood.Start(t, lab, gen)
	defer stop()
	file := filepath.Join(t.TempDir(), "drop.json")
	code, stdout, stderr := inLab(t, lab, "bench --in in --scenario drop --live --rounds 7 --duration 3s --save "+file)
	if code != exitDone {
		t.Fatalf("exit code %d: %s\n%s", code, stderr, stdout)
	}
	for _, want := range []string{
		`(?m)^drop/in=in$`, `(?m)^ *\d+\.\d+ \[`, `(?m)^queue +CPU +frames +share$`, `(?m)^ +0 +\d+ +\d+ +\d+\.\d %$`,
		`(?m)^Medians of 7 rounds \[95 % intervals\]\.$`,
	} {
		if !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("nothing matches %s:\n%s", want, stdout)
		}
	}
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	second := regexp.MustCompile(`^\d\d:\d\d:\d\d +0\.\d+ +- +0  0:\d+ 0\.\d+`)
	if len(lines) < 3 || !strings.HasPrefix(lines[0], "time ") || !second.MatchString(lines[1]) || len(lines[1]) > 80 {
		t.Errorf("lines of seconds:\n%s", stderr)
	}
	saved, err := record.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	row := saved.Bench().Rows[0]
	if row.Labels["scenario"] != "drop" || row.Labels["in"] != "in" || len(row.Queues) == 0 || row.Queues[0].Frames == 0 {
		t.Errorf("%+v", row)
	}
	if _, is := row.Labels["out"]; is || saved.Bench().Host.Drivers["in"] != "veth" {
		t.Errorf("labels %v, drivers %v", row.Labels, saved.Bench().Host.Drivers)
	}
	code, stdout, stderr = inLab(t, lab, "bench --in in --scenario pass --json --quick --duration 1s")
	var doc record.Document[record.BenchRow]
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || code != exitDone || stderr != "" {
		t.Errorf("%v, exit code %d: %s", err, code, stderr)
	}
	if code, stdout, stderr = inLab(t, lab, "report "+file+" --format markdown"); code != exitDone {
		t.Errorf("report: exit code %d: %s%s", code, stderr, stdout)
	}
}

// A row without a number has no line on rounds, and says why in the run's own terms.
func TestBenchDeviceRefused(t *testing.T) {
	lab, gen := forwardLab(t)
	stop := flood.Start(t, lab, gen)
	defer stop()
	code, stdout, _ := inLab(t, lab, "bench --in in --scenario tx --rounds 2 --duration 1s")
	said := strings.Join(strings.Fields(stdout), " ")
	want := regexp.MustCompile(`packet counts disagree: of \d+ frames that came by in and were returned by XDP_TX, 0 left by in, ` +
		`as its own statistics say\. A veth returns frames only when its peer has an XDP program`)
	if code != exitFailed || !want.MatchString(said) || strings.Contains(said, "Medians") {
		t.Errorf("exit code %d:\n%s", code, stdout)
	}
}

// A run on a device that is killed leaves no program on it.
func TestBenchDeviceKilled(t *testing.T) {
	lab, _ := forwardLab(t)
	exe := build(t)
	network := handle(t, lab)
	attached := func() bool {
		l, err := network.LinkByName("in")
		if err != nil {
			t.Fatal(err)
		}
		return l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached
	}
	until := func(want bool) {
		for end := time.Now().Add(time.Minute); attached() != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("a minute later attached is %v", !want)
			}
		}
	}
	var stderr bytes.Buffer
	cmd := exec.Command(exe, "bench", "--in", "in", "--scenario", "drop", "--duration", "1m")
	cmd.Stderr = &stderr
	if err := lab.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	until(true)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	until(false)
}
