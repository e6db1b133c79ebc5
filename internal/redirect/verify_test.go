package redirect

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
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

// of is the length of a measurement.
func of(long time.Duration, short bool) time.Duration {
	if short {
		return time.Second
	}
	return long
}

func TestVerifySpin(t *testing.T) {
	ops := []Operation{op(t, "none"), op(t, "spin:1000")}
	verify.Run(t, verify.Check{
		Claim: "a loop of 1000 turns in the program adds 100 ns or more to a packet",
		CPU:   lastCPU(t),
		Measure: func(t *testing.T, short bool) verify.Finding {
			schedule := rounds.Schedule{Rounds: 6, Duration: of(6*time.Second, short)}
			rows := mustRun(t, Plan{Operations: ops, Bulks: []int{16}, Schedule: schedule})
			if rows[0].Ns == nil || rows[1].Ns == nil {
				return verify.Finding{Figure: "no figure"}
			}
			none, spin := rows[0].Ns.Median, rows[1].Ns.Median
			return verify.Finding{Figure: fmt.Sprintf("%.0f ns without, %.0f ns with", none, spin), Holds: spin >= none+100}
		},
	})
}

// Counting costs what a round measures of it, on one row.
func TestVerifyCounting(t *testing.T) {
	verify.Run(t, verify.Check{
		Claim: "unthunk's own counting takes at most 5 ns of a packet",
		CPU:   lastCPU(t),
		Measure: func(t *testing.T, short bool) verify.Finding {
			schedule := rounds.Schedule{Rounds: 15, Duration: of(15*time.Second, short)}
			rows := mustRun(t, Plan{Bulks: []int{64}, Schedule: schedule})
			q := rows[0].CountingCost
			if q == nil {
				return verify.Finding{Figure: "no figure"}
			}
			return verify.Finding{Figure: fmt.Sprintf("%.2f ns [%.2f, %.2f]", q.Median, q.Low, q.High), Holds: q.Median <= 5}
		},
	})
}

// A round's number is the 10th percentile of its windows: it scatters less from round
// to round than their median.
func TestVerifyScatter(t *testing.T) {
	verify.Run(t, verify.Check{
		Claim: "a row's number scatters by at most 5 % from round to round",
		CPU:   lastCPU(t),
		Measure: func(t *testing.T, short bool) verify.Finding {
			testutil.Root(t)
			schedule := rounds.Schedule{Rounds: 15, Duration: of(10*time.Second, short)}
			raw, err := Run(t.Context(), Plan{Bulks: []int{64}, Schedule: schedule}, nil)
			if err != nil {
				testutil.SkipMissing(t, err)
				t.Fatal(err)
			}
			var low, middle []float64
			for i, ns := range raw.Rows[0].NsPerFrame {
				low = append(low, math.Log(ns))
				middle = append(middle, math.Log(ns*(1+raw.Rows[0].Disturbed[i])))
			}
			if len(low) < 2 {
				return verify.Finding{Figure: fmt.Sprintf("%d rounds", len(low))}
			}
			p10 := 100 * deviation(low)
			return verify.Finding{
				Figure: fmt.Sprintf("%.1f %% by the 10th percentile of windows, %.1f %% by their median",
					p10, 100*deviation(middle)),
				Holds: p10 <= 5,
			}
		},
	})
}

// A program of the user's is attached itself: the same one costs the same as that of the scenario.
func TestVerifyTarget(t *testing.T) {
	verify.Run(t, verify.Check{
		Claim: "a redirect costs the same, within 4 %, as a scenario and as a program of the user's",
		CPU:   lastCPU(t),
		Measure: func(t *testing.T, short bool) verify.Finding {
			made := target(t, chainObject+":redirect_map", TargetOptions{Ports: []Port{{"ports", 0}}})
			var hops [2][]float64
			for range 3 { // in turn: the machine changes
				schedule := rounds.Schedule{Rounds: 6, Duration: of(4*time.Second, short)}
				for i, plan := range []Plan{{}, {Target: made}} {
					plan.Bulks, plan.Schedule = []int{16}, schedule
					rows := mustRun(t, plan)
					if rows[0].Hop == nil {
						return verify.Finding{Figure: "no figure: " + rows[0].Refused}
					}
					hops[i] = append(hops[i], rows[0].Hop.Median)
				}
			}
			own, yours := stat.Median(hops[0]), stat.Median(hops[1])
			return verify.Finding{
				Figure: fmt.Sprintf("%.1f ns as a scenario, %.1f ns as a target", own, yours), Holds: math.Abs(yours/own-1) <= 0.04,
			}
		},
	})
}

// deviation is the standard deviation of xs, two or more.
func deviation(xs []float64) float64 {
	mean, sum := 0.0, 0.0
	for _, x := range xs {
		mean += x / float64(len(xs))
	}
	for _, x := range xs {
		sum += (x - mean) * (x - mean)
	}
	return math.Sqrt(sum / float64(len(xs)-1))
}
