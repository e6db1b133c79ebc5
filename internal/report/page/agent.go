package page

import (
	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// agentBlocks are what agent found on machines at work.
func (v *viewer) agentBlocks() []block {
	var out []block
	for _, s := range v.src.Records {
		doc := s.Agent()
		if doc == nil {
			continue
		}
		b := block{Heading: v.heading(s)}
		for _, text := range []string{
			conclusion.AgentMachine(doc), conclusion.AgentPaths(doc), conclusion.AgentPrograms(doc), conclusion.AgentFindings(doc),
			conclusion.AgentCost(doc),
		} {
			b.addText(text)
		}
		if len(doc.Redirect) > 0 {
			b.Tables = append(b.Tables, redirectTable(doc.Redirect))
		}
		var refused []note
		for _, r := range doc.Refused {
			refused = append(refused, note{cells.Clean(r.Part), cells.Clean(r.Reason + ": " + r.Text)})
		}
		b.addList("Not done", refused)
		out = append(out, b)
	}
	return out
}

// redirectTable has the redirect alone, by bulk.
func redirectTable(rows []record.BenchRow) *table {
	t := &table{Caption: "The redirect alone: ns a packet, medians [95 % intervals]", Columns: []column{
		{"row", ""}, {"ns", "n"}, {"95 %", "i"},
	}}
	for i := range rows {
		row := &rows[i]
		if row.Hop == nil {
			t.add(row.Name, "–", "no number: "+row.Refused)
			continue
		}
		hop, around := cells.Quantity(row.Hop)
		t.add(row.Name, hop, around)
	}
	return t
}
