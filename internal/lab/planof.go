package lab

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/record"
)

// PlanOf is the plan whose guests count on another kernel what the rows of a record have counted. Labels that no plan
// has are an error.
func PlanOf(l *record.Lab, kernel string) (Plan, error) {
	p := Plan{Kernels: []string{kernel}}
	add := func(list []string, value string) []string {
		if slices.Contains(list, value) {
			return list
		}
		return append(list, value)
	}
	p.Arch = ArchOf(l)
	var dmas []string
	for i := range l.Rows {
		labels := l.Rows[i].Labels
		if labels["prog"] != "" { // which program and which packets the caller knows
			p.CPUs, p.Appends = add(p.CPUs, labels["cpu"]), add(p.Appends, labels["append"])
			continue
		}
		bulk, err := strconv.Atoi(labels["bulk"])
		if err != nil {
			return p, fmt.Errorf("row %s: bulk %.20q is no number", l.Rows[i].Name, labels["bulk"])
		}
		if !slices.Contains(p.Bulks, bulk) {
			p.Bulks = append(p.Bulks, bulk)
		}
		p.CPUs, p.Appends = add(p.CPUs, labels["cpu"]), add(p.Appends, labels["append"])
		p.Scenarios = add(p.Scenarios, l.Rows[i].Scenario())
		if nic := labels["nic"]; nic != "" {
			p.NICs = add(p.NICs, nic)
		}
		if dma := labels["dma"]; dma != "" {
			dmas = add(dmas, dma)
		}
	}
	for _, dma := range dmas {
		p.DMAs = append(p.DMAs, DMA(dma))
	}
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
