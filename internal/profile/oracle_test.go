package profile

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
	"github.com/unthunk/unthunk/internal/testutil/verify"
)

// lastCPU is the one that a plan measures which names none.
func lastCPU(t *testing.T) int {
	t.Helper()
	testutil.Root(t)
	cpu, err := rounds.CPU{}.Pick()
	if err != nil {
		t.Fatal(err)
	}
	return cpu
}

// measured is a run of some seconds, or a short one.
func measured(t *testing.T, short bool, p Plan, prepare func(*redirect.Chain) error) *Raw {
	t.Helper()
	if short {
		p.Chain.Duration = time.Second
	}
	if prepare == nil {
		prepare = func(*redirect.Chain) error { return nil }
	}
	raw, err := runPrepared(t.Context(), p, nil, prepare)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	return raw
}

// Every stage of the chain has samples, and what no sample explains is little.
func TestVerifyStages(t *testing.T) {
	verify.Run(t, verify.Check{
		Claim: "every stage of the chain has samples, at most 5 % of a packet is unattributed",
		CPU:   lastCPU(t),
		Measure: func(t *testing.T, short bool) verify.Finding {
			raw := measured(t, short, plan("none"), nil)
			p := raw.Record(&stat.Quantity{Median: 10, Low: 9, High: 11, N: 7, Unit: "ns"})
			var without []string
			for _, stage := range []functions.Stage{functions.StageGenerator, functions.StageReceive,
				functions.StageProgram, functions.StageRedirect, functions.StageTransmit, functions.StageReturn,
				functions.StageSoftirq, functions.StageSink} {
				if row(p, stage) <= 0 {
					without = append(without, string(stage))
				}
			}
			for function, kind := range map[string]entryKind{"veth_poll": indirectly, "xdp_do_redirect": directly} {
				if !entered(raw, function, kind) {
					without = append(without, "the entry of "+function)
				}
			}
			if p.Tax == nil || p.Tax.Estimate == nil || p.Tax.Direct == nil {
				without = append(without, "indirect branches")
			}
			rest := 100 * row(p, functions.StageUnattributed) / ns(p.Packet)
			return verify.Finding{
				Figure: fmt.Sprintf("%.1f %% unattributed, without samples: %v", rest, without),
				Holds:  len(without) == 0 && math.Abs(rest) <= 5,
			}
		},
	})
}

// A device pair's stages have samples too, and the time of a packet is the path's: what
// the sender does is none of it.
func TestVerifyDevices(t *testing.T) {
	lab, user := devicePair(t)
	verify.Run(t, verify.Check{
		Claim: "receive, redirect and transmit of a device pair have samples, and half of a packet or more is the redirect path",
		CPU:   lastCPU(t),
		Measure: func(t *testing.T, short bool) verify.Finding {
			length := 4 * time.Second
			if short {
				length = time.Second
			}
			stop := flood.Start(t, lab, user)
			defer stop()
			p := runDevices(t, lab, rounds.CPU{}, length).Record(nil)
			var without []functions.Stage
			for _, stage := range []functions.Stage{functions.StageReceive, functions.StageRedirect,
				functions.StageTransmit} {
				if row(p, stage) <= 0 {
					without = append(without, stage)
				}
			}
			own := 100 * ns(record.Path(p.Rows)) / ns(p.Packet)
			return verify.Finding{
				Figure: fmt.Sprintf("%.0f %% on the redirect path, without samples: %v", own, without),
				Holds:  len(without) == 0 && own >= 50,
			}
		},
	})
}

// entered says whether a sample shows how a function was entered.
func entered(raw *Raw, function string, kind entryKind) bool {
	for _, s := range raw.Stacks {
		if s.innermost() == function && s.entry.kind == kind && s.Samples > 0 {
			return true
		}
	}
	return false
}

// A loop of a known time in the program under test, the difference of two runs, shows
// there.
func TestVerifyBusyLoop(t *testing.T) {
	verify.Run(t, verify.Check{
		Claim: "a loop in the program shows there as the time it adds to a packet, within 10 %",
		CPU:   lastCPU(t),
		Measure: func(t *testing.T, short bool) verify.Finding {
			var packet, program [2]float64
			for i, operation := range []string{"none", "spin:1000"} {
				p := measured(t, short, plan(operation), nil).Record(nil)
				packet[i], program[i] = ns(p.Packet), row(p, functions.StageProgram)
			}
			known, shown := packet[1]-packet[0], program[1]-program[0]
			return verify.Finding{
				Figure: fmt.Sprintf("a loop of %.0f ns shows as %.0f", known, shown),
				Holds:  math.Abs(shown/known-1) < 0.1,
			}
		},
	})
}

// An indirect call more in the chain, of a program that the devmap runs for each frame
// and that is not in the dispatcher, shows at its site.
func TestVerifyIndirectCall(t *testing.T) {
	verify.Run(t, verify.Check{
		Claim: "a second program's indirect call shows at its site, with 1 ns or more",
		CPU:   lastCPU(t),
		Measure: func(t *testing.T, short bool) verify.Finding {
			second, err := price.Load("second")
			if err != nil {
				t.Fatal(err)
			}
			defer second.Close()
			raw := measured(t, short, plan("none"), func(c *redirect.Chain) error { return c.SetPortProgram(second) })
			for _, s := range raw.Record(&stat.Quantity{Median: 10, Low: 9, High: 11, N: 7, Unit: "ns"}).Tax.Sites {
				for _, target := range s.Targets {
					if strings.HasSuffix(target, "_second") {
						total := ns(s.Thunk) + ns(s.TargetEntry)
						return verify.Finding{Figure: fmt.Sprintf("%.2f ns at %s+%#x", total, s.Function, s.Offset), Holds: total >= 1}
					}
				}
			}
			return verify.Finding{Figure: "no site calls the program"}
		},
	})
}

// The shares of functions are those that perf finds, which samples the same CPU at the
// same time.
func TestVerifyPerf(t *testing.T) {
	cpu := lastCPU(t)
	perf, err := exec.LookPath("perf")
	if err != nil {
		testutil.Missing(t, "perf")
	}
	verify.Run(t, verify.Check{
		Claim: "the shares of the first ten functions differ from perf's by at most 2 points and what chance explains",
		CPU:   cpu,
		Measure: func(t *testing.T, short bool) verify.Finding {
			data := filepath.Join(t.TempDir(), "perf.data")
			record := exec.Command(perf, "record", "-q", "-e", "cpu-clock", "-F", "3000",
				"-C", strconv.Itoa(cpu), "-o", data, "--", "sleep", "60")
			if err := record.Start(); err != nil {
				t.Fatal(err)
			}
			p := plan("none")
			p.Chain.CPU, p.Chain.Duration = rounds.OnCPU(cpu), 10*time.Second
			raw := measured(t, short, p, nil)
			stopErr := record.Process.Signal(os.Interrupt)
			record.Wait() // by the signal
			if stopErr != nil {
				t.Fatal(stopErr)
			}
			return compareShares(raw, perfShares(t.Context(), t, perf, data))
		},
	})
}

// compareShares compares the shares of the first ten functions with perf's. perf also
// sees what is between slots: shares are of what both saw.
func compareShares(raw *Raw, theirs map[string]float64) verify.Finding {
	functions := raw.Record(nil).Functions
	var sumOurs, sumTheirs float64
	for _, f := range functions {
		if x := theirs[f.Name]; x > 0 && f.Ns.Median > 0 {
			sumOurs += f.Ns.Median
			sumTheirs += x
		}
	}
	if len(functions) < 10 || sumTheirs == 0 {
		return verify.Finding{Figure: fmt.Sprintf("%d functions here, %d in perf", len(functions), len(theirs))}
	}
	found := verify.Finding{Holds: true}
	worst := -1.0
	for _, f := range functions[:10] {
		a, b := 100*f.Ns.Median/sumOurs, 100*theirs[f.Name]/sumTheirs
		// Both count samples: what chance explains is allowed on top.
		chance := 300 * math.Sqrt(a/100/float64(len(raw.Rounds)*400))
		if math.Abs(a-b) > 2+min(chance, 1) {
			found.Holds = false
		}
		if d := math.Abs(a - b); d > worst {
			worst = d
			found.Figure = fmt.Sprintf("at most %.1f points: %s %.1f %% here, %.1f %% in perf", d, f.Name, a, b)
		}
	}
	return found
}

// perfShares reads lines as "  12.34%  [k] symbol" of perf's report.
func perfShares(ctx context.Context, t *testing.T, perf, data string) map[string]float64 {
	t.Helper()
	out, err := exec.CommandContext(ctx, perf, "report", "-q", "--stdio", "--no-children",
		"-i", data, "-F", "overhead,symbol", "--percent-limit", "0.1").Output()
	if err != nil {
		t.Fatalf("perf report: %v", err)
	}
	shares := make(map[string]float64)
	for line := range strings.Lines(string(out)) {
		var share float64
		var mode, symbol string
		n, _ := fmt.Sscanf(strings.ReplaceAll(line, "%", " "), "%f %s %s", &share, &mode, &symbol)
		if n == 3 && mode == "[k]" {
			shares[symbol] += share
		}
	}
	return shares
}
