package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/stat"
)

func TestLabGolden(t *testing.T) {
	t.Parallel()
	for name, width := range map[string]int{"lab.txt": 80, "lab-60.txt": 60} {
		var b bytes.Buffer
		if err := Lab(&b, Options{Width: width}, reporttest.Lab()); err != nil {
			t.Fatal(err)
		}
		reporttest.Fits(t, b.String(), width)
		reporttest.Golden(t, name, b.String())
	}
}

func TestLabWiresGolden(t *testing.T) {
	t.Parallel()
	l := reporttest.Wires()
	var b bytes.Buffer
	if err := Lab(&b, Options{Width: 80}, l); err != nil {
		t.Fatal(err)
	}
	reporttest.Golden(t, "lab-wires.txt", b.String())
	for i := range l.Rows[:2] {
		l.Rows[i].Ns = &stat.Quantity{Median: 75.5, Low: 70, High: 80.25, N: 7, Unit: "ns"}
	}
	b.Reset()
	if err := Lab(&b, Options{Width: 80}, l); err != nil {
		t.Fatal(err)
	}
	reporttest.Golden(t, "lab-timed.txt", b.String())
}

// No figure of a table of wires is cut, and each row has the marks of its own guest.
func TestLabWiresFits(t *testing.T) {
	t.Parallel()
	l := reporttest.Wires()
	l.Rows = append(l.Rows[:0:0], l.Rows[0], l.Rows[0])
	spread, copies := 1.0, 0.0
	for i, dma := range []string{"direct", "iommu-strict"} {
		row := &l.Rows[i]
		row.Name = "debian:6.12-cloud/nic=virtio/dma=" + dma + "/bulk=64"
		row.Labels = map[string]string{"kernel": "debian:6.12-cloud", "nic": "virtio", "dma": dma, "bulk": "64"}
		row.Spread = &spread
		row.DMA = []record.LabDMA{{Part: "in-poll", Map: 2, Flush: 0.00374, Copy: &copies}}
		l.Warn(row.Guest(), "of "+dma)
	}
	var b bytes.Buffer
	write := func() string {
		b.Reset()
		if err := Lab(&b, Options{Width: 80}, l); err != nil {
			t.Fatal(err)
		}
		reporttest.Fits(t, b.String(), 80)
		return b.String()
	}
	if text := write(); strings.Contains(text, "…") || strings.Contains(text, "copy") ||
		!strings.Contains(text, "virtio direct 64") || strings.Count(text, " ¹\n") != 1 || strings.Count(text, " ²\n") != 1 {
		t.Errorf("cut, or without a mark:\n%s", text)
	}
	for i := range l.Rows {
		l.Rows[i].Labels["nic"] = "virtio-no-indirect"
	}
	l.Rows[0].Ns, l.Rows[1].Ns = &stat.Quantity{Median: 1075.5, Low: 1070, High: 1080, N: 7, Unit: "ns"}, nil
	if text := write(); !strings.Contains(text, "1075.5\n") || !strings.Contains(text, "virtio-no-indirect, iommu-strict") {
		t.Errorf("cut:\n%s", text)
	}
	copies = 1
	if text := write(); !strings.Contains(text, "copy") {
		t.Errorf("without copies:\n%s", text)
	}
}

// Several ways of a packet are beside each other, by interface and DMA setup.
func TestLabWorkersGolden(t *testing.T) {
	t.Parallel()
	l := reporttest.Wires()
	for i, scenario := range []string{"redirect-map", "forward-zero-copy"} {
		copies := float64(i)
		l.Rows[i].Labels["scenario"], l.Rows[i].Labels["append"] = scenario, ""
		l.Rows[i].DMA = append(l.Rows[i].DMA, record.LabDMA{Part: "worker", Copy: &copies})
	}
	l.Rows[1].Instructions = nil
	var b bytes.Buffer
	if err := Lab(&b, Options{Width: 80}, l); err != nil {
		t.Fatal(err)
	}
	reporttest.Fits(t, b.String(), 80)
	reporttest.Golden(t, "lab-workers.txt", b.String())
}

func TestLabComparisonGolden(t *testing.T) {
	t.Parallel()
	old, new := reporttest.Lab(), reporttest.Lab()
	more := 1181.0
	new.Rows[0].Instructions = &more
	new.Rows[0].Sites = append(new.Rows[0].Sites,
		record.LabSite{Function: "__xdp_return", Stage: "return", PerPacket: 1})
	new.Rows[1].Functions = []record.LabFunction{{Function: "bq_xmit_all", PerPacket: 0.25}}
	new.Rows[2].Name = "another/bulk=16"
	c := compare.Labs(old, new)
	c.Old.File, c.New.File, c.Old.Time, c.New.Time = "a.json", "b.json", time.Unix(0, 0), time.Unix(60, 0)
	var b bytes.Buffer
	if err := LabComparison(&b, Options{Width: 80}, c); err != nil {
		t.Fatal(err)
	}
	reporttest.Fits(t, b.String(), 80)
	reporttest.Golden(t, "compare-lab.txt", b.String())
}
