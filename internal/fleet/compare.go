package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Comparison is what [Store.Compare] compares.
type Comparison struct {
	Window Window
	// Base and Canary are the conditions of the two sides.
	Base, Canary Where
	// Threshold is the smallest difference that matters, in percent.
	Threshold float64
}

// visible is the difference that Needed is about, in percent.
const visible = 1

// returnField is how functions return.
const returnField = "return"

// matchFields are those in which a canary is like the machines of the base that it is compared with.
var matchFields = []string{"cpu", "virtual"}

// pair are the newest records of a machine on the two sides; nil where it was on one only.
type pair struct{ base, canary *Machine }

// Compare says what the canaries pay more than the base. Machines are the sample. Where [stat.MinRounds] of them were on both
// sides, each is compared with itself; else canaries with machines of the base of the same CPU and hypervisor.
func (s *Store) Compare(ctx context.Context, c Comparison) (*record.FleetCompare, error) {
	if len(c.Base) == 0 || len(c.Canary) == 0 {
		return nil, errors.New("a side without a condition is all machines")
	}
	h := s.room()
	all, err := s.newest(ctx, h, c.Window)
	if err != nil {
		return nil, err
	}
	doc := &record.FleetCompare{
		Document: *record.New[record.FleetCompareRow]("fleet-compare", host.Fingerprint{}),
		Base:     c.Base.String(), Canary: c.Canary.String(), Threshold: c.Threshold, Design: "unpaired",
	}
	pairs, both, unmeasured := sides(all, c)
	asked := func(s *Setup) bool { return c.Base.Holds(s) || c.Canary.Holds(s) }
	if doc.FleetHead, err = s.head(ctx, h, c.Window, append(both, unmeasured...), asked); err != nil {
		return nil, err
	}
	var paired []pair
	for _, p := range pairs {
		switch {
		case p.base != nil && p.canary != nil:
			paired = append(paired, p)
			doc.BaseMachines++
			doc.CanaryMachines++
		case p.base != nil:
			doc.BaseMachines++
		default:
			doc.CanaryMachines++
		}
	}
	doc.Paired = len(paired)
	switch {
	case doc.BaseMachines == 0:
		return nil, fmt.Errorf("no machine with a number meets --base %s", doc.Base)
	case doc.CanaryMachines == 0:
		return nil, fmt.Errorf("no machine with a number meets --canary %s", doc.Canary)
	}
	var judged []stat.Difference
	var of []int
	needed := neededPaired
	compare := comparePaired
	kinds := keys{matchFields, make(map[*Setup]string)}
	if len(paired) >= stat.MinRounds {
		doc.Design = "paired"
		pairs, doc.Unmatched = paired, doc.CanaryMachines-len(paired)
	} else {
		pairs, doc.Unmatched = matched(pairs, kinds)
		needed = neededUnpaired
		compare = func(pairs []pair, name string) (*record.FleetCompareRow, *stat.Difference) {
			return compareUnpaired(pairs, kinds, name)
		}
	}
	names := numberNames(both...)[1:] // two identical programs have no difference
	if err := h.take(len(names) * costNumber); err != nil {
		return nil, err
	}
	with := pairsWith(pairs)
	for _, name := range names {
		row, d := compare(with[name], name)
		if row == nil {
			continue
		}
		row.Reference = name == record.FleetDirectCall && returnAlike(pairs, kinds)
		if d != nil && !row.Reference {
			judged, of = append(judged, *d), append(of, len(doc.Rows))
		}
		row.Difference = d
		doc.Rows = append(doc.Rows, *row)
	}
	for i, d := range stat.Family(judged) {
		doc.Rows[of[i]].Difference = &d
	}
	for i := range doc.Rows {
		finish(doc, &doc.Rows[i], needed)
	}
	return doc, nil
}

// finish gives a row its verdict.
func finish(doc *record.FleetCompare, row *record.FleetCompareRow, needed func(d *stat.Difference, base, canaries int) *int) {
	d := row.Difference
	if d == nil || math.IsNaN(d.Median) {
		row.Difference = nil
		row.Missing = fmt.Sprintf("%d and %d machines have the number: %d of each side have to", row.Base.N, row.Canary.N, stat.MinRounds)
		if doc.Design == "unpaired" {
			row.Missing += ", of the base as many of each CPU and hypervisor"
		}
		return
	}
	row.Verdict = stat.Verdict(*d, doc.Threshold)
	row.Needed = needed(d, row.Base.N, row.Canary.N)
	switch beyond := stat.Beyond(*d, doc.Threshold); {
	case row.Reference && beyond:
		doc.Warn(row.Name, "a direct call takes longer too, and both sides return alike: the machines or their clocks changed")
	case beyond:
		row.Regression = true
	}
}

// sides are the machines of the two sides that have a number, with the newest such record of each, and all of these records;
// unmeasured are records of machines that have none on a side on which they were.
func sides(all []*Machine, c Comparison) (pairs []pair, both, unmeasured []*Machine) {
	for i := 0; i < len(all); {
		var p, without pair
		id := all[i].ID
		for ; i < len(all) && all[i].ID == id; i++ {
			m, into := all[i], &p
			if !m.Measured() {
				into = &without
			}
			switch {
			case into.base == nil && c.Base.Holds(m.Setup):
				into.base = m
			case into.canary == nil && c.Canary.Holds(m.Setup):
				into.canary = m
			}
		}
		if p.base == nil && without.base != nil {
			unmeasured = append(unmeasured, without.base)
		}
		if p.canary == nil && without.canary != nil {
			unmeasured = append(unmeasured, without.canary)
		}
		if p.base != nil {
			both = append(both, p.base)
		}
		if p.canary != nil {
			both = append(both, p.canary)
		}
		if p.base != nil || p.canary != nil {
			pairs = append(pairs, p)
		}
	}
	return pairs, both, unmeasured
}

// matched leaves out canaries that fewer than [stat.MinRounds] machines of the base are like: the error of these few would be in
// each of them. It leaves out machines of the base that no canary is like, too. A machine of both sides is a canary only.
func matched(pairs []pair, kinds keys) (kept []pair, left int) {
	base, canaries := make(map[string]int), make(map[string]int)
	for _, p := range pairs {
		if p.canary != nil {
			canaries[kinds.of(p.canary.Setup)]++
		} else {
			base[kinds.of(p.base.Setup)]++
		}
	}
	for _, p := range pairs {
		switch {
		case p.canary == nil && canaries[kinds.of(p.base.Setup)] == 0:
		case p.canary == nil:
			kept = append(kept, p)
		case base[kinds.of(p.canary.Setup)] < stat.MinRounds:
			left++
		default:
			kept = append(kept, pair{canary: p.canary})
		}
	}
	return kept, left
}

// returnAlike tells whether a function returns on canaries as on the machines that they are compared with. A direct call, too,
// returns through a thunk where there is one, as against SRSO and ITS.
func returnAlike(pairs []pair, kinds keys) bool {
	returns := make(map[string]string) // by CPU and hypervisor
	for _, p := range pairs {
		if p.base != nil && p.canary != nil {
			if p.base.Setup.Value(returnField) != p.canary.Setup.Value(returnField) {
				return false
			}
			continue
		}
		setup := cmp.Or(p.base, p.canary).Setup
		key, value := kinds.of(setup), setup.Value(returnField)
		if known, ok := returns[key]; ok && known != value {
			return false
		}
		returns[key] = value
	}
	return true
}

// pairsWith are the pairs a machine of which may have the number of a name.
func pairsWith(pairs []pair) map[string][]pair {
	with := make(map[string][]pair)
	for _, p := range pairs {
		machines := slices.DeleteFunc([]*Machine{p.base, p.canary}, func(m *Machine) bool { return m == nil })
		for _, name := range numberNames(machines...) {
			with[name] = append(with[name], p)
		}
	}
	return with
}

// isPrice tells whether a number may be 0 or negative.
func isPrice(name string) bool { return !strings.HasPrefix(name, record.FleetRedirect) }

// newRow is a row of two samples; nil when both are empty.
func newRow(name string, base, canary []float64) *record.FleetCompareRow {
	if len(base)+len(canary) == 0 {
		return nil
	}
	b, c := stat.Summarize(base, "ns"), stat.Summarize(canary, "ns")
	return &record.FleetCompareRow{Name: name, Base: &b, Canary: &c}
}

func comparePaired(pairs []pair, name string) (*record.FleetCompareRow, *stat.Difference) {
	var base, canary []float64
	for _, p := range pairs {
		b, c := p.base.number(name), p.canary.number(name)
		if !math.IsNaN(b) && !math.IsNaN(c) {
			base, canary = append(base, b), append(canary, c)
		}
	}
	row := newRow(name, base, canary)
	if row == nil || len(base) < stat.MinRounds {
		return row, nil
	}
	d := stat.Paired(base, canary)
	if isPrice(name) {
		d = stat.PairedPrices(base, canary)
	}
	return row, &d
}

// stratum are the numbers of machines of one CPU and hypervisor.
type stratum struct{ base, canary []float64 }

// compareUnpaired compares canaries with a base of other machines: each number as far as it lies from the median of the base
// of its CPU and hypervisor, so that a side with more of one CPU is not taken for a difference. Of a CPU and hypervisor are
// compared at least [stat.MinRounds] machines of the base with at least one canary.
func compareUnpaired(pairs []pair, kinds keys, name string) (*record.FleetCompareRow, *stat.Difference) {
	strata := make(map[string]*stratum)
	of := func(m *Machine) *stratum {
		key := kinds.of(m.Setup)
		if strata[key] == nil {
			strata[key] = new(stratum)
		}
		return strata[key]
	}
	var all stratum
	for _, p := range pairs {
		if x := p.base.number(name); !math.IsNaN(x) {
			of(p.base).base, all.base = append(of(p.base).base, x), append(all.base, x)
		}
		if x := p.canary.number(name); !math.IsNaN(x) {
			of(p.canary).canary, all.canary = append(of(p.canary).canary, x), append(all.canary, x)
		}
	}
	maps.DeleteFunc(strata, func(_ string, s *stratum) bool { return len(s.base) < stat.MinRounds || len(s.canary) == 0 })
	var compared, off stratum
	for _, s := range strata {
		compared.base, compared.canary = append(compared.base, s.base...), append(compared.canary, s.canary...)
	}
	if min(len(compared.base), len(compared.canary)) < stat.MinRounds {
		return newRow(name, all.base, all.canary), nil
	}
	level := stat.Median(compared.base)
	for _, s := range strata {
		median := stat.Median(s.base)
		relative := func(xs []float64) []float64 {
			to := make([]float64, len(xs))
			for i, x := range xs {
				to[i] = x / median * level
				if isPrice(name) {
					to[i] = x - median + level
				}
			}
			return to
		}
		off.base, off.canary = append(off.base, relative(s.base)...), append(off.canary, relative(s.canary)...)
	}
	d := stat.Independent(off.base, off.canary)
	if isPrice(name) {
		d = stat.IndependentPrices(off.base, off.canary)
	}
	return newRow(name, compared.base, compared.canary), &d
}

// neededPaired is how many machines on both sides would show a difference of [visible]: what can be seen shrinks with the
// square root of their number.
func neededPaired(d *stat.Difference, _, canaries int) *int {
	if math.IsNaN(d.Smallest) {
		return nil
	}
	return atLeast(float64(canaries) * math.Pow(d.Smallest/visible, 2))
}

// neededUnpaired is how many canaries would show it beside the same base; nil when the base is too small for any number.
func neededUnpaired(d *stat.Difference, base, canaries int) *int {
	if math.IsNaN(d.Smallest) {
		return nil
	}
	nb, nc := float64(base), float64(canaries)
	each := math.Pow(visible/d.Smallest, 2)*(1/nb+1/nc) - 1/nb
	if each <= 0 {
		return nil
	}
	return atLeast(1 / each)
}

func atLeast(n float64) *int {
	needed := max(int(math.Ceil(n)), stat.MinRounds)
	return &needed
}
