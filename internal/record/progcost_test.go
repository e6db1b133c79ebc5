package record_test

import (
	"math"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

// What no run of prog cost can give is refused in one line.
func TestCostChecked(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*record.ProgCost)
		want   string
	}{
		"good":     {func(*record.ProgCost) {}, ""},
		"negative": {func(c *record.ProgCost) { c.Rows[2].Samples[0] = -3 }, ""},
		"refused": {func(c *record.ProgCost) {
			c.Rows[1].Refused, c.Rows[1].Ns, c.Rows[1].Samples, c.Rows[1].Rounds = "it differs", nil, nil, nil
		}, ""},
		"neither":  {func(c *record.ProgCost) { c.Rows[1].Ns = nil }, "neither a number nor a reason"},
		"both":     {func(c *record.ProgCost) { c.Rows[1].Refused = "no" }, "a number and a reason"},
		"samples":  {func(c *record.ProgCost) { c.Rows[1].Samples, c.Rows[1].Rounds = nil, nil }, "a number without samples"},
		"unknown":  {func(c *record.ProgCost) { c.Rows[1].Ns.Median = math.NaN() }, "neither a number nor a reason"},
		"unit":     {func(c *record.ProgCost) { c.Rows[1].Ns.Unit = "s" }, "is in"},
		"packets":  {func(c *record.ProgCost) { c.Rows[1].Packets = -1 }, "impossible number of packets"},
		"share":    {func(c *record.ProgCost) { c.Rows[1].Share = 101 }, "impossible number of packets"},
		"verdicts": {func(c *record.ProgCost) { c.Rows[1].Verdicts["x\x1b"] = 1 }, "impossible verdict"},
		"label":    {func(c *record.ProgCost) { c.Rows[1].Labels["x"] = "\x1b" }, "impossible label"},
		"twice":    {func(c *record.ProgCost) { c.Rows[1].Name = "all" }, "occurs twice"},
		"source":   {func(c *record.ProgCost) { c.Packets.Source = "a\nb" }, "impossible text"},
		"seen":     {func(c *record.ProgCost) { c.Packets.Seen = -1 }, "impossible numbers"},
	} {
		c := recordtest.Cost("run", 1, 1)
		test.change(c)
		_, err := record.Parse([]byte(recordtest.Marshal(t, c)))
		if got := err != nil; got != (test.want != "") || got && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}
