package record

import (
	"fmt"
)

// RunParts are what a record of run has beside the rows of its ladder; empty in
// all others.
type RunParts struct {
	// Prices are those of indirect calls.
	Prices []TaxRow `json:"prices,omitempty"`
	// Stages are where a packet's ns go, and Profile what else its profile has.
	Stages  []ProfileRow  `json:"stages,omitempty"`
	Profile *ProfileParts `json:"profile,omitempty"`
	// Programs are the XDP programs that devices ran when the run began, with Attached; none
	// in records of versions that did not look.
	Programs []ProgramRow `json:"programs,omitempty"`
	// Conclusion is what the run comes to.
	Conclusion *Conclusion `json:"verdict,omitempty"`
}

// checkNone refuses a record of another kind that has parts of a run.
func (r *RunParts) checkNone(kind string) error {
	if len(r.Prices)+len(r.Stages)+len(r.Programs) > 0 || r.Profile != nil || r.Conclusion != nil {
		return fmt.Errorf("not a record of %s: it has prices or stages beside its rows", kind)
	}
	return nil
}

func checkRun(d *Document[BenchRow]) error {
	if d.Profile != nil {
		p := Profile{ProfileParts: *d.Profile}
		p.Rows = d.Stages
		if err := p.check(); err != nil {
			return fmt.Errorf("not a record of run: stages: %w", err)
		}
	}
	if d.Conclusion != nil {
		if err := d.Conclusion.check(); err != nil {
			return fmt.Errorf("not a record of run: verdict: %w", err)
		}
	}
	if err := checkReferences(d.References); err != nil {
		return err
	}
	if err := checkRows(d.Programs, nil); err != nil {
		return fmt.Errorf("not a record of run: programs: %w", err)
	}
	if n := len(d.Rows) + len(d.Prices); n > MaxRows {
		return errTooMany(n)
	}
	// Warnings name rows, so a name stands for one row of a record.
	names := make(map[string]bool)
	if err := checkRows(d.Rows, names); err != nil {
		return err
	}
	return checkRows(d.Prices, names)
}
