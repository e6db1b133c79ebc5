package cells

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// BenchCells are the numbers of a row of bench. What a row does not have is empty.
type BenchCells struct {
	Mpps, MppsInterval string
	// Ns are those of a packet, Hop of them those of the redirect.
	Ns, NsInterval, Hop, HopInterval string
	// Frames are those of one ndo_xdp_xmit call.
	Frames string
}

// Bench is a row of bench that was not refused in cells.
func Bench(row *record.BenchRow) BenchCells {
	var c BenchCells
	c.Mpps, c.MppsInterval = Quantity(row.Mpps)
	c.Ns, c.NsInterval = Quantity(row.Ns)
	c.Hop, c.HopInterval = Quantity(row.Hop)
	c.Frames, _ = Quantity(row.FramesPerXmit)
	return c
}

// BenchMethod says in one sentence what the numbers are.
func BenchMethod(doc *record.Document[record.BenchRow]) string {
	rounds, hops := 0, false
	var said []string
	for i := range doc.Rows {
		row := &doc.Rows[i]
		rounds = max(rounds, len(row.Rounds))
		hops = hops || row.Hop != nil
		if row.CountingCost != nil {
			median, around := Quantity(row.CountingCost)
			said = append(said, fmt.Sprintf("Counting cost: %s ns per packet %s, on %s.", median, around, row.Name))
		}
	}
	s := fmt.Sprintf("Medians of %d rounds, each on new chains [95 %% intervals].", rounds)
	if hops {
		s += " Hop: ns of the chain minus ns of the same chain without the redirect."
	}
	return strings.Join(append([]string{s}, said...), " ")
}
