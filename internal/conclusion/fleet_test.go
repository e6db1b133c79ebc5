package conclusion

import (
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// A redirect that is slower is no answer while it may be so by more than the threshold, and by less.
func TestFleetCompareSlower(t *testing.T) {
	for _, test := range []struct {
		low, high  float64
		regression bool
		said       string
		untold     string
	}{
		{1.5, 30, false, "by more than 2.0 % or not: cannot be told", "redirect/bulk=16: slower by 1.5 to 30.0 %"},
		{0.5, 2, false, "slower than the base, by no more than 2.0 % (", ""},
		{3, 30, true, "slower than the base by more than 2.0 % (", ""},
	} {
		doc := &record.FleetCompare{Threshold: 2}
		doc.Rows = []record.FleetCompareRow{{
			Name: "redirect/bulk=16", Verdict: stat.Slower, Regression: test.regression,
			Difference: &stat.Difference{Median: (test.low + test.high) / 2, Low: test.low, High: test.high},
		}}
		said, untold := FleetCompare(doc), FleetUntold(doc)
		if !strings.Contains(said, test.said) || !strings.HasPrefix(untold, test.untold) || (untold == "") != (test.untold == "") {
			t.Errorf("from %v to %v %%: %q, %q", test.low, test.high, said, untold)
		}
	}
}
