package report

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/stat"
)

func TestProgWatchGolden(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*record.ProgWatch)
	}{
		{"prog-watch.txt", func(*record.ProgWatch) {}},
		{"prog-watch-ended.txt", func(w *record.ProgWatch) {
			w.Ended, w.Unfiltered, w.SampleNs, w.Each = "eth0 went away", "the network stack runs the program (generic XDP)", nil, 4
			w.Rows = append(w.Rows[:5], record.WatchRow{Name: "path", Refused: w.Unfiltered})
			w.Warn("program", "12 samples were taken of its packets: watch for longer, or at more --hz, for a figure")
			w.Stacks = nil
		}},
		{"prog-watch-none.txt", func(w *record.ProgWatch) { // of a program without a name
			w.Program.Name, w.Sampling.Packets, w.Sampling.Samples, w.Stacks = "", 0, 0, nil
			for i := range w.Rows {
				if row := &w.Rows[i]; row.Refused == "" && row.Name != "cost" {
					*row.Value = stat.Quantity{Unit: row.Value.Unit}
				}
			}
			w.Rows = slices.DeleteFunc(w.Rows, func(row record.WatchRow) bool { return strings.HasPrefix(row.Name, "stage/") })
			for _, name := range []string{"program", "path"} {
				*w.Row(name) = record.WatchRow{Name: name, Refused: "no packet came"}
			}
		}},
	} {
		w := recordtest.Watch("run", 1)
		test.change(w)
		var b bytes.Buffer
		if err := ProgWatch(&b, Options{}, w, 10); err != nil {
			t.Fatal(err)
		}
		reporttest.Fits(t, b.String(), 80)
		reporttest.Golden(t, test.name, b.String())
	}
}
