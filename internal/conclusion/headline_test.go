package conclusion

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/stat"
)

func TestHeadlines(t *testing.T) {
	parse := func(text string) Headline {
		t.Helper()
		s, err := record.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return Of(s)
	}
	q := func(x, half float64, unit string) *stat.Quantity {
		return &stat.Quantity{Median: x, Low: x - half, High: x + half, N: 11, Unit: unit}
	}
	bench := recordtest.Document("a", recordtest.Row("redirect-map/bulk=1", nil, recordtest.Steady, 8),
		recordtest.Row("redirect-map/bulk=64", nil, recordtest.Steady, 2))
	bench.Rows[1].Hop = q(80, 2, "ns")
	if h := parse(recordtest.Marshal(t, bench)); h.Title != "5.00 Mpps on one core; the redirect takes 40 % of a packet’s 200 ns" ||
		!strings.Contains(h.Text, "The slowest row, redirect-map/bulk=1, sends 1.25 Mpps: 600 ns a packet more.") {
		t.Errorf("%+v", h)
	}
	p := recordtest.FullProfile()
	p.Packet, p.Tax.Total = q(200, 3, "ns"), q(4, 1, "ns")
	for i := range p.Rows {
		p.Rows[i].Ns = q(20, 1, "ns")
	}
	groups := p.Groups()
	if h := parse(recordtest.Marshal(t, p)); !strings.HasPrefix(h.Title,
		"The redirect path takes 80.0 ns of a packet’s 200") || !strings.HasSuffix(h.Title, ", indirect branches 2.0 %") {
		t.Errorf("%+v, %v", h, groups)
	}
	slower, err := compare.Records(record.NewSaved(recordtest.Ladder("a", 1, 1)),
		record.NewSaved(recordtest.Ladder("b", 2, 1.5)), compare.Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	if h := parse(recordtest.Marshal(t, slower)); !h.Tells || !strings.Contains(h.Title, " is slower: ") ||
		!strings.Contains(h.Title, " % more; ") || !strings.HasSuffix(h.Title, " % less") ||
		!strings.HasPrefix(h.Text, "All 3 rows are slower. ") || !strings.Contains(h.Text, "The change of ns is +") {
		t.Errorf("%+v", h)
	}
	few, err := compare.Records(record.NewSaved(recordtest.Document("a",
		recordtest.Row("drop/bulk=1", nil, recordtest.Steady[:4], 1))),
		record.NewSaved(recordtest.Document("b", recordtest.Row("drop/bulk=1", nil, recordtest.Steady[:4], 1))),
		compare.Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	if h := parse(recordtest.Marshal(t, few)); h.Tells || h.Title != "Cannot tell whether the two differ in 1 of 1 row" {
		t.Errorf("%+v", h)
	}
	saved, err := record.Parse([]byte(recordtest.LabJSON))
	if err != nil {
		t.Fatal(err)
	}
	l := saved.Lab()
	l.Rows[0].Labels["bulk"] = "1"
	l.Differences = []record.LabDifference{{With: "k/bulk=1", Without: "k2/bulk=1", Instructions: 10, CallsPerPacket: 5, Ns: q(61, 5, "ns")}}
	if h := parse(recordtest.Marshal(t, l)); h.Title != "Indirect branches cost a packet about 61.0 ns at bulk 1" ||
		!strings.Contains(h.Text, "k against k2: 5.00 indirect branches a packet, +10.00 instructions, about 61.0 ns [56.0, 66.0]") {
		t.Errorf("%+v", h)
	}
}

// Nothing of a headline depends on what JSON cannot hold.
func TestHeadlineUnknown(t *testing.T) {
	var s record.Saved
	if h := Of(&s); h.Title != "Nothing was measured" {
		t.Errorf("%+v", h)
	}
	b, err := json.Marshal(recordtest.Document("a", record.BenchRow{Name: "tx/bulk=1", Refused: "no", Samples: []float64{}, Rounds: []int{}}))
	if err != nil {
		t.Fatal(err)
	}
	saved, err := record.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if h := Of(saved); h.Title != "No row has a number" {
		t.Errorf("%+v", h)
	}
}

func TestProgramHeadline(t *testing.T) {
	t.Parallel()
	h := Of(record.NewSaved(reporttest.ProgXray()))
	if h.Title != "Program lb_main has 1 indirect branch in its code, and 2 calls of a function that has one in its own" ||
		!strings.HasPrefix(h.Text, "lb.c:149: jump to table by a constant index\ndetach") {
		t.Errorf("%+v", h)
	}
}
