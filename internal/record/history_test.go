package record

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/stat"
)

// Levels reach from change to change, and are not told in few points.
func TestHistoryLevels(t *testing.T) {
	t.Parallel()
	row := new(HistoryRow)
	for i, ns := range []float64{10, 11, 12, 20, 21, 22, 23, 5, 6} {
		// Records without the row leave gaps.
		row.Points = append(row.Points, HistoryPoint{Record: 2 * i, Ns: &stat.Quantity{Median: ns}})
	}
	for _, test := range []struct {
		changes []HistoryChange
		points  int
		want    []HistoryLevel
	}{
		{nil, 9, []HistoryLevel{{From: 0, To: 16, Ns: 12}}},
		{[]HistoryChange{{Record: 6}, {Record: 14}}, 9, []HistoryLevel{
			{From: 0, To: 4, Ns: 11}, {From: 6, To: 12, Ns: 21.5}, {From: 14, To: 16, Ns: 5.5},
		}},
		{[]HistoryChange{{Record: 6}}, stat.MinChanges - 1, nil},
	} {
		r := HistoryRow{Points: row.Points[:test.points], Changes: test.changes}
		if diff := cmp.Diff(test.want, r.Levels()); diff != "" {
			t.Errorf("%d changes in %d points (-want +got):\n%s", len(test.changes), test.points, diff)
		}
	}
}
