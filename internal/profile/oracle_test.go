package profile

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/testutil"
)

// TestPerf holds the shares of functions against those of perf, which samples the
// same CPU at the same time.
func TestPerf(t *testing.T) {
	testutil.Root(t)
	perf, err := exec.LookPath("perf")
	if err != nil {
		testutil.Missing(t, "perf")
	}
	cpu, err := redirect.PickCPU(-1)
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "perf.data")
	record := exec.Command(perf, "record", "-q", "-e", "cpu-clock", "-F", "3000", "-C", strconv.Itoa(cpu), "-o", data, "--", "sleep", "60")
	if err := record.Start(); err != nil {
		t.Fatal(err)
	}
	p := plan("none")
	p.Chain.CPU, p.Chain.Duration = cpu, 10*time.Second
	raw, err := Run(t.Context(), p, nil)
	stopErr := record.Process.Signal(os.Interrupt)
	record.Wait() // by the signal
	if err != nil || stopErr != nil {
		t.Fatal(err, stopErr)
	}
	out, err := exec.Command(perf, "report", "-q", "--stdio", "--no-children", "-i", data, "-F", "overhead,symbol", "--percent-limit", "0.1").Output()
	if err != nil {
		t.Fatalf("perf report: %v", err)
	}
	theirs := perfShares(string(out))
	ours := make(map[string]float64)
	functions := raw.Record(nil).Functions
	for _, f := range functions {
		ours[f.Name] = f.Ns.Median
	}
	// perf also sees what is between slots: shares are of what both saw.
	var sumOurs, sumTheirs float64
	for name, x := range theirs {
		if ours[name] > 0 {
			sumOurs += ours[name]
			sumTheirs += x
		}
	}
	if len(functions) < 10 || sumTheirs == 0 {
		t.Fatalf("%d functions here, %d there", len(functions), len(theirs))
	}
	for _, f := range functions[:10] {
		a, b := 100*f.Ns.Median/sumOurs, 100*theirs[f.Name]/sumTheirs
		t.Logf("%5.1f %% %5.1f %%  %s", a, b, f.Name)
		// Both count samples: what chance explains is allowed on top.
		chance := 300 * math.Sqrt(a/100/float64(len(raw.Rounds)*400))
		if math.Abs(a-b) > 2+min(chance, 1) {
			t.Errorf("%s: %.1f %% here, %.1f %% in perf", f.Name, a, b)
		}
	}
}

// perfShares reads "  12.34%  [k] symbol".
func perfShares(report string) map[string]float64 {
	shares := make(map[string]float64)
	for line := range strings.Lines(report) {
		var share float64
		var mode, symbol string
		if n, _ := fmt.Sscanf(strings.ReplaceAll(line, "%", " "), "%f %s %s", &share, &mode, &symbol); n == 3 && mode == "[k]" {
			shares[symbol] += share
		}
	}
	return shares
}
