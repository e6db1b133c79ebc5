package report

import (
	"bytes"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestProgCostGolden(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		width  int
		change func(*record.ProgCost)
	}{
		{"prog-cost.txt", 80, func(c *record.ProgCost) {}},
		{"prog-cost-60.txt", 60, func(c *record.ProgCost) {}},
		{"prog-cost-refused.txt", 80, func(c *record.ProgCost) {
			c.Incomplete, c.Program.Places, c.Settings = true, 1, map[string]string{"cold": "64 MiB"}
			row := &c.Rows[1]
			row.Refused = "timed runs differ from a single run: the verdict of 12.5 %; first packet 3: XDP_DROP, and XDP_TX when run once"
			row.Ns, row.Null, row.Samples, row.Rounds = nil, nil, nil, nil
		}},
	} {
		c := recordtest.Cost("run", 1, 1)
		c.Warn("verdict/pass", "drifted by +7 % from first to last round: the interval is too narrow")
		c.Warn("", "2 of 16384 packets come out otherwise the first time, as the program's maps learn: what counts is the second time")
		test.change(c)
		var b bytes.Buffer
		if err := ProgCost(&b, Options{Width: test.width}, c); err != nil {
			t.Fatal(err)
		}
		reporttest.Fits(t, b.String(), test.width)
		reporttest.Golden(t, test.name, b.String())
	}
}
