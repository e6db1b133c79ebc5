package compare

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Labs compares rows of equal name, exactly: they are counts.
func Labs(old, new *record.Lab) *record.LabComparison {
	c := &record.LabComparison{Causes: []record.Cause{}}
	c.Head, c.Compared = headOf(&old.Head, &new.Head)
	c.Rows, c.Warnings = []record.LabChange{}, []record.Warning{}
	for was, is := range matched(old.Rows, new.Rows, func(r *record.LabRow) string { return r.Name }) {
		switch {
		case was == nil:
			c.Rows = append(c.Rows, record.LabChange{Name: is.Name, What: []string{"only in new"}})
		case is == nil:
			c.Rows = append(c.Rows, record.LabChange{Name: was.Name, What: []string{"only in old"}})
		default:
			if what := labDiffers(was, is); len(what) > 0 {
				row := record.LabChange{Name: is.Name, What: what, Trace: LabTrace(was, is)}
				switch {
				case was.Refused == "" && is.Refused != "":
					row.Missing = is.Refused
				case was.Instructions != nil && is.Instructions == nil:
					row.Missing = "its instructions were not counted"
				}
				c.Rows = append(c.Rows, row)
			} else {
				c.Same++
			}
		}
	}
	return c
}

// labDiffers says what of a row is another in the new record.
func labDiffers(old, new *record.LabRow) (what []string) {
	differ := func(name, a, b string) {
		if a != b {
			what = append(what, record.Sentence(fmt.Sprintf("%s: %s → %s", name, cmp.Or(a, "none"), cmp.Or(b, "none"))))
		}
	}
	differ("release", old.Release, new.Release)
	differ("thunk", old.Thunk, new.Thunk)
	differ("refused", old.Refused, new.Refused)
	differ("instructions", exact(old.Instructions), exact(new.Instructions))
	differ("calls", exact(old.CallsPerPacket), exact(new.CallsPerPacket))
	sites, sitesNow := labSites(old), labSites(new)
	if oneSided(old, new) { // what was not counted is not gone
		sites, sitesNow = nil, nil
	}
	for _, counted := range []struct {
		name     string
		old, new map[string]float64
	}{
		{"site ", sites, sitesNow},
		{"", labFunctions(old), labFunctions(new)},
	} {
		names := make(map[string]float64)
		maps.Copy(names, counted.old)
		maps.Copy(names, counted.new)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			differ(counted.name+name, stat.Exact(counted.old[name]), stat.Exact(counted.new[name]))
		}
	}
	return what
}

// labSites are how often branches enter their targets. Their offsets move with every
// build and are left out.
func labSites(r *record.LabRow) map[string]float64 {
	counts := make(map[string]float64)
	for _, s := range r.Sites {
		counts[inPart(s.Part)+strings.TrimSuffix(s.Function+" → "+s.Target, " → ")] += s.PerPacket
	}
	return counts
}

// labFunctions are how often functions are entered.
func labFunctions(r *record.LabRow) map[string]float64 {
	counts := make(map[string]float64)
	for _, f := range r.Functions {
		counts[inPart(f.Part)+f.Function] += f.PerPacket
	}
	return counts
}

// inPart names a part of the chain before what it does.
func inPart(part string) string {
	if part == "" {
		return ""
	}
	return part + ": "
}

// exact writes a count with all its digits, "none" where there is none.
func exact(x *float64) string {
	if x == nil {
		return "none"
	}
	return stat.Exact(*x)
}
