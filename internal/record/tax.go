package record

import (
	"encoding/json"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/stat"
)

// TaxRow is one row of `tax`: the price of an indirect call, as the difference
// of two programs that are alike but for it.
//
// A row named "control" prices two identical programs: its price is what the
// method itself adds. A row named "packet/…" is an estimate: With is ns of a
// redirected packet, Without what it would cost with no indirect call, Price
// the difference, PerPacket the calls.
type TaxRow struct {
	// Name is stable: "map-lookup/hash".
	Name string `json:"name"`
	// Labels are the row's coordinates: pair, variant.
	Labels map[string]string `json:"labels"`
	// Calls is what is called indirectly.
	Calls string `json:"calls"`
	// Premise is what was found in the code of both sides before timing.
	Premise string `json:"premise,omitempty"`
	// With and Without are the two sides, Price their difference, in ns per
	// run of the call. All are nil when Refused is set.
	With    *stat.Quantity `json:"with"`
	Without *stat.Quantity `json:"without"`
	Price   *stat.Quantity `json:"price"`
	// Cycles is the price in cycles of the TSC, unit "cycles". Nil when its
	// rate is not known.
	Cycles *stat.Quantity `json:"cycles"`
	// PerPacket is how often the call runs for a redirected packet on the
	// measured path, unit "calls". Nil when unknown.
	PerPacket *stat.Quantity `json:"per-packet"`
	// NsPerPacket is the price of all of these, in ns per packet. Nil when
	// unknown.
	NsPerPacket *stat.Quantity `json:"ns-per-packet"`
	// Refused says why there is no number. Empty when there is one.
	Refused string `json:"refused,omitempty"`
	// Note is what else the number holds, one clause.
	Note string `json:"note,omitempty"`
	// Samples are prices in ns, one a round, and may be negative; Rounds are
	// the numbers of those rounds, by which rows of one run are paired. An
	// estimate may have none.
	Samples []float64 `json:"samples"`
	Rounds  []int     `json:"rounds"`
}

// UnmarshalJSON reads a row. A sample of null is NaN, not 0: 0 is a price.
func (r *TaxRow) UnmarshalJSON(b []byte) error {
	type fields TaxRow
	row := struct {
		*fields
		Samples []*float64 `json:"samples"`
	}{fields: (*fields)(r)}
	if err := json.Unmarshal(b, &row); err != nil {
		return err
	}
	r.Samples = nil
	if row.Samples != nil {
		r.Samples = make([]float64, len(row.Samples))
	}
	for i, x := range row.Samples {
		r.Samples[i] = math.NaN()
		if x != nil {
			r.Samples[i] = *x
		}
	}
	return nil
}

// family is the first part of a row's name.
func (r *TaxRow) family() string {
	family, _, _ := strings.Cut(r.Name, "/")
	return family
}

// Estimate reports whether the row is made of others: its name is "packet/…".
func (r *TaxRow) Estimate() bool { return r.family() == "packet" }

// Control reports whether the row prices two identical programs.
func (r *TaxRow) Control() bool { return r.family() == "control" }
