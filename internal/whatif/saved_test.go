package whatif_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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

// syncing is what a packet does of syncs: calls, and indirect calls that they make.
type syncing struct{ calls, indirect float64 }

// What the estimate of 6.1 says of the syncs that 6.10 skips is what the guest of 6.12 no longer does, and nothing else of them is
// gone: calls, and indirect calls by the pointers that only syncs are made through.
func TestSkippedSyncs(t *testing.T) {
	doc := saved(t)
	gone := make(map[string]syncing)
	for _, row := range doc.Rows {
		if row.Labels["driver"] == "igb" && row.Labels["change"] == whatif.SkipSyncs {
			s, indirect := row.Saved.Syncs, *row.Saved.Indirect
			if row.Source != record.FromCounts || s.Low != s.High || indirect.Low != indirect.High || row.Saved.Direct != s {
				t.Errorf("%s is of %s, saves %+v", row.Name, row.Source, row.Saved)
			}
			gone[row.Labels["dma"]] = syncing{s.High, indirect.High}
		}
	}
	after := make(map[string]syncing)
	lab, err := record.Load(filepath.Join("testdata", "lab.json"))
	if err != nil {
		t.Fatal(err)
	}
	before := make(map[string]syncing)
	for i := range lab.Lab().Rows {
		row := &lab.Lab().Rows[i]
		into := before
		if row.Labels["kernel"] == "debian:6.12" {
			into = after
		}
		does := syncing{calls: row.SumDMA().Sync}
		for _, s := range row.Sites {
			if strings.Contains(s.Pointer, ".sync_single_for_") {
				does.indirect += s.PerPacket
			}
		}
		into[row.Labels["dma"]] = does
	}
	for _, dma := range whatif.DMAs() {
		if left := (syncing{before[dma].calls - gone[dma].calls, before[dma].indirect - gone[dma].indirect}); left != after[dma] {
			t.Errorf("%s: %+v on 6.1 less %+v is not %+v, as on 6.12", dma, before[dma], gone[dma], after[dma])
		}
	}
	if strict := before[record.DMAIOMMUStrict]; strict != (syncing{2, 2}) || before[record.DMADirect] != (syncing{2, 0}) {
		t.Errorf("on 6.1 there were %+v behind a strict IOMMU, %+v without one", strict, before[record.DMADirect])
	}
}

// A map of virtio_net takes as many instructions as a window of the guest has for each that it enters. A window has one of the two
// that a packet makes, as receive buffers are mapped once a poll.
func TestWindowsOfVirtio(t *testing.T) {
	load := func(name string) *record.Saved {
		s, err := record.Load(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	virtio := load("virtio.json").Lab()
	prices, _ := whatif.PricesOf(load("tax.json").Prices())
	doc := new(record.WhatIf)
	whatif.Estimate(doc, []record.DriverRow{{Name: "virtio_net", Release: virtio.Rows[0].Release, Xmit: "virtnet_xdp_xmit", DMA: true}},
		[]string{record.DMADirect, record.DMAIOMMUStrict}, []*record.Lab{virtio}, prices)
	got := make(map[string]record.Range)
	for _, row := range doc.Rows {
		if row.Saved.Instructions == nil || row.Source != record.FromCounts {
			t.Errorf("%s is of %s, without instructions", row.Name, row.Source)
			continue
		}
		got[row.Name] = *row.Saved.Instructions
	}
	for i := range virtio.Rows {
		if maps := virtio.Rows[i].SumDMA().Map; maps != 2 {
			t.Errorf("%s has %v maps, want 2", virtio.Rows[i].Name, maps)
		}
	}
	want := map[string]record.Range{
		"virtio_net/direct/keep-rx-mapped":       record.Exactly(73),
		"virtio_net/direct/keep-tx-mapped":       record.Exactly(73),
		"virtio_net/direct/gather-tx-maps":       {High: 73 * 15.0 / 16},
		"virtio_net/iommu-strict/keep-rx-mapped": record.Exactly(771),
		"virtio_net/iommu-strict/keep-tx-mapped": record.Exactly(771),
		"virtio_net/iommu-strict/gather-tx-maps": {High: 771 * 15.0 / 16},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("instructions (-want +got):\n%s", diff)
	}
}
