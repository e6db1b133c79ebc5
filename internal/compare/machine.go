package compare

import (
	"math"
	"slices"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// machine are the references of two runs, or of the same part of two runs.
type machine []referencePair

// referencePair is one reference that both runs took.
type referencePair struct{ old, new *record.Reference }

// machines pairs the references of two runs by name.
func machines(old, new []record.Reference) (m machine) {
	for was, is := range matched(old, new, func(r *record.Reference) string { return r.Name }) {
		if was != nil && is != nil {
			m = append(m, referencePair{was, is})
		}
	}
	return m
}

// leastMove is the change of a reference in percent below which it is not called moved, however sure it is.
const leastMove = 1

// changes are the references as a comparison shows them. Their intervals hold together.
func (m machine) changes() []record.ReferenceChange {
	var changes []record.ReferenceChange
	var ds []stat.Difference
	for _, pair := range m {
		changes = append(changes, record.ReferenceChange{
			Name: pair.new.Name, Part: pair.new.Part, Old: pair.old.Value, New: pair.new.Value,
		})
		if ns := pair.new.Ns(); ns != nil {
			ds = append(ds, stat.Unpaired(pair.old.Ns(), ns))
		}
	}
	ds = stat.Family(ds)
	for i, pair := range m {
		if pair.new.Ns() == nil {
			continue
		}
		d := ds[0]
		ds = ds[1:]
		changes[i].Difference = &d
		changes[i].Moved = d.P <= stat.Alpha && math.Abs(d.Median) >= leastMove
	}
	return changes
}

// scale adds to a change what it is in cycles, and what the references leave of it. Rounds in which a reference has
// no number are left out. One more reference is work that no machine moves: what is compared may not feel what moved the
// others, such as a rate that is the traffic's, and is not called faster for keeping pace while they slowed down.
func (m machine) scale(c *record.Change, old, new *entry, compare func(a, b []float64) stat.Difference) {
	var refs []stat.Reference
	a, b := old, new
	for _, pair := range m {
		if pair.new.Ns() == nil {
			continue
		}
		a, b = a.in(pair.old), b.in(pair.new)
	}
	for _, pair := range m {
		if pair.new.Ns() == nil {
			continue
		}
		_, olds := inBoth(a, referenceEntry(pair.old))
		_, news := inBoth(b, referenceEntry(pair.new))
		ref := stat.Reference{Old: olds, New: news}
		refs = append(refs, ref)
		if pair.new.Name == record.CoreClock {
			d := stat.RelativeTo([]stat.Reference{ref}, a.samples, b.samples, compare)
			c.Cycles, c.OldCycles, c.NewCycles = &d, cycles(a.samples, olds), cycles(b.samples, news)
		}
	}
	if len(refs) == 0 {
		return
	}
	refs = append(refs, stat.Reference{Old: steady(a.samples), New: steady(b.samples)})
	d := stat.RelativeTo(refs, a.samples, b.samples, compare)
	c.Relative = &d
}

// steady is a reference that never moves, in as many rounds as xs has.
func steady(xs []float64) []float64 { return slices.Repeat([]float64{1}, len(xs)) }

// in is a row in the rounds that a reference has.
func (e *entry) in(r *record.Reference) *entry {
	kept := *e
	kept.samples, kept.rounds = nil, nil
	has := make(map[int]bool, len(r.Rounds))
	for _, round := range r.Rounds {
		has[round] = true
	}
	for i, round := range e.rounds {
		if has[round] {
			kept.samples, kept.rounds = append(kept.samples, e.samples[i]), append(kept.rounds, round)
		}
	}
	return &kept
}

// referenceEntry is a reference as a row: in ns, so that more is slower.
func referenceEntry(r *record.Reference) *entry {
	return &entry{name: r.Name, samples: r.Ns(), rounds: r.Rounds}
}

// cycles are ns, by what a cycle took in each round.
func cycles(ns, cycle []float64) *stat.Quantity {
	if len(ns) == 0 {
		return nil
	}
	out := make([]float64, len(ns))
	for i := range ns {
		out[i] = ns[i] / cycle[i]
	}
	q := stat.Summarize(out, "cycles")
	return &q
}

// partOfPrices is the part of a record that prices are.
func partOfPrices(r *record.Saved) string {
	if r.Tax() != nil {
		return ""
	}
	return record.PartPrices
}

// watch takes the references of two runs for the rows that are compared next. Rows of one run need none: what moves the
// machine moves both sides of a round.
func (c *rows) watch(old, new *record.Saved, oldPart, newPart string) {
	c.machine = nil
	if old.Run == new.Run {
		return
	}
	c.machine = machines(old.References(oldPart), new.References(newPart))
	c.Machine = append(c.Machine, c.machine.changes()...)
}

// unknownSpeed says that a record has no references; it is empty when both have.
func unknownSpeed(old, new bool) string {
	which := "neither record has references"
	switch {
	case old && new:
		return ""
	case new:
		which = "the old record has no references"
	case old:
		which = "the new record has no references"
	}
	return "the machine's speed is unknown: " + which + "; a machine that changed looks like a change of the path"
}
