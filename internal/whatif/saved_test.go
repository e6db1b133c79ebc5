package whatif_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/whatif"
)

// saved is an estimate of records that were saved on 2026-11-30: drivers of Debian's 6.1 and 6.12, guests of these kernels with igb,
// and prices.
func saved(t *testing.T) *record.WhatIf {
	t.Helper()
	load := func(name string) *record.Saved {
		s, err := record.Load(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	b, err := os.ReadFile(filepath.Join("testdata", "drivers.json"))
	if err != nil {
		t.Fatal(err)
	}
	var drivers []record.DriverRow
	if err := json.Unmarshal(b, &drivers); err != nil {
		t.Fatal(err)
	}
	prices, missing := whatif.PricesOf(load("tax.json").Prices())
	if len(missing) > 0 {
		t.Fatal(missing)
	}
	doc := &record.WhatIf{PriceOf: "the prices of a test"}
	whatif.Estimate(doc, drivers, whatif.DMAs(), []*record.Lab{load("lab.json").Lab()}, prices)
	return doc
}

func TestSavedGolden(t *testing.T) {
	doc := saved(t)
	var b bytes.Buffer
	if err := report.WhatIf(&b, report.Options{Width: 80}, doc); err != nil {
		t.Fatal(err)
	}
	reporttest.Fits(t, b.String(), 80)
	reporttest.Golden(t, "what-if.txt", b.String())
}

// What the estimate of 6.1 says of the syncs that 6.10 skips is what the guest of 6.12 no longer does.
func TestSkippedSyncs(t *testing.T) {
	doc := saved(t)
	gone := make(map[string]float64)
	for _, row := range doc.Rows {
		if row.Labels["driver"] == "igb" && row.Labels["change"] == whatif.SkipSyncs {
			if row.Source != record.FromCounts || row.Saved.Syncs.Low != row.Saved.Syncs.High {
				t.Errorf("%s is of %s, %v syncs", row.Name, row.Source, row.Saved.Syncs)
			}
			gone[row.Labels["dma"]] = row.Saved.Syncs.High
		}
	}
	after := make(map[string]float64)
	lab, err := record.Load(filepath.Join("testdata", "lab.json"))
	if err != nil {
		t.Fatal(err)
	}
	before := make(map[string]float64)
	for i := range lab.Lab().Rows {
		row := &lab.Lab().Rows[i]
		into := before
		if row.Labels["kernel"] == "debian:6.12" {
			into = after
		}
		into[row.Labels["dma"]] = row.SumDMA().Sync
	}
	for _, dma := range whatif.DMAs() {
		if before[dma]-gone[dma] != after[dma] {
			t.Errorf("%s: %v syncs on 6.1 less %v is not %v, as on 6.12", dma, before[dma], gone[dma], after[dma])
		}
	}
}
