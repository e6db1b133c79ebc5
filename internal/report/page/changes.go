package page

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// changeBlocks are comparisons.
func (v *viewer) changeBlocks() []block {
	var out []block
	for _, s := range v.src.Records {
		before := len(out)
		switch {
		case s.Comparison() != nil:
			out = append(out, v.comparisonBlocks(s.Comparison())...)
		case s.ProfileComparison() != nil:
			out = append(out, v.profileComparisonBlock(s.ProfileComparison()))
		case s.SiteComparison() != nil:
			out = append(out, siteComparisonBlock(s))
		case s.FindingComparison() != nil:
			out = append(out, findingComparisonBlock(s.FindingComparison()))
		case s.Gate() != nil:
			out = append(out, gateBlock(s.Gate()))
		case s.LabComparison() != nil:
			out = append(out, labComparisonBlock(s.LabComparison()))
		}
		if len(out) > before {
			v.addFootnotes(&out[len(out)-1], s, changePart)
		}
	}
	return out
}

// behaviorBlocks are which packets come out of two programs otherwise, and which calls came and went.
func (v *viewer) behaviorBlocks() (out []block) {
	for _, s := range v.src.Records {
		if d := s.ProgDiff(); d != nil {
			b := block{Heading: between(d.Old, d.New, "")}
			for _, text := range append(cells.Behaviors(d), cells.CallChanges(d)...) {
				b.Text = append(b.Text, strings.TrimSpace(text))
			}
			out = append(out, b)
		}
	}
	return out
}

// between names the two sides of a comparison.
func between(old, new record.Origin, by string) string {
	if by != "" {
		return fmt.Sprintf("%s, rows that differ in %s", cells.Clean(filepath.Base(new.File)), cells.Clean(by))
	}
	name := func(o record.Origin) string {
		s := "a record"
		if o.File != "" {
			s = cells.Clean(filepath.Base(o.File))
		}
		if !o.Time.IsZero() {
			s += " (" + o.Time.UTC().Format("2006-01-02 15:04") + ")"
		}
		return s
	}
	return name(old) + " → " + name(new)
}

// changeTable is a table of what was compared, and the rows of its figure.
type changeTable struct {
	*table
	// unit of the changes.
	unit string
	// references is set for runs that took some: the table has what they leave of a change.
	references bool
	pairs      []pair
}

// newChangeTable is an empty table of rows that are each a what. references is set for
// runs that took some.
func newChangeTable(caption, what, unit string, references bool) *changeTable {
	t := &changeTable{unit: unit, references: references, table: &table{Caption: caption, Columns: []column{
		{what, ""}, {"old ns", "n"}, {"new ns", "n"}, {"change " + unit, "n"}, {"", "i"}, {"verdict", "t"},
	}}}
	if references {
		t.Columns = slices.Insert(t.Columns, 5, column{"cycles %", "n w"}, column{"relative to references " + unit, "n w"},
			column{"", "i w"})
	}
	return t
}

// missing adds a row that could not be compared, and why.
func (t *changeTable) missing(name string, old, new *stat.Quantity, why string) {
	row := []string{name, cells.OrDash(old), cells.OrDash(new), "–", "", why}
	if t.references {
		row = slices.Insert(row, 5, "", "", "")
	}
	t.add(row...)
}

// compared adds a row that has a difference; verdict is its verdict with what would have
// been seen.
func (t *changeTable) compared(name string, c *record.Change, verdict string) {
	change, around := cells.Difference(c.Difference)
	word := c.Outcome()
	t.pairs = append(t.pairs, pair{
		label: cells.Clean(name), old: c.Old, new: c.New,
		change: fmt.Sprintf("%s %s %s", change, t.unit, around), word: word, mark: verdictMark(word),
	})
	row := []string{name, cells.OrDash(c.Old), cells.OrDash(c.New), change, around, verdict}
	if t.references {
		var cycles, left, leftAround string
		if c.Cycles != nil {
			cycles, _ = cells.Difference(c.Cycles)
		}
		if c.Relative != nil {
			left, leftAround = cells.Difference(c.Relative)
		}
		row = slices.Insert(row, 5, cycles, left, leftAround)
	}
	t.add(row...).Differs = c.Regression
}

// figure is the picture of what was compared, which folds the table; nil when there is
// nothing to draw. changes is a sentence on the changes beside the rows.
func (t *changeTable) figure(v *viewer, title, unit, changes string) *figure {
	if !v.draw || len(t.pairs) == 0 {
		return nil
	}
	t.Folded = true
	caption := "○ old, ● new, with their 95 % intervals. " + changes +
		" ▲ slower, ▼ faster, = no difference seen, ? cannot tell."
	return pairsFigure(v.id(), title, unit, caption, t.pairs)
}

// comparisonBlocks are what two records of bench, run or tax differ in: rows, then
// prices.
func (v *viewer) comparisonBlocks(c *record.Comparison) []block {
	const beside = "Beside them the change, whose interval holds for all rows together."
	rows := newChangeTable("Change of each row in % of old [interval]; + is slower", "row", "%", len(c.Machine) > 0)
	prices := newChangeTable("Change of each price in % of the old one [interval]; + is a higher price", "row", "%",
		len(c.Machine) > 0)
	for i := range c.Rows {
		row := &c.Rows[i]
		name, t := row.Name, rows
		if row.Against != "" {
			name += " against " + row.Against
		}
		if row.Price {
			t = prices
		}
		if row.Difference == nil {
			t.missing(name, row.Old, row.New, row.Missing)
			continue
		}
		t.compared(name, &row.Change, cells.Verdict(row))
	}
	var out []block
	if len(rows.Rows) > 0 {
		fig := rows.figure(v, "Old and new ns per packet", "ns a packet", beside)
		out = append(out, block{Figure: fig, Tables: []*table{rows.table}})
	}
	if len(prices.Rows) > 0 {
		fig := prices.figure(v, "Old and new prices of calls", "ns a call", beside)
		out = append(out, block{Figure: fig, Tables: []*table{prices.table}})
	}
	if len(out) == 0 {
		out = []block{{}}
	}
	out[0].Heading = between(c.Old, c.New, c.By)
	out[0].Text = append(out[0].Text, conclusion.Comparison(c))
	last := &out[len(out)-1]
	if machine := machineTable(&c.MachineChange); machine != nil {
		last.Tables = append(last.Tables, machine)
	}
	if c.Nothing() == "" {
		last.Text = append(last.Text, conclusion.ComparisonBasis(c))
	}
	if c.By == "" {
		if causes := causesTable(c.Causes); causes != nil {
			last.Tables = append(last.Tables, causes)
		} else {
			last.Text = append(last.Text, "There is no difference between the machines in what unthunk looks at.")
		}
	}
	return out
}

// machineChange is what two runs of a comparison say of the speed of their machine; nil for
// what is no comparison of measurements.
func machineChange(s *record.Saved) *record.MachineChange {
	switch {
	case s.Comparison() != nil:
		return &s.Comparison().MachineChange
	case s.ProfileComparison() != nil:
		return &s.ProfileComparison().MachineChange
	}
	return nil
}

// machineChanges says which references of the comparisons moved; empty when none did.
func (v *viewer) machineChanges() string {
	var said []string
	for _, s := range v.src.Records {
		m := machineChange(s)
		if m == nil || !m.MachineChanged() {
			continue
		}
		var moved []string
		for _, r := range m.Machine {
			if r.Moved {
				moved = append(moved, referenceText(&r))
			}
		}
		said = append(said, cells.Join(": ", v.heading(s), strings.Join(moved, ", ")))
	}
	if len(said) == 0 {
		return ""
	}
	return strings.Join(said, "; ") + ". A verdict is on what these references leave of a change."
}

// referenceText says how a reference changed.
func referenceText(r *record.ReferenceChange) string {
	s := fmt.Sprintf("%s %s → %s %s", cells.Clean(r.Name), cells.OrDash(r.Old), cells.OrDash(r.New),
		record.ReferenceUnit(r.Name))
	if r.Difference != nil {
		change, around := cells.Difference(r.Difference)
		s += fmt.Sprintf(", %s %% %s", change, around)
	}
	return s
}

// machineTable is how the references of two runs changed, nil when there are none.
func machineTable(m *record.MachineChange) *table {
	if len(m.Machine) == 0 {
		return nil
	}
	t := &table{Caption: "References that no change of the path moves; + is a slower machine", Folded: true,
		Columns: []column{{"reference", ""}, {"old", "n"}, {"new", "n"}, {"unit", ""}, {"change %", "n"}, {"", "i"}}}
	for i := range m.Machine {
		r := &m.Machine[i]
		change, around := "", ""
		if r.Difference != nil {
			change, around = cells.Difference(r.Difference)
		}
		t.add(cells.Join(", ", r.Name, r.Part), cells.OrDash(r.Old), cells.OrDash(r.New), record.ReferenceUnit(r.Name), change,
			around).Differs = r.Moved
	}
	return t
}

// causesTable is what machines differ in, nil when that is nothing.
func causesTable(causes []record.Cause) *table {
	if len(causes) == 0 {
		return nil
	}
	t := &table{Caption: "What the machines differ in, most likely cause first", Columns: []column{
		{"", "m"}, {"old", ""}, {"new", ""}, {"why it may matter", "t"},
	}}
	for _, c := range causes {
		t.add(c.Name, cells.Seen(c.Old), cells.Seen(c.New), c.Why)
	}
	return t
}

// profileComparisonBlock is what two profiles differ in, by stage.
func (v *viewer) profileComparisonBlock(c *record.ProfileComparison) block {
	t := newChangeTable("Change of each stage in ns a packet [interval]; + is slower", "stage", "ns", len(c.Machine) > 0)
	for i := range c.Rows {
		row := &c.Rows[i]
		if row.Difference == nil {
			t.missing(row.Name, row.Old, row.New, row.Missing)
			continue
		}
		t.compared(row.Name, &row.Change, cells.StageVerdict(row))
	}
	b := block{
		Heading: between(c.Old, c.New, ""), Text: []string{conclusion.ProfileComparison(c), conclusion.ProfileBasis}, Tables: []*table{t.table},
		Figure: t.figure(v, "Old and new ns of each stage", "ns a packet", "Beside them the change."),
	}
	if machine := machineTable(&c.MachineChange); machine != nil {
		b.Tables = append(b.Tables, machine)
	}
	if causes := causesTable(c.Causes); causes != nil {
		b.Tables = append(b.Tables, causes)
	}
	return b
}

// siteComparisonBlock is what two inventories of indirect branches differ in.
func siteComparisonBlock(s *record.Saved) block {
	c := s.SiteComparison()
	t := &table{Caption: "Indirect branches that differ", Columns: []column{
		{"branch", "m"}, {"change", ""}, {"per", ""}, {"what", "t"},
	}}
	for _, row := range c.Rows {
		of := row.New
		if of == nil {
			of = row.Old
		}
		t.add(row.Name, row.Change, of.Per, cells.Join("; ", append([]string{cells.Made(*of)}, row.What...)...))
	}
	b := block{Heading: between(c.Old, c.New, ""), Text: []string{conclusion.Of(s).Title + "."}}
	if len(t.Rows) > 0 {
		b.Tables = append(b.Tables, t)
	}
	if causes := causesTable(c.Causes); causes != nil {
		b.Tables = append(b.Tables, causes)
	}
	return b
}

// labComparisonBlock is what two records of lab differ in.
func labComparisonBlock(c *record.LabComparison) block {
	t := &table{Caption: "Rows that differ", Columns: []column{{"row", "m"}, {"what", "t"}}}
	for _, row := range c.Rows {
		t.add(row.Name, strings.Join(row.What, "; "))
	}
	b := block{Heading: between(c.Old, c.New, ""), Text: []string{conclusion.LabComparison(c)}}
	if len(t.Rows) > 0 {
		b.Tables = []*table{t}
	}
	return b
}

// findingComparisonBlock is what two records of check differ in.
func findingComparisonBlock(c *record.FindingComparison) block {
	t := &table{Caption: "Findings that differ", Columns: []column{{"finding", "m"}, {"old", "t"}, {"new", "t"}, {"means", "t"}}}
	for i := range c.Rows {
		row := &c.Rows[i]
		texts := [3]string{"–", "–", ""}
		if row.Old != nil {
			texts[0] = row.Old.Found
		}
		if row.New != nil {
			texts[1], texts[2] = row.New.Found, row.New.Means
		}
		t.add(row.Name, texts[0], texts[1], texts[2]).Differs = row.Worse()
	}
	b := block{Heading: between(c.Old, c.New, ""), Text: []string{conclusion.FindingComparison(c)}}
	if len(t.Rows) > 0 {
		b.Tables = []*table{t}
	}
	return b
}
