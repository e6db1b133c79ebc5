package guest

import (
	"context"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/testutil"
)

// packages are those whose tests touch the kernel and do not measure: emulation is too
// slow for what is timed. Tests that try how much memory is taken are for larger machines:
// a guest has 512 MiB, in which these programs are too.
var packages = map[string]string{
	"ksym":                  "Table$|Hidden|Live|Modules|Mapping|Recover$",
	"ktext":                 "Live|Kcore|JIT",
	"internal/netlab":       "",
	"internal/traffic":      "",
	"internal/xdppath":      "Live|Known",
	"internal/perf":         "Best|NoEvent|Counters|Parse",
	"internal/host":         "",
	"internal/bpf/sample":   "",
	"internal/progcode":     "Samples|Maps|TailCalls|Loops|Entry|Kfunc|Listing",
	"internal/program/list": "Read$|OutOf|Observers|Parts|WithoutRights|Leaves",
}

// TestPackages runs the tests of packages that touch the kernel on other kernels: on
// one of them whenever it can be had, on two by make test-kernels.
func TestPackages(t *testing.T) {
	for i, series := range []string{"6.12", "6.1"} {
		t.Run(series, func(t *testing.T) {
			if i > 0 {
				needGuests(t)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
			defer cancel()
			dir := t.TempDir()
			m := newMachine(ctx, t, series)
			m.Files = make(map[string]string)
			var commands []Command
			for pkg, tests := range packages {
				here, there := filepath.Join(dir, path.Base(pkg)+".test"), "/tests/"+path.Base(pkg)
				cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", here, testutil.Package(pkg))
				cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("build tests of %s: %v: %s", pkg, err, out)
				}
				m.Files[there] = here
				commands = append(commands, Command{Args: []string{there, "-test.run", tests, "-test.v"}, Timeout: 3 * time.Minute})
			}
			for _, r := range run(ctx, t, m, commands...) {
				out := string(r.Stdout)
				t.Logf("%s: %d passed, %d skipped, %d failed", r.Args[0], strings.Count(out, "--- PASS"),
					strings.Count(out, "--- SKIP"), strings.Count(out, "--- FAIL"))
				if r.Exit != 0 || r.Err != "" || strings.Count(out, "--- PASS") == 0 {
					t.Errorf("%s: exit code %d %s\n%s%s", r.Args[0], r.Exit, r.Err, out, r.Stderr)
				}
			}
		})
	}
}

// TestPMUARM64 runs the tests of perf where there is a PMU that counts exactly: in a guest of arm64 whose clock counts
// instructions.
func TestPMUARM64(t *testing.T) {
	needGuests(t)
	testutil.SkipMissing(t, Available(ARM64))
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	cache, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := Resolve(ctx, cache, "debian:6.12-cloud-arm64")
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m := &Machine{Kernel: kernel, Init: filepath.Join(dir, "init"), Exact: true, Files: map[string]string{"/perf": filepath.Join(dir, "perf")}}
	if err := BuildFor(ctx, ARM64, testutil.Package("cmd/unthunk"), m.Init); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", m.Files["/perf"], testutil.Package("internal/perf"))
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOARCH="+ARM64)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build tests of perf: %v: %s", err, out)
	}
	r := run(ctx, t, m, Command{Args: []string{"/perf", "-test.v"}, Timeout: 5 * time.Minute})[0]
	out := string(r.Stdout)
	for _, want := range []string{"TestExact", "TestAllowedRate", "TestSampler", "TestLost", "TestCounters"} {
		if !strings.Contains(out, "--- PASS: "+want+" ") {
			t.Errorf("%s did not pass", want)
		}
	}
	if r.Exit != 0 || r.Err != "" || t.Failed() {
		t.Errorf("exit code %d %s\n%s%s", r.Exit, r.Err, out, r.Stderr)
	}
}
