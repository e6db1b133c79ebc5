package tax

import (
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

func TestCallPriceOf(t *testing.T) {
	price := new(stat.Quantity)
	row := func(name string, price *stat.Quantity, refused string) (r record.TaxRow) {
		r.Name, r.Price, r.Refused = name, price, refused
		return r
	}
	for name, test := range map[string]struct {
		rows  []record.TaxRow
		price *stat.Quantity
		why   string
	}{
		"priced":  {[]record.TaxRow{row("control", new(stat.Quantity), ""), row(Thunk, price, "")}, price, ""},
		"refused": {[]record.TaxRow{row(Thunk, nil, "the JIT is off")}, nil, "the JIT is off"},
		"stopped": {[]record.TaxRow{row(Thunk, nil, "")}, nil, "the run was stopped"},
		"no row":  {[]record.TaxRow{row("control", price, "")}, nil, "the run was stopped"},
	} {
		if price, why := CallPriceOf(test.rows); price != test.price || why != test.why {
			t.Errorf("%s: %v, %q; want %q", name, price, why, test.why)
		}
	}
}
