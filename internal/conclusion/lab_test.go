package conclusion

import (
	"fmt"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// The title of a program's guests has the digits that are known, so that their difference is the one that is said; a trace's
// indirect branches are none of its instructions.
func TestLabHeadlineOfProgram(t *testing.T) {
	t.Parallel()
	row := func(guest, line, class string, instructions float64) record.LabRow {
		calls := 0.5
		return record.LabRow{Name: guest + "/prog=lb/" + class, Instructions: &instructions, CallsPerPacket: &calls,
			Program: &record.LabProgram{}, Labels: map[string]string{"kernel": "k", "append": line, "prog": "lb", "class": class}}
	}
	l := &record.Lab{}
	l.Rows = []record.LabRow{row("k/on", "on", "all", 313.5), row("k/on", "on", "tx", 10), row("k/off", "off", "all", 310.5),
		row("k/off", "off", "tx", 10.25), {Name: "k/x/prog=lb/all", Refused: "no boot"}}
	h := labHeadline(l)
	if h.Title != "Instructions of the program a packet: 313.5 in k/on/prog=lb/all, 310.5 in k/off/prog=lb/all" ||
		h.Text != "k/on against k/off: +3 (all), -0.25 (tx) instructions a packet." {
		t.Errorf("%+v", h)
	}
	if l.Rows = l.Rows[:2]; ProgramDifferences(l) != nil {
		t.Errorf("of one guest: %q", ProgramDifferences(l))
	}
	third := 1. / 3
	for x, want := range map[float64]string{307 + third: "307.333333", -1e-10: "0", -0.25: "-0.25"} {
		if got := counted(x); got != want {
			t.Errorf("%v: %s, want %s", x, got, want)
		}
	}
	for i := range 10 {
		l.Rows = append(l.Rows, row("k/on", "on", fmt.Sprintf("packet/%d", i), 1), row("k/off", "off", fmt.Sprintf("packet/%d", i), 1))
	}
	if got := ProgramDifferences(l); len(got) != 1 || !strings.HasSuffix(got[0], "+0 (packet/7) and 2 more instructions a packet.") {
		t.Errorf("%q", got)
	}
}

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
