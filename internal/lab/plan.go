package lab

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/progcount"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
)

// Plan is a matrix of guests.
type Plan struct {
	// Kernels are what [guest.Resolve] takes.
	Kernels []string
	// Arch is the architecture that all of them must be of; empty for whichever they are.
	Arch string
	// GuestProgram is unthunk for guests of another architecture than this machine's; empty for the file unthunk-ARCH beside this one.
	GuestProgram string
	// CPUs are QEMU models; none means "max".
	CPUs []string
	// Appends are kernel command lines; none means an empty one.
	Appends []string
	// NICs are what frames go through, as [NICs] names it; none means veth.
	NICs []string
	// DMAs are how the memory of NICs other than veth is mapped; none means direct.
	DMAs []DMA
	// Bulks are measured in each guest; none means 1, 16 and 64.
	Bulks []int
	// Scenarios are the ways of a packet that each guest counts at each bulk: names of
	// [Scenarios] or, without veth, of [WireScenarios], or [AllScenarios] alone; none means [DefaultScenario].
	Scenarios []string
	// Time boots each guest of this machine's architecture once more, with KVM, one at a time, and measures time. Where
	// [Plan.Earlier] says that this failed, it is tried again with TimeAgain alone.
	Time, TimeAgain bool
	// Trace says where the instructions are executed.
	Trace  bool
	files  map[string][]byte // what a program's guests get; made by [Run]
	images *images           // what is read of kernels for traces; made by [Run]
	// Annotate is a function whose instructions a trace lists; empty for none.
	Annotate string
	// Program is one of the user's that is counted on packets, in place of a redirect: no NICs, DMAs and bulks then.
	Program *progcount.Job
	// Earlier is a record whose rows are taken over in place of a guest that would count the same again; nil for none.
	Earlier *record.Lab
	// Done is called after each guest with what came of all so far, by one goroutine at a time; it may be nil.
	Done func([]CellResult)
	// Limit is what one guest may take; 0 is [DefaultLimit].
	Limit time.Duration
}

// Cell is one guest of the matrix.
type Cell struct {
	Kernel string // as it was asked for
	CPU    string
	Append string
	NIC    string
	DMA    DMA // empty for veth
}

// Name is the cell's stable name: what differs from the defaults.
func (c Cell) Name() string {
	parts := []string{record.Name(c.Kernel)}
	if c.CPU != "" {
		parts = append(parts, "cpu="+record.Name(c.CPU))
	}
	if c.NIC != Veth {
		parts = append(parts, "nic="+c.NIC, "dma="+string(c.DMA))
	}
	if line := strings.Join(strings.Fields(c.Append), "/"); line != "" {
		parts = append(parts, record.Name(line))
	}
	return strings.Join(parts, "/")
}

// DefaultLimit is some 20 times what a boot takes on a quiet machine: others may be at work on its cores.
const DefaultLimit = 5 * time.Minute

func (p Plan) withDefaults() Plan {
	if len(p.CPUs) == 0 {
		p.CPUs = []string{""}
	}
	if len(p.Appends) == 0 {
		p.Appends = []string{""}
	}
	if len(p.NICs) == 0 {
		p.NICs = []string{Veth}
	}
	if len(p.DMAs) == 0 {
		p.DMAs = []DMA{Direct}
	}
	if len(p.Bulks) == 0 {
		p.Bulks = []int{1, 16, 64}
	}
	switch {
	case len(p.Scenarios) == 0:
		p.Scenarios = []string{DefaultScenario}
	case slices.Equal(p.Scenarios, []string{AllScenarios}):
		p.Scenarios = scenariosOn(p.NICs)
	}
	if p.Limit == 0 {
		p.Limit = DefaultLimit
	}
	return p
}

// maxCells bounds a matrix.
const maxCells = 256

// Validate returns an error in one line when the plan cannot be meant.
func (p Plan) Validate() error {
	p = p.withDefaults()
	if len(p.Kernels) == 0 {
		return errors.New("no kernel is named: a tree, a folder, a bzImage, a .deb or .rpm, or debian:6.12-cloud")
	}
	if err := (redirect.Plan{Bulks: p.Bulks}).Validate(); err != nil {
		return err
	}
	for _, name := range p.Scenarios {
		s, err := findScenario(name)
		if err != nil {
			return err
		}
		if !onWires(s) && !slices.Contains(p.NICs, Veth) {
			return fmt.Errorf("scenario %s is counted on veth, and not on wires", name)
		}
		if byWorker(s.chain) && slices.Contains(p.NICs, Veth) {
			return fmt.Errorf("scenario %s is counted on wires alone: choose --nic igb or virtio, without veth", name)
		}
	}
	for _, texts := range [][]string{p.Kernels, p.CPUs, p.Appends} {
		for _, text := range texts {
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
				return fmt.Errorf("%q has a control character", text)
			}
		}
	}
	for _, text := range slices.Concat(p.CPUs, p.Appends) { // guests of a gate are booted by what a record has of these
		if len(text) > record.MaxName || record.Sentence(text) != strings.TrimSpace(text) {
			return fmt.Errorf("%.60q has more than %d bytes, or a character that no terminal shows", text, record.MaxName)
		}
	}
	if p.Arch != "" {
		if err := guest.CheckArch(p.Arch); err != nil {
			return err
		}
	}
	for _, nic := range p.NICs {
		if p.Arch == guest.ARM64 && nic != Veth {
			return errors.New("guests of arm64 have veth, and no other NIC")
		}
		if !slices.Contains(nicModels, nic) {
			return fmt.Errorf("NIC %q is not %s", nic, strings.Join(nicModels, ", "))
		}
	}
	for _, dma := range p.DMAs {
		if _, ok := dmaLines[dma]; !ok {
			return fmt.Errorf("DMA %q is not %s", dma, strings.Join(record.DMASetups(), ", "))
		}
		if dma != Direct && slices.Equal(p.NICs, []string{Veth}) {
			return errors.New("a veth does no DMA: choose --nic " + strings.Join(nicModels[1:], ", "))
		}
	}
	if p.Program != nil {
		if !slices.Equal(p.NICs, []string{Veth}) || p.Time {
			return errors.New("a program is counted on packets, by no NIC and without time")
		}
		if err := p.Program.Validate(); err != nil {
			return err
		}
	}
	if p.Limit < time.Second {
		return fmt.Errorf("a limit of %v is too short for a boot", p.Limit)
	}
	if n := p.guests(); n > maxCells {
		return fmt.Errorf("%d guests: at most %d are booted in a run", n, maxCells)
	}
	return nil
}

// guests is how many cells a plan has.
func (p Plan) guests() (n int) {
	for _, nic := range once(p.NICs) {
		n += len(p.mappings(nic))
	}
	return n * len(once(p.Kernels)) * len(once(p.CPUs)) * len(once(p.Appends))
}

// mappings are the DMA setups of a NIC.
func (p Plan) mappings(nic string) []DMA {
	if nic == Veth {
		return []DMA{""}
	}
	return once(p.DMAs)
}

// Cells lists the matrix: command lines within DMA setups within NICs within CPUs
// within kernels, each once.
func (p Plan) Cells() []Cell {
	p = p.withDefaults()
	kernels, cpus, nics, lines := once(p.Kernels), once(p.CPUs), once(p.NICs), once(p.Appends)
	var cells []Cell
	for _, kernel := range kernels {
		for _, cpu := range cpus {
			for _, nic := range nics {
				for _, dma := range p.mappings(nic) {
					for _, line := range lines {
						cells = append(cells, Cell{kernel, cpu, line, nic, dma})
					}
				}
			}
		}
	}
	return cells
}

// once are the entries of a list, each where it stands first.
func once[T comparable](list []T) (out []T) {
	stands := make(map[T]bool)
	for _, entry := range list {
		if !stands[entry] {
			out, stands[entry] = append(out, entry), true
		}
	}
	return out
}

// Rows are those of each guest: bulks within scenarios, each once.
func (p Plan) Rows() (rows []Row) {
	p = p.withDefaults()
	bulks := once(p.Bulks)
	for _, s := range once(p.Scenarios) {
		for _, b := range bulks {
			rows = append(rows, Row{s, b})
		}
	}
	return rows
}

// AB are the command lines of an experiment by its short name: with a mitigation and
// without.
func AB(name, arch string) (with, without string, err error) {
	switch name {
	case "spectre_v2":
		if arch == guest.ARM64 {
			return "", "", errors.New("arm64 has no retpolines: use --ab mitigations")
		}
		return "spectre_v2=retpoline", "spectre_v2=off", nil
	case "mitigations":
		return "mitigations=auto", "mitigations=off", nil
	}
	return "", "", fmt.Errorf("experiment %q is not spectre_v2 or mitigations", name)
}

// confirm holds what a guest found of its mitigations against what its command line
// asked for, in /sys and in the code, and how memory is mapped against that.
func confirm(c Cell, m *Measurement) error {
	if m.Mapped != c.DMA {
		return fmt.Errorf("%s was asked for, but the guest maps memory by %s", c.DMA, m.Mapped)
	}
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
