package page

import (
	"fmt"
	"path/filepath"
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
		case s.LabComparison() != nil:
			out = append(out, labComparisonBlock(s.LabComparison()))
		}
		if len(out) > before {
			v.addFootnotes(&out[len(out)-1], s, changePart)
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
	unit  string
	pairs []pair
}

// newChangeTable is an empty table of rows that are each a what.
func newChangeTable(caption, what, unit string) *changeTable {
	return &changeTable{unit: unit, table: &table{Caption: caption, Columns: []column{
		{what, ""}, {"old ns", "n"}, {"new ns", "n"}, {"change " + unit, "n"}, {"", "i"}, {"verdict", "t"},
	}}}
}

// missing adds a row that could not be compared, and why.
func (t *changeTable) missing(name string, old, new *stat.Quantity, why string) {
	t.add(name, cells.OrDash(old), cells.OrDash(new), "–", "", why)
}

// compared adds a row. word is its verdict, verdict that with what would have been
// seen.
func (t *changeTable) compared(name string, old, new *stat.Quantity, d *stat.Difference, word,
	verdict string) *tableRow {
	change, around := cells.Difference(d)
	t.pairs = append(t.pairs, pair{
		label: cells.Clean(name), old: old, new: new,
		change: fmt.Sprintf("%s %s %s", change, t.unit, around), word: word, mark: verdictMark(word),
	})
	return t.add(name, cells.OrDash(old), cells.OrDash(new), change, around, verdict)
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
	rows := newChangeTable("Change of each row in % of old [interval]; + is slower", "row", "%")
	prices := newChangeTable("Change of each price in % of the old one [interval]; + is a higher price", "row", "%")
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
		word := row.Outcome()
		t.compared(name, row.Old, row.New, row.Difference, word, cells.Verdict(row)).Differs = row.Regression
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
	t := newChangeTable("Change of each stage in ns a packet [interval]; + is slower", "stage", "ns")
	for i := range c.Rows {
		row := &c.Rows[i]
		if row.Difference == nil {
			t.missing(row.Name, row.Old, row.New, row.Missing)
			continue
		}
		word := row.Outcome()
		t.compared(row.Name, row.Old, row.New, row.Difference, word, cells.StageVerdict(row)).Differs = row.Regression
	}
	b := block{
		Heading: between(c.Old, c.New, ""), Text: []string{conclusion.ProfileComparison(c), conclusion.ProfileBasis}, Tables: []*table{t.table},
		Figure: t.figure(v, "Old and new ns of each stage", "ns a packet", "Beside them the change."),
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
