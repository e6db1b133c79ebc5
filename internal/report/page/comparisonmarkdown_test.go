package page

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/stat"
)

func TestComparisonMarkdown(t *testing.T) {
	t.Parallel()
	old, slow := reporttest.Bench("one", 1, 1), reporttest.Bench("two", 3, 2.05)
	slow.Host.Kernel = "6.18.2"
	slow.Warnings = append(slow.Warnings, record.Warning{Row: slow.Rows[0].Name, Text: "6 of 11 rounds fitted into the duration"})
	rows, err := compare.Records(record.NewSaved(old), record.NewSaved(slow), compare.Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	rows.NameFiles("before.json", "after.json")
	clock := func(x float64) *stat.Quantity { return &stat.Quantity{Median: x, Low: x, High: x, N: 9, Unit: "GHz"} }
	change := &stat.Difference{Median: 20, Low: 19, High: 21, Smallest: 1}
	rows.Machine = []record.ReferenceChange{{Name: record.CoreClock, Old: clock(3), New: clock(2.5), Difference: change, Moved: true}}
	row := &rows.Rows[0].Change
	row.Relative, row.Cycles, row.OldCycles, row.NewCycles = change, change, clock(300), clock(360)
	var b bytes.Buffer
	if err := ComparisonMarkdown(&b, rows); err != nil {
		t.Fatal(err)
	}
	reporttest.Golden(t, "comparison.md", b.String())
	if err := ComparisonMarkdown(reporttest.Broken{}, rows); err == nil {
		t.Error("no error of a broken pipe")
	}
	const hostile = "a|b\n# x <img src=x> @team [l](javascript:x)"
	rows.Rows[0].Name, rows.Rows[1].Missing, rows.Rows[1].Difference = hostile, hostile, nil
	rows.NameFiles(hostile, hostile)
	rows.Warnings[0].Text = hostile
	b.Reset()
	if err := ComparisonMarkdown(&b, rows); err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{"a|b", " <img", "\n# x", "@team", "[l]("} {
		if strings.Contains(b.String(), never) {
			t.Errorf("%q is not text only:\n%s", never, &b)
		}
	}
}
