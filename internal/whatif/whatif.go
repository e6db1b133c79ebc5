package whatif

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/release"
	"github.com/unthunk/unthunk/internal/stat"
)

// skipsSyncs is the version of Linux from which on a sync that has nothing to do is no call (f406c8e4b770).
const skipsSyncs = "6.10"

// DMAs are the DMA setups that there are estimates for. An IOMMU that maps everything to itself does what there is without one.
func DMAs() []string {
	return slices.DeleteFunc(record.DMASetups(), func(dma string) bool { return dma == record.DMAIOMMUPass })
}

// The changes.
const (
	BulkReturn = "bulk-return"     // frames of a page pool are returned together
	KeepRX     = "keep-rx-mapped"  // pages that are received into are mapped once
	KeepTX     = "keep-tx-mapped"  // pages that are sent from are mapped once, as in AF_XDP's zero copy
	GatherTX   = "gather-tx-maps"  // a bulk is mapped, and unmapped, as one list
	SkipSyncs  = "skip-no-op-sync" // a sync that has nothing to do is no call, as since Linux 6.10
)

// Changes are those that there are estimates for.
func Changes() []string { return []string{BulkReturn, KeepRX, KeepTX, GatherTX, SkipSyncs} }

// Bulk is how many frames of a devmap are sent together (DEV_MAP_BULK_SIZE in kernel/bpf/devmap.c).
const Bulk = 16

// together is the part of calls that goes when there is one for a bulk in place of one for each packet.
const together = 1 - 1.0/Bulk

// Prices are in ns; nil is not measured.
type Prices struct {
	Call       *stat.Quantity // of an indirect call
	DirectCall *stat.Quantity // of a direct call and its return
}

// Prices of pairs of tax.
const (
	callPair   = "bpf-prog"
	directPair = "direct-call"
)

// Pairs are the pairs of tax that give the prices.
func Pairs() []string { return []string{callPair, directPair} }

// LackingPairs are the pairs that rows of tax do not have. Without each of them there is no ns at all.
func LackingPairs(rows []record.TaxRow) []string {
	return slices.DeleteFunc(Pairs(), func(pair string) bool {
		return slices.ContainsFunc(rows, func(r record.TaxRow) bool { return r.Name == pair })
	})
}

// PricesOf takes the prices from rows of tax. missing says what has none, and why.
func PricesOf(rows []record.TaxRow) (p Prices, missing []string) {
	find := func(pair, what string) *stat.Quantity {
		i := slices.IndexFunc(rows, func(r record.TaxRow) bool { return r.Name == pair })
		switch {
		case i < 0:
			missing = append(missing, fmt.Sprintf("the price of %s was not measured: no row %s", what, pair))
		case rows[i].Price == nil:
			missing = append(missing, fmt.Sprintf("the price of %s was not measured: %s", what, rows[i].Refused))
		case math.IsNaN(rows[i].Price.Low) || math.IsNaN(rows[i].Price.High):
			missing = append(missing, fmt.Sprintf("the price of %s has no interval: too few rounds", what))
		default:
			return rows[i].Price
		}
		return nil
	}
	p.Call, p.DirectCall = find(callPair, "an indirect call"), find(directPair, "a direct call")
	return p, missing
}

// Estimate fills what doc has of calls, rows and what follows from them: those of drivers in each of some DMA setups. labs are
// records of guests whose counts take precedence.
func Estimate(doc *record.WhatIf, drivers []record.DriverRow, dmas []string, labs []*record.Lab, prices Prices) {
	counts := newCounts(labs)
	doc.Bulk, doc.Call, doc.DirectCall = Bulk, prices.Call, prices.DirectCall
	doc.Calls = counts.calls(drivers, dmas)
	doc.First, doc.Without = []record.WhatIfFirst{}, []record.WhatIfWithout{}
	var uses []*use
	for i := range drivers {
		for _, dma := range dmas {
			uses = append(uses, counts.use(&drivers[i], dma))
		}
	}
	how := howToCount(uses)
	for _, u := range uses {
		var rows []record.WhatIfRow
		for _, change := range Changes() {
			if why := u.nothing(change); why != "" {
				doc.Without = append(doc.Without,
					record.WhatIfWithout{Driver: u.driver.Name, Release: u.driver.Release, DMA: u.dma, Change: change, Why: why})
				continue
			}
			row := u.row(change)
			price(row, prices, how[release.Series(u.driver.Release)])
			rows = append(rows, *row)
		}
		doc.First = append(doc.First, first(u, rows, prices))
		doc.Rows = append(doc.Rows, rows...)
	}
	for _, text := range unseen(uses, how) {
		doc.Warn("", text)
	}
	slices.SortStableFunc(doc.Rows, func(a, b record.WhatIfRow) int {
		lowA, highA := surely(a.Saving)
		lowB, highB := surely(b.Saving)
		return cmp.Or(cmp.Compare(lowB, lowA), cmp.Compare(highB, highA), strings.Compare(a.Name, b.Name), strings.Compare(a.Release, b.Release))
	})
	sortFirst(doc.First)
}

// unseen are warnings of drivers whose code maps nothing for transmission, and that were not counted in a setup.
func unseen(uses []*use, how map[string]string) (warnings []string) {
	for _, u := range uses {
		if !u.unseen {
			continue
		}
		text := fmt.Sprintf("%s of %s maps nothing in its own code for transmission: it copies, or what the bus below it maps is not seen",
			u.driver.Name, u.driver.Release)
		if nicOf(u.driver.Name) != "" {
			text += ". A guest counts it: " + how[release.Series(u.driver.Release)]
		}
		if !slices.Contains(warnings, text) {
			warnings = append(warnings, text)
		}
	}
	return warnings
}

// surely is what rows are sorted by: what is saved at least, and at most.
func surely(saving *stat.Quantity) (low, high float64) {
	if saving == nil {
		return math.Inf(-1), math.Inf(-1)
	}
	return saving.Low, saving.High
}

// use is what a packet does of the DMA API with a driver in a setup: it receives by one of its devices, and is sent by another.
type use struct {
	driver  *record.DriverRow
	dma     string
	counted *record.LabRow // nil for what the code shows
	rx, tx  mapping
	// syncs of a frame that was received, returns of one that was sent.
	syncs   record.Range
	sync    call
	returns record.Range
	unseen  bool // it sends, and its code maps nothing for that
}

// mapping is how often one side maps, and what that does.
type mapping struct {
	maps   record.Range
	unmaps float64 // for each map
	// one map, and one unmap.
	mapped, unmapped call
}

// row is a change's, of which [use.nothing] has no reason against it.
func (u *use) row(change string) *record.WhatIfRow {
	row := &record.WhatIfRow{
		Name:   u.driver.Name + "/" + u.dma + "/" + change,
		Labels: map[string]string{"driver": u.driver.Name, "dma": u.dma, "change": change}, Release: u.driver.Release,
		Source: record.FromCode, Besides: []string{},
	}
	if u.counted != nil {
		row.Source, row.Counted, row.Packet = record.FromCounts, u.counted.Name, u.counted.Instructions
	}
	switch change {
	case BulkReturn:
		u.bulkReturn(row)
	case KeepRX, KeepTX, GatherTX:
		m := u.tx
		if change == KeepRX {
			m = u.rx
		}
		row.Now = m.counts(m.once().by(m.maps), m.maps)
		if change == GatherTX {
			row.Saved = m.counts(m.gathered().by(m.maps), m.maps.By(together))
		} else {
			added := u.added(change)
			row.Saved = m.counts(m.once().minus(u.sync.work().by(added)).by(m.maps), m.maps)
			row.Saved.Syncs = record.Range{}.Minus(added.Times(m.maps))
		}
		row.Besides = append(row.Besides, beside(change, u.dma)...)
	case SkipSyncs:
		row.Now = u.sync.work().by(u.syncs).counts()
		row.Now.Syncs = u.syncs
		row.Saved = row.Now
	}
	return row
}

// beside is what a change of maps saves beside calls. A page behind swiotlb is copied whether it is mapped, synced or one of
// a list. A list has entries in page tables for each page, and one range of addresses, which is flushed once.
func beside(change, dma string) []string {
	list := change == GatherTX
	switch {
	case dma == record.DMASwiotlb && !list:
		return []string{"the search for bounce buffers"}
	case dma == record.DMAIOMMULazy && !list:
		return []string{"page tables of the IOMMU"}
	case dma == record.DMAIOMMULazy:
		return []string{"the search for addresses of the IOMMU, once a list"}
	case dma == record.DMAIOMMUStrict && !list:
		return []string{"page tables of the IOMMU", "the wait for the IOMMU's flush at each unmap"}
	case dma == record.DMAIOMMUStrict:
		return []string{"the search for addresses of the IOMMU, once a list", "the waits for the IOMMU's flush, but for one of a list"}
	}
	return nil
}

// The functions that are entered to return a frame: xdp_return_frame, __xdp_return, and page_pool_put_… or that of a page
// without a pool. A bulk enters the second once, and in some kernels the third.
const returnCalls = 3

// bulkReturn is of frames of a page pool that are returned together.
func (u *use) bulkReturn(row *record.WhatIfRow) {
	row.Now = record.WhatIfCounts{Returns: u.returns, Direct: u.returns.By(returnCalls), Indirect: new(record.Range)}
	returns := u.returns.By(together)
	row.Saved = record.WhatIfCounts{Returns: returns, Direct: returns.Times(record.Range{Low: 1, High: returnCalls - 1}),
		Indirect: new(record.Range)}
	row.Besides = append(row.Besides, "the pool's lock, which is taken once a bulk")
}

// once is what a map and its unmap do.
func (m *mapping) once() work {
	return m.mapped.work().plus(m.unmapped.work().by(record.Exactly(m.unmaps)))
}

// gathered is what of that goes where a bulk is a list. The pages of a list lie apart as a rule, so that each is still entered
// into page tables by itself; they are next to each other in the device's addresses, and are taken out together.
func (m *mapping) gathered() work {
	mapped := m.mapped.work()
	if mapped.indirect != nil {
		mapped.indirect = &record.Range{Low: max(0, mapped.indirect.Low-m.mapped.perPage.High), High: mapped.indirect.High}
	}
	if mapped.instructions != nil {
		mapped.instructions = &record.Range{High: mapped.instructions.High}
	}
	return mapped.plus(m.unmapped.work().by(record.Exactly(m.unmaps))).by(record.Exactly(together))
}

// counts are those of maps, each with its unmaps, that do w.
func (m *mapping) counts(w work, maps record.Range) record.WhatIfCounts {
	c := w.counts()
	c.Maps, c.Unmaps = maps, maps.By(m.unmaps)
	return c
}

// needsSync tells whether a sync has something to do.
func (u *use) needsSync() bool { return u.dma == record.DMASwiotlb }

// added are the syncs for each map that take the place of maps and unmaps which are gone.
func (u *use) added(change string) record.Range {
	switch {
	case !u.needsSync() && release.AtLeast(u.driver.Release, skipsSyncs):
		return record.Range{}
	case change == KeepTX:
		return record.Exactly(1) // for the device
	}
	return record.Range{High: 2} // for the CPU and for the device, as far as the driver does not sync already
}
