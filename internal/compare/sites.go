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
	c := &record.SiteComparison{Causes: causes(old.Host, new.Host)}
	c.Head, c.Compared = headOf(&old.Head, &new.Head)
	c.Rows, c.Warnings = []record.SiteChange{}, []record.Warning{}
	if old.Settings["path"] != new.Settings["path"] {
		c.Warn("", "the two records are of different paths")
	}
	for was, is := range matched(old.Rows, new.Rows, func(r *record.SiteRow) string { return r.Name }) {
		switch {
		case was == nil:
			c.Rows = append(c.Rows, record.SiteChange{Name: is.Name, Change: "new", New: is})
		case is == nil:
			c.Rows = append(c.Rows, record.SiteChange{Name: was.Name, Change: "gone", Old: was})
		default:
			if what := siteDiffers(was, is); len(what) > 0 {
				c.Rows = append(c.Rows, record.SiteChange{Name: is.Name, Change: "changed", What: what, Old: was, New: is})
			} else {
				c.Same++
			}
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
		{"check", r.Check, new.Check},
		{"made", made(r), made(new)},
		// Which register a thunk takes is the compiler's whim.
		{"thunk", thunkFamily(r.Thunk), thunkFamily(new.Thunk)},
		{"stage", r.Stage, new.Stage},
		{"per", r.Per, new.Per},
		{"targets", strings.Join(r.Targets, ", "), strings.Join(new.Targets, ", ")},
	} {
		if f.old != f.new {
			what = append(what, record.Sentence(fmt.Sprintf("%s: %s → %s", f.name, cmp.Or(f.old, "none"), cmp.Or(f.new, "none"))))
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
