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
	// minPriced is the fewest machines whose numbers have limits, that which is judged among them: seven twins. These are maxDeviations
	// robust standard deviations from the median, and no less than minRelative of it and minNs: twins of normal scatter are beyond them
	// less than once in a million.
	minPriced     = 8
	maxDeviations = 5
	minRelative   = 0.03
	minNs         = 0.5
)

// Odd finds machines that are unlike their twins, those with the same CPU, microcode, kernel and hypervisor: a field has
// another value than with most of them, or a number lies outside their limits. They are sorted by what their redirect loses,
// in bulks of 16; most is how many are answered.
func (s *Store) Odd(ctx context.Context, w Window, where Where, most int) (*record.FleetOdd, error) {
	machines, head, err := s.about(ctx, s.room(), w, where)
	if err != nil {
		return nil, err
	}
	doc := &record.FleetOdd{Document: *record.New[record.FleetOddRow]("fleet-odd", host.Fingerprint{}), FleetHead: head, Twins: twinFields}
	found := oddest{most: most}
	for _, twins := range group(machines, twinFields) {
		if len(twins) < minTwins {
			doc.Alone += len(twins)
			continue
		}
		doc.Compared += len(twins)
		doc.Unjudged += found.addTwins(twins)
	}
	doc.Rows = append(doc.Rows, found.cut()...)
	doc.LeftOut = found.all - len(doc.Rows)
	return doc, nil
}

// oddest keeps the rows of the first odd machines, in the order of the answer.
type oddest struct {
	rows      []record.FleetOddRow
	most, all int
}

func (o *oddest) add(row record.FleetOddRow) {
	o.all++
	if o.rows = append(o.rows, row); len(o.rows) >= 2*o.most {
		o.cut()
	}
}

// cut leaves out what is behind the first, and returns these.
func (o *oddest) cut() []record.FleetOddRow {
	slices.SortFunc(o.rows, func(a, b record.FleetOddRow) int {
		return cmp.Or(-cmp.Compare(lost(a), lost(b)), -cmp.Compare(len(a.Fields), len(b.Fields)), strings.Compare(a.Name, b.Name),
			strings.Compare(a.Machine, b.Machine))
	})
	if n := min(len(o.rows), o.most); n < len(o.rows) {
		o.rows = slices.Delete(o.rows, n, len(o.rows))
	}
	return o.rows
}

func lost(row record.FleetOddRow) float64 {
	if row.Lost == nil {
		return math.Inf(-1)
	}
	return *row.Lost
}

// addTwins adds the odd ones among twins, and returns how many have numbers, but too few twins with these for limits.
func (o *oddest) addTwins(twins []*Machine) (unjudged int) {
	var usual []record.FleetField
	for _, field := range alikeFields {
		if f, ok := usualField(twins, field); ok {
			usual = append(usual, f)
		}
	}
	var like []*Machine // those of the usual fields, whose numbers are the limits
	for _, m := range twins {
		if len(unusual(m, usual)) == 0 {
			like = append(like, m)
		}
	}
	of := numbersByName(like)
	limits := limitsOf(of)
	median := stat.Median(of[record.FleetRedirectAnswer])
	for _, m := range twins {
		unjudged += oneIf(!judged(m, limits))
		row := record.FleetOddRow{
			Name: m.Title(), Machine: m.ID, Run: m.Run, At: m.At, Twins: len(twins) - 1,
			Fields: unusual(m, usual), Prices: outside(m, limits),
		}
		if len(row.Fields)+len(row.Prices) == 0 {
			continue
		}
		row.Labels, _ = labels(m, twinFields, nil)
		if x := m.number(record.FleetRedirectAnswer) - median; !math.IsNaN(x) {
			row.Lost = &x
		}
		o.add(row)
	}
	return unjudged
}

// judged tells whether there are limits of the redirect of a machine, in bulks of 16, or of any number where it has no redirect; also
// of a machine without a number.
func judged(m *Machine, limits map[string]record.FleetLimit) bool {
	if math.IsNaN(m.number(record.FleetRedirectAnswer)) {
		return !m.Measured() || len(limits) > 0
	}
	_, ok := limits[record.FleetRedirectAnswer]
	return ok
}

// usualField is the value of a field that most twins have, and the share of the others of a machine that is not one of them; of
// two as frequent ones the first in order. ok is unset where no value is the usual one.
func usualField(twins []*Machine, field string) (f record.FleetField, ok bool) {
	count := make(map[string]int)
	for _, m := range twins {
		count[m.Setup.Value(field)]++
	}
	n := 0
	f.Name = field
	for v, c := range count {
		if c > n || c == n && v < f.Usual {
			f.Usual, n = v, c
		}
	}
	f.Share = float64(n) / float64(len(twins)-1)
	few := len(twins)-n > 1
	return f, n >= 2 && (!few || float64(n) >= usualShare*float64(len(twins)))
}

// unusual are the fields of which a machine has another value than the usual one.
func unusual(m *Machine, usual []record.FleetField) []record.FleetField {
	fields := []record.FleetField{}
	for _, f := range usual {
		if v := m.Setup.Value(f.Name); v != f.Usual {
			f.Value = v
			fields = append(fields, f)
		}
	}
	return fields
}

// limitsOf are the limits of numbers by their names, but of indirect branches, which are computed from others.
func limitsOf(numbers map[string][]float64) map[string]record.FleetLimit {
	limits := make(map[string]record.FleetLimit)
	for name, xs := range numbers {
		if len(xs) < minPriced || name == record.FleetIndirect {
			continue
		}
		median := stat.Median(xs)
		off := make([]float64, len(xs))
		for i, x := range xs {
			off[i] = math.Abs(x - median)
		}
		reach := max(maxDeviations*1.4826*stat.Median(off), minRelative*math.Abs(median), minNs)
		limits[name] = record.FleetLimit{Row: name, Median: median, Low: median - reach, High: median + reach}
	}
	return limits
}

// outside are the numbers of a machine that are outside limits.
func outside(m *Machine, limits map[string]record.FleetLimit) []record.FleetLimit {
	found := []record.FleetLimit{}
	for _, name := range numberNames(m) {
		limit, ok := limits[name]
		if x := m.number(name); ok && (x < limit.Low || x > limit.High) {
			limit.Ns = x
			found = append(found, limit)
		}
	}
	return found
}
