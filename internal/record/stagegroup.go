package record

import "math"

// Part is what the time of a stage goes to.
type Part string

// The parts of a chain's packet.
const (
	// PartPath is what a redirected packet goes through on any machine: the poll,
	// the program, the redirect, ndo_xdp_xmit, giving frames back.
	PartPath Part = "redirect path"
	// PartRig makes and counts the packets. With NICs other machines do that.
	PartRig Part = "generator and sink"
	// PartAround is shared by all of them.
	PartAround Part = "softirq and locks"
	// PartRest is no packet's.
	PartRest Part = "the rest"
)

// PartOf is the part that a stage of [ProfileRow] or [SiteRow] belongs to.
func PartOf(stage string) Part {
	switch stage {
	case "generator", "sink":
		return PartRig
	case "receive", "program", "redirect", "bulk-queue", "transmit", "completion", "return", "page-pool", "dma":
		return PartPath
	case "softirq", "locks", "stack":
		return PartAround
	}
	return PartRest
}

// Parts are the ns of a packet by part.
func (p *Profile) Parts() map[Part]float64 {
	sums := make(map[Part]float64)
	for _, row := range p.Rows {
		if row.Ns != nil && !math.IsNaN(row.Ns.Median) {
			sums[PartOf(row.Name)] += row.Ns.Median
		}
	}
	return sums
}
