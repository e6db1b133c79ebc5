package compare

import (
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/stat"
)

// Costs of two programs of one run are paired; those of two runs are not. What costs nothing is compared in percent of
// 1 ns.
func TestCosts(t *testing.T) {
	t.Parallel()
	records := func(run string, factor float64) *record.Saved {
		c := recordtest.Cost(run, 1, factor)
		for i := range c.Rows[2].Samples {
			c.Rows[2].Samples[i] -= 9 * factor // about 0, of either sign
		}
		return record.NewSaved(c)
	}
	c, err := Records(records("a", 1), records("a", 1.1), Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range c.Rows {
		if row.Difference == nil || !row.Paired || !row.Cost || c.Mean != nil {
			t.Fatalf("%+v", row)
		}
		if slower := row.Outcome() == stat.Slower && row.Regression; slower != (i < 2) {
			t.Errorf("%s: %+v", row.Name, row.Change)
		}
		if i == 2 && (row.Difference.Low < -100 || row.Difference.High > 100) {
			t.Errorf("of a cost of 0: %+v", row.Difference)
		}
	}
	if c, err = Records(records("a", 1), records("b", 1.5), Options{Threshold: 2}); err != nil || c.Rows[1].Paired || !c.Regressed() {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := Records(records("a", 1), record.NewSaved(recordtest.TaxDocument("b", 1, 1)), Options{}); err == nil {
		t.Error("costs and prices: no error")
	}
}
