package whatif

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

func ns(low, high float64) *stat.Quantity {
	return &stat.Quantity{Median: (low + high) / 2, Low: low, High: high, N: 7, Unit: "ns"}
}

// igb61 is igb behind a strict IOMMU on Linux 6.1, as lab counts it.
func igb61() *record.LabRow {
	site := func(part, function, pointer string) record.LabSite {
		return record.LabSite{Part: part, Function: function, Pointer: pointer, PerPacket: 1}
	}
	calls, instructions := 10.0, 1690.0
	return &record.LabRow{
		Name:   "debian:6.1/nic=igb/dma=iommu-strict/bulk=64",
		Labels: map[string]string{"kernel": "debian:6.1", "nic": "igb", "dma": record.DMAIOMMUStrict, "bulk": "64"}, Release: "6.1.0-56-amd64",
		CallsPerPacket: &calls, Instructions: &instructions,
		DMA: []record.LabDMA{{Part: inPoll, Sync: 2}, {Part: outXmit, Map: 1}, {Part: outPoll, Unmap: 1, Flush: 1}},
		Sites: []record.LabSite{
			site(inPoll, "dma_sync_single_for_cpu", "dma_map_ops.sync_single_for_cpu"),
			site(inPoll, "dma_sync_single_for_device", "dma_map_ops.sync_single_for_device"),
			site(outPoll, "__iommu_dma_unmap", "iommu_domain_ops.iotlb_sync"),
			site(outPoll, "__iommu_unmap", "iommu_domain_ops.unmap_pages"),
			site(outPoll, "dma_unmap_page_attrs", "dma_map_ops.unmap_page"),
			site(outPoll, "iommu_flush_iotlb_psi", ""),
			site(outPoll, "iommu_iova_to_phys", "iommu_domain_ops.iova_to_phys"),
			site(outXmit, "__iommu_map", "iommu_domain_ops.map_pages"),
			site(outXmit, "dma_map_page_attrs", "dma_map_ops.map_page"),
			site(outXmit, "iommu_map_atomic", "iommu_domain_ops.iotlb_sync_map"),
			{Part: outXmit, Function: "bq_xmit_all", Pointer: "net_device_ops.ndo_xdp_xmit", PerPacket: 0.0625},
		},
		Functions: []record.LabFunction{{Function: "xdp_return_frame", Part: outPoll, PerPacket: 1}},
		Trace: &record.LabTrace{Packets: 16, Executed: 16 * 1690, Stacks: []record.LabTraceStack{
			{Frames: []string{"igb_xdp_xmit", "dma_map_page_attrs"}, Stage: "dma", Executed: 16 * 300, Entered: 16},
			{Frames: []string{"igb_xdp_xmit", "dma_map_page_attrs", "iommu_dma_map_page"}, Stage: "dma", Executed: 16 * 100, Entered: 16},
			{Frames: []string{"igb_poll", "dma_sync_single_for_cpu"}, Stage: "dma", Executed: 16 * 30, Entered: 16},
			{Frames: []string{"igb_poll", "dma_sync_single_for_device"}, Stage: "dma", Executed: 16 * 28, Entered: 16},
			{Frames: []string{"igb_poll"}, Stage: "receive", Executed: 16 * 1232},
		}},
	}
}

var (
	igb = record.DriverRow{Name: "igb", Release: "6.1.0-56-amd64", Xmit: "igb_xdp_xmit", DMA: true, Return: "each",
		Receive: record.DriverCalls{Maps: 1, Unmaps: 2, Syncs: 2}, Transmit: record.DriverCalls{Maps: 1}}
	atlantic = record.DriverRow{Name: "atlantic", Release: "6.1.0-56-amd64", Xmit: "aq_xdp_xmit", DMA: true, Return: "each",
		Receive: record.DriverCalls{Maps: 1, Unmaps: 1, Syncs: 4}, Transmit: record.DriverCalls{Maps: 2}}
	bnxt = record.DriverRow{Name: "bnxt_en", Release: "6.12.1-amd64", Xmit: "bnxt_xdp_xmit", DMA: true, PagePool: true, Return: "each",
		Receive: record.DriverCalls{Syncs: 6}, Transmit: record.DriverCalls{Maps: 1}}
	virtio = record.DriverRow{Name: "virtio_net", Release: "6.12.1-amd64", Xmit: "virtnet_xdp_xmit", DMA: true, Return: "bulk",
		Receive: record.DriverCalls{Maps: 1}}
	prices = Prices{Call: ns(10, 12), DirectCall: ns(2, 3)}
)

func estimate(drivers []record.DriverRow, dmas []string, labs []*record.Lab, p Prices) *record.WhatIf {
	doc := new(record.WhatIf)
	Estimate(doc, drivers, dmas, labs, p)
	return doc
}

func lab(rows ...*record.LabRow) []*record.Lab {
	l := new(record.Lab)
	for _, r := range rows {
		l.Rows = append(l.Rows, *r)
	}
	return []*record.Lab{l}
}

// What the changes save, worked out by hand: of a driver that was counted, and of one on the same kernel whose code was read.
func TestEstimate(t *testing.T) {
	doc := estimate([]record.DriverRow{igb, atlantic, bnxt}, []string{record.DMADirect, record.DMAIOMMUStrict}, lab(igb61()), prices)
	type saved struct {
		Source                   string
		Direct, Indirect, Saving record.Range
	}
	got := make(map[string]saved)
	for _, r := range doc.Rows {
		s := saved{Source: r.Source, Direct: r.Saved.Direct, Indirect: record.Range{Low: -1, High: -1}, Saving: record.Range{Low: -1, High: -1}}
		if r.Saved.Indirect != nil {
			s.Indirect = *r.Saved.Indirect
		}
		if r.Saving != nil {
			s.Saving = record.Range{Low: r.Saving.Low, High: r.Saving.High}
		}
		got[r.Name] = s
	}
	exactly := record.Exactly
	none := record.Range{Low: -1, High: -1}
	const k = 15.0 / 16
	for name, want := range map[string]saved{
		// 3 indirect calls of a map and 5 of an unmap, 2 direct ones; less a sync for the device, which 6.1 still calls.
		"igb/iommu-strict/keep-tx-mapped": {record.FromCounts, exactly(1), exactly(7), record.Range{Low: 70 + 2, High: 84 + 3}},
		// map_pages may be entered for each page of a list: 7 or 8 of 8, a bulk at a time.
		"igb/iommu-strict/gather-tx-maps": {record.FromCounts, exactly(2 * k), record.Range{Low: 7 * k, High: 8 * k},
			record.Range{Low: k * (70 + 4), High: k * (96 + 6)}},
		"igb/iommu-strict/skip-no-op-sync": {record.FromCounts, exactly(2), exactly(2), record.Range{Low: 24, High: 30}},
		// One place or two a packet, as the code has two.
		"atlantic/iommu-strict/keep-tx-mapped": {record.FromCode, record.Range{Low: 1, High: 2}, record.Range{Low: 7, High: 14},
			record.Range{Low: 72, High: 174}},
		"atlantic/iommu-strict/keep-rx-mapped": {record.FromCode, record.Range{High: 2}, record.Range{High: 8}, record.Range{High: 102}},
		// Without an IOMMU there are no indirect calls since Linux 5.0, and igb was not counted so.
		"igb/direct/gather-tx-maps":     {record.FromCode, exactly(2 * k), exactly(0), record.Range{Low: 4 * k, High: 6 * k}},
		"igb/direct/skip-no-op-sync":    {record.FromCode, record.Range{High: 2}, exactly(0), record.Range{High: 6}},
		"bnxt_en/direct/keep-tx-mapped": {record.FromCode, exactly(2), exactly(0), record.Range{Low: 4, High: 6}},
		"bnxt_en/iommu-strict/bulk-return": {record.FromCode, record.Range{Low: k, High: 2 * k}, exactly(0),
			record.Range{Low: 2 * k, High: 6 * k}},
		// 6.12 was not counted.
		"bnxt_en/iommu-strict/keep-tx-mapped": {record.FromCode, exactly(2), none, none},
	} {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for _, name := range []string{"igb/iommu-strict/keep-rx-mapped", "igb/iommu-strict/bulk-return", "atlantic/direct/bulk-return",
		"bnxt_en/direct/keep-rx-mapped", "bnxt_en/direct/skip-no-op-sync"} {
		if s, ok := got[name]; ok {
			t.Errorf("%s has nothing to save: %+v", name, s)
		}
	}
	for i, r := range doc.Rows {
		switch {
		case (r.Saving == nil) != (r.Refused != ""):
			t.Errorf("%s: saving %v, refused %q", r.Name, r.Saving, r.Refused)
		case i > 0 && r.Saving != nil && (doc.Rows[i-1].Saving == nil || doc.Rows[i-1].Saving.Low < r.Saving.Low):
			t.Errorf("%s stands behind %s", r.Name, doc.Rows[i-1].Name)
		case r.Name == "bnxt_en/iommu-strict/keep-tx-mapped" && !strings.Contains(r.Refused,
			"unthunk lab debian:6.12 --nic igb --dma iommu-strict --bulk 64 --trace --save FILE, for --counts FILE"):
			t.Errorf("no command that counts: %q", r.Refused)
		}
	}
}

// The instructions of maps and syncs are those of the trace, and what a call does is in the record with the row it is from.
func TestEstimateInstructions(t *testing.T) {
	doc := estimate([]record.DriverRow{igb}, []string{record.DMAIOMMUStrict}, lab(igb61()), prices)
	i := slices.IndexFunc(doc.Rows, func(r record.WhatIfRow) bool { return r.Labels["change"] == SkipSyncs })
	if i < 0 || doc.Rows[i].Saved.Instructions == nil || *doc.Rows[i].Saved.Instructions != record.Exactly(58) || *doc.Rows[i].Packet != 1690 {
		t.Errorf("rows %+v", doc.Rows)
	}
	want := []record.WhatIfCall{
		{Series: "6.1", DMA: record.DMAIOMMUStrict, Call: "map", Indirect: record.Exactly(3), PerPage: record.Exactly(1)},
		{Series: "6.1", DMA: record.DMAIOMMUStrict, Call: "unmap", Indirect: record.Exactly(5)},
		{Series: "6.1", DMA: record.DMAIOMMUStrict, Call: "sync", Indirect: record.Exactly(1)},
	}
	for i, n := range []float64{400, 0, 29} {
		if r := record.Exactly(n); n > 0 {
			want[i].Instructions = &r
		}
		want[i].Rows = []string{igb61().Name}
	}
	if diff := cmp.Diff(want, doc.Calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// A call that another one makes, as virtio's do, is a part of that one.
func TestExecutedNested(t *testing.T) {
	t.Parallel()
	r := igb61()
	const outer, inner = "virtqueue_dma_sync_single_range_for_cpu", "dma_sync_single_for_cpu"
	r.Trace.Stacks = []record.LabTraceStack{
		{Frames: []string{"virtnet_poll"}, Executed: 16 * 100},
		{Frames: []string{"virtnet_poll", outer}, Executed: 16 * 8, Entered: 16},
		{Frames: []string{"virtnet_poll", outer, inner}, Executed: 16 * 20, Entered: 16},
		{Frames: []string{"virtnet_poll", outer, inner, "swiotlb_bounce"}, Executed: 16 * 12, Entered: 16},
		{Frames: []string{"virtnet_poll", "dma_map_page_attrs", inner}, Executed: 16 * 7, Entered: 16},
		{Frames: []string{"virtnet_poll", "dma_map_page_attrs"}, Executed: 16 * 5, Entered: 8},
		{Frames: []string{"virtnet_poll", "dma_map_sg_attrs", "dma_map_page_attrs"}, Executed: 16 * 9, Entered: 16},
	}
	if got := executed(r, functions.DMASync); got == nil || *got != record.Exactly(8+20+12) {
		t.Errorf("a sync executes %v instructions, want 40", got)
	}
	// Whatever a packet makes outside of windows: those of these are 8.
	if got := executed(r, functions.DMAMap); got == nil || *got != record.Exactly((7+5)*16/8.0) {
		t.Errorf("a map executes %v instructions, want 24", got)
	}
	for i := range r.Trace.Stacks {
		r.Trace.Stacks[i].Entered = 0 // as in older records
	}
	if got := executed(r, functions.DMASync); got != nil {
		t.Errorf("a sync that is never entered executes %v instructions", *got)
	}
}

// Maps of lists are in a row's sum of maps, and are none of single buffers. What a single one does is not known of such a row.
func TestLists(t *testing.T) {
	t.Parallel()
	r := igb61()
	r.DMA[1].Map = 1.5
	r.Functions = append(r.Functions, record.LabFunction{Function: "dma_map_sg_attrs", Part: outXmit, PerPacket: 0.5})
	if got := made(r, functions.DMAMap, outXmit); got != 1 {
		t.Errorf("%v maps, want 1", got)
	}
	if got := made(r, functions.DMAUnmap, outPoll); got != 1 {
		t.Errorf("%v unmaps, want 1", got)
	}
	all := newCounts(lab(r))
	if c := all.call(functions.DMAMap, r.Release, r.Labels["dma"]); c.indirect != nil {
		t.Errorf("a map makes %v indirect calls", *c.indirect)
	}
	u := all.use(&igb, r.Labels["dma"])
	if u.tx.maps != record.Exactly(1) || u.tx.mapped.indirect != nil || u.tx.unmapped.indirect == nil ||
		*u.tx.unmapped.indirect != record.Exactly(5) {
		t.Errorf("transmission %+v", u.tx)
	}
}

// What a change saves beside calls is nothing that is still done.
func TestBesides(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		change, dma string
		want        int
		never       string
	}{
		{KeepRX, record.DMADirect, 0, ""}, {KeepTX, record.DMADirect, 0, ""}, {GatherTX, record.DMADirect, 0, ""},
		{KeepRX, record.DMASwiotlb, 1, "cop"}, {KeepTX, record.DMASwiotlb, 1, "cop"}, {GatherTX, record.DMASwiotlb, 0, ""},
		{KeepTX, record.DMAIOMMULazy, 1, "flush"}, {GatherTX, record.DMAIOMMULazy, 1, "page tables"},
		{KeepTX, record.DMAIOMMUStrict, 2, "address"}, {GatherTX, record.DMAIOMMUStrict, 2, "page tables"},
	} {
		got := beside(test.change, test.dma)
		if len(got) != test.want || test.never != "" && strings.Contains(strings.Join(got, "; "), test.never) {
			t.Errorf("%s of %s saves %q besides, want %d without %q", test.change, test.dma, got, test.want, test.never)
		}
	}
}

// A record of which an estimate takes no row is refused, with what it lacks.
func TestCheckUse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		change func(*record.LabRow)
		dmas   []string
		want   string
	}{
		{func(*record.LabRow) {}, DMAs(), ""},
		{func(r *record.LabRow) { r.Labels["nic"] = "virtio-no-indirect" }, DMAs(), ""},
		{func(r *record.LabRow) { r.Labels["nic"] = "veth" }, DMAs(), "no row of a redirect by igb, "},
		{func(r *record.LabRow) { r.CallsPerPacket = nil }, DMAs(), "no row of a redirect by igb, "},
		{func(r *record.LabRow) { r.Refused = "it did not boot" }, DMAs(), "no row of a redirect by igb, "},
		{func(r *record.LabRow) { r.Labels["scenario"] = "forward-copy" }, DMAs(), "no row of a redirect by igb, "},
		{func(r *record.LabRow) { r.Release = "6.2.1" }, DMAs(), "it has no row of Linux 6.1, 6.12 with DMA direct, "},
		{func(*record.LabRow) {}, []string{record.DMADirect}, "it has no row of Linux 6.1, 6.12 with DMA direct"},
	} {
		r := igb61()
		test.change(r)
		err := CheckUse(lab(r)[0], []record.DriverRow{bnxt, igb, virtio}, test.dmas)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", r.Labels, err, test.want)
		}
	}
}

// Counts of virtio without indirect descriptors are of virtio_net, and what its calls do is of no other driver.
func TestVirtioNoIndirect(t *testing.T) {
	t.Parallel()
	r := igb61()
	r.Labels["nic"] = "virtio-no-indirect"
	all := newCounts(lab(r))
	if u := all.use(&record.DriverRow{Name: "virtio_net", Release: r.Release}, r.Labels["dma"]); u.counted != all[0] {
		t.Error("its counts are not used")
	}
	if c := all.call(functions.DMAMap, r.Release, r.Labels["dma"]); c.indirect != nil {
		t.Errorf("a map of another driver makes %v indirect calls, by virtio's", *c.indirect)
	}
}

// A driver whose code maps nothing for transmission is no row but a warning: its bus may.
func TestEstimateUnseen(t *testing.T) {
	doc := estimate([]record.DriverRow{virtio}, DMAs(), nil, prices)
	if len(doc.Warnings) != 1 || !strings.Contains(doc.Warnings[0].Text, "virtio_net of 6.12.1-amd64 maps nothing") {
		t.Errorf("warnings %v", doc.Warnings)
	}
	for _, r := range doc.Rows {
		if r.Labels["change"] != KeepRX {
			t.Errorf("row %s", r.Name)
		}
	}
	if text := doc.Warnings[0].Text; !strings.HasSuffix(text, "A guest counts it: unthunk lab debian:6.12 --nic virtio "+
		"--dma direct,swiotlb,iommu-lazy,iommu-strict --bulk 64 --trace --save FILE, for --counts FILE") {
		t.Errorf("no command that counts: %q", text)
	}
	// Also where it was counted in one of the setups, whichever comes first.
	counted := igb61()
	counted.Labels["nic"], counted.Release = "virtio", virtio.Release
	for _, dmas := range [][]string{{record.DMADirect, record.DMAIOMMUStrict}, {record.DMAIOMMUStrict, record.DMADirect}} {
		if doc := estimate([]record.DriverRow{virtio}, dmas, lab(counted), prices); len(doc.Warnings) != 1 {
			t.Errorf("%v: warnings %v, want one", dmas, doc.Warnings)
		}
	}
}

// Without a price there is no number, and the row says which.
func TestEstimateWithoutPrices(t *testing.T) {
	for _, test := range []struct {
		prices Prices
		want   string
	}{
		{Prices{Call: ns(10, 12)}, "not measured: the price of a direct call"},
		{Prices{DirectCall: ns(2, 3)}, "not measured: the price of an indirect call"},
	} {
		for _, r := range estimate([]record.DriverRow{igb}, []string{record.DMAIOMMUStrict}, lab(igb61()), test.prices).Rows {
			if r.Labels["change"] == BulkReturn && test.prices.DirectCall != nil {
				continue // makes no indirect call
			}
			if r.Saving != nil || r.Cost != nil || r.Refused != test.want {
				t.Errorf("%s: saving %v, %q, want %q", r.Name, r.Saving, r.Refused, test.want)
			}
		}
	}
}

// The command that counts has the NICs of all drivers that can be emulated, and igb for the others.
func TestHowToCount(t *testing.T) {
	t.Parallel()
	vmxnet3 := record.DriverRow{Name: "vmxnet3", Release: virtio.Release, Xmit: "x", DMA: true, PagePool: true, Return: "bulk",
		Transmit: record.DriverCalls{Maps: 1}}
	for _, test := range []struct {
		drivers []record.DriverRow
		dmas    []string
		want    string
	}{
		{[]record.DriverRow{bnxt}, DMAs(), "--nic igb --dma iommu-lazy,iommu-strict "},
		{[]record.DriverRow{virtio}, DMAs(), "--nic virtio --dma direct,swiotlb,iommu-lazy,iommu-strict "},
		{[]record.DriverRow{vmxnet3, virtio, bnxt}, []string{record.DMAIOMMULazy}, "--nic igb,virtio,vmxnet3 --dma iommu-lazy "},
		{[]record.DriverRow{vmxnet3, bnxt}, []string{record.DMADirect}, ""},
	} {
		doc := estimate(test.drivers, test.dmas, nil, prices)
		var texts []string
		for _, r := range doc.Rows {
			if r.Refused != "" {
				texts = append(texts, r.Refused)
			}
		}
		for _, w := range doc.Warnings {
			texts = append(texts, w.Text)
		}
		for _, text := range texts {
			if test.want == "" || !strings.Contains(text, "unthunk lab debian:6.12 "+test.want) {
				t.Errorf("%q, want %q", text, test.want)
			}
		}
		if len(texts) == 0 && test.want != "" {
			t.Errorf("nobody says %q", test.want)
		}
	}
}

// What to do first saves most for sure. Changes that share the prices are told apart by counts, though their intervals overlap.
func TestFirst(t *testing.T) {
	t.Parallel()
	doc := estimate([]record.DriverRow{bnxt, igb, atlantic}, []string{record.DMADirect, record.DMAIOMMUStrict}, lab(igb61()), prices)
	var got []string
	for _, f := range doc.First {
		ns := ""
		if f.Saving != nil {
			ns = fmt.Sprintf(" %g..%g", f.Saving.Low, f.Saving.High)
		}
		got = append(got, strings.TrimSpace(f.Driver+" "+f.DMA+" "+f.Change+ns+" "+strings.Join(f.Alike, ",")+f.Why))
	}
	want := []string{
		"atlantic direct gather-tx-maps 3.75..11.25 keep-rx-mapped,keep-tx-mapped,skip-no-op-sync",
		"atlantic iommu-strict keep-tx-mapped 72..174 keep-rx-mapped,gather-tx-maps",
		"igb direct gather-tx-maps 3.75..5.625 keep-rx-mapped,skip-no-op-sync",
		"igb iommu-strict keep-tx-mapped 72..87 gather-tx-maps",
		"bnxt_en direct keep-tx-mapped 4..6",
		"bnxt_en iommu-strict bulk-return 1.875..5.625 keep-tx-mapped,gather-tx-maps",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	one := record.DriverRow{Name: "own", Release: "6.12.1", Xmit: "x", Return: "own"}
	for why, d := range map[string]record.DriverRow{
		whyNoRow:    one,
		whyNoNumber: {Name: "maps", Release: "6.12.1", Xmit: "x", DMA: true, Return: "own", Transmit: record.DriverCalls{Maps: 1}},
		whyNotSure:  {Name: "syncs", Release: "6.1.1", Xmit: "x", DMA: true, Return: "own", Receive: record.DriverCalls{Syncs: 2}},
	} {
		labs, dma := lab(igb61()), record.DMAIOMMUStrict
		if f := estimate([]record.DriverRow{d}, []string{dma}, labs, prices).First; len(f) != 1 || f[0].Why != why || f[0].Change != "" {
			t.Errorf("%s: %+v, want %q", d.Name, f, why)
		}
	}
}

// Each change has a row or a reason, in each setup.
func TestWithout(t *testing.T) {
	t.Parallel()
	drivers := []record.DriverRow{igb, atlantic, bnxt, virtio, {Name: "none", Release: "6.1", Return: "own"},
		{Name: "lists", Release: "6.1", Xmit: "x", DMA: true, Return: "own", Transmit: record.DriverCalls{Gathers: 1}}}
	doc := estimate(drivers, DMAs(), lab(igb61()), prices)
	seen := make(map[string]string)
	for _, r := range doc.Rows {
		seen[r.Name] = "a row"
	}
	for _, w := range doc.Without {
		name := w.Driver + "/" + w.DMA + "/" + w.Change
		if seen[name] != "" || w.Why == "" {
			t.Errorf("%s has %s, and %q", name, seen[name], w.Why)
		}
		seen[name] = w.Why
	}
	if want := len(drivers) * len(DMAs()) * len(Changes()); len(seen) != want {
		t.Errorf("%d rows and reasons, want %d", len(seen), want)
	}
	for name, want := range map[string]string{
		"igb/iommu-strict/bulk-return":        "its frames are of no page pool, and only such return together",
		"igb/iommu-strict/keep-rx-mapped":     "it maps no page for a packet that it receives, as counted",
		"igb/swiotlb/skip-no-op-sync":         "each sync copies through a bounce buffer",
		"bnxt_en/direct/bulk-return":          "a row",
		"bnxt_en/direct/keep-rx-mapped":       "its page pool keeps pages mapped",
		"bnxt_en/direct/skip-no-op-sync":      "Linux 6.10 and later do that",
		"virtio_net/direct/bulk-return":       "it returns frames in bulk",
		"virtio_net/direct/keep-tx-mapped":    "it maps nothing to send in its code",
		"none/direct/keep-rx-mapped":          "it calls no DMA API",
		"none/direct/gather-tx-maps":          "it has no ndo_xdp_xmit",
		"none/iommu-strict/skip-no-op-sync":   "it makes no sync in its code",
		"lists/iommu-strict/gather-tx-maps":   "it maps lists",
		"lists/iommu-strict/bulk-return":      "it returns no frame by xdp_return_frame",
		"lists/iommu-strict/keep-rx-mapped":   "it maps nothing to receive in its code",
		"atlantic/iommu-lazy/skip-no-op-sync": "a row",
	} {
		if seen[name] != want {
			t.Errorf("%s: %q, want %q", name, seen[name], want)
		}
	}
}

func TestPricesOf(t *testing.T) {
	row := func(name string, price *stat.Quantity, refused string) record.TaxRow {
		return record.TaxRow{Name: name, Price: price, Refused: refused}
	}
	p, missing := PricesOf([]record.TaxRow{row("control", ns(0, 0), ""), row("bpf-prog", ns(1, 2), ""), row("direct-call", ns(3, 4), "")})
	if p.Call == nil || p.Call.High != 2 || p.DirectCall == nil || p.DirectCall.Low != 3 || len(missing) != 0 {
		t.Errorf("%+v, %v", p, missing)
	}
	p, missing = PricesOf([]record.TaxRow{row("bpf-prog", nil, "already direct here"), row("direct-call", ns(math.NaN(), math.NaN()), "")})
	want := []string{"the price of an indirect call was not measured: already direct here",
		"the price of a direct call has no interval: too few rounds"}
	if p != (Prices{}) || !slices.Equal(missing, want) {
		t.Errorf("%+v, %v, want %v", p, missing, want)
	}
	if _, missing = PricesOf(nil); len(missing) != 2 || !strings.HasSuffix(missing[0], "no row bpf-prog") {
		t.Errorf("%v", missing)
	}
}

// A change never saves more than what it is about costs, in any count, whatever was counted and priced.
func TestSavingNeverExceedsCost(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	some := func(most float64) float64 {
		if r.IntN(3) == 0 {
			return 0
		}
		return most * r.Float64()
	}
	for n := range 3000 {
		low, more := 20*r.Float64(), 20*r.Float64()
		p := Prices{Call: ns(low, low+more), DirectCall: ns(more, more+low)}
		release := []string{"6.1.0", "6.9.1-rc1", "6.10", "7.3.4+deb13"}[r.IntN(4)]
		d := record.DriverRow{Name: []string{"igb", "virtio_net", "other"}[r.IntN(3)], Release: release, Xmit: "x", DMA: r.IntN(4) > 0,
			PagePool: r.IntN(2) == 0, MapsPool: r.IntN(2) == 0, Return: []string{"each", "bulk", "own"}[r.IntN(3)],
			Receive:  record.DriverCalls{Maps: r.IntN(4), Syncs: r.IntN(8)},
			Transmit: record.DriverCalls{Maps: r.IntN(4), Gathers: r.IntN(2)}}
		var rows []*record.LabRow
		for range r.IntN(4) {
			row := igb61()
			row.Name = fmt.Sprint("row ", len(rows))
			row.Labels["kernel"], row.Labels["nic"] = row.Name, []string{"igb", "virtio", "vmxnet3"}[r.IntN(3)]
			row.Labels["dma"], row.Release = DMAs()[r.IntN(4)], release
			row.DMA = []record.LabDMA{{Part: inPoll, Sync: some(3), Map: some(2), Unmap: some(2)}, {Part: outXmit, Map: some(2)},
				{Part: outPoll, Unmap: some(2)}}
			for i := range row.Sites {
				row.Sites[i].PerPacket = some(2)
			}
			if r.IntN(2) == 0 {
				row.Trace = nil
			}
			rows = append(rows, row)
		}
		for _, row := range estimate([]record.DriverRow{d}, DMAs(), lab(rows...), p).Rows {
			now, saved := row.Now, row.Saved
			for what, pair := range map[string][2]*record.Range{
				"maps": {&now.Maps, &saved.Maps}, "unmaps": {&now.Unmaps, &saved.Unmaps}, "returns": {&now.Returns, &saved.Returns},
				"direct": {&now.Direct, &saved.Direct}, "indirect": {now.Indirect, saved.Indirect},
				"instructions": {now.Instructions, saved.Instructions},
			} {
				if pair[0] == nil || pair[1] == nil {
					continue
				}
				if pair[1].High > pair[0].High+1e-9 || pair[1].Low > pair[1].High {
					t.Fatalf("%d: %s saves %v of %v %s", n, row.Name, *pair[1], *pair[0], what)
				}
				// Only a kept mapping has syncs added.
				if change := row.Labels["change"]; pair[1].Low < 0 && change != KeepRX && change != KeepTX {
					t.Fatalf("%d: %s saves %v %s", n, row.Name, *pair[1], what)
				}
			}
			if row.Saving != nil && (row.Saving.High > row.Cost.High+1e-9 || row.Saving.Low > row.Saving.High || row.Cost.Low < 0) {
				t.Fatalf("%d: %s saves %+v of %+v", n, row.Name, row.Saving, row.Cost)
			}
		}
	}
}

// A driver that was counted and makes no sync has those of the kernel's other rows added; before Linux 5.0 nobody knows what
// calls of the DMA API do without counts.
func TestCallsOfOthers(t *testing.T) {
	t.Parallel()
	other := igb61()
	other.Name, other.Labels["nic"], other.Labels["kernel"] = "other", "vmxnet3", "other"
	for i := range other.DMA {
		other.DMA[i].Sync = 0
	}
	all := newCounts(lab(igb61(), other))
	dma, release := other.Labels["dma"], other.Release
	igb := all.use(&record.DriverRow{Name: "igb", Release: release}, dma)
	got := all.use(&record.DriverRow{Name: "vmxnet3", Release: release}, dma)
	if igb.sync.indirect.High == 0 || *got.sync.indirect != *igb.sync.indirect {
		t.Errorf("a sync makes %v indirect calls, with igb %v", *got.sync.indirect, *igb.sync.indirect)
	}
	for release, known := range map[string]bool{"4.19.0-27-amd64": false, "5.0.0": true, "6.12.1": true} {
		if c := (counts)(nil).call(functions.DMAMap, release, record.DMADirect); (c.indirect != nil) != known {
			t.Errorf("%s: a map makes %v indirect calls", release, c.indirect)
		}
	}
}

// Indirect branches of the path that lab named, and which call of the DMA API each belongs to.
func TestKindOf(t *testing.T) {
	for _, test := range []struct {
		function, pointer string
		want              functions.DMA
	}{
		{"__iommu_map", "iommu_domain_ops.map_pages", functions.DMAMap},
		{"iommu_map", "", functions.DMAMap},
		{"__iommu_unmap", "", functions.DMAUnmap},
		{"iommu_iova_to_phys", "", functions.DMAUnmap},
		{"fq_flush_iotlb", "", functions.DMAUnmap},
		{"cache_tag_flush_range", "", functions.DMAUnmap},
		{"__iommu_dma_unmap", "iommu_ops.iotlb_sync", functions.DMAUnmap},
		{"dma_sync_single_for_cpu", "", functions.DMASync},
		{"virtqueue_unmap_single_attrs", "virtio_map_ops.unmap_page", functions.DMAUnmap},
		{"bpf_xdp_redirect_map", "bpf_map_ops.map_redirect", ""},
		{"bq_xmit_all", "net_device_ops.ndo_xdp_xmit", ""},
		{"__napi_poll", "napi_struct.poll", ""},
	} {
		if got := kindOf(&record.LabSite{Function: test.function, Pointer: test.pointer}); got != test.want {
			t.Errorf("%s by %s is of %q, want %q", test.function, test.pointer, got, test.want)
		}
	}
}
