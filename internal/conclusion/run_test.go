package conclusion

import (
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

func ns(median, low, high float64) *stat.Quantity {
	return &stat.Quantity{Median: median, Low: low, High: high, N: 7, Unit: "ns"}
}

func TestNew(t *testing.T) {
	doc := &record.Document[record.BenchRow]{
		Rows: []record.BenchRow{
			{Labels: map[string]string{"bulk": "1"}, Hop: ns(370, 360, 380)},
			{Labels: map[string]string{"bulk": "64"}, Hop: ns(95, 90, 100)},
		},
		RunParts: record.RunParts{Prices: []record.TaxRow{
			{Name: "packet/bulk=16", With: ns(100, 90, 110), Price: ns(2, 1, 3)},
			{Name: "bpf-prog", Price: ns(10, 9, 11)},
			{Name: "tracepoint/1", Price: ns(50, 40, 60)},
			{Name: "devmap-prog", Price: ns(1, -1, 3)},
		}, Stages: []record.ProfileRow{{Name: "generator", Ns: ns(100, 90, 110)}, {Name: "receive", Ns: ns(50, 45, 55)},
			{Name: "transmit", Ns: ns(5, 4, 6)}}, Profile: &record.ProfileParts{Tax: &record.ProfileTax{ReturnEntries: ns(150, 140, 160)}}},
	}
	findings := []host.Finding{{Name: "indirect-call", Do: "use IBRS"}, {Name: "return-thunk", Do: "count calls"}, {Name: "iommu"}}
	v := New(doc, findings)
	if v.Share == nil || v.Share.Median != 2 || v.Share.Low != 1 || v.Share.High != 3 || v.Share.Unit != "%" {
		t.Errorf("share %+v", v.Share)
	}
	if v.Largest == nil || v.Largest.Name != "receive" {
		t.Errorf("largest %+v", v.Largest)
	}
	text := func(gains []record.Gain) (s []string) {
		for _, g := range gains {
			what, _, _ := strings.Cut(g.What, ":")
			s = append(s, what)
		}
		return s
	}
	if got := strings.Join(text(v.Win), "|"); got != "raise the bulk from 1 to 64|count calls|use IBRS" {
		t.Errorf("to win: %s", got)
	}
	if q := v.Win[0].Ns; q.Median != 275 || q.Low != 260 || q.High != 290 {
		t.Errorf("bulk: %+v", q)
	}
	if !v.Win[1].AtMost {
		t.Error("what follows calls is a bound")
	}
	// A price that may be 0 is no loss.
	if len(v.Lose) != 2 || v.Lose[0].Ns.Median != 50 || v.Lose[1].Ns.Median != 10 {
		t.Errorf("to lose: %+v", v.Lose)
	}
	if v := New(&record.Document[record.BenchRow]{}, nil); v.Share != nil || v.Largest != nil || len(v.Win)+len(v.Lose) > 0 {
		t.Errorf("of nothing: %+v", v)
	}
	findings[2].Do = "boot with iommu=pt"
	if v := New(doc, findings); len(v.Win) != 4 || v.Win[2].Ns.Median != 40 {
		t.Errorf("behind an IOMMU: %+v", v.Win)
	}
	for release, want := range map[string]int{"6.1.0-56-amd64": 5, "5.18.2": 5, "6.12.1": 4, "6.18.44": 4, "7.0": 4, "": 4} {
		doc.Host.Kernel = release
		if v := New(doc, findings); len(v.Win) != want {
			t.Errorf("Linux %q behind an IOMMU: %+v", release, v.Win)
		}
	}
}
