package compare

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// rows is a comparison of rows of bench and of prices under way.
type rows struct {
	*record.Comparison
	// kind is that of the new record.
	kind string
	// machine is what the two runs say of their machine.
	machine machine
	// old and new are the rows of bench that have a difference, side by side.
	old, new []*entry
}

func newRows(old, new *record.Saved, opts Options) *rows {
	c := &record.Comparison{Threshold: opts.Threshold, Causes: causes(old.Host, new.Host)}
	c.Head, c.Compared = headOf(&old.Head, &new.Head)
	c.Incomplete = old.Incomplete || new.Incomplete
	c.Rows, c.Warnings = []record.CompareRow{}, []record.Warning{}
	return &rows{Comparison: c, kind: new.Kind}
}

// measures reports whether the record is of a kind that has rows of bench.
func measures(r *record.Saved) bool { return r.Bench() != nil || r.Agent() != nil }

// prices reports whether the record has prices: one of tax has, though it may
// have been stopped before the first.
func prices(r *record.Saved) bool { return r.Tax() != nil || len(r.Prices()) > 0 }

// entry is what a comparison needs of a row of bench or of tax.
type entry struct {
	name    string
	labels  map[string]string
	ns      *stat.Quantity
	refused string
	samples []float64
	rounds  []int
	// price is set for a row of tax.
	price *record.TaxRow
	// cost is set for a row of prog cost, whose samples may be of either sign.
	cost bool
}

func (e *entry) key() string { return e.name }

func rowEntries(r *record.Saved) []entry {
	if !measures(r) {
		return nil
	}
	es := make([]entry, len(r.Redirects()))
	for i, row := range r.Redirects() {
		es[i] = entry{row.Name, row.Labels, row.Ns, row.Refused, row.Samples, row.Rounds, nil, false}
	}
	return es
}

func priceEntries(r *record.Saved) []entry {
	es := make([]entry, len(r.Prices()))
	for i := range r.Prices() {
		row := &r.Prices()[i]
		es[i] = entry{row.Name, row.Labels, row.Price, row.Refused, row.Samples, row.Rounds, row, false}
	}
	return es
}

func costEntries(r *record.Saved) []entry {
	if r.ProgCost() == nil {
		return nil
	}
	es := make([]entry, len(r.ProgCost().Rows))
	for i, row := range r.ProgCost().Rows {
		es[i] = entry{row.Name, row.Labels, row.Ns, row.Refused, row.Samples, row.Rounds, nil, true}
	}
	return es
}

// leastCost is what a cost is compared with that is less, in ns: what a packet costs that a program hardly looks at is 0
// but for chance, and nothing is a share of that.
const leastCost = 1

// lifted are two rows of prog cost with as much added to both that the old one is at least leastCost: their difference
// stays as it is.
func lifted(old, new *entry) (a, b *entry) {
	more := max(leastCost-stat.Median(old.samples), 0)
	lift := func(e *entry) *entry {
		out := *e
		out.samples = slices.Clone(e.samples)
		for i := range out.samples {
			out.samples[i] += more
		}
		return &out
	}
	return lift(old), lift(new)
}

// Records compares the rows of equal name of two records: rows of bench or of prog cost when
// both records have such, and prices when both have prices. Rows are paired
// round by round when both records are of the same run. Records that share no rows
// are an [ErrKind].
func Records(old, new *record.Saved, opts Options) (*record.Comparison, error) {
	both := measures(old) && measures(new)
	priced := prices(old) && prices(new)
	costs := old.ProgCost() != nil && new.ProgCost() != nil
	if !both && !priced && !costs {
		return nil, fmt.Errorf("%w: old is of %s, new of %s, and they share no rows", ErrKind, old.Kind, new.Kind)
	}
	c := newRows(old, new, opts)
	sameRun := old.Run == new.Run
	if both {
		c.watch(old, new, "", "")
		c.addAll(rowEntries(old), rowEntries(new), sameRun)
		c.warnVerdicts(old, new)
	}
	if costs {
		c.watch(old, new, "", "")
		c.addAll(costEntries(old), costEntries(new), sameRun)
	}
	if priced {
		c.watch(old, new, partOfPrices(old), partOfPrices(new))
		c.addAll(priceEntries(old), priceEntries(new), sameRun)
	}
	c.conclude()
	if !sameRun {
		c.warnTwoRuns(old, new)
	}
	c.carry("old", old)
	if old != new {
		c.carry("new", new)
	}
	return c.Comparison, nil
}

// ErrLabel is returned by [By] when no two rows differ in a label
// alone.
var ErrLabel = errors.New("no two rows differ in it alone")

// By compares, within one record, rows of bench that differ in one label
// only, each with the row that has the first value of that label. The rows of a
// record were measured interleaved, so all are paired. Prices are not compared
// so: each is that of another call.
func By(r *record.Saved, label string, opts Options) (*record.Comparison, error) {
	if !measures(r) {
		return nil, fmt.Errorf("compare by %s: %w: each row of %s is the price of another call", label, ErrKind, r.Kind)
	}
	c := newRows(r, r, opts)
	c.By = label
	order := make(map[string]int) // of the values of the label: where they stand as they occur
	base := make(map[string]*entry)
	known := make(map[string]bool)
	all := rowEntries(r)
	for i := range all {
		row := &all[i]
		value, ok := row.labels[label]
		for key := range row.labels {
			known[key] = true
		}
		if !ok {
			continue
		}
		if _, stands := order[value]; !stands {
			order[value] = len(order)
		}
		rest := others(row.labels, label)
		if first := base[rest]; first == nil {
			base[rest] = row
		} else {
			c.add(first, row, true)
		}
	}
	if len(c.Rows) == 0 {
		labels := slices.Sorted(maps.Keys(known))
		return nil, fmt.Errorf("compare by %s: %w: the rows have %s", label, ErrLabel, strings.Join(labels, ", "))
	}
	slices.SortStableFunc(c.Rows, func(a, b record.CompareRow) int {
		return order[a.Labels[label]] - order[b.Labels[label]]
	})
	c.conclude()
	c.carry("", r)
	return c.Comparison, nil
}

// others are all labels but one, as a key.
func others(labels map[string]string, but string) string {
	var parts []string
	for key, value := range labels {
		if key != but {
			parts = append(parts, fmt.Sprintf("%q=%q", key, value))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// addAll appends the comparison of rows of equal name.
func (c *rows) addAll(old, new []entry, sameRun bool) {
	for was, is := range matched(old, new, (*entry).key) {
		c.add(was, is, sameRun && is != nil)
	}
}

// add appends the comparison of two rows, of which one may be nil.
func (c *rows) add(old, new *entry, sameRun bool) {
	row := record.CompareRow{Paired: sameRun}
	switch {
	case new == nil:
		row.Name, row.Labels, row.Old = old.name, old.labels, old.ns
		row.Price, row.Cost = old.price != nil, old.cost
		row.Missing = "only in old"
	case old == nil:
		row.Name, row.Labels, row.New = new.name, new.labels, new.ns
		row.Price, row.Cost = new.price != nil, new.cost
		row.Missing = "only in new"
	default:
		row.Name, row.Labels, row.Old, row.New = new.name, new.labels, old.ns, new.ns
		row.Price, row.Cost = new.price != nil, new.cost
		if old.name != new.name {
			row.Against = old.name
		}
	}
	var why []string
	for _, side := range []struct {
		name string
		row  *entry
	}{{"old", old}, {"new", new}} {
		if side.row != nil && side.row.refused != "" {
			why = append(why, side.name+" refused: "+record.Sentence(side.row.refused))
		}
	}
	if len(why) > 0 {
		if row.Missing != "" {
			why = append([]string{row.Missing}, why...)
		}
		row.Missing = strings.Join(why, "; ")
	}
	if row.Missing == "" && row.Price {
		row.Missing = priceless(old, new)
	}
	if row.Missing == "" {
		c.difference(&row.Change, old, new, sameRun)
		if !row.Price && !new.cost {
			c.old, c.new = append(c.old, old), append(c.new, new)
		}
	}
	c.Rows = append(c.Rows, row)
}

// priceless says why a price in percent of another would mean nothing; empty
// when it means something.
func priceless(old, new *entry) string {
	switch q := old.ns; {
	case new.price.Control():
		return "a control: its price is 0 in both"
	case q.Low <= 0 && q.High >= 0:
		return "no price to compare with: the old one is 0 within its interval"
	case q.Median <= 0:
		return "no price to compare with: the old one is not above 0"
	case len(old.samples) == 0 || len(new.samples) == 0:
		return "an estimate without rounds: compare the prices it is made of"
	}
	return ""
}

// difference adds to a change what its two rows differ in.
func (c *rows) difference(change *record.Change, old, new *entry, sameRun bool) {
	paired, unpaired := stat.Paired, stat.Unpaired
	if new.price != nil || new.cost {
		paired, unpaired = stat.PairedPrices, stat.UnpairedPrices
	}
	if new.cost {
		old, new = lifted(old, new)
	}
	if sameRun {
		d := paired(inBoth(old, new))
		change.Difference = &d
		return
	}
	d := unpaired(old.samples, new.samples)
	change.Difference = &d
	c.machine.scale(change, old, new, unpaired)
}

// mean adds how the geometric mean of all rows of bench changed, over the rounds that all of them have.
func (c *rows) mean() {
	if len(c.old) < 2 {
		return
	}
	old, new := meanOf(c.old), meanOf(c.new)
	if len(old.samples) == 0 || len(new.samples) == 0 {
		return
	}
	oldNs, newNs := stat.Summarize(old.samples, "ns"), stat.Summarize(new.samples, "ns")
	c.Mean = &record.Change{Old: &oldNs, New: &newNs}
	c.difference(c.Mean, old, new, c.Old.Run == c.New.Run)
	conclude([]*record.Change{c.Mean}, c.Threshold, c.MachineChanged())
}

// meanOf is the geometric mean of rows in the rounds that all of them have.
func meanOf(es []*entry) *entry {
	logs := make(map[int][]float64)
	for _, e := range es {
		for i, round := range e.rounds {
			logs[round] = append(logs[round], math.Log(e.samples[i]))
		}
	}
	mean := &entry{}
	for _, round := range slices.Sorted(maps.Keys(logs)) {
		if len(logs[round]) < len(es) {
			continue
		}
		sum := 0.0
		for _, x := range logs[round] {
			sum += x
		}
		mean.samples, mean.rounds = append(mean.samples, math.Exp(sum/float64(len(es)))), append(mean.rounds, round)
	}
	return mean
}

// inBoth are the samples of the rounds both rows have.
func inBoth(a, b *entry) (as, bs []float64) {
	j := 0
	for i, round := range a.rounds {
		for j < len(b.rounds) && b.rounds[j] < round {
			j++
		}
		if j < len(b.rounds) && b.rounds[j] == round {
			as, bs = append(as, a.samples[i]), append(bs, b.samples[j])
		}
	}
	return as, bs
}

// conclude gives the verdicts of all rows.
func (c *rows) conclude() {
	c.mean()
	c.setAside()
	changes := make([]*record.Change, len(c.Rows))
	for i := range c.Rows {
		changes[i] = &c.Rows[i].Change
	}
	conclude(changes, c.Threshold, c.MachineChanged())
	compared, fewest := 0, math.MaxInt
	paired := true
	for _, row := range c.Rows {
		if row.Difference == nil {
			continue
		}
		compared++
		paired = paired && row.Paired
		if math.IsNaN(row.Difference.Low) {
			fewest = min(fewest, row.Difference.N)
		}
	}
	needed := stat.MinRounds
	if !paired {
		needed = stat.NeededRounds(compared)
	}
	if fewest < needed {
		verb := "unthunk "
		if c.kind != "run" {
			verb += c.kind + " "
		}
		c.Warn("", fmt.Sprintf("too few rounds for a verdict: %d, and %d rows need %d (%s--rounds %d)",
			fewest, compared, needed, verb, needed))
	}
}

// setAside takes the prices out of a comparison of two runs that have too few rounds of them
// for a verdict on so many rows. The other rows are then judged for themselves: with the
// prices, which nothing can be said of, their intervals would be wider.
func (c *rows) setAside() {
	compared, prices := 0, []*record.CompareRow{}
	fewest := math.MaxInt
	for i := range c.Rows {
		row := &c.Rows[i]
		if row.Difference == nil || row.Paired {
			continue
		}
		compared++
		if row.Price {
			prices = append(prices, row)
			fewest = min(fewest, row.Difference.N)
		}
	}
	if len(prices) == 0 || len(prices) == compared || fewest >= stat.NeededRounds(compared) {
		return
	}
	for _, row := range prices {
		row.Missing = fmt.Sprintf("too few rounds: %d", row.Difference.N)
		row.Difference, row.Cycles, row.Relative = nil, nil, nil
	}
	c.Warn("", fmt.Sprintf("prices are not compared: %d rounds, and %d rows need %d: compare records of unthunk tax",
		fewest, compared, stat.NeededRounds(compared)))
}

// warnTwoRuns says what a comparison of two runs cannot know.
func (c *rows) warnTwoRuns(old, new *record.Saved) {
	// Scenarios and operations matter to rows that have neither: all chains'
	// programs are in the dispatcher's one compare tree.
	asked := []string{
		"scenario", "operation", "size", "mode", "place", "duration", "rounds", "cpu", "in", "out", "packets", "devmap",
		"by", "working-set", "cold", "ifindex", "rx-queue", "metadata", "network-namespace",
	}
	if text := unlike(old.Settings, new.Settings, asked); text != "" {
		c.Warn("", text)
	}
	has := func(r *record.Saved) bool { return len(r.References(""))+len(r.References(record.PartPrices)) > 0 }
	if text := unknownSpeed(has(old), has(new)); text != "" {
		c.Warn("", text)
	}
	if shift, n, ok := c.common(); ok {
		c.Warn("", fmt.Sprintf("all %d rows moved together, by about %+.0f %%: the machine as a whole may have changed "+
			"(clock, load of its host), not the path of a packet", n, shift))
	}
	uncertain := func(price bool) bool {
		return slices.ContainsFunc(c.Rows, func(r record.CompareRow) bool {
			return r.Price == price && r.Outcome() == stat.CannotTell
		})
	}
	switch {
	case uncertain(false):
		c.Warn("", drifted+", rows of one run (compare FILE --by LABEL) the smallest")
	case uncertain(true):
		c.Warn("", drifted)
	}
}

// common is the shift in percent that all n rows of bench share, when they do:
// at least three rows, of which none strays from the median by more than a
// quarter of it, or by more than a point. Prices are left out: a thunk moves
// them all together, and no packet's whole path.
func (c *rows) common() (percent float64, n int, ok bool) {
	var shifts []float64
	for _, row := range c.Rows {
		if row.Price {
			continue
		}
		if row.Difference == nil {
			return 0, 0, false
		}
		shifts = append(shifts, row.Difference.Median)
	}
	n = len(shifts)
	if n < 3 {
		return 0, 0, false
	}
	mid := stat.Median(shifts)
	for _, s := range shifts {
		if math.Abs(s-mid) > max(math.Abs(mid)/4, 1) {
			return 0, 0, false
		}
	}
	return mid, n, math.Abs(mid) > c.Threshold && math.Abs(mid) > 2
}

// carry takes over the warnings of a record, except for rows of a type that was
// not compared.
func (c *rows) carry(side string, r *record.Saved) {
	prefix := ""
	if side != "" && c.Old != c.New {
		prefix = side + ": "
	}
	if r.Incomplete {
		c.Warn("", prefix+stoppedEarly)
	}
	left := make(map[string]bool) // names of rows that were not compared
	for _, kind := range []struct {
		price bool
		rows  []entry
	}{{false, append(rowEntries(r), costEntries(r)...)}, {true, priceEntries(r)}} {
		if slices.ContainsFunc(c.Rows, func(row record.CompareRow) bool { return row.Price == kind.price }) {
			continue
		}
		for _, row := range kind.rows {
			left[row.name] = true
		}
	}
	for _, w := range r.Warnings {
		if !left[w.Row] {
			c.Warn(w.Row, prefix+w.Text)
		}
	}
}
