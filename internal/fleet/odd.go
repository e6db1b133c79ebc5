package fleet

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// twinFields are those in which twins are alike, alikeFields those in which they should be.
var (
	twinFields  = []string{"cpu", "microcode", "kernel", "virtual"}
	alikeFields = []string{
		"indirect", "return", "call-sites", "boot-params", "mitigations", "iommu", "kernel-build", "compiler", "jit", "smt", "governor",
	}
)

// What makes a machine odd.
const (
	// minTwins is the fewest machines of which one can be unlike the others.
	minTwins = 3
	// usualShare is how many twins have the usual value of a field; of few twins all but one.
	usualShare = 0.8
	// minPriced is the fewest twins whose numbers have limits. These are maxDeviations robust standard deviations from the
	// median, and no less than minRelative of it and minNs: twins of normal scatter are beyond them less than once in a million.
	minPriced     = 8
	maxDeviations = 5
	minRelative   = 0.03
	minNs         = 0.5
)

// Odd finds machines that are unlike their twins, those with the same CPU, microcode, kernel and hypervisor: a field has
// another value than with most of them, or a number lies outside their limits. They are sorted by what their redirect loses,
// in bulks of 16; most is how many are answered.
func (s *Store) Odd(ctx context.Context, w Window, where Where, most int) (*record.FleetOdd, error) {
	machines, head, err := s.about(ctx, w, where)
	if err != nil {
		return nil, err
	}
	doc := &record.FleetOdd{Document: *record.New[record.FleetOddRow]("fleet-odd", host.Fingerprint{}), FleetHead: head, Twins: twinFields}
	for _, twins := range group(machines, twinFields) {
		if len(twins) < minTwins {
			doc.Alone += len(twins)
			continue
		}
		doc.Compared += len(twins)
		doc.Rows = append(doc.Rows, oddOnes(twins)...)
	}
	slices.SortFunc(doc.Rows, func(a, b record.FleetOddRow) int {
		return cmp.Or(-cmp.Compare(lost(a), lost(b)), -cmp.Compare(len(a.Fields), len(b.Fields)), strings.Compare(a.Name, b.Name),
			strings.Compare(a.Machine, b.Machine))
	})
	if n := len(doc.Rows) - most; n > 0 {
		doc.Rows, doc.LeftOut = doc.Rows[:most], n
	}
	return doc, nil
}

func lost(row record.FleetOddRow) float64 {
	if row.Lost == nil {
		return math.Inf(-1)
	}
	return *row.Lost
}

// oddOnes are the odd ones among twins.
func oddOnes(twins []Machine) []record.FleetOddRow {
	fields := make([][]record.FleetField, len(twins))
	for _, field := range alikeFields {
		value, n := usual(twins, field)
		if few := len(twins)-n > 1; n < 2 || few && float64(n) < usualShare*float64(len(twins)) {
			continue // no value is the usual one
		}
		for i := range twins {
			if v := twins[i].Setup.Value(field); v != value {
				share := float64(n) / float64(len(twins)-1) // it is not one of them
				fields[i] = append(fields[i], record.FleetField{Name: field, Value: v, Usual: value, Share: share})
			}
		}
	}
	var like []Machine // those of the usual fields, whose numbers are the limits
	for i := range twins {
		if len(fields[i]) == 0 {
			like = append(like, twins[i])
		}
	}
	limits := limitsOf(like)
	median := stat.Median(numbersNamed(like, redirect16))
	var rows []record.FleetOddRow
	for i := range twins {
		m := &twins[i]
		row := record.FleetOddRow{
			Name: m.Title(), Machine: m.ID, Run: m.Run, At: m.At, Twins: len(twins) - 1,
			Fields: slices.Concat([]record.FleetField{}, fields[i]), Prices: outside(m, limits),
		}
		if len(row.Fields)+len(row.Prices) == 0 {
			continue
		}
		row.Labels, _ = labels(m.Setup, twinFields)
		if x := m.number(redirect16) - median; !math.IsNaN(x) {
			row.Lost = &x
		}
		rows = append(rows, row)
	}
	return rows
}

// usual is the value of a field that most machines have, and how many: of two as frequent ones the first in order.
func usual(machines []Machine, field string) (value string, n int) {
	count := make(map[string]int)
	for i := range machines {
		count[machines[i].Setup.Value(field)]++
	}
	for v, c := range count {
		if c > n || c == n && v < value {
			value, n = v, c
		}
	}
	return value, n
}

// limitsOf are the limits of numbers of machines.
func limitsOf(machines []Machine) []record.FleetLimit {
	var limits []record.FleetLimit
	for _, name := range numberNames(machines) {
		xs := numbersNamed(machines, name)
		if len(xs) < minPriced {
			continue
		}
		median := stat.Median(xs)
		off := make([]float64, len(xs))
		for i, x := range xs {
			off[i] = math.Abs(x - median)
		}
		reach := max(maxDeviations*1.4826*stat.Median(off), minRelative*math.Abs(median), minNs)
		limits = append(limits, record.FleetLimit{Row: name, Median: median, Low: median - reach, High: median + reach})
	}
	return limits
}

// outside are the numbers of a machine that are outside limits.
func outside(m *Machine, limits []record.FleetLimit) []record.FleetLimit {
	found := []record.FleetLimit{}
	for _, limit := range limits {
		if x := m.number(limit.Row); x < limit.Low || x > limit.High {
			limit.Ns = x
			found = append(found, limit)
		}
	}
	return found
}
