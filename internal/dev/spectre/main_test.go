package main

import (
	"bytes"
	"math"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

func TestRead(t *testing.T) {
	const out = `goos: linux
BenchmarkRedirect/interfaces/1      50  131578 ns/op  32.12 ns/packet  0 B/op  0 allocs/op
BenchmarkRedirect/bulk-64/4         50  131578 ns/op  20.5 ns/packet  0 B/op  0 allocs/op
BenchmarkRedirect/interfaces/1      50  116606 ns/op  28.47 ns/packet  0 B/op  0 allocs/op
BenchmarkOther                      50  116606 ns/op
PASS
`
	got, err := read(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	want := []result{{"interfaces/1", 28.47}, {"bulk-64/4", 20.5}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(result{})); diff != "" {
		t.Error(diff)
	}
}

func TestKept(t *testing.T) {
	a := []float64{10, 20, 30, 40, 50, 60, 70}
	b := []float64{20, 40, 60, 80, 100, 120, 140}
	if q := kept(a, b); math.Abs(q.Median-50) > 1e-6 || math.Abs(q.Low-50) > 1e-6 || math.Abs(q.High-50) > 1e-6 {
		t.Errorf("twice the time keeps %+v", q)
	}
	b = []float64{10, 20, 33, 40, 52, 60, 70}
	if q := kept(a, b); q.Low > q.Median || q.Median > q.High || q.Low >= 100 {
		t.Errorf("some of it slower keeps %+v", q)
	}
}

func TestTimes(t *testing.T) {
	a := []float64{10, 20, 30, 40, 50, 60, 70}
	b := []float64{20, 40, 60, 80, 100, 120, 140}
	if q := times(a, b); math.Abs(q.Median-2) > 1e-6 || math.Abs(q.Low-2) > 1e-6 || math.Abs(q.High-2) > 1e-6 {
		t.Errorf("twice the time is %+v", q)
	}
	if q := times(b, a); math.Abs(q.Median-0.5) > 1e-6 {
		t.Errorf("half the time is %+v", q)
	}
}

func TestRefuses(t *testing.T) {
	for _, args := range [][]string{nil, {"-rounds", "x", "p"}, {"-nothing"}} {
		var stderr bytes.Buffer
		if code := run(t.Context(), args, &bytes.Buffer{}, &stderr); code != 2 || stderr.Len() == 0 {
			t.Errorf("%q: exit code %d: %s", args, code, &stderr)
		}
	}
}

// The whole of it, of one benchmark and for an instant.
func TestRun(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		testutil.Missing(t, "the go command")
	}
	var stdout, stderr bytes.Buffer
	args := []string{"-rounds", "6", "-count", "1", "-benchtime", "1x", "-bench", "Redirect/bulk-64/4",
		testutil.Package("internal/dev/experiment")}
	if code := run(t.Context(), args, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	lines := strings.Split(stdout.String(), "\n")
	if !strings.HasPrefix(lines[1], "bulk-64/4 ") || strings.Count(lines[1], "[") != 3 {
		t.Errorf("printed %s", &stdout)
	}
	for _, line := range lines {
		if len(line) > 80 {
			t.Errorf("%d characters: %s", len(line), line)
		}
	}
	args[len(args)-2] = "Nothing"
	if code := run(t.Context(), args, &stdout, &stderr); code != 1 {
		t.Errorf("exit code %d without benchmarks", code)
	}
}

// A commit beside this tree: the last one, so that the module has the same name in both.
func TestRunBase(t *testing.T) {
	for _, tool := range []string{"go", "git"} {
		if _, err := exec.LookPath(tool); err != nil {
			testutil.Missing(t, "the "+tool+" command")
		}
	}
	if err := exec.Command("git", "rev-parse", "--verify", "HEAD^{commit}").Run(); err != nil {
		testutil.Missing(t, "a git repository")
	}
	var stdout, stderr bytes.Buffer
	args := []string{"-base", "HEAD", "-rounds", "6", "-count", "1", "-benchtime", "1x", "-bench", "Redirect/bulk-64/4", "../experiment"}
	if code := run(t.Context(), args, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	lines := strings.Split(stdout.String(), "\n")
	if strings.Join(strings.Fields(lines[0]), " ") != "ns per packet HEAD this tree times" ||
		!strings.HasPrefix(lines[1], "bulk-64/4 ") || strings.Count(lines[1], "[") != 3 {
		t.Errorf("printed %s", &stdout)
	}
	args[1] = "no-such-commit"
	stderr.Reset()
	if code := run(t.Context(), args, &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), "no-such-commit") {
		t.Errorf("exit code %d without the commit: %s", code, &stderr)
	}
}
