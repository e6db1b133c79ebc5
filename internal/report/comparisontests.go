package report

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// testSuite is a comparison as CI systems know it: each row is a test.
type testSuite struct {
	// finding is what the rows come to.
	finding string
	// properties are the two records, and what their machines differ in.
	properties []testProperty
	tests      []test
	// verb is what made the comparison; empty is compare. of is the kernel that it is of, of gate.
	verb, of string
	// machine says that a reference moved; empty when none did.
	machine string
}

type testProperty struct{ name, value string }

// test is a row of a comparison.
type test struct {
	name    string
	outcome testOutcome
	// text is the change, its verdict, or why there is none.
	text string
	// kind is that of a failure, for JUnit; empty is one of time.
	kind string
	// more are numbers of the test, a line each.
	more []string
}

// testOutcome is what a row is to CI.
type testOutcome int

const (
	testPassed testOutcome = iota
	// testFailed is of a row that is slower by more than the threshold, with confidence, and of behavior that changed.
	testFailed
	// testError is of a row that lost its number, and of a comparison of nothing.
	testError
	// testSkipped is of a row that these runs cannot tell of.
	testSkipped
)

// newTestSuite is a comparison as tests.
func newTestSuite(c record.Changes) testSuite {
	var s testSuite
	if g, ok := c.(*record.Gate); ok {
		return gateSuite(g)
	}
	if d, ok := c.(*record.ProgDiff); ok {
		s = newTestSuite(&d.Comparison)
		s.verb = "prog diff"
		said := append(cells.Behaviors(d), cells.CallChanges(d)...)
		s.finding = strings.Join(append(said, s.finding), " ")
		for _, text := range said {
			s.properties = append(s.properties, testProperty{"behavior", strings.TrimSpace(text)})
		}
		s.tests = append([]test{behaviorTest(d)}, s.tests...)
		return s
	}
	switch c := c.(type) {
	case *record.Comparison:
		s.finding = conclusion.Comparison(c)
		s.describe(c.Compared, c.Causes)
		s.measure(c.MachineChange)
		if c.Mean != nil && c.Mean.Difference != nil {
			s.properties = append(s.properties, testProperty{"geometric-mean", changeText(c.Mean, "%")})
		}
		for i := range c.Rows {
			row := &c.Rows[i]
			name := row.Name
			if row.Against != "" {
				name += " against " + row.Against
			}
			s.add(name, &row.Change, "%", c.By == "" && row.Lost())
		}
	case *record.ProfileComparison:
		s.finding = conclusion.ProfileComparison(c)
		s.describe(c.Compared, c.Causes)
		s.measure(c.MachineChange)
		for i := range c.Rows {
			s.add(c.Rows[i].Name, &c.Rows[i].Change, "ns", false)
		}
	case *record.SiteComparison:
		s.finding = conclusion.Of(record.NewSaved(c)).Title + "."
		s.describe(c.Compared, c.Causes)
		for _, row := range c.Rows {
			s.tests = append(s.tests, test{name: row.Name, text: cells.Join(": ", row.Change, strings.Join(row.What, "; "))})
		}
	case *record.FindingComparison:
		s.finding = conclusion.FindingComparison(c)
		s.describe(c.Compared, c.Causes)
		for i := range c.Rows {
			s.tests = append(s.tests, test{name: c.Rows[i].Name, text: foundText(c.Rows[i].Old) + " → " + foundText(c.Rows[i].New)})
		}
	case *record.LabComparison:
		s.finding = conclusion.LabComparison(c)
		s.describe(c.Compared, c.Causes)
		for _, row := range c.Rows {
			t := test{name: row.Name, text: strings.Join(row.What, "; ")}
			if row.Missing != "" {
				t.outcome = testError
			}
			s.tests = append(s.tests, t)
		}
	}
	switch why := c.Nothing(); {
	case why != "":
		s.tests = append(s.tests, test{name: "compare", outcome: testError, text: why})
	case len(s.tests) == 0:
		s.tests = []test{{name: "compare", text: s.finding}}
	}
	return s
}

// behaviorTest is whether packets come out of two programs alike.
func behaviorTest(d *record.ProgDiff) test {
	t := test{name: "behavior", outcome: testPassed, text: cells.Behaviors(d)[0], kind: "behavior"}
	switch {
	case d.Behaviors == nil, cells.NothingSteady(d):
		t.outcome = testSkipped
	case len(d.Behaviors) > 0 && !d.BehaviorMayChange:
		t.outcome = testFailed
	}
	return t
}

// describe adds what a comparison is of.
func (s *testSuite) describe(c record.Compared, causes []record.Cause) {
	for _, of := range []struct {
		name string
		record.Origin
	}{{"old", c.Old}, {"new", c.New}} {
		s.properties = append(s.properties, testProperty{of.name, originText(of.Origin)})
	}
	for _, cause := range causes {
		s.properties = append(s.properties, testProperty{"machine/" + cause.Name, cells.Seen(cause.Old) + " → " + cells.Seen(cause.New)})
	}
}

// measure adds the references of both runs.
func (s *testSuite) measure(c record.MachineChange) {
	var moved []string
	for _, r := range c.Machine {
		name, unit := cells.Join("/", r.Part, r.Name), record.ReferenceUnit(r.Name)
		text := fmt.Sprintf("%s → %s %s", cells.OrDash(r.Old), cells.OrDash(r.New), unit)
		if r.Difference != nil {
			change, around := cells.Difference(r.Difference)
			text += fmt.Sprintf(", time %s %% %s", change, around)
		}
		if r.Moved {
			text += ", moved"
			moved = append(moved, name)
		}
		s.properties = append(s.properties, testProperty{"reference/" + name, text})
	}
	if c.MachineChanged() {
		s.machine = "the machine changed: " + strings.Join(moved, ", ")
	}
}

// add adds a row whose change is in unit; it is lost when only the old record has a number.
func (s *testSuite) add(name string, c *record.Change, unit string, lost bool) {
	t := test{name: name, text: c.Missing}
	switch {
	case lost:
		t.outcome = testError
	case c.Difference == nil:
		t.outcome = testSkipped
	default:
		t.text = fmt.Sprintf("%s: %s", c.Outcome(), changeText(c, unit))
		switch {
		case c.Regression:
			t.outcome = testFailed
		case c.Outcome() == stat.CannotTell:
			t.outcome = testSkipped
			t.text = cells.Join("; ", t.text, s.machine)
		}
	}
	s.tests = append(s.tests, t)
}

// changeText is a change with what its verdict is on: where the references of both runs are
// known that is what they leave of it.
func changeText(c *record.Change, unit string) string {
	change, around := cells.Difference(c.Difference)
	text, judged := fmt.Sprintf("%s → %s ns, %s %s %s", cells.OrDash(c.Old), cells.OrDash(c.New), change, unit, around), c.Difference
	if c.Relative != nil {
		judged = c.Relative
		change, around = cells.Difference(judged)
		text += fmt.Sprintf(", relative to the references %s %s %s", change, unit, around)
	}
	if c.OldCycles != nil && c.NewCycles != nil {
		text += fmt.Sprintf(", %s → %s cycles", cells.OrDash(c.OldCycles), cells.OrDash(c.NewCycles))
	}
	return fmt.Sprintf("%s, p %s (%s)", text, probability(judged.P), judged.WouldHaveSeen())
}

// probability is a p value in few digits.
func probability(p float64) string {
	if p < 0.001 {
		return "< 0.001"
	}
	return fmt.Sprintf("%.2g", p)
}

// count is how many tests have an outcome.
func (s *testSuite) count(outcome testOutcome) (n int) {
	for _, t := range s.tests {
		if t.outcome == outcome {
			n++
		}
	}
	return n
}
