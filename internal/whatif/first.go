package whatif

import (
	"cmp"
	"slices"

	"github.com/unthunk/unthunk/internal/record"
)

// Why there is no change to make first.
const (
	whyNoRow    = "no change has anything to save"
	whyNoNumber = "no change has a number"
	whyNotSure  = "nothing is told apart, as each change may save nothing"
)

// first is the change that saves most for sure of rows, which are those of a driver in a setup.
func first(u *use, rows []record.WhatIfRow, prices Prices) record.WhatIfFirst {
	f := record.WhatIfFirst{Driver: u.driver.Name, Release: u.driver.Release, DMA: u.dma, Alike: []string{}}
	var best *record.WhatIfRow
	for i := range rows {
		if r := &rows[i]; r.Saving != nil && (best == nil || more(r, best) > 0) {
			best = r
		}
	}
	switch {
	case len(rows) == 0:
		f.Why = whyNoRow
	case best == nil:
		f.Why = whyNoNumber
	case best.Saving.Low <= 0:
		f.Why = whyNotSure
	default:
		f.Change, f.Saving = best.Labels["change"], best.Saving
		for i := range rows {
			if r := &rows[i]; r != best && !surelyLess(r, best, prices) {
				f.Alike = append(f.Alike, r.Labels["change"])
			}
		}
	}
	return f
}

// more compares what rows save.
func more(a, b *record.WhatIfRow) int {
	lowA, highA := surely(a.Saving)
	lowB, highB := surely(b.Saving)
	return cmp.Or(cmp.Compare(lowA, lowB), cmp.Compare(highA, highB))
}

// surelyLess tells whether a row saves less than another at any prices that both may have: as both have the same, their
// intervals may overlap.
func surelyLess(r, than *record.WhatIfRow, prices Prices) bool {
	if r.Saving == nil {
		return false
	}
	indirect := than.Saved.Indirect.Minus(*r.Saved.Indirect)
	ns, _ := nsOf(&record.WhatIfCounts{Direct: than.Saved.Direct.Minus(r.Saved.Direct), Indirect: &indirect}, prices)
	return ns.Low > 0
}

// sortFirst puts drivers for whom most is sure first, and keeps the setups of each together.
func sortFirst(all []record.WhatIfFirst) {
	type driver struct{ name, release string }
	best := make(map[driver]float64)
	for _, f := range all {
		of := driver{f.Driver, f.Release}
		low, _ := surely(f.Saving)
		if old, ok := best[of]; !ok || low > old {
			best[of] = low
		}
	}
	slices.SortStableFunc(all, func(a, b record.WhatIfFirst) int {
		return cmp.Or(cmp.Compare(best[driver{b.Driver, b.Release}], best[driver{a.Driver, a.Release}]),
			cmp.Compare(a.Driver, b.Driver), cmp.Compare(a.Release, b.Release))
	})
}
