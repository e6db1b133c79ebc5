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
// error.
func LoadHistory(folder string) (*record.History, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		if path, ok := errors.AsType[*os.PathError](err); ok {
			err = path.Err // the message has the name already
		}
		return nil, fmt.Errorf("read %s: %w", folder, err)
	}
	h := &record.History{Folder: folder, Groups: []record.HistoryGroup{}, Left: []record.LeftFile{}}
	var files []string
	size := int64(0)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := os.Stat(filepath.Join(folder, e.Name()))
		if err != nil || !info.Mode().IsRegular() {
			h.Left = append(h.Left, record.LeftFile{File: e.Name(), Why: "it is not a regular file"})
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
			h.Left = append(h.Left, record.LeftFile{File: file, Why: strings.TrimPrefix(err.Error(), "load "+filepath.Join(folder, file)+": ")})
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

func loadDated(folder, file string) (*dated, error) {
	s, err := record.LoadSaved(filepath.Join(folder, file))
	if err != nil {
		return nil, err
	}
	if s.Time.IsZero() {
		return nil, errors.New("it has no time")
	}
	d := &dated{origin: record.Origin{File: file, Time: s.Time, Run: s.Run}, host: s.Host}
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
		if !row.Estimate() { // made of others
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
func build(h *record.History, points []dated) error {
	slices.SortStableFunc(points, func(a, b dated) int {
		return cmp.Or(a.origin.Time.Compare(b.origin.Time), cmp.Compare(a.origin.File, b.origin.File))
	})
	first := make(map[string]string) // run identity to file
	index := make(map[string]int)
	var groups [][]dated
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
	h.Schema, h.Kind, h.Run = record.Schema, "history", record.NewRunID()
	h.Time = points[len(points)-1].origin.Time
	h.Rows, h.Warnings = []record.HistoryRow{}, []record.Warning{}
	type level struct {
		group string
		qs    []*stat.Quantity
	}
	last := make(map[string]level)
	for i, records := range groups {
		g := record.HistoryGroup{Name: fmt.Sprint(i + 1), Host: records[0].host}
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
			row := record.HistoryRow{Name: name, Group: g.Name, Points: []record.HistoryPoint{}, Changes: []record.HistoryChange{}, Drifts: stat.Drifts(all[r], changes[r])}
			var values []float64
			var qs []*stat.Quantity
			for n, q := range all[r] {
				if q != nil {
					row.Points = append(row.Points, record.HistoryPoint{Record: n, Ns: q})
					values, qs = append(values, q.Median), append(qs, q)
				}
			}
			level1 := stat.Summarize(values, "ns")
			row.Level = &level1
			for _, c := range changes[r] {
				row.Changes = append(row.Changes, record.HistoryChange{Record: c.At, Shift: c.Shift, P: c.P})
			}
			// The group's first level against the last one of the group before.
			from, to := 0, len(qs)
			if n := len(changes[r]); n > 0 {
				at := func(n int) int {
					return slices.IndexFunc(row.Points, func(p record.HistoryPoint) bool { return p.Record == n })
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
