package tax

import (
	"cmp"
	"fmt"
	"math"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Record turns what was measured into rows, the estimates for a whole packet
// last, and warnings.
func (raw *Raw) Record() ([]record.TaxRow, []record.Warning) {
	var warns []record.Warning
	if text := raw.Outcome.Warning(); text != "" {
		warns = append(warns, record.Warning{Text: text})
	}
	rows := []record.TaxRow{}
	for i := range raw.pairs {
		p := &raw.pairs[i]
		row := possible(raw.row(p))
		if p.uncharged {
			p.sides.complete(raw, p, &row)
		}
		if row.Refused == "" {
			for _, text := range append(stat.Warnings(row.Samples), p.sides.complete(raw, p, &row)...) {
				warns = append(warns, record.Warning{Row: row.Name, Text: text})
			}
		}
		rows = append(rows, row)
	}
	packets := raw.packets()
	for i := range packets {
		packets[i] = possible(packets[i])
	}
	if thunk := raw.pair(Thunk); thunk != nil && thunk.fillsDispatcher() {
		for _, row := range packets {
			if row.Refused != "" {
				continue
			}
			for _, text := range fewFills(thunk) {
				warns = append(warns, record.Warning{Row: row.Name, Text: text})
			}
		}
	}
	return append(rows, packets...), warns
}

// possible is row, refused when one of its sides is below zero: beside other work the chain with the redirect can be quicker
// than that without it.
func possible(row record.TaxRow) record.TaxRow {
	for _, q := range []*stat.Quantity{row.With, row.Without} {
		if q == nil || q.Median >= 0 {
			continue
		}
		return record.TaxRow{
			Name: row.Name, Labels: row.Labels, Target: row.Target, Premise: row.Premise, Note: row.Note,
			Refused: fmt.Sprintf("disturbed: one of its sides took %.3g ns [%.3g, %.3g], as the machine did other work: "+
				"measure for longer, or while it does nothing else", q.Median, q.Low, q.High),
			Samples: []float64{}, Rounds: []int{},
		}
	}
	return row
}

// pair is what was measured of a pair by its name, nil when it was not or is refused.
func (raw *Raw) pair(name string) *rawPair {
	for i := range raw.pairs {
		if p := &raw.pairs[i]; p.name == name && p.refused == "" {
			return p
		}
	}
	return nil
}

// atAnyClock widens the interval of a price by what the core's clock did from round
// to round: it will change by the same from this run to the next, and moves all prices
// alike, so the rounds of one run do not show it.
func (raw *Raw) atAnyClock(price stat.Quantity) stat.Quantity {
	n := float64(len(raw.coreClock))
	if n < 2 {
		return price
	}
	sum, squares := 0.0, 0.0
	for _, hz := range raw.coreClock {
		sum += hz
	}
	for _, hz := range raw.coreClock {
		squares += (hz*n/sum - 1) * (hz*n/sum - 1)
	}
	clock := 1.96 * math.Sqrt(squares/(n-1)) * price.Median
	price.Low = price.Median - math.Hypot(price.Median-price.Low, clock)
	price.High = price.Median + math.Hypot(price.High-price.Median, clock)
	return price
}

// Clock is what the core under test ran at, in words: the median of all rounds, the
// slowest and the fastest. It is empty when that was not measured.
func (raw *Raw) Clock() string {
	if len(raw.coreClock) == 0 {
		return ""
	}
	ghz := func(q float64) float64 { return stat.Quantile(raw.coreClock, q) / 1e9 }
	return fmt.Sprintf("%.2f GHz (%.2f to %.2f)", ghz(0.5), ghz(0), ghz(1))
}

func (raw *Raw) row(p *rawPair) record.TaxRow {
	family, variant, _ := strings.Cut(p.name, "/")
	row := record.TaxRow{
		Name:    p.name,
		Labels:  map[string]string{"pair": family, "variant": variant},
		Target:  p.target,
		Premise: p.premise,
		Note:    p.note,
		Refused: p.refused,
		Samples: []float64{},
		Rounds:  []int{},
	}
	if s, ok := p.sides.(hop); ok && row.Refused == "" && s.offPath(raw) {
		row.Refused = notOnPath
	}
	if row.Refused == "" && len(p.rounds) == 0 {
		row.Refused = cmp.Or(p.failure, "not measured: the run ended before it")
	}
	if row.Refused != "" {
		return row
	}
	rounds, with, without := p.perRound()
	row.Samples, row.Rounds = differences(with, without), rounds
	row.With, row.Without = summary(with, "ns"), summary(without, "ns")
	price := raw.atAnyClock(stat.Shift(with, without, "ns"))
	row.Price = &price
	if raw.tscRate > 0 {
		row.Cycles = scaled(price, raw.tscRate/1e9, "cycles")
	}
	return row
}

// setPerPacket sets how often what a row prices runs for a packet, and what that takes
// where there is a price.
//
// Counted is the way of a packet that redirect-map redirects at bulk 64, from the
// program that redirects it to the program that ends it.
func setPerPacket(row *record.TaxRow, calls float64) {
	row.PerPacket = exactly(calls, "calls")
	if row.Price != nil {
		row.NsPerPacket = scaled(*row.Price, calls, "ns")
	}
}

// differences are a less b, one by one.
func differences(a, b []float64) []float64 {
	ds := make([]float64, len(a))
	for i := range ds {
		ds[i] = a[i] - b[i]
	}
	return ds
}

func summary(xs []float64, unit string) *stat.Quantity {
	q := stat.Summarize(xs, unit)
	return &q
}

// exactly is a count without scatter.
func exactly(x float64, unit string) *stat.Quantity {
	return &stat.Quantity{Median: x, Low: x, High: x, N: 1, Unit: unit}
}

func scaled(q stat.Quantity, by float64, unit string) *stat.Quantity {
	q.Median, q.Low, q.High, q.Unit = q.Median*by, q.Low*by, q.High*by, unit
	return &q
}
