package compare

import (
	"slices"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

// A program that drops what it redirected before is not said to be faster without that being said too.
func TestCompareVerdicts(t *testing.T) {
	with := func(run string, v *record.Verdicts) *record.Document[record.BenchRow] {
		doc := recordtest.Ladder(run, 1, 1)
		doc.Rows[0].Verdicts = v
		return doc
	}
	for _, test := range []struct {
		old, new *record.Verdicts
		want     string
	}{
		{&record.Verdicts{Redirect: 100}, &record.Verdicts{Redirect: 99, Drop: 1},
			"the program does something else with the packets: drop +1.0 points, redirect -1.0 points"},
		{&record.Verdicts{Redirect: 50, TX: 50}, &record.Verdicts{TX: 5000, Redirect: 5001}, ""}, // half a packet in a slot
		{nil, &record.Verdicts{TX: 1}, ""},
		{&record.Verdicts{TX: 1}, nil, ""},
		{&record.Verdicts{TX: 1}, &record.Verdicts{}, "the program does something else with the packets: tx -100.0 points"},
	} {
		old := with("a", test.old)
		c := compared(t, old, with("b", test.new), Options{})
		found := slices.ContainsFunc(c.Warnings, func(w record.Warning) bool {
			return w.Row == old.Rows[0].Name && w.Text == test.want
		})
		if found != (test.want != "") {
			t.Errorf("%+v, %+v: warnings %v, want %q", test.old, test.new, c.Warnings, test.want)
		}
	}
}
