package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/stat"
)

// TaxRow is one row of `tax`: the price of an indirect call, as the difference
// of two programs that are alike except for it.
//
// A row named "control" prices two identical programs: its price is what the
// method itself adds. A row named "packet/…" is an estimate: With is ns of a
// redirected packet, Without what it would cost with no indirect call, Price
// the difference, PerPacket the calls.
type TaxRow struct {
	// Name is stable: "map-lookup/hash".
	Name string `json:"name"`
	// Labels are the row's coordinates: pair, variant; of an estimate with a program of the user's also the verdict.
	Labels map[string]string `json:"labels"`
	// Target is what is called indirectly.
	Target string `json:"calls"`
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

// CallPart is what the calls take of the price, and the ns that are not calls: the price
// of ndo_xdp_xmit is a hop without bulking less one with it, which saves locks, doorbells
// and softirqs too. Of all other rows the calls take the whole price. The part is nil
// where there is no price, or where what a call costs was not measured.
func (r *TaxRow) CallPart() (part *stat.Quantity, rest float64) {
	if r.family() != "ndo-xdp-xmit" || r.Price == nil {
		return r.Price, 0
	}
	if r.NsPerPacket == nil {
		return nil, r.Price.Median
	}
	return r.NsPerPacket, r.Price.Median - r.NsPerPacket.Median
}

func (r *TaxRow) check() error {
	if err := checkSamples(r.Samples, r.Rounds, func(ns float64) bool { return math.Abs(ns) <= maxNs }); err != nil {
		return err
	}
	if err := checkLabels(r.Labels); err != nil {
		return err
	}
	for _, s := range []struct{ name, text string }{{"calls", r.Target}, {"premise", r.Premise}, {"note", r.Note}} {
		if utf8.RuneCountInString(s.text) > MaxText || !printable(s.text) {
			return fmt.Errorf("impossible %s %.60q", s.name, s.text)
		}
	}
	measured := r.With != nil && r.Without != nil && r.Price != nil
	switch {
	case r.Refused == "" && !measured:
		return errNeither
	case r.Refused != "" && (r.With != nil || r.Without != nil || r.Price != nil):
		return errBoth
	case measured && len(r.Samples) == 0 && !r.Estimate():
		return errNoSamples
	case !measured && (r.Cycles != nil || r.NsPerPacket != nil):
		return errors.New("cycles or ns per packet of no price")
	}
	err := checkMeans([]quantity{
		{"with", "ns", r.With, false},              // of a hop: a chain's time less another's
		{"without", "ns", r.Without, r.Estimate()}, // a difference then
		{"price", "ns", r.Price, true},
		{"cycles", "cycles", r.Cycles, true},
		{"per-packet", "calls", r.PerPacket, false},
		{"ns-per-packet", "ns", r.NsPerPacket, true},
	})
	if err == nil && measured && (math.IsNaN(r.With.Median) || math.IsNaN(r.Without.Median) ||
		math.IsNaN(r.Price.Median)) {
		return errNeither
	}
	return err
}

func (r *TaxRow) rowName() string { return r.Name }

func checkTax(d *Document[TaxRow]) error {
	if err := d.RunParts.checkNone(d.Kind); err != nil {
		return err
	}
	if err := checkReferences(d.References); err != nil {
		return err
	}
	return checkRows(d.Rows, nil)
}
