package lab

import (
	"fmt"
	"strconv"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/record"
)

// PlanOf is the plan whose guests count on another kernel what the rows of a record have counted. Labels that no plan
// has are an error.
func PlanOf(l *record.Lab, kernel string) (Plan, error) {
	p := Plan{Kernels: []string{kernel}}
	p.Arch = ArchOf(l)
	for i := range l.Rows {
		labels := l.Rows[i].Labels
		if labels["prog"] != "" { // which program and which packets the caller knows
			p.CPUs, p.Appends = append(p.CPUs, labels["cpu"]), append(p.Appends, labels["append"])
			continue
		}
		bulk, err := strconv.Atoi(labels["bulk"])
		if err != nil {
			return p, fmt.Errorf("row %s: bulk %.20q is no number", l.Rows[i].Name, labels["bulk"])
		}
		p.Bulks, p.Scenarios = append(p.Bulks, bulk), append(p.Scenarios, l.Rows[i].Scenario())
		p.CPUs, p.Appends = append(p.CPUs, labels["cpu"]), append(p.Appends, labels["append"])
		if nic := labels["nic"]; nic != "" {
			p.NICs = append(p.NICs, nic)
		}
		if dma := labels["dma"]; dma != "" {
			p.DMAs = append(p.DMAs, DMA(dma))
		}
	}
	p.CPUs, p.Appends, p.Scenarios, p.Bulks = once(p.CPUs), once(p.Appends), once(p.Scenarios), once(p.Bulks)
	p.NICs, p.DMAs = once(p.NICs), once(p.DMAs)
	if err := p.Validate(); err != nil {
		return p, err
	}
	return p, nil
}

// ArchOf is the architecture of the guests that a record has counted in.
func ArchOf(l *record.Lab) string {
	for i := range l.Rows {
		if b := l.Rows[i].Build; b != nil && b.Arch != "" {
			return b.Arch
		}
	}
	return guest.AMD64
}
