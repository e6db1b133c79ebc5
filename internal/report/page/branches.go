package page

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// branchBlocks are the inventories of xray, and what an indirect call is.
func (v *viewer) branchBlocks() []block {
	var out []block
	for _, s := range v.src.Records {
		if s.Sites() == nil {
			continue
		}
		h := conclusion.Of(s)
		b := block{
			Heading: cells.Join(": ", v.heading(s), "the path of "+inventoried(s)),
			Text:    []string{h.Title + ". " + h.Text}, Tables: v.siteTables(s.Sites().Rows),
		}
		if c := s.Sites().Counts; c != nil {
			b.addText(cells.SiteCounts(c))
			if t := countedElsewhere(c); t != nil {
				b.Tables = append(b.Tables, t)
			}
		}
		v.addFootnotes(&b, s, sitesPart)
		out = append(out, b)
	}
	return append(out, v.thunkBlocks()...)
}

// siteTables are the branches of an inventory that are not rare, and apart from them those
// that cannot run in this setup.
func (v *viewer) siteTables(rows []record.SiteRow) []*table {
	columns := []column{{"branch", "m"}, {"stage", "w"}, {"how often", ""}, {"made", "w"}, {"calls", "m c"}}
	may := &table{Caption: "Indirect branches on the redirect path that are not rare", Columns: columns, Folded: v.draw}
	var cannot []record.SiteRow
	apart := &table{Columns: columns, Folded: v.draw}
	for _, row := range rows {
		if row.Aside() {
			continue
		}
		t := may
		if row.CannotRun != "" {
			t, cannot = apart, append(cannot, row)
		}
		t.add(cells.Site(row), row.Stage, cells.HowOften(row), cells.Made(row), cells.Target(row))
	}
	if len(cannot) == 0 {
		return []*table{may}
	}
	apart.Caption = "On the path in code, but they cannot run here: " + cells.CannotRun(cannot)
	return []*table{may, apart}
}

// countedElsewhere has a row for each branch that a guest counted and the inventory does
// not have, nil when there is none.
func countedElsewhere(c *record.SiteCounts) *table {
	if len(c.Others) == 0 {
		return nil
	}
	t := &table{Caption: "Counted at branches that are not on this path", Folded: true, Columns: []column{
		{"branch", "m"}, {"enters", "m"}, {"how often", ""},
	}}
	for _, s := range c.Others {
		t.add(fmt.Sprintf("%s+%#x", s.Function, s.Offset), s.Target, cells.PerPackets(s.PerPacket, "", ""))
	}
	return t
}

// thunkBlocks say what an indirect call is in the memory of each machine.
func (v *viewer) thunkBlocks() []block {
	var out []block
	type kind struct{ sites, thunk, ret string }
	var order []kind
	of := make(map[kind][]string)
	for _, s := range v.src.Records {
		k := kind{s.Host.CallSites, s.Host.IndirectThunk, s.Host.ReturnThunk}
		if k.thunk == "" && k.sites == "" {
			continue
		}
		if of[k] == nil {
			order = append(order, k)
		}
		of[k] = append(of[k], v.labels[s])
	}
	for _, k := range order {
		listings := v.listings(of[k])
		if len(order) == 1 && len(listings) == 0 { // the line above the title says it
			return nil
		}
		text := fmt.Sprintf("In memory indirect calls go %s, the thunk is: %s, returns: %s.",
			cmp.Or(cells.Clean(k.sites), "a way that was not seen"),
			cmp.Or(cells.Clean(k.thunk), "not seen"), cmp.Or(cells.Clean(k.ret), "not seen"))
		b := block{Heading: "What an indirect call is", Text: []string{text}}
		if len(order) > 1 {
			b.Heading += ": " + strings.Join(of[k], ", ")
		}
		if len(listings) == 0 {
			b.Text = append(b.Text, "No record here holds their code: one of xray does.")
		}
		b.Tables = listings
		out = append(out, b)
	}
	return out
}

// listings are the thunks' code, of the first of the named records that has some.
func (v *viewer) listings(names []string) []*table {
	var out []*table
	for _, s := range v.src.Records {
		if s.Sites() == nil || len(s.Sites().Code) == 0 || !slices.Contains(names, v.labels[s]) {
			continue
		}
		for _, l := range s.Sites().Code {
			t := &table{Caption: l.Name + ", as it is in memory", Folded: v.draw,
				Columns: []column{{"", "o n w"}, {l.Name, "m c"}, {"what it is there for", "t"}}}
			for _, line := range l.Lines {
				mark := ""
				if line.Indirect {
					mark = " ◆"
				}
				t.add(fmt.Sprintf("+%#x", line.Offset), line.Text+mark, line.Note)
			}
			out = append(out, t)
		}
		break
	}
	return out
}
