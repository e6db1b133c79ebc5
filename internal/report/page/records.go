package page

import (
	"slices"
	"strings"
)

// recordBlocks are the files, and what they were made with.
func (v *viewer) recordBlocks() []block {
	t := &table{Caption: "Files, and the settings of each run",
		Columns: []column{{"file", "m"}, {"kind", ""}, {"began", "i"}, {"run", "m w"}, {"settings", "t"}}}
	for _, s := range v.src.Records {
		var settings []string
		for key, value := range s.Settings {
			settings = append(settings, key+"="+value)
		}
		slices.Sort(settings)
		began := ""
		if !s.Time.IsZero() {
			began = s.Time.UTC().Format("2006-01-02 15:04:05")
		}
		t.add(v.labels[s], s.Kind, began, s.Run, strings.Join(settings, " "))
	}
	if len(t.Rows) == 0 {
		return nil
	}
	t.Folded = v.draw
	b := block{Tables: []*table{t}}
	for _, s := range v.src.Records {
		b.addList("Warnings on numbers of "+v.labels[s]+" that are not shown", v.otherNotes(s))
	}
	return []block{b}
}
