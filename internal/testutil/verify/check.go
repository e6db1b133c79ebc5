package verify

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Env names the environment variable that asks for verdicts when it is "1".
const Env = "UNTHUNK_VERIFY"

// Attribute is the key under which [Run] leaves a [Result], as JSON, in the output of
// go test -json.
const Attribute = "verify"

// maxTries bounds how often a check is measured until the machine left it alone.
const maxTries = 3

// Outcomes of a check.
const (
	Passed    = "passed"
	Failed    = "failed"
	NotJudged = "not judged"
	// Runnable is the outcome where no verdict was asked for.
	Runnable = "runnable"
)

// Check is a measurement and what must hold of it.
type Check struct {
	// Claim is what must hold, in one clause.
	Claim string
	// CPU is the one that is measured.
	CPU int
	// Disturbing is set when the check is about what a disturbed machine does, and disturbs it itself: it is judged
	// whatever else disturbs it.
	Disturbing bool
	// Measure measures once. A short measurement serves to show that it runs: it
	// takes a few seconds at most, and its figure is not judged. An error ends the
	// test.
	Measure func(t *testing.T, short bool) Finding
}

// Finding is what was measured once.
type Finding struct {
	// Figure is the number with its unit, and what it is a number of.
	Figure string
	// Holds says whether the claim holds.
	Holds bool
	// Unknown is why that cannot be said: such a try is repeated. Empty when it can.
	Unknown string
}

// Result is what a check came to.
type Result struct {
	Claim, Figure, Outcome string
	// Why is what disturbed the last try of a check that is not judged.
	Why string `json:",omitempty"`
}

// Run runs a check. It fails the test when the claim does not hold and nothing
// disturbed the measurement.
func Run(t *testing.T, c Check) {
	t.Helper()
	var r Result
	if os.Getenv(Env) == "1" {
		r = judge(c.Claim, func() (Finding, disturbance) {
			if c.Disturbing {
				return c.Measure(t, false), disturbance{}
			}
			w := watch(c.CPU)
			defer w.stop()
			f := c.Measure(t, false)
			return f, w.stop()
		})
	} else {
		r = Result{Claim: c.Claim, Figure: c.Measure(t, true).Figure, Outcome: Runnable}
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Attr(Attribute, string(b))
	t.Logf("%s: %s: %s %s", r.Outcome, r.Claim, r.Figure, r.Why)
	if r.Outcome == Failed {
		t.Fail()
	}
}

// judge measures until nothing disturbs it, or often enough.
func judge(claim string, try func() (Finding, disturbance)) Result {
	r := Result{Claim: claim, Outcome: NotJudged}
	for range maxTries {
		f, d := try()
		r.Figure, r.Why = f.Figure, f.Unknown
		if busy := d.String(); busy != "" {
			r.Why = "the machine was busy: " + busy
		}
		if r.Why != "" {
			continue
		}
		r.Outcome = Failed
		if f.Holds {
			r.Outcome = Passed
		}
		return r
	}
	return r
}

// disturbance is what a machine did to a measurement.
type disturbance struct {
	cpu  int
	took time.Duration
	// waited is how long the threads that measure waited for their CPU, and stolen
	// how long the hypervisor had it.
	waited, stolen time.Duration
	// before and after are the clock of the core, in Hz; 0 where it is not known.
	before, after float64
}

// Limits of a measurement that counts as undisturbed. The checks' own limits are
// percents, so that a disturbance of one percent cannot decide them.
const (
	maxWaited = 0.01
	maxStolen = 0.01
	// maxDrift is above the 1 % by which two readings of a steady clock differ on a
	// shared machine.
	maxDrift = 0.03
)

// String says what disturbed, and by how much; it is empty when nothing did.
func (d disturbance) String() string {
	var out []string
	part := func(x time.Duration) float64 { return x.Seconds() / d.took.Seconds() }
	if p := part(d.waited); p > maxWaited {
		out = append(out, fmt.Sprintf("other tasks ran on CPU %d for %.0f %% of the time", d.cpu, 100*p))
	}
	if p := part(d.stolen); p > maxStolen {
		out = append(out, fmt.Sprintf("the hypervisor took CPU %d away for %.0f %% of the time", d.cpu, 100*p))
	}
	if d.before > 0 && max(d.before/d.after, d.after/d.before) > 1+maxDrift {
		out = append(out, fmt.Sprintf("the core's clock went from %.2f to %.2f GHz", d.before/1e9, d.after/1e9))
	}
	return strings.Join(out, ", ")
}
