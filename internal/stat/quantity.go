package stat

import (
	"encoding/json"
	"math"
)

// Quantity is a measured number.
type Quantity struct {
	// Median of the rounds, in Unit.
	Median float64
	// Low and High are the 95 % interval of the median, in Unit. They are
	// NaN when there were too few rounds to state one.
	Low, High float64
	// N is the number of rounds the median was taken over.
	N int
	// Unit is "ns", "Mpps", "frames", …
	Unit string
}

type quantityJSON struct {
	Median *float64 `json:"median"`
	Low    *float64 `json:"low"`
	High   *float64 `json:"high"`
	N      int      `json:"n"`
	Unit   string   `json:"unit"`
}

// MarshalJSON writes unknown numbers as null, never as 0.
func (q Quantity) MarshalJSON() ([]byte, error) {
	return json.Marshal(quantityJSON{known(q.Median), known(q.Low), known(q.High), q.N, q.Unit})
}

// UnmarshalJSON reads what MarshalJSON wrote; null becomes NaN.
func (q *Quantity) UnmarshalJSON(b []byte) error {
	var j quantityJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*q = Quantity{orNaN(j.Median), orNaN(j.Low), orNaN(j.High), j.N, j.Unit}
	return nil
}

func known(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

func orNaN(p *float64) float64 {
	if p == nil {
		return math.NaN()
	}
	return *p
}
