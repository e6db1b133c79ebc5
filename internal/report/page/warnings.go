package page

import (
	"fmt"

	"github.com/unthunk/unthunk/internal/report/cells"
)

// warningBlocks are the warnings of each record.
func (v *viewer) warningBlocks() []block {
	var out []block
	for _, s := range v.src.Records {
		if len(s.Warnings) == 0 {
			continue
		}
		b := block{Heading: v.heading(s)}
		for i, w := range s.Warnings {
			if i == maxTable {
				b.Notes = append(b.Notes, note{"", fmt.Sprintf("and %d more in the record", len(s.Warnings)-i)})
				break
			}
			b.Notes = append(b.Notes, note{cells.Clean(w.Row), cells.Clean(w.Text)})
		}
		out = append(out, b)
	}
	return out
}
