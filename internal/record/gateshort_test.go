package record

import (
	"slices"
	"strings"
	"testing"
)

// Of long lists that is kept what changed most, in its order, and the others are one entry that has their sum.
func TestGateShorten(t *testing.T) {
	t.Parallel()
	change := func(name string, difference float64) GateChange {
		return GateChange{Function: name, Old: 10, New: 10 + difference}
	}
	row := func() GateRow {
		return GateRow{
			Sites:     []GateChange{change("a", 5), change("b", 1)},
			Functions: []GateChange{change("a", 5), change("b", 1), change("c", 1), change("d", -1), change("e", -7)},
			Trace: &LabTraceChange{Was: 10, Is: 16, Difference: 6, Functions: []LabTraceDifference{
				{Name: "f", Old: 1, New: 5, Difference: 4}, {Name: "g", New: 3, Difference: 3}, {Name: "h", Old: 2, Difference: -2},
				{Name: "i", Old: 1, New: 2, Difference: 1}}},
		}
	}
	g := &Gate{}
	g.Rows = []GateRow{row()}
	g.Shorten(2)
	r := g.Rows[0]
	names := func(changes []GateChange) (all []string) {
		for _, c := range changes {
			all = append(all, c.Function)
		}
		return all
	}
	if got := strings.Join(names(r.Functions), ", "); got != "a, e, and 3 more" {
		t.Errorf("functions %s", got)
	}
	if rest := r.Functions[2]; rest.Old != 30 || rest.New != 31 {
		t.Errorf("the others: %+v", rest)
	}
	if !slices.Equal(names(r.Sites), []string{"a", "b"}) {
		t.Errorf("branches %v", names(r.Sites))
	}
	if fs := r.Trace.Functions; len(fs) != 3 || fs[2] != (LabTraceDifference{Name: "and 2 more", Old: 3, New: 2, Difference: -1}) {
		t.Errorf("trace %+v", fs)
	}
	if err := r.Trace.check(); err != nil {
		t.Error(err)
	}
	g.Rows = []GateRow{row()}
	g.Shorten(0)
	if r := g.Rows[0]; len(r.Functions) != 5 || len(r.Trace.Functions) != 4 {
		t.Errorf("all: %+v", r)
	}
	g.Shorten(3) // one more would be no shorter
	if r := g.Rows[0]; len(r.Trace.Functions) != 4 || r.Trace.Functions[3].Name != "i" {
		t.Errorf("3 of 4: %+v", r.Trace.Functions)
	}
}
