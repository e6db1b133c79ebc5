package result

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// LoadSites reads a record that xray wrote with --save or --json. A record of
// another kind is an [ErrKind]; anything else that is not one is an error of one
// line with the file's name.
func LoadSites(path string) (*Document[SiteRow], error) { return load(path, parseSites) }

func parseSites(b []byte) (*Document[SiteRow], error) {
	kind, err := parseHead(b)
	if err != nil {
		return nil, err
	}
	if kind != "xray" {
		return nil, fmt.Errorf("%w: %.40q", ErrKind, kind)
	}
	doc := new(Document[SiteRow])
	if err := json.Unmarshal(b, doc); err != nil {
		return nil, fmt.Errorf("not a record of xray: %w", err)
	}
	if doc.Run == "" {
		return nil, errors.New("the record has no run identity")
	}
	if n := len(doc.Rows); n > MaxRows {
		return nil, fmt.Errorf("%d rows: at most %d are possible", n, MaxRows)
	}
	if err := checkListings(doc.Code); err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for i := range doc.Rows {
		if err := checkRow(seen, i, doc.Rows[i].Name, doc.Rows[i].check); err != nil {
			return nil, err
		}
	}
	return doc, nil
}

func (r *SiteRow) check() error {
	texts := append([]string{r.Function, r.Kind, r.Thunk, r.Stage, r.Sure, r.Per, r.what()}, r.Targets...)
	for _, text := range append(texts, r.Via...) {
		if utf8.RuneCountInString(text) > maxText || !printable(text) {
			return fmt.Errorf("impossible text %.60q", text)
		}
	}
	if r.Function == "" || r.Kind == "" || r.Per == "" {
		return errors.New("it has no function, kind or per")
	}
	return nil
}

// what is called, "unknown" when that is not known.
func (r *SiteRow) what() string {
	if r.Calls == nil {
		return "unknown"
	}
	return *r.Calls
}

// SiteComparison is what two records of xray differ in. It marshals as a document
// of kind "compare" whose host is that of the new record.
type SiteComparison struct {
	Document[SiteChange]
	Old Origin `json:"old"`
	New Origin `json:"new"`
	// Same is how many branches are in both and alike.
	Same   int     `json:"same"`
	Causes []Cause `json:"causes"`
}

// SiteChange is an indirect branch that two records differ in.
type SiteChange struct {
	Name string `json:"name"`
	// Change is "new", "gone" or "changed".
	Change string `json:"change"`
	// What of a changed one differs: "kind: thunk → register".
	What []string `json:"what,omitempty"`
	// Old and New are the rows, null where there is none.
	Old *SiteRow `json:"old"`
	New *SiteRow `json:"new"`
}

// CompareSites compares two records of xray. Branches are matched by function and
// by what they call; where a function calls the same more than once, in the order
// of their offsets, which may themselves move from build to build.
func CompareSites(old, new *Document[SiteRow]) *SiteComparison {
	c := &SiteComparison{
		Old: Origin{Time: old.Time, Run: old.Run}, New: Origin{Time: new.Time, Run: new.Run},
		Causes: causes(old.Host, new.Host),
	}
	c.Schema, c.Kind, c.Time, c.Run, c.Host, c.Settings = Schema, "compare", new.Time, new.Run, new.Host, new.Settings
	c.Rows, c.Warnings = []SiteChange{}, []Warning{}
	if a, b := old.Settings["path"], new.Settings["path"]; a != b {
		c.Warnings = append(c.Warnings, Warning{Text: "the two records are of different paths"})
	}
	before := make(map[string]*SiteRow)
	for i := range old.Rows {
		before[old.Rows[i].Name] = &old.Rows[i]
	}
	for i := range new.Rows {
		row := &new.Rows[i]
		was := before[row.Name]
		delete(before, row.Name)
		if was == nil {
			c.Rows = append(c.Rows, SiteChange{Name: row.Name, Change: "new", New: row})
			continue
		}
		if what := was.differs(row); len(what) > 0 {
			c.Rows = append(c.Rows, SiteChange{row.Name, "changed", what, was, row})
		} else {
			c.Same++
		}
	}
	for i := range old.Rows {
		if row := &old.Rows[i]; before[row.Name] != nil {
			c.Rows = append(c.Rows, SiteChange{Name: row.Name, Change: "gone", Old: row})
		}
	}
	order := []string{"new", "changed", "gone"}
	slices.SortStableFunc(c.Rows, func(a, b SiteChange) int {
		return cmp.Compare(slices.Index(order, a.Change), slices.Index(order, b.Change))
	})
	return c
}

// made is how a branch is made: a call, or a jump.
func (r *SiteRow) made() string {
	if r.Jump {
		return "jmp"
	}
	return "call"
}

// differs says what of a branch is another in the new record. Its offset moves
// with every build and is left out.
func (r *SiteRow) differs(new *SiteRow) (what []string) {
	for _, f := range []struct{ name, old, new string }{
		{"kind", r.Kind, new.Kind},
		{"made", r.made(), new.made()},
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
