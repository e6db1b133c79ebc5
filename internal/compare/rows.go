package compare

import (
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// measures reports whether the record is of a kind that has rows of bench.
func measures(r *record.Record) bool { return r.Kind != "tax" }

// prices reports whether the record has prices: one of tax has, though it may
// have been stopped before the first.
func prices(r *record.Record) bool { return r.Kind == "tax" || len(r.Prices) > 0 }

// entry is what a comparison needs of a row of either type.
type entry struct {
	name    string
	labels  map[string]string
	ns      *stat.Quantity
	refused string
	samples []float64
	rounds  []int
	// price is set for a row of tax.
	price *record.TaxRow
}

func rowEntries(r *record.Record) []entry {
	es := make([]entry, len(r.Rows))
	for i, row := range r.Rows {
		es[i] = entry{row.Name, row.Labels, row.Ns, row.Refused, row.Samples, row.Rounds, nil}
	}
	return es
}

func priceEntries(r *record.Record) []entry {
	es := make([]entry, len(r.Prices))
	for i := range r.Prices {
		row := &r.Prices[i]
		es[i] = entry{row.Name, row.Labels, row.Price, row.Refused, row.Samples, row.Rounds, row}
	}
	return es
}
