package compare

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// Sites compares two records of xray. Branches are matched by function and
// by what they call; where a function calls the same more than once, in the order
// of their offsets, which may themselves move from build to build.
func Sites(old, new *record.Document[record.SiteRow]) *record.SiteComparison {
	c := &record.SiteComparison{
		Old: record.Origin{Time: old.Time, Run: old.Run}, New: record.Origin{Time: new.Time, Run: new.Run},
		Causes: causes(old.Host, new.Host),
	}
	c.Schema, c.Kind, c.Time, c.Run, c.Host, c.Settings = record.Schema, "compare", new.Time, new.Run, new.Host, new.Settings
	c.Rows, c.Warnings = []record.SiteChange{}, []record.Warning{}
	if a, b := old.Settings["path"], new.Settings["path"]; a != b {
		c.Warnings = append(c.Warnings, record.Warning{Text: "the two records are of different paths"})
	}
	before := make(map[string]*record.SiteRow)
	for i := range old.Rows {
		before[old.Rows[i].Name] = &old.Rows[i]
	}
	for i := range new.Rows {
		row := &new.Rows[i]
		was := before[row.Name]
		delete(before, row.Name)
		if was == nil {
			c.Rows = append(c.Rows, record.SiteChange{Name: row.Name, Change: "new", New: row})
			continue
		}
		if what := siteDiffers(was, row); len(what) > 0 {
			c.Rows = append(c.Rows, record.SiteChange{Name: row.Name, Change: "changed", What: what, Old: was, New: row})
		} else {
			c.Same++
		}
	}
	for i := range old.Rows {
		if row := &old.Rows[i]; before[row.Name] != nil {
			c.Rows = append(c.Rows, record.SiteChange{Name: row.Name, Change: "gone", Old: row})
		}
	}
	order := []string{"new", "changed", "gone"}
	slices.SortStableFunc(c.Rows, func(a, b record.SiteChange) int {
		return cmp.Compare(slices.Index(order, a.Change), slices.Index(order, b.Change))
	})
	return c
}

// made is how a branch is made: a call, or a jump.
func made(r *record.SiteRow) string {
	if r.Jump {
		return "jmp"
	}
	return "call"
}

// differs says what of a branch is another in the new record. Its offset moves
// with every build and is left out.
func siteDiffers(r, new *record.SiteRow) (what []string) {
	for _, f := range []struct{ name, old, new string }{
		{"kind", r.Kind, new.Kind},
		{"made", made(r), made(new)},
		// Which register a thunk takes is the compiler's whim.
		{"thunk", thunkFamily(r.Thunk), thunkFamily(new.Thunk)},
		{"stage", r.Stage, new.Stage},
		{"per", r.Per, new.Per},
		{"targets", strings.Join(r.Targets, ", "), strings.Join(new.Targets, ", ")},
	} {
		if f.old != f.new {
			what = append(what, fmt.Sprintf("%s: %s → %s", f.name, cmp.Or(f.old, "none"), cmp.Or(f.new, "none")))
		}
	}
	return what
}

// thunkFamily is the name of a thunk without its register.
func thunkFamily(name string) string {
	if i := strings.LastIndexByte(name, '_'); i > 0 && strings.HasPrefix(name, "__x86_indirect_") {
		return name[:i]
	}
	return name
}
