package result

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/stat"
)

// Limits on the folder that [LoadHistory] reads.
const (
	// MaxRecords in a folder.
	MaxRecords = 1000
	// MaxFolder is the size of all of them in bytes.
	MaxFolder = 512 << 20
	// maxSeries is the most rows over time, of all groups.
	maxSeries = 2000
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
	// Drifts is set when points resemble their neighbours, see [stat.Drifts]: a
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

// LoadHistory reads the records of bench, run, tax and profile in a folder, not in
// folders below it, and finds where their rows changed. Files that are no such record
// are left out and named. A folder with none, or with more than the limits, is an
// error.
func LoadHistory(folder string) (*History, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", folder, cause(err))
	}
	h := &History{Folder: folder, Groups: []HistoryGroup{}, Left: []LeftFile{}}
	var files []string
	size := int64(0)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := os.Stat(filepath.Join(folder, e.Name()))
		if err != nil || !info.Mode().IsRegular() {
			h.Left = append(h.Left, LeftFile{e.Name(), "it is not a regular file"})
			continue
		}
		files = append(files, e.Name())
		size += info.Size()
	}
	switch {
	case len(files) > MaxRecords:
		return nil, fmt.Errorf("read %s: it has %d files: at most %d are read", folder, len(files), MaxRecords)
	case size > MaxFolder:
		return nil, fmt.Errorf("read %s: its files have %d MiB: at most %d are read", folder, size>>20, MaxFolder>>20)
	}
	var points []dated
	for _, file := range files {
		p, err := loadDated(folder, file)
		if err != nil {
			h.Left = append(h.Left, LeftFile{file, strings.TrimPrefix(err.Error(), "load "+filepath.Join(folder, file)+": ")})
			continue
		}
		points = append(points, *p)
	}
	if len(points) == 0 {
		return nil, fmt.Errorf("read %s: %w", folder, errNoRecords(h.Left))
	}
	if err := h.build(points); err != nil {
		return nil, fmt.Errorf("read %s: %w", folder, err)
	}
	return h, nil
}

func errNoRecords(left []LeftFile) error {
	if len(left) == 0 {
		return errors.New("it has no file named *.json")
	}
	return fmt.Errorf("it has no record of bench, run, tax or profile: %s: %s", left[0].File, left[0].Why)
}

// dated is what history keeps of a record.
type dated struct {
	origin Origin
	host   host.Fingerprint
	rows   []datedRow
}

type datedRow struct {
	name string
	ns   *stat.Quantity
}

func loadDated(folder, file string) (*dated, error) {
	s, err := LoadSaved(filepath.Join(folder, file))
	if err != nil {
		return nil, err
	}
	if s.Time.IsZero() {
		return nil, errors.New("it has no time")
	}
	d := &dated{origin: Origin{File: file, Time: s.Time, Run: s.Run}, host: s.Host}
	add := func(name string, ns *stat.Quantity) {
		if ns != nil && !math.IsNaN(ns.Median) {
			d.rows = append(d.rows, datedRow{name, ns})
		}
	}
	devices := ""
	if s.Settings["in"] != "" {
		devices = "/" + s.Settings["in"] + "-" + s.Settings["out"]
	}
	if s.Bench != nil {
		for _, row := range s.Bench.Rows {
			add(row.Name+devices, row.Ns)
		}
	}
	for _, row := range s.Prices() {
		if !row.estimate() { // made of others
			add("price/"+row.Name, row.Price)
		}
	}
	if p := s.Stages(); p != nil {
		of := "run"
		if s.Profile != nil {
			of = cmp.Or(s.Settings["scenario"], "redirect") + "/bulk=" + cmp.Or(s.Settings["bulk"], "?") + devices
		}
		add("profile/"+of+"/packet", p.Packet)
		for _, row := range p.Rows {
			add("profile/"+of+"/"+row.Name, row.Ns)
		}
	}
	if s.Bench == nil && s.Tax == nil && s.Profile == nil {
		return nil, fmt.Errorf("a record of %s has no rows over time", s.Kind)
	}
	if len(d.rows) == 0 {
		return nil, errors.New("it has no number")
	}
	return d, nil
}

// sameHost is the part of a fingerprint that groups go by.
func sameHost(f host.Fingerprint) string {
	var b strings.Builder
	for _, field := range f.Fields() {
		family, _, _ := strings.Cut(field.Name, "/")
		switch family {
		case "cpu", "virtual", "kernel", "kernel-build", "compiler", "boot-params", "mitigations", "indirect-thunk", "return-thunk", "call-sites":
			fmt.Fprintf(&b, "%q=%q\n", field.Name, field.Value)
		}
	}
	return b.String()
}

// build makes groups and rows of records.
func (h *History) build(points []dated) error {
	slices.SortStableFunc(points, func(a, b dated) int {
		return cmp.Or(a.origin.Time.Compare(b.origin.Time), cmp.Compare(a.origin.File, b.origin.File))
	})
	first := make(map[string]string) // run identity to file
	index := make(map[string]int)
	var groups [][]dated
	for _, p := range points {
		if of, ok := first[p.origin.Run]; ok {
			h.Left = append(h.Left, LeftFile{p.origin.File, "it is of the same run as " + of})
			continue
		}
		first[p.origin.Run] = p.origin.File
		key := sameHost(p.host)
		i, ok := index[key]
		if !ok {
			i = len(groups)
			index[key] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], p)
	}
	h.Schema, h.Kind, h.Run = Schema, "history", NewRunID()
	h.Time = points[len(points)-1].origin.Time
	h.Rows, h.Warnings = []HistoryRow{}, []Warning{}
	type level struct {
		group string
		qs    []*stat.Quantity
	}
	last := make(map[string]level)
	for i, records := range groups {
		g := HistoryGroup{Name: fmt.Sprint(i + 1), Host: records[0].host}
		if i > 0 {
			g.Differs = causes(groups[i-1][0].host, g.Host)
		}
		var names []string
		series := make(map[string][]*stat.Quantity)
		for n, r := range records {
			g.Records = append(g.Records, r.origin)
			for _, row := range r.rows {
				if series[row.name] == nil {
					names = append(names, row.name)
					series[row.name] = make([]*stat.Quantity, len(records))
				}
				series[row.name][n] = row.ns
			}
		}
		h.Groups = append(h.Groups, g)
		if len(h.Rows)+len(names) > maxSeries {
			return fmt.Errorf("its records have more than %d rows", maxSeries)
		}
		all := make([][]*stat.Quantity, len(names))
		for r, name := range names {
			all[r] = series[name]
		}
		changes := stat.Changes(all)
		for r, name := range names {
			row := HistoryRow{Name: name, Group: g.Name, Points: []HistoryPoint{}, Changes: []HistoryChange{}, Drifts: stat.Drifts(all[r], changes[r])}
			var values []float64
			var qs []*stat.Quantity
			for n, q := range all[r] {
				if q != nil {
					row.Points = append(row.Points, HistoryPoint{n, q})
					values, qs = append(values, q.Median), append(qs, q)
				}
			}
			level1 := stat.Summarize(values, "ns")
			row.Level = &level1
			for _, c := range changes[r] {
				row.Changes = append(row.Changes, HistoryChange{c.At, c.Shift, c.P})
			}
			// The group's first level against the last one of the group before.
			from, to := 0, len(qs)
			if n := len(changes[r]); n > 0 {
				at := func(record int) int {
					return slices.IndexFunc(row.Points, func(p HistoryPoint) bool { return p.Record == record })
				}
				to, from = at(changes[r][0].At), at(changes[r][n-1].At)
			}
			if was, ok := last[name]; ok {
				d := stat.LevelShift(was.qs, qs[:to])
				row.Against, row.AgainstGroup = &d, was.group
			}
			last[name] = level{g.Name, qs[from:]}
			h.Rows = append(h.Rows, row)
		}
	}
	return nil
}

// Headline says what changed over time.
func (h *History) Headline() Headline {
	records, changes, rows := 0, 0, 0
	var latest *HistoryRow
	var when time.Time
	for _, g := range h.Groups {
		records += len(g.Records)
	}
	var at HistoryChange
	for i := range h.Rows {
		row := &h.Rows[i]
		if len(row.Points) >= stat.MinChanges {
			rows++
		}
		changes += len(row.Changes)
		for _, c := range row.Changes {
			if t := h.origin(row.Group, c.Record).Time; latest == nil || t.After(when) {
				latest, when, at = row, t, c
			}
		}
	}
	title := fmt.Sprintf("No change in %s over time", many(rows, "row"))
	moved, of, most := h.moved()
	group := h.Groups[len(h.Groups)-1]
	text := fmt.Sprintf("%s of %s.", many(records, "record"), many(len(h.Groups), "machine state"))
	switch {
	case moved > 0 && !when.After(group.Records[0].Time):
		what := "group " + group.Name
		if len(group.Differs) > 0 {
			what = fmt.Sprintf("%s %s → %s", group.Differs[0].Name, orUnknown(group.Differs[0].Old), orUnknown(group.Differs[0].New))
		}
		title = fmt.Sprintf("%s: %d of %s moved, %s by %+.1f %%", what, moved, many(of, "row"), most.Name, most.Against.Median)
	case latest != nil:
		title = fmt.Sprintf("%s over time; the last: %s %+.1f %% from %s on", many(changes, "change"), latest.Name, at.Shift.Median, when.UTC().Format("2006-01-02"))
		if at.Shift.Unit == "" {
			title = fmt.Sprintf("%s over time; the last: %s %+.2f ns from %s on", many(changes, "change"), latest.Name, at.Shift.Median, when.UTC().Format("2006-01-02"))
		}
	case rows == 0:
		title = fmt.Sprintf("%s, too few to tell a change from noise", many(records, "record"))
		text += fmt.Sprintf(" It takes %d of one machine state.", stat.MinChanges)
	}
	return Headline{Title: title, Text: text, Tells: true}
}

// moved counts the rows of the last group whose level is not that of the group
// before, by its interval, of those that both have. most moved by most percent.
func (h *History) moved() (n, of int, most *HistoryRow) {
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

// origin is the record of a group.
func (h *History) origin(group string, record int) Origin {
	for _, g := range h.Groups {
		if g.Name == group && record < len(g.Records) {
			return g.Records[record]
		}
	}
	return Origin{}
}

// Origin is the record that a point or a change of the row is of.
func (h *History) Origin(row *HistoryRow, record int) Origin { return h.origin(row.Group, record) }
