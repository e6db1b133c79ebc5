package report

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// gateSuite is a verdict of a gate as tests: one beyond fails, one that cannot be told is an error, as a gate that
// cannot tell must not pass. Numbers and what differs are diagnostics.
func gateSuite(g *record.Gate) testSuite {
	// Readers of JUnit take what is between dots for a package.
	s := testSuite{verb: "gate", of: strings.ReplaceAll(cmp.Or(g.NewRelease, g.Kernel), ".", "_"), finding: conclusion.Gate(g)}
	s.properties = []testProperty{
		{"base", originText(g.Old)}, {"base-kernel", g.OldRelease}, {"kernel", cells.GateSide(g.NewRelease, g.Kernel)},
	}
	for _, u := range g.Unlike {
		s.properties = append(s.properties, testProperty{"unlike/" + u.Name, strings.TrimPrefix(cells.GateBuild(u), u.Name+": ")})
	}
	if g.Price != nil && priced(g) {
		s.properties = append(s.properties, testProperty{"price", g.Price.Text(stat.Number) + ", " + g.PriceOf})
	}
	for _, line := range g.Console {
		s.properties = append(s.properties, testProperty{"console", line})
	}
	for i := range g.Rows {
		s.tests = append(s.tests, gateTest(&g.Rows[i]))
	}
	if len(g.Rows) == 0 {
		s.tests = []test{{name: "gate", outcome: testError, text: g.Why}}
	}
	return s
}

// tracedShown are how many functions of a trace a test names: what is most of a difference comes first.
const tracedShown = 20

func gateTest(row *record.GateRow) test {
	t := test{name: row.Name, kind: row.Verdict}
	var said []string
	for _, c := range cells.GateCounts(row) {
		if d := c.Difference(); d != 0 {
			said = append(said, cells.Signed(d)+" "+c.Name)
		}
		t.more = append(t.more, fmt.Sprintf("%s: %s → %s, %s, allowed %s", c.Name, stat.Exact(c.Old), stat.Exact(c.New),
			cells.Signed(c.Difference()), cells.Allowed(c.GateCount)))
	}
	for _, of := range []struct {
		name    string
		changes []record.GateChange
	}{{"indirect branch", row.Sites}, {"function", row.Functions}} {
		for i := range of.changes {
			change, what, ns := cells.GateChange(&of.changes[i])
			t.more = append(t.more, cells.Join(", ", fmt.Sprintf("%s: %s %s", of.name, change, what), ns))
		}
	}
	if row.Trace != nil {
		for _, d := range row.Trace.Functions[:min(len(row.Trace.Functions), tracedShown)] {
			t.more = append(t.more, fmt.Sprintf("instructions: %s in %s, %s → %s", cells.Signed(d.Difference), d.Name, stat.Exact(d.Old),
				stat.Exact(d.New)))
		}
	}
	if row.Behavior != "" {
		said = append(said, row.Behavior)
	}
	t.text = strings.Join(said, ", ")
	switch row.Verdict {
	case record.GateBeyond:
		t.outcome = testFailed
	case record.GateCannotTell:
		t.outcome, t.text = testError, "cannot tell: "+row.Missing
	}
	return t
}
