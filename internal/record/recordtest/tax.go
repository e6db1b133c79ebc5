package recordtest

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// PriceRow is the row of a call whose rounds cost price ns, give or take sd.
func PriceRow(r *rand.Rand, name string, price, sd float64) record.TaxRow {
	row := record.TaxRow{
		Name: name, Labels: map[string]string{"pair": strings.Split(name, "/")[0]}, Target: "array_map_lookup_elem",
		Premise: "with: call through a thunk; without: no call", Samples: []float64{}, Rounds: []int{},
	}
	var with, without []float64
	for i := range 20 {
		without = append(without, 8+sd*r.NormFloat64())
		with = append(with, without[i]+price+sd*r.NormFloat64())
		row.Samples, row.Rounds = append(row.Samples, with[i]-without[i]), append(row.Rounds, i)
	}
	w, o, p := stat.Summarize(with, "ns"), stat.Summarize(without, "ns"), stat.Shift(with, without, "ns")
	row.With, row.Without, row.Price = &w, &o, &p
	return row
}

// Quantity is a known number.
func Quantity(median, low, high float64, unit string) *stat.Quantity {
	return &stat.Quantity{Median: median, Low: low, High: high, N: 20, Unit: unit}
}

// TaxDocument prices calls at factor times their prices.
func TaxDocument(run string, seed uint64, factor float64) *record.Document[record.TaxRow] {
	r := rand.New(rand.NewPCG(seed, 0))
	doc := &record.Document[record.TaxRow]{
		Head: record.Head{Schema: record.Schema, Kind: "tax", Run: run,
			Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Host: host.Fingerprint{Kernel: "6.12"}},
		Warnings: []record.Warning{},
	}
	doc.Rows = append(doc.Rows,
		PriceRow(r, "control", 0, 0.05),
		PriceRow(r, "map-lookup/hash", 2*factor, 0.05),
		PriceRow(r, "ndo-xdp-xmit/bulk=16", 10*factor, 0.1),
	)
	full := &doc.Rows[1]
	full.Cycles, full.PerPacket = Quantity(6, 5.5, 6.5, "cycles"), Quantity(1, 1, 1, "calls")
	full.NsPerPacket, full.Note = Quantity(2, 1.9, 2.1, "ns"), "one bounds check is in it"
	return doc
}

func RunDocument(run string, seed uint64, factor float64) *record.Document[record.BenchRow] {
	doc := Ladder(run, seed, factor)
	doc.Kind, doc.Prices = "run", TaxDocument(run, seed, factor).Rows
	return doc
}

func Marshal(t testing.TB, doc any) string {
	t.Helper()
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func ValidTax(t testing.TB) string { return Marshal(t, TaxDocument("run", 1, 1)) }

func ValidRun(t testing.TB) string { return Marshal(t, RunDocument("run", 1, 1)) }
