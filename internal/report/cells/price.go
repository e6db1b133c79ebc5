package cells

import (
	"fmt"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// PriceCells are the numbers of a row of tax. What a row does not have is empty.
type PriceCells struct {
	// With and Without are ns of the two sides, Price ns of one call with its
	// interval.
	With, Without, Price, PriceInterval string
	// Cycles of the time stamp counter are whole.
	Cycles string
	// PerPacket is how often the call runs for a packet, NsPerPacket what that
	// takes. Both are empty for what is not on the path.
	PerPacket, NsPerPacket string
}

// Price is a row of tax that was not refused in cells.
func Price(row *record.TaxRow) PriceCells {
	var c PriceCells
	c.With, _ = Quantity(row.With)
	c.Without, _ = Quantity(row.Without)
	c.Price, c.PriceInterval = Quantity(row.Price)
	if row.Cycles != nil {
		c.Cycles = fmt.Sprintf("%.0f", row.Cycles.Median)
		if c.Cycles == "-0" {
			c.Cycles = "0"
		}
	}
	if row.PerPacket != nil && row.PerPacket.Median != 0 {
		c.PerPacket, _ = Quantity(row.PerPacket)
		c.NsPerPacket, _ = Quantity(row.NsPerPacket)
		if ns := row.NsPerPacket; ns != nil && !ns.Seen() && ns.High >= 0 {
			c.NsPerPacket = "≤" + stat.Number(ns.High)
		}
	}
	return c
}
