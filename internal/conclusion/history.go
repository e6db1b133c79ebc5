package conclusion

import (
	"fmt"
	"math"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// OfHistory says what changed over time.
func OfHistory(h *record.History) Headline {
	records, changes, rows := 0, 0, 0
	var latest *record.HistoryRow
	var when time.Time
	for _, g := range h.Groups {
		records += len(g.Records)
	}
	var at record.HistoryChange
	for i := range h.Rows {
		row := &h.Rows[i]
		if len(row.Points) >= stat.MinChanges {
			rows++
		}
		changes += len(row.Changes)
		for _, c := range row.Changes {
			if t := h.Origin(row, c.Record).Time; latest == nil || t.After(when) {
				latest, when, at = row, t, c
			}
		}
	}
	title := fmt.Sprintf("No change in %s over time", many(rows, "row"))
	moved, of, most := moved(h)
	group := h.Groups[len(h.Groups)-1]
	text := fmt.Sprintf("%s of %s.", many(records, "record"), many(len(h.Groups), "machine state"))
	switch {
	case moved > 0 && !when.After(group.Records[0].Time):
		what := "group " + group.Name
		if len(group.Differs) > 0 {
			what = fmt.Sprintf("%s %s → %s", group.Differs[0].Name, orUnknown(group.Differs[0].Old),
				orUnknown(group.Differs[0].New))
		}
		title = fmt.Sprintf("%s: %d of %s moved, %s by %+.1f %%", what, moved, many(of, "row"), most.Name,
			most.Against.Median)
	case latest != nil:
		title = fmt.Sprintf("%s over time; the last: %s %+.1f %% from %s on", many(changes, "change"), latest.Name,
			at.Shift.Median, when.UTC().Format("2006-01-02"))
		if at.Shift.Unit == "" {
			title = fmt.Sprintf("%s over time; the last: %s %+.2f ns from %s on", many(changes, "change"), latest.Name,
				at.Shift.Median, when.UTC().Format("2006-01-02"))
		}
	case rows == 0:
		title = fmt.Sprintf("%s, too few to tell a change from noise", many(records, "record"))
		text += fmt.Sprintf(" It takes %d of one machine state.", stat.MinChanges)
	}
	return Headline{Title: title, Text: text, Tells: true}
}

// moved counts the rows of the last group whose level is not that of the group
// before, by its interval, of those that both have. most moved by most percent.
func moved(h *record.History) (n, of int, most *record.HistoryRow) {
	last := h.Groups[len(h.Groups)-1].Name
	for i := range h.Rows {
		row := &h.Rows[i]
		d := row.Against
		if row.Group != last || d == nil {
			continue
		}
		of++
		if d.Unit != "percent" || !(d.Low > 0 || d.High < 0) {
			continue
		}
		n++
		if most == nil || math.Abs(d.Median) > math.Abs(most.Against.Median) {
			most = row
		}
	}
	return n, of, most
}

func orUnknown(s *string) string {
	if s == nil {
		return "unknown"
	}
	return *s
}

// HistoryBasis says what a change is.
var HistoryBasis = fmt.Sprintf("ns: medians of runs; level: the median of the runs [95 %% interval]. A ▲ or ▼ is a "+
	"run from which on a row has another level: found by self-normalized CUSUM, at 5 %% for all rows of a group "+
	"together, from %d runs on. Levels of different groups are compared without this test: "+
	"what else changed between them is not known.", stat.MinChanges)
