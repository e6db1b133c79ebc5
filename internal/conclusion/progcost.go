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

// progDiffHeadline says what comes out otherwise before it says how fast.
func progDiffHeadline(d *record.ProgDiff) Headline {
	h := comparisonHeadline(&d.Comparison)
	packets := 0
	for _, b := range d.Behaviors {
		packets += b.Packets
	}
	if packets > 0 {
		h.Title = fmt.Sprintf("Behavior changed: %d of %d packets come out otherwise. %s", packets, d.Packets.Kept, h.Title)
		h.Tells = true
	}
	return h
}
