package record

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/unthunk/unthunk/internal/stat"
)

// Names of references.
const (
	// CoreClock is the clock of the core under test in GHz.
	CoreClock = "core-clock"
	// KernelLoop is a turn of a BPF program's loop that calls nothing, NearWalk a load from the L2 cache, FarWalk one
	// from L3 or memory, in ns.
	KernelLoop = "kernel-loop"
	NearWalk   = "near-walk"
	FarWalk    = "far-walk"
	// Steal is what the hypervisor had of the CPU's time, OtherTasks how long the threads that measure waited for the
	// CPU while others ran (of real devices: how long any task ran there), Sibling how long the other thread of its core
	// was busy, in percent of the round.
	Steal      = "steal"
	OtherTasks = "other-tasks"
	Sibling    = "sibling"
)

// References are the names that a [Reference] can have, in the order in which they are shown.
func References() []string {
	return []string{CoreClock, KernelLoop, NearWalk, FarWalk, Steal, OtherTasks, Sibling}
}

// ReferenceUnit is the unit of a reference.
func ReferenceUnit(name string) string {
	switch name {
	case CoreClock:
		return "GHz"
	case KernelLoop, NearWalk, FarWalk:
		return "ns"
	}
	return "percent"
}

// Reference is what a fixed piece of work took in each round of a run, on the CPU under test, or how much of the time
// others had: see package reference. No change of what is measured moves it.
type Reference struct {
	Name string `json:"name"`
	// Part of a record of run in whose rounds it was taken: "prices" or "stages". Empty for the rows.
	Part string `json:"part,omitempty"`
	// Value is the median of the rounds, in GHz, ns or percent.
	Value *stat.Quantity `json:"value"`
	// Samples are one a round; Rounds are the numbers of those rounds, those of the rows.
	Samples []float64 `json:"samples"`
	Rounds  []int     `json:"rounds"`
}

// Ns are the samples so that more is slower: of a clock ns for a cycle. They are nil for what is no time.
func (r *Reference) Ns() []float64 {
	switch ReferenceUnit(r.Name) {
	case "ns":
		return r.Samples
	case "GHz":
		ns := make([]float64, len(r.Samples))
		for i, ghz := range r.Samples {
			ns[i] = 1 / ghz
		}
		return ns
	}
	return nil
}

// Parts of a record of run that have references of their own.
const (
	PartPrices = "prices"
	PartStages = "stages"
)

// AddReferences adds references to a record, as those of a part.
func (d *Document[Row]) AddReferences(part string, more []Reference) {
	for _, r := range more {
		r.Part = part
		d.References = append(d.References, r)
	}
}

// maxGHz is more than any clock.
const maxGHz = 100

func (r *Reference) check() error {
	unit := ReferenceUnit(r.Name)
	if !slices.Contains(References(), r.Name) {
		return nil // of a newer version: it is not used
	}
	if r.Part != "" && r.Part != PartPrices && r.Part != PartStages {
		return fmt.Errorf("impossible part %.60q", r.Part)
	}
	possible := func(x float64) bool {
		switch unit {
		case "ns":
			return x > 0 && x <= maxNs
		case "GHz":
			return x > 0 && x <= maxGHz
		}
		return x >= 0 && x <= 100
	}
	if err := checkSamples(r.Samples, r.Rounds, possible); err != nil {
		return err
	}
	if r.Value == nil || math.IsNaN(r.Value.Median) || len(r.Samples) == 0 {
		return errors.New("it has no number")
	}
	return checkQuantities([]quantity{{r.Name, unit, r.Value, false}})
}

// checkReferences checks those of a document: each stands for one piece of work and part.
func checkReferences(refs []Reference) error {
	seen := make(map[[2]string]bool)
	for i := range refs {
		r := &refs[i]
		key := [2]string{r.Name, r.Part}
		if seen[key] {
			return fmt.Errorf("reference %.60q: occurs twice", r.Name)
		}
		seen[key] = true
		if err := r.check(); err != nil {
			return fmt.Errorf("reference %.60q: %w", r.Name, err)
		}
	}
	return nil
}
