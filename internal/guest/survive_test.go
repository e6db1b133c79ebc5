package guest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/testutil"
)

// TestSurvives runs tests of what a forwarder goes through on veths of kernels old and new: also those
// that step the clock, which no test may on this machine. RX metadata is there from Linux 6.3 on, and
// 6.1 says so.
func TestSurvives(t *testing.T) {
	needGuests(t)
	files, init := testFiles(t, "xsk", "datapath", "internal/forward")
	for _, tt := range []struct {
		kernel  string
		skipped []string
	}{
		{"debian:6.1-cloud", []string{"TestRxMetadata/aligned", "TestRxMetadata/unaligned", "TestRxMetadataVLAN"}},
		{"debian:7.3-cloud", nil},
	} {
		t.Run(tt.kernel, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
			defer cancel()
			cache, err := CacheDir()
			if err != nil {
				t.Fatal(err)
			}
			m := &Machine{Init: init, Modules: []string{"veth", "8021q"}, Files: files,
				Append: "ipv6.disable=1 unthunk.clock"}
			m.Kernel, err = Resolve(ctx, cache, tt.kernel)
			testutil.SkipMissing(t, err)
			if err != nil {
				t.Fatal(err)
			}
			var commands []Command
			for there := range files {
				commands = append(commands, Command{
					Args: []string{there, "-test.run", "^Test(Survives|RxMetadata|ProgramTakenOff)", "-test.v"}, Timeout: 10 * time.Minute,
				})
			}
			passed := 0
			var skipped []string
			for _, r := range run(ctx, t, m, commands...) {
				out := string(r.Stdout)
				passed += strings.Count(out, "--- PASS: TestSurvives")
				for line := range strings.Lines(out) {
					if name, ok := strings.CutPrefix(strings.TrimSpace(line), "--- SKIP: "); ok {
						skipped = append(skipped, strings.Fields(name)[0])
					}
				}
				t.Log(out)
				if r.Exit != 0 || r.Err != "" {
					t.Errorf("%s: exit code %d %s\n%s%s", r.Args[0], r.Exit, r.Err, out, r.Stderr)
				}
			}
			if passed < 8 {
				t.Errorf("%d tests of what is survived were passed", passed)
			}
			slices.Sort(skipped)
			if strings.Join(skipped, " ") != strings.Join(tt.skipped, " ") {
				t.Errorf("skipped %v, want %v", skipped, tt.skipped)
			}
		})
	}
}
