package record_test

import (
	"math"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

// What no watch can give is refused in one line.
func TestWatchChecked(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*record.ProgWatch)
		want   string
	}{
		"good":         {func(*record.ProgWatch) {}, ""},
		"no price":     {func(w *record.ProgWatch) { w.SampleNs = nil }, ""},
		"neither":      {func(w *record.ProgWatch) { w.Rows[1].Refused = "" }, "neither a number nor a reason"},
		"both":         {func(w *record.ProgWatch) { w.Rows[0].Refused = "no" }, "a number and a reason"},
		"no samples":   {func(w *record.ProgWatch) { w.Rows[0].Samples, w.Rows[0].Rounds = nil, nil }, "a number without samples"},
		"no number":    {func(w *record.ProgWatch) { w.Rows[0].Value.Median = math.NaN() }, "neither a number nor a reason"},
		"unit":         {func(w *record.ProgWatch) { w.Rows[0].Value.Unit = "miles" }, "impossible unit"},
		"interval":     {func(w *record.ProgWatch) { w.Rows[0].Value.Low = 3e6 }, "outside its interval"},
		"too many":     {func(w *record.ProgWatch) { w.Rows[0].Samples[0] = 1e13 }, "impossible sample"},
		"twice":        {func(w *record.ProgWatch) { w.Rows[1].Name = "packets" }, "occurs twice"},
		"time":         {func(w *record.ProgWatch) { w.Seconds = -1 }, "impossible time"},
		"price":        {func(w *record.ProgWatch) { w.SampleNs.Frame = -1 }, "a sample cannot take"},
		"device":       {func(w *record.ProgWatch) { w.Program.Device = "a\x1b[1m" }, "impossible text"},
		"empty stack":  {func(w *record.ProgWatch) { w.Stacks[0].Frames = nil }, "0 frames"},
		"sampled less": {func(w *record.ProgWatch) { w.Sampling.Samples = -1 }, "a count below 0"},
	} {
		w := recordtest.Watch("run", 1)
		test.change(w)
		_, err := record.Parse([]byte(recordtest.Marshal(t, w)))
		if got := err != nil; got != (test.want != "") || got && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}
