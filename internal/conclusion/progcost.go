package conclusion

import (
	"fmt"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// costHeadline is what a packet costs, of the row of all packets or else the first that has a number.
func costHeadline(c *record.ProgCost) Headline {
	for _, row := range c.Rows {
		if row.Ns == nil {
			continue
		}
		return Headline{Title: fmt.Sprintf("A packet costs %s %s", c.Program.Name, row.Ns.Text(stat.Number))}
	}
	return Headline{Title: fmt.Sprintf("What a packet costs %s has no number", c.Program.Name)}
}
