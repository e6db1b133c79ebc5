package cells

import (
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
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

// Fates are verdicts of packets with their shares: "tx 99.9 %, pass 0.1 %".
func Fates(v record.Verdicts) string {
	var all []string
	for _, n := range v.Named() {
		all = append(all, fmt.Sprintf("%s %s %%", n.Name, stat.Number(100*n.Share)))
	}
	return strings.Join(all, ", ")
}
