package cells

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// GroupTitle names a group by what its records have in common.
func GroupTitle(g *record.HistoryGroup) string {
	f := g.Host
	return Join(", ", "Linux "+orNotSeen(f.Kernel), f.Compiler, thunkWords(f.IndirectThunk, f.CallSites), f.ReturnThunk,
		f.CPU)
}

func orNotSeen(s string) string {
	if s == "" {
		return "not seen"
	}
	return s
}

// thunkWords say what an indirect call is on a machine.
func thunkWords(thunk, sites string) string {
	if thunk == "" {
		return ""
	}
	return Join(" ", "indirect calls:", thunk, sites)
}

// Day is a date.
func Day(t time.Time) string { return t.UTC().Format("2006-01-02") }

// GroupSpan is how many records a group has, and from when to when.
func GroupSpan(g *record.HistoryGroup) string {
	n := Plural(len(g.Records), "record")
	first, last := g.Records[0].Time, g.Records[len(g.Records)-1].Time
	if Day(first) == Day(last) {
		return n + ", " + Day(first)
	}
	return n + ", " + Day(first) + " to " + Day(last)
}

// HistoryLines say what changed in a row, a line each.
func HistoryLines(h *record.History, row *record.HistoryRow) []string {
	var out []string
	for _, c := range row.Changes {
		o := h.Origin(row, c.Record)
		out = append(out, fmt.Sprintf("%s %s from %s on (%s), p %s", ChangeMark(c.Shift), Shift(c.Shift),
			o.Time.UTC().Format("2006-01-02 15:04"), Clean(o.File), strconv.FormatFloat(c.P, 'g', 2, 64)))
	}
	if row.Drifts {
		said := "! runs resemble those before them: this machine drifts"
		if len(row.Changes) > 0 {
			said += ", and a change may be drift"
		}
		out = append(out, said)
	}
	if d := row.Against; d != nil && !math.IsNaN(d.Median) {
		out = append(out, fmt.Sprintf("against group %s: %s", row.AgainstGroup, Shift(*d)))
	}
	return out
}

// ChangeMark is the direction of a change.
func ChangeMark(d stat.Difference) string {
	if d.Median < 0 {
		return "▼"
	}
	return "▲"
}

// Shift is a change of level with its interval.
func Shift(d stat.Difference) string {
	return strings.TrimSuffix(ShortShift(d)+" "+Interval(d.Low, d.High, stat.Signed), " [?]")
}

// ShortShift is a change of level.
func ShortShift(d stat.Difference) string {
	unit := "%"
	if d.Unit != "percent" {
		unit = "ns"
	}
	return stat.Signed(d.Median) + " " + unit
}
