package page

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// changes are comparisons.
func (v *viewer) changes() []block {
	var out []block
	for _, s := range v.src.Records {
		switch {
		case s.Comparison != nil:
			out = append(out, v.comparison(s)...)
		case s.ProfileComparison != nil:
			out = append(out, v.profileComparison(s))
		case s.SiteComparison != nil:
			out = append(out, v.siteComparison(s))
		case s.LabComparison != nil:
			out = append(out, v.labComparison(s))
		}
	}
	return out
}

// between names the two sides of a comparison.
func (v *viewer) between(old, new record.Origin, by string) string {
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

const pairedCaption = "○ old, ● new, with their 95 %% intervals. %s ▲ slower, ▼ faster, = no difference seen, ? cannot tell."

func (v *viewer) comparison(s *record.Saved) []block {
	c := s.Comparison
	var out []block
	for _, prices := range []bool{false, true} {
		var rows []pairedRow
		t := &table{Caption: "Change of each row in % of old [interval]; + is slower", Columns: []column{
			{"row", ""}, {"old ns", "n"}, {"new ns", "n"}, {"change %", "n"}, {"", "i"}, {"verdict", "t"},
		}}
		if prices {
			t.Caption = "Change of each price in % of the old one [interval]; + is dearer"
		}
		for i := range c.Rows {
			row := &c.Rows[i]
			if row.Price != prices {
				continue
			}
			name := cells.Clean(row.Name)
			if row.Against != "" {
				name += " against " + cells.Clean(row.Against)
			}
			if row.Difference == nil {
				t.add(name, cells.OrDash(row.Old), cells.OrDash(row.New), "–", "", row.Missing)
				continue
			}
			d := row.Difference
			t.add(name, cells.OrDash(row.Old), cells.OrDash(row.New), cells.Signed(d.Median), cells.Interval(d.Low, d.High, cells.Signed), cells.Verdict(row)).Differs = row.Regression
			word, _, _ := strings.Cut(row.Verdict, " (")
			rows = append(rows, pairedRow{name, row.Old, row.New, fmt.Sprintf("%s %% %s", cells.Signed(d.Median), cells.Interval(d.Low, d.High, cells.Signed)), word, verdictMark(row.Verdict)})
		}
		if len(t.Rows) == 0 {
			continue
		}
		b := block{Heading: v.between(c.Old, c.New, c.By), Tables: []*table{t}}
		if len(out) > 0 {
			b.Heading = ""
		}
		if v.draw && len(rows) > 0 {
			unit, title := "ns a packet", "Old and new ns per packet"
			if prices {
				unit, title = "ns a call", "Old and new prices of calls"
			}
			b.Figure = pairedFigure(v.id(), title, unit, fmt.Sprintf(pairedCaption, "Beside them the change, whose interval holds for all rows together."), rows)
			t.Folded = true
		}
		out = append(out, b)
	}
	if len(out) == 0 {
		out = []block{{Heading: v.between(c.Old, c.New, c.By), Text: []string{"Nothing could be compared."}}}
	}
	last := &out[len(out)-1]
	last.Text = append(last.Text, cells.ComparisonSummary(c))
	if c.By == "" {
		last.Tables = append(last.Tables, causesTable(c.Causes)...)
		if len(c.Causes) == 0 {
			last.Text = append(last.Text, "The machines are alike in all that was looked at.")
		}
	}
	return out
}

func causesTable(causes []record.Cause) []*table {
	if len(causes) == 0 {
		return nil
	}
	t := &table{Caption: "What the machines differ in, likeliest cause first", Columns: []column{{"", "m"}, {"old", ""}, {"new", ""}, {"why it may matter", "t"}}}
	for _, c := range causes {
		t.add(c.Name, cells.Seen(c.Old), cells.Seen(c.New), c.Why)
	}
	return []*table{t}
}

func (v *viewer) profileComparison(s *record.Saved) block {
	c := s.ProfileComparison
	t := &table{Caption: "Change of each stage in ns a packet [interval]; + is slower", Columns: []column{
		{"stage", ""}, {"old ns", "n"}, {"new ns", "n"}, {"change ns", "n"}, {"", "i"}, {"verdict", "t"},
	}}
	var rows []pairedRow
	for _, row := range c.Rows {
		d := row.Difference
		if d == nil {
			t.add(row.Name, cells.OrDash(row.Old), cells.OrDash(row.New), "–", "", row.Missing)
			continue
		}
		word, _, _ := strings.Cut(row.Verdict, " (")
		t.add(row.Name, cells.OrDash(row.Old), cells.OrDash(row.New), cells.Signed(d.Median), cells.Interval(d.Low, d.High, cells.Signed), word+" ("+d.WouldHaveSeen()+")").Differs = row.Regression
		rows = append(rows, pairedRow{cells.Clean(row.Name), row.Old, row.New, fmt.Sprintf("%s ns %s", cells.Signed(d.Median), cells.Interval(d.Low, d.High, cells.Signed)), word, verdictMark(row.Verdict)})
	}
	b := block{Heading: v.between(c.Old, c.New, ""), Text: []string{cells.ProfileSummary(c)}, Tables: append([]*table{t}, causesTable(c.Causes)...)}
	if v.draw && len(rows) > 0 {
		b.Figure = pairedFigure(v.id(), "Old and new ns of each stage", "ns a packet", fmt.Sprintf(pairedCaption, "Beside them the change."), rows)
		t.Folded = true
	}
	return b
}

func (v *viewer) siteComparison(s *record.Saved) block {
	c := s.SiteComparison
	t := &table{Caption: "Indirect branches that differ", Columns: []column{{"branch", "m"}, {"change", ""}, {"per", ""}, {"what", "t"}}}
	for _, row := range c.Rows {
		of := row.New
		if of == nil {
			of = row.Old
		}
		t.add(row.Name, row.Change, of.Per, cells.Join("; ", append([]string{cells.Made(*of)}, row.What...)...))
	}
	b := block{Heading: v.between(c.Old, c.New, ""), Text: []string{conclusion.Of(s).Title + "."}, Tables: causesTable(c.Causes)}
	if len(t.Rows) > 0 {
		b.Tables = append([]*table{t}, b.Tables...)
	}
	return b
}

func (v *viewer) labComparison(s *record.Saved) block {
	c := s.LabComparison
	t := &table{Caption: "Rows that differ", Columns: []column{{"row", "m"}, {"what", "t"}}}
	for _, row := range c.Rows {
		t.add(row.Name, strings.Join(row.What, "; "))
	}
	b := block{Heading: v.between(c.Old, c.New, ""), Text: []string{fmt.Sprintf("%d rows are equal to the digit, %d are not.", c.Same, len(c.Rows))}}
	if len(t.Rows) > 0 {
		b.Tables = []*table{t}
	}
	return b
}
