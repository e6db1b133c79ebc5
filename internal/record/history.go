package record

import (
	"slices"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/stat"
)

// History is what saved records of many runs show over time. It marshals as a
// document of kind "history" that is of no one host.
type History struct {
	Document[HistoryRow]
	// Folder that was read.
	Folder string `json:"folder"`
	// Groups are records of one fingerprint each, in the order of their first.
	Groups []HistoryGroup `json:"groups"`
	// Left are files of the folder that are in no group.
	Left []LeftFile `json:"left-out"`
}

// HistoryGroup is the records whose CPU, kernel, compiler, boot parameters and
// mitigations are the same: what differs between them is not known.
type HistoryGroup struct {
	// Name is "1" and so on.
	Name string `json:"name"`
	// Host is the fingerprint of its first record.
	Host host.Fingerprint `json:"host"`
	// Records in the order of time.
	Records []Origin `json:"records"`
	// Differs are the fields of the fingerprint that are not as in the group before.
	Differs []Cause `json:"differs,omitempty"`
}

// LeftFile is a file that no row was read from, and why.
type LeftFile struct {
	File string `json:"file"`
	Why  string `json:"why"`
}

// HistoryRow is one row of the records of a group over time.
type HistoryRow struct {
	// Name is that of the records' row; of a profile "profile/", what was profiled,
	// and the stage; of a price "price/" and its name.
	Name  string `json:"name"`
	Group string `json:"group"`
	// Points are in ns: per packet, of a price per call.
	Points []HistoryPoint `json:"points"`
	// Level is the median of the points with the interval of [stat.Summarize]: that
	// of runs, not of rounds.
	Level *stat.Quantity `json:"level"`
	// Changes are points from which on the level is another.
	Changes []HistoryChange `json:"changes"`
	// Drifts is set when points resemble their neighbors, see [stat.Drifts]: a
	// change may be drift then.
	Drifts bool `json:"drifts,omitempty"`
	// Against is the first level of this group less the last one of the group before
	// that has the row, in percent of it; null when there is none.
	Against *stat.Difference `json:"against"`
	// AgainstGroup is the name of that group.
	AgainstGroup string `json:"against-group,omitempty"`
}

// HistoryPoint is what one record has.
type HistoryPoint struct {
	// Record is the index in the group's records.
	Record int            `json:"record"`
	Ns     *stat.Quantity `json:"ns"`
}

// HistoryChange is the first point of a new level.
type HistoryChange struct {
	// Record is the index in the group's records.
	Record int `json:"record"`
	// Shift is in percent of the level before, or in ns when prices are 0 or
	// negative; its interval is that of the runs of the two levels.
	Shift stat.Difference `json:"shift"`
	// P is the probability of a series at least this uneven without a change, in any
	// row of the group.
	P float64 `json:"p"`
}

// Origin is the record that a point or a change of the row is of.
func (h *History) Origin(row *HistoryRow, record int) Origin {
	for _, g := range h.Groups {
		if g.Name == row.Group && record < len(g.Records) {
			return g.Records[record]
		}
	}
	return Origin{}
}

// HistoryLevel is a stretch of points between two changes.
type HistoryLevel struct {
	// From and To are the records of its first and last point.
	From, To int
	// Ns is the median of its points.
	Ns float64
}

// Levels are the levels of a row, which its changes part. A row of fewer than
// [stat.MinChanges] points has none: no change could be seen in it.
func (r *HistoryRow) Levels() []HistoryLevel {
	if len(r.Points) < stat.MinChanges {
		return nil
	}
	var out []HistoryLevel
	for i := 0; i < len(r.Points); {
		next := slices.IndexFunc(r.Changes, func(c HistoryChange) bool { return c.Record > r.Points[i].Record })
		level := HistoryLevel{From: r.Points[i].Record}
		var ns []float64
		for ; i < len(r.Points) && (next < 0 || r.Points[i].Record < r.Changes[next].Record); i++ {
			ns, level.To = append(ns, r.Points[i].Ns.Median), r.Points[i].Record
		}
		level.Ns = stat.Median(ns)
		out = append(out, level)
	}
	return out
}
