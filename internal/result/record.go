package result

import (
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/stat"
)

// Record is a record as [Load] reads it and [Compare] takes it, whichever verb
// made it: one of bench has Rows, one of tax Prices, one of run Rows and mostly
// Prices. On disk it is a [Document].
type Record struct {
	// Kind is the verb that made the record.
	Kind       string
	Time       time.Time
	Run        string
	Host       host.Fingerprint
	Settings   map[string]string
	Incomplete bool
	Rows       []BenchRow
	Prices     []TaxRow
	Warnings   []Warning
}

// NewRecord is doc as a record. It shares its rows.
func NewRecord[Row BenchRow | TaxRow](doc *Document[Row]) *Record {
	r := &Record{
		Kind: doc.Kind, Time: doc.Time, Run: doc.Run, Host: doc.Host, Settings: doc.Settings,
		Incomplete: doc.Incomplete, Prices: doc.Prices, Warnings: doc.Warnings,
	}
	switch rows := any(doc.Rows).(type) {
	case []BenchRow:
		r.Rows = rows
	case []TaxRow:
		r.Prices = rows
	}
	return r
}

// measures reports whether the record is of a kind that has rows of bench.
func (r *Record) measures() bool { return r.Kind != "tax" }

// prices reports whether the record has prices: one of tax has, though it may
// have been stopped before the first.
func (r *Record) prices() bool { return r.Kind == "tax" || len(r.Prices) > 0 }

// entry is what a comparison needs of a row of either type.
type entry struct {
	name    string
	labels  map[string]string
	ns      *stat.Quantity
	refused string
	samples []float64
	rounds  []int
	// price is set for a row of tax.
	price *TaxRow
}

func (r *Record) rowEntries() []entry {
	es := make([]entry, len(r.Rows))
	for i, row := range r.Rows {
		es[i] = entry{row.Name, row.Labels, row.Ns, row.Refused, row.Samples, row.Rounds, nil}
	}
	return es
}

func (r *Record) priceEntries() []entry {
	es := make([]entry, len(r.Prices))
	for i := range r.Prices {
		row := &r.Prices[i]
		es[i] = entry{row.Name, row.Labels, row.Price, row.Refused, row.Samples, row.Rounds, row}
	}
	return es
}
