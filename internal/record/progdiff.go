package record

import (
	"errors"
	"fmt"
)

// ProgDiff is a record of `prog diff`: what two programs differ in on the same packets. Its rows are classes of packets.
type ProgDiff struct {
	Comparison
	ProgDiffParts
}

// ProgDiffParts are what a record of prog diff has beside its rows.
type ProgDiffParts struct {
	// OldProgram and NewProgram are what was compared, Packets on what.
	OldProgram ProgramIdentity `json:"old-program"`
	NewProgram ProgramIdentity `json:"new-program"`
	Packets    PacketSource    `json:"packets"`
	// Behaviors are the ways in which packets come out of the two otherwise; empty when all come out alike, and nil
	// where the old side is a saved record.
	Behaviors []BehaviorChange `json:"behaviors"`
	// Unsteady is of how many packets both programs themselves make something else from run to run, or one of them too seldom to tell:
	// they are not compared.
	Unsteady int `json:"unsteady,omitempty"`
	// Redirected is of how many packets it was compared where the two redirect them to; RedirectsUnseen says why it was not, though packets
	// are redirected. Of records of older versions it was not.
	Redirected      int    `json:"redirected,omitempty"`
	RedirectsUnseen string `json:"redirects-unseen,omitempty"`
	// BehaviorMayChange is set when the user said so: such a change is no regression then.
	BehaviorMayChange bool `json:"behavior-may-change,omitempty"`
	// Calls are what the code of one calls more often than that of the other, of all programs that [ProgramIdentity.Programs]
	// counts; nil where code could not be read.
	Calls []CallChange `json:"calls"`
}

// BehaviorChange is how packets come out of two programs otherwise.
type BehaviorChange struct {
	// What is "verdict", "length", "target" of a redirect, or "bytes": a packet is in the first that holds.
	What string `json:"what"`
	// Old and New are the verdicts, the lengths in bytes, or where packets are redirected to, "other each time" where that varies in one of
	// the two; empty for bytes, unless they vary in one and are "always the same" in the other.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
	// Packets is how many, First the number of the first of them, from 1.
	Packets int `json:"packets"`
	First   int `json:"first"`
}

// CallChange is a call, a lookup or an indirect branch that one of two programs has more often.
type CallChange struct {
	// Name is as in a row of prog xray, with " (indirect)" for an indirect branch.
	Name string `json:"name"`
	// Old and New are how often it stands in the code.
	Old int `json:"old"`
	New int `json:"new"`
}

// Regressed implements [Changes]: a packet got slower, or comes out otherwise where that was not asked for.
func (d *ProgDiff) Regressed() bool {
	return d.Comparison.Regressed() || len(d.Behaviors) > 0 && !d.BehaviorMayChange
}

func (d *ProgDiff) check() error {
	if d.Mean != nil {
		return errors.New("programs have no geometric mean")
	}
	for _, id := range []ProgramIdentity{d.OldProgram, d.NewProgram} {
		if err := id.check(); err != nil {
			return err
		}
	}
	if err := d.Packets.check(); err != nil {
		return err
	}
	if d.Unsteady < 0 || d.Redirected < 0 {
		return fmt.Errorf("impossible number of packets: %d, %d", d.Unsteady, d.Redirected)
	}
	if err := checkTexts([]string{d.RedirectsUnseen}); err != nil {
		return err
	}
	if n := len(d.Behaviors) + len(d.Calls); n > MaxRows {
		return errTooMany(n)
	}
	for _, b := range d.Behaviors {
		if err := checkTexts([]string{b.What, b.Old, b.New}); err != nil {
			return err
		}
		if b.Packets < 1 || b.First < 1 {
			return fmt.Errorf("impossible number of packets: %d, first %d", b.Packets, b.First)
		}
	}
	for _, c := range d.Calls {
		if err := checkTexts([]string{c.Name}); err != nil {
			return err
		}
		if c.Old < 0 || c.New < 0 {
			return fmt.Errorf("impossible number of calls: %d, %d", c.Old, c.New)
		}
	}
	return errors.Join(d.MachineChange.check(), checkChanges(d.Rows))
}

// ProgDiff is a record of prog diff.
func (s *Saved) ProgDiff() *ProgDiff { return as[*ProgDiff](s) }
