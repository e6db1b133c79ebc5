package report

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/stat"
)

// whatIfRow is a row with ns from low to high, calls and indirect calls, of which some may be unknown.
func whatIfRow(driver, dma, change, source string, low, high float64, indirect *record.Range) record.WhatIfRow {
	row := record.WhatIfRow{
		Name:   driver + "/" + dma + "/" + change,
		Labels: map[string]string{"driver": driver, "dma": dma, "change": change}, Release: "6.12.1-amd64", Source: source,
		Saved:   record.WhatIfCounts{Direct: record.Range{Low: 1, High: 2}, Indirect: indirect},
		Saving:  &stat.Quantity{Median: (low + high) / 2, Low: low, High: high, N: 7, Unit: "ns"},
		Besides: []string{"page tables of the IOMMU"},
	}
	if indirect == nil {
		row.Saving, row.Refused = nil, "not measured: indirect calls"
	}
	return row
}

func TestWhatIfGolden(t *testing.T) {
	t.Parallel()
	some := &record.Range{Low: 3.75, High: 4}
	instructions := &record.Range{High: 789}
	rows := []record.WhatIfRow{
		whatIfRow("igb\x1b", "iommu-strict", "gather-tx-maps", record.FromCounts, 1234.5, 2345.6, some),
		whatIfRow("igb\x1b", "direct", "gather-tx-maps", record.FromCounts, -0.5, 9.87, new(record.Range)),
		whatIfRow("ixgbevf", "iommu-strict", "gather-tx-maps", record.FromCode, 12, 12, some),
		whatIfRow("ixgbe", "iommu-strict", "gather-tx-maps", record.FromCode, 12, 12, some),
		whatIfRow("ixgbe", "swiotlb", "gather-tx-maps", record.FromCode, 0, 0, nil),
		whatIfRow("ixgbevf", "swiotlb", "gather-tx-maps", record.FromCode, 0, 0, nil),
	}
	rows[0].Saved.Instructions = instructions
	doc := &record.WhatIf{
		Call:    &stat.Quantity{Median: 11.3, Low: 10.6, High: 12, N: 7, Unit: "ns"},
		PriceOf: "the prices of this machine, measured in this run", Bulk: 16,
		Calls: []record.WhatIfCall{
			{Series: "6.12", DMA: "direct", Call: "map"},
			{Series: "6.12", DMA: "iommu-strict", Call: "map", Indirect: record.Exactly(2), PerPage: record.Exactly(1), Instructions: instructions,
				Rows: []string{"a row"}},
		},
	}
	doc.First = []record.WhatIfFirst{
		{Driver: "igb\x1b", Release: "6.12.1-amd64", DMA: "direct", Why: "nothing is told apart"},
		{Driver: "igb\x1b", Release: "6.12.1-amd64", DMA: "iommu-lazy", Change: "gather-tx-maps", Saving: rows[2].Saving},
		{Driver: "igb\x1b", Release: "6.12.1-amd64", DMA: "iommu-strict", Change: "gather-tx-maps", Saving: rows[0].Saving,
			Alike: []string{"keep-tx-mapped"}},
	}
	for _, driver := range []string{"ixgbevf", "ixgbe"} {
		doc.First = append(doc.First, record.WhatIfFirst{Driver: driver, Release: "6.12.1-amd64", DMA: "iommu-strict",
			Change: "gather-tx-maps", Saving: rows[2].Saving})
	}
	for _, dma := range []string{"direct", "iommu-lazy", "iommu-strict"} {
		doc.Without = append(doc.Without, record.WhatIfWithout{Driver: "igb\x1b", Release: "6.12.1-amd64", DMA: dma, Change: "bulk-return",
			Why: "no page pool"})
		for _, driver := range []string{"igb", "ixgbe", "ixgbevf"} {
			if dma == "direct" {
				doc.Without = append(doc.Without, record.WhatIfWithout{Driver: driver, Release: "6.12.1-amd64", DMA: dma, Change: "skip-no-op-sync",
					Why: "no sync"})
			}
		}
	}
	doc.Rows, doc.Warnings = rows, []record.Warning{{Text: "the price of a direct call was not measured: no row direct-call"}}
	var b bytes.Buffer
	if err := WhatIf(&b, Options{Width: 80}, doc); err != nil {
		t.Fatal(err)
	}
	doc.Rows[2].Release, doc.First[3].Release, doc.Without[0].Release = "6.1.0-amd64", "6.1.0-amd64", "6.1.0-amd64"
	for i := range 3 { // more sentences than are an answer
		doc.First = append(doc.First, record.WhatIfFirst{Driver: fmt.Sprint("own", i), Release: "6.1.0-amd64", DMA: "direct",
			Why: fmt.Sprint("reason ", i)})
	}
	if err := WhatIf(&b, Options{Width: 80}, doc); err != nil {
		t.Fatal(err)
	}
	doc.Rows = nil
	if err := WhatIf(&b, Options{Width: 80}, doc); err != nil {
		t.Fatal(err)
	}
	reporttest.Fits(t, b.String(), 80)
	reporttest.Golden(t, "what-if.txt", b.String())
}
