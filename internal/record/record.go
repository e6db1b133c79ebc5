package record

import (
	"time"

	"github.com/unthunk/unthunk/internal/host"
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
