package compare

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Labs compares rows of equal name.
func Labs(old, new *record.Lab) *record.LabComparison {
	c := &record.LabComparison{
		Old: record.Origin{Time: old.Time, Run: old.Run}, New: record.Origin{Time: new.Time, Run: new.Run}, Causes: []record.Cause{},
	}
	c.Schema, c.Kind, c.Time, c.Run, c.Host, c.Settings = record.Schema, "compare", new.Time, new.Run, new.Host, new.Settings
	c.Rows, c.Warnings = []record.LabChange{}, []record.Warning{}
	was := make(map[string]*record.LabRow)
	for i := range old.Rows {
		was[old.Rows[i].Name] = &old.Rows[i]
	}
	for i := range new.Rows {
		row := &new.Rows[i]
		before := was[row.Name]
		delete(was, row.Name)
		what := []string{"only in new"}
		if before != nil {
			what = labDiffers(before, row)
		}
		if len(what) == 0 {
			c.Same++
			continue
		}
		c.Rows = append(c.Rows, record.LabChange{Name: row.Name, What: what})
	}
	for i := range old.Rows {
		if row := &old.Rows[i]; was[row.Name] != nil {
			c.Rows = append(c.Rows, record.LabChange{Name: row.Name, What: []string{"only in old"}})
		}
	}
	return c
}

func labDiffers(r, new *record.LabRow) (what []string) {
	text := func(name, a, b string) {
		if a != b {
			what = append(what, fmt.Sprintf("%s: %s → %s", name, orNone(a), orNone(b)))
		}
	}
	count := func(name string, a, b *float64) {
		if (a == nil) != (b == nil) || a != nil && *a != *b {
			what = append(what, fmt.Sprintf("%s: %s → %s", name, exact(a), exact(b)))
		}
	}
	text("release", r.Release, new.Release)
	text("thunk", r.Thunk, new.Thunk)
	text("refused", r.Refused, new.Refused)
	count("instructions", r.Instructions, new.Instructions)
	count("calls", r.Calls, new.Calls)
	sites := func(r *record.LabRow) map[string]float64 {
		m := make(map[string]float64)
		for _, s := range r.Sites { // offsets move with every build
			m[of(s.Part)+strings.TrimSuffix(s.Function+" → "+s.Target, " → ")] += s.PerPacket
		}
		return m
	}
	functions := func(r *record.LabRow) map[string]float64 {
		m := make(map[string]float64)
		for _, f := range r.Functions {
			m[of(f.Part)+f.Function] += f.PerPacket
		}
		return m
	}
	for _, part := range []struct {
		name     string
		old, new map[string]float64
	}{{"site ", sites(r), sites(new)}, {"", functions(r), functions(new)}} {
		var names []string
		for name := range part.old {
			names = append(names, name)
		}
		for name := range part.new {
			if _, ok := part.old[name]; !ok {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			a, b := part.old[name], part.new[name]
			if a != b {
				count(part.name+name, &a, &b)
			}
		}
	}
	return what
}

// of names a part of the chain before what it does.
func of(part string) string {
	if part == "" {
		return ""
	}
	return part + ": "
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// exact writes a count with all its digits, "none" where there is none.
func exact(x *float64) string {
	if x == nil {
		return "none"
	}
	return stat.Exact(*x)
}
