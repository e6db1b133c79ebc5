package compare

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
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

// LoadHistory reads the records of bench, run, tax and profile in a folder, not in
// folders below it, and finds where their rows changed. Files that are no such record
// are left out and named. A folder with none, or with more than the limits, is an
// error; what is kept of its records counts among those of with.
func LoadHistory(with *record.Together, folder string) (*record.History, error) {
	files, left, err := recordFiles(folder)
	if err != nil {
		return nil, err
	}
	h := &record.History{Folder: folder, Groups: []record.HistoryGroup{}, Left: left}
	var points []dated
	for _, file := range files {
		p, err := loadDated(with, folder, file)
		if record.TooLarge(err) {
			return nil, err
		}
		if err != nil {
			h.Left = append(h.Left, record.LeftFile{
				File: file, Why: strings.TrimPrefix(err.Error(), "load "+filepath.Join(folder, file)+": "),
			})
			continue
		}
		points = append(points, *p)
	}
	if len(points) == 0 {
		return nil, fmt.Errorf("read %s: %w", folder, errNoRecords(h.Left))
	}
	if err := build(h, points); err != nil {
		return nil, fmt.Errorf("read %s: %w", folder, err)
	}
	return h, nil
}

// recordFiles are the files of a folder that may be records, and those that are not.
func recordFiles(folder string) (files []string, left []record.LeftFile, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		if path, ok := errors.AsType[*os.PathError](err); ok {
			err = path.Err // the message has the name already
		}
		return nil, nil, fmt.Errorf("read %s: %w", folder, err)
	}
	left = []record.LeftFile{}
	size := int64(0)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := os.Stat(filepath.Join(folder, e.Name()))
		if err != nil || !info.Mode().IsRegular() {
			left = append(left, record.LeftFile{File: e.Name(), Why: "it is not a regular file"})
			continue
		}
		files = append(files, e.Name())
		size += info.Size()
	}
	switch {
	case len(files) > MaxRecords:
		return nil, nil, fmt.Errorf("read %s: it has %d files: at most %d are read", folder, len(files), MaxRecords)
	case size > MaxFolder:
		return nil, nil, fmt.Errorf("read %s: its files have %d MiB: at most %d are read", folder, size>>20, MaxFolder>>20)
	}
	return files, left, nil
}

func errNoRecords(left []record.LeftFile) error {
	if len(left) == 0 {
		return errors.New("it has no file named *.json")
	}
	return fmt.Errorf("it has no record of bench, run, tax or profile: %s: %s", left[0].File, left[0].Why)
}

// dated is what history keeps of a record.
type dated struct {
	origin record.Origin
	host   host.Fingerprint
	rows   []datedRow
}

type datedRow struct {
	name string
	ns   *stat.Quantity
}

func loadDated(with *record.Together, folder, file string) (*dated, error) {
	s, err := with.Load(filepath.Join(folder, file))
	if err != nil {
		return nil, err
	}
	d, err := datedOf(s)
	if err != nil {
		with.Keep(0, 0, 0)
		return nil, err
	}
	d.origin.File = file
	with.Keep(d.size())
	return d, nil
}

// size is what of a record is kept, for [record.Together.Keep].
func (d *dated) size() (rows, texts, bytes int) {
	for _, row := range d.rows {
		bytes += len(row.name)
	}
	fields := d.host.Fields()
	for _, field := range fields {
		bytes += len(field.Name) + len(field.Value)
	}
	return len(d.rows), len(fields), bytes
}

// datedOf is what history keeps of a record; an error says why it keeps nothing.
func datedOf(s *record.Saved) (*dated, error) {
	if s.Time.IsZero() {
		return nil, errors.New("it has no time")
	}
	d := &dated{origin: record.Origin{Time: s.Time, Run: s.Run}, host: s.Host}
	add := func(name string, ns *stat.Quantity) {
		if ns != nil && !math.IsNaN(ns.Median) {
			d.rows = append(d.rows, datedRow{name, ns})
		}
	}
	devices := ""
	if s.Settings["in"] != "" {
		devices = "/" + s.Settings["in"] + "-" + s.Settings["out"]
	}
	if s.Bench() != nil {
		for _, row := range s.Bench().Rows {
			add(row.Name+devices, row.Ns)
		}
	}
	for _, row := range s.Prices() {
		if !row.Estimate() { // made of others
			add("price/"+row.Name, row.Price)
		}
	}
	if p := s.Stages(); p != nil {
		of := "run"
		if s.Profile() != nil {
			of = cmp.Or(s.Settings["prog"], s.Settings["scenario"], "redirect") + "/bulk=" + cmp.Or(s.Settings["bulk"], "?") + devices
		}
		add("profile/"+of+"/packet", p.Packet)
		for _, row := range p.Rows {
			add("profile/"+of+"/"+row.Name, row.Ns)
		}
	}
	if s.Bench() == nil && s.Tax() == nil && s.Profile() == nil {
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
		case "cpu", "virtual", "kernel", "kernel-build", "compiler", "boot-params", "mitigations", "indirect-thunk",
			"return-thunk", "call-sites":
			fmt.Fprintf(&b, "%q=%q\n", field.Name, field.Value)
		}
	}
	return b.String()
}

// build makes groups and rows of records.
func build(h *record.History, points []dated) error {
	groups := grouped(h, points)
	h.Schema, h.Kind, h.Run = record.Schema, "history", record.NewRunID()
	h.Time = points[len(points)-1].origin.Time
	h.Rows, h.Warnings = []record.HistoryRow{}, []record.Warning{}
	last := make(map[string]level)
	for i, records := range groups {
		g := record.HistoryGroup{Name: fmt.Sprint(i + 1), Host: records[0].host}
		if i > 0 {
			g.Differs = causes(groups[i-1][0].host, g.Host)
		}
		for _, r := range records {
			g.Records = append(g.Records, r.origin)
		}
		h.Groups = append(h.Groups, g)
		names, series := seriesOf(records)
		if len(h.Rows)+len(names) > maxSeries {
			return fmt.Errorf("its records have more than %d rows", maxSeries)
		}
		changes := stat.Changes(series)
		for r, name := range names {
			row, first, now := historyRow(series[r], changes[r])
			row.Name, row.Group = name, g.Name
			if was, ok := last[name]; ok {
				d := stat.LevelShift(was.qs, first)
				row.Against, row.AgainstGroup = &d, was.group
			}
			last[name] = level{g.Name, now}
			h.Rows = append(h.Rows, row)
		}
	}
	return nil
}

// level are the points of a row from its last change on, in a group.
type level struct {
	group string
	qs    []*stat.Quantity
}

// grouped are records by machine state, in the order of time. It sorts points, and
// leaves out all but the first record of a run.
func grouped(h *record.History, points []dated) (groups [][]dated) {
	slices.SortStableFunc(points, func(a, b dated) int {
		return cmp.Or(a.origin.Time.Compare(b.origin.Time), cmp.Compare(a.origin.File, b.origin.File))
	})
	first := make(map[string]string) // run identity to file
	index := make(map[string]int)
	for _, p := range points {
		if of, ok := first[p.origin.Run]; ok {
			h.Left = append(h.Left, record.LeftFile{File: p.origin.File, Why: "it is of the same run as " + of})
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
	return groups
}

// seriesOf are the rows of records by name, each with a point a record; nil where a
// record has no such row.
func seriesOf(records []dated) (names []string, series [][]*stat.Quantity) {
	index := make(map[string]int)
	for n, r := range records {
		for _, row := range r.rows {
			i, ok := index[row.name]
			if !ok {
				i = len(names)
				index[row.name] = i
				names = append(names, row.name)
				series = append(series, make([]*stat.Quantity, len(records)))
			}
			series[i][n] = row.ns
		}
	}
	return names, series
}

// historyRow is a row over time, and its points up to the first change and from the
// last one on.
func historyRow(series []*stat.Quantity, changes []stat.Change) (row record.HistoryRow, first, now []*stat.Quantity) {
	row = record.HistoryRow{
		Points: []record.HistoryPoint{}, Changes: []record.HistoryChange{}, Drifts: stat.Drifts(series, changes),
	}
	var values []float64
	var points []*stat.Quantity
	for n, q := range series {
		if q != nil {
			row.Points = append(row.Points, record.HistoryPoint{Record: n, Ns: q})
			values, points = append(values, q.Median), append(points, q)
		}
	}
	q := stat.Summarize(values, "ns")
	row.Level = &q
	for _, c := range changes {
		row.Changes = append(row.Changes, record.HistoryChange{Record: c.At, Shift: c.Shift, P: c.P})
	}
	from, to := 0, len(points)
	if n := len(changes); n > 0 {
		at := func(index int) int {
			return slices.IndexFunc(row.Points, func(p record.HistoryPoint) bool { return p.Record == index })
		}
		to, from = at(changes[0].At), at(changes[n-1].At)
	}
	return row, points[:to], points[from:]
}
