package conclusion

import (
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

func TestLabHeadlineOfWires(t *testing.T) {
	row := func(dma string, calls float64) record.LabRow {
		return record.LabRow{Name: dma, Labels: map[string]string{"nic": "igb", "dma": dma, "kernel": "k"},
			CallsPerPacket: &calls, DMA: []record.LabDMA{{Part: "in-poll", Map: 1}, {Part: "out-xmit", Map: 2}}}
	}
	l := &record.Lab{Price: &stat.Quantity{Median: 10, Low: 9, High: 11, N: 7, Unit: "ns"}}
	l.Rows = []record.LabRow{row("direct", 0.125), row("iommu-strict", 10.125), row("swiotlb", 0.125)}
	if h := labHeadline(l); h.Title != "A redirected packet makes 0.12 to 10.1 indirect branches, by how its memory is mapped" ||
		!strings.Contains(h.Text, "The most: igb with iommu-strict on k.") || !strings.Contains(h.Text, "1.25 and 101 ns") {
		t.Errorf("%+v", h)
	}
	if sum := l.Rows[0].SumDMA(); sum.Map != 3 || sum.Unmap != 0 {
		t.Errorf("%+v", sum)
	}
	l.Rows = l.Rows[:1]
	if h := labHeadline(l); !strings.HasPrefix(h.Title, "A redirected packet makes 0.12 indirect branches: igb with direct") {
		t.Errorf("%+v", h)
	}
}
