package lab

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"unthunk/redirect"
)

// Plan is a matrix of guests.
type Plan struct {
	// Kernels are what [guest.Resolve] takes.
	Kernels []string
	// CPUs are QEMU models; none means "max".
	CPUs []string
	// Appends are kernel command lines; none means an empty one.
	Appends []string
	// Bulks are measured in each guest; none means 1, 16 and 64.
	Bulks []int
	// Limit is what one guest may take; 0 is two minutes.
	Limit time.Duration
}

// Cell is one guest of the matrix.
type Cell struct {
	Kernel string // as it was asked for
	CPU    string
	Append string
}

// Name is the cell's stable name: what differs from the defaults.
func (c Cell) Name() string {
	parts := []string{c.Kernel}
	if c.CPU != "" {
		parts = append(parts, "cpu="+c.CPU)
	}
	parts = append(parts, strings.Fields(c.Append)...)
	return strings.Join(parts, "/")
}

const defaultLimit = 2 * time.Minute

func (p Plan) withDefaults() Plan {
	if len(p.CPUs) == 0 {
		p.CPUs = []string{""}
	}
	if len(p.Appends) == 0 {
		p.Appends = []string{""}
	}
	if len(p.Bulks) == 0 {
		p.Bulks = []int{1, 16, 64}
	}
	if p.Limit == 0 {
		p.Limit = defaultLimit
	}
	return p
}

// maxCells bounds a matrix.
const maxCells = 256

// Validate returns an error in one line when the plan cannot be meant.
func (p Plan) Validate() error {
	p = p.withDefaults()
	if len(p.Kernels) == 0 {
		return errors.New("no kernel is named: a folder, a vmlinuz, a .deb, or debian:6.12-cloud")
	}
	if err := (redirect.Plan{Bulks: p.Bulks}).Validate(); err != nil {
		return err
	}
	for _, texts := range [][]string{p.Kernels, p.CPUs, p.Appends} {
		for _, text := range texts {
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
				return fmt.Errorf("%q has a control character", text)
			}
		}
	}
	if p.Limit < time.Second {
		return fmt.Errorf("a limit of %v is too short for a boot", p.Limit)
	}
	if n := len(p.Cells()); n > maxCells {
		return fmt.Errorf("%d guests: at most %d are booted in a run", n, maxCells)
	}
	return nil
}

// Cells lists the matrix: command lines within CPUs within kernels.
func (p Plan) Cells() []Cell {
	p = p.withDefaults()
	var cells []Cell
	for _, kernel := range p.Kernels {
		for _, cpu := range p.CPUs {
			for _, line := range p.Appends {
				if c := (Cell{kernel, cpu, line}); !slices.Contains(cells, c) {
					cells = append(cells, c)
				}
			}
		}
	}
	return cells
}

// AB are the command lines of an experiment by its short name: with a mitigation and
// without.
func AB(name string) (with, without string, err error) {
	switch name {
	case "spectre_v2":
		return "spectre_v2=retpoline", "spectre_v2=off", nil
	case "mitigations":
		return "mitigations=auto", "mitigations=off", nil
	}
	return "", "", fmt.Errorf("experiment %q is not spectre_v2 or mitigations", name)
}

// confirm holds what a guest found of its mitigations against what its command line
// asked for: in /sys and in the code.
func confirm(c Cell, m *Measurement) error {
	sys, thunk := m.Host.Mitigations["spectre-v2"], m.Host.IndirectThunk
	off, retpoline := false, false
	for _, word := range strings.Fields(c.Append) {
		off = off || word == "spectre_v2=off" || word == "mitigations=off" || word == "nospectre_v2"
		retpoline = retpoline || word == "spectre_v2=retpoline" || word == "spectre_v2=retpoline,generic"
	}
	switch {
	case off && (strings.HasPrefix(thunk, "retpoline") || strings.Contains(sys, "Retpolines")),
		retpoline && (!strings.HasPrefix(thunk, "retpoline") || !strings.Contains(sys, "Retpolines")):
		return fmt.Errorf("%q was asked for, but /sys says %q and an indirect call is %q in memory", c.Append, sys, thunk)
	}
	return nil
}
