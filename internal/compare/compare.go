package compare

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// DefaultThreshold is the smallest difference that matters, in percent.
const DefaultThreshold = 2

// Options are the choices of a comparison.
type Options struct {
	// Threshold is the smallest difference that matters, in percent; see
	// [stat.Verdict].
	Threshold float64
}

// Records compares the rows of equal name of two records: rows of bench when
// both records have such, and prices when both have prices. Rows are paired
// round by round when both records are of the same run.
func Records(old, new *record.Record, opts Options) (*record.Comparison, error) {
	c := newComparison(old, new, opts)
	c.Causes = causes(old.Host, new.Host)
	rows, prices := measures(old) && measures(new), prices(old) && prices(new)
	if !rows && !prices {
		return nil, fmt.Errorf("%w: old is of %s, new of %s, and they share no rows", record.ErrKind, old.Kind, new.Kind)
	}
	sameRun := old.Run == new.Run
	if rows {
		c.addAll(rowEntries(old), rowEntries(new), sameRun)
	}
	if prices {
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

// addAll appends the comparison of rows of equal name: those of new in their
// order, then what only old has.
func (c *comparison) addAll(old, new []entry, sameRun bool) {
	olds := make(map[string]*entry, len(old))
	for i := range old {
		olds[old[i].name] = &old[i]
	}
	for i := range new {
		row := &new[i]
		c.add(olds[row.name], row, sameRun)
		delete(olds, row.name)
	}
	for i := range old {
		if row := olds[old[i].name]; row != nil {
			c.add(row, nil, false)
		}
	}
}

// ErrLabel is returned by [By] when no two rows differ in a label
// alone.
var ErrLabel = errors.New("no two rows differ in it alone")

// By compares, within one record, rows of bench that differ in one label
// only, each with the row that has the first value of that label. The rows of a
// record were measured interleaved, so all are paired. Prices are not compared
// so: each is that of another call.
func By(r *record.Record, label string, opts Options) (*record.Comparison, error) {
	if !measures(r) {
		return nil, fmt.Errorf("compare by %s: %w: each row of %s is the price of another call", label, record.ErrKind, r.Kind)
	}
	c := newComparison(r, r, opts)
	c.By = label
	c.Causes = []record.Cause{}
	var order []string // the label's values as they occur
	base := make(map[string]*entry)
	known := make(map[string]bool)
	rows := rowEntries(r)
	for i := range rows {
		row := &rows[i]
		value, ok := row.labels[label]
		for key := range row.labels {
			known[key] = true
		}
		if !ok {
			continue
		}
		if !slices.Contains(order, value) {
			order = append(order, value)
		}
		rest := others(row.labels, label)
		if first := base[rest]; first == nil {
			base[rest] = row
		} else {
			c.add(first, row, true)
		}
	}
	if len(c.Rows) == 0 {
		labels := make([]string, 0, len(known))
		for key := range known {
			labels = append(labels, key)
		}
		slices.Sort(labels)
		return nil, fmt.Errorf("compare by %s: %w: the rows have %s", label, ErrLabel, strings.Join(labels, ", "))
	}
	slices.SortStableFunc(c.Rows, func(a, b record.CompareRow) int {
		return slices.Index(order, a.Labels[label]) - slices.Index(order, b.Labels[label])
	})
	c.conclude()
	c.carry("", r)
	return c.Comparison, nil
}

// comparison is one of rows of bench and of prices under way.
type comparison struct{ *record.Comparison }

func newComparison(old, new *record.Record, opts Options) *comparison {
	c := &comparison{&record.Comparison{
		Old:       record.Origin{Time: old.Time, Run: old.Run},
		New:       record.Origin{Time: new.Time, Run: new.Run},
		Threshold: opts.Threshold,
	}}
	c.Schema, c.Kind, c.Time, c.Run = record.Schema, "compare", new.Time, new.Run
	c.Host, c.Settings = new.Host, new.Settings
	c.Incomplete = old.Incomplete || new.Incomplete
	c.Rows, c.Warnings = []record.CompareRow{}, []record.Warning{}
	return c
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

// add appends the comparison of two rows, of which one may be nil.
func (c *comparison) add(old, new *entry, sameRun bool) {
	row := record.CompareRow{Paired: sameRun}
	switch {
	case new == nil:
		row.Name, row.Labels, row.Old = old.name, old.labels, old.ns
		row.Price = old.price != nil
		row.Missing = "only in old"
	case old == nil:
		row.Name, row.Labels, row.New = new.name, new.labels, new.ns
		row.Price = new.price != nil
		row.Missing = "only in new"
	default:
		row.Name, row.Labels, row.Old, row.New = new.name, new.labels, old.ns, new.ns
		row.Price = new.price != nil
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
			why = append(why, side.name+" refused: "+side.row.refused)
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
		d := difference(old, new, sameRun)
		row.Difference = &d
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

func difference(old, new *entry, sameRun bool) stat.Difference {
	paired, unpaired := stat.Paired, stat.Unpaired
	if new.price != nil {
		paired, unpaired = stat.PairedPrices, stat.UnpairedPrices
	}
	if sameRun {
		return paired(inBoth(old, new))
	}
	return unpaired(old.samples, new.samples)
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

// conclude corrects for many rows and gives the verdicts.
func (c *comparison) conclude() {
	var ds []stat.Difference
	for _, row := range c.Rows {
		if row.Difference != nil {
			ds = append(ds, *row.Difference)
		}
	}
	ds = stat.Family(ds)
	for i := range c.Rows {
		row := &c.Rows[i]
		if row.Difference == nil {
			continue
		}
		*row.Difference, ds = ds[0], ds[1:]
		row.Verdict = stat.Verdict(*row.Difference, c.Threshold)
		row.Regression = stat.Beyond(*row.Difference, c.Threshold)
	}
}

// warnTwoRuns says what a comparison of two runs cannot know.
func (c *comparison) warnTwoRuns(old, new *record.Record) {
	var unlike []string
	// Scenarios and operations matter to rows that have neither: all chains'
	// programs stand in the dispatcher's one compare tree.
	for _, name := range []string{"scenario", "operation", "size", "mode", "place", "duration", "rounds", "cpu", "in", "out"} {
		if old.Settings[name] != new.Settings[name] {
			unlike = append(unlike, fmt.Sprintf("%s (%s, %s)", name, orDefault(old.Settings[name]), orDefault(new.Settings[name])))
		}
	}
	if len(unlike) > 0 {
		c.warn("", "the runs were asked for different things: "+strings.Join(unlike, ", "))
	}
	if shift, n, ok := c.common(); ok {
		c.warn("", fmt.Sprintf("all %d rows moved together, by about %+.0f %%: the machine as a whole may have changed (clock, load of its host), not the path of a packet", n, shift))
	}
	cannotTell := func(price bool) bool {
		return slices.ContainsFunc(c.Rows, func(r record.CompareRow) bool { return r.Price == price && r.Verdict == stat.CannotTell })
	}
	switch drift := "two runs at different times: their drift is counted as uncertainty; longer runs see smaller differences"; {
	case cannotTell(false):
		c.warn("", drift+", rows of one run (compare FILE --by LABEL) the smallest")
	case cannotTell(true):
		c.warn("", drift)
	}
}

func orDefault(s string) string {
	if s == "" {
		return "default"
	}
	return s
}

// common is the shift in percent that all n rows of bench share, when they do:
// at least three rows, of which none strays from the median by more than a
// quarter of it, or by more than a point. Prices are left out: a thunk moves
// them all together, and no packet's whole path.
func (c *comparison) common() (percent float64, n int, ok bool) {
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

// carry takes over the warnings of a record, but for rows of a type that was
// not compared.
func (c *comparison) carry(side string, r *record.Record) {
	prefix := ""
	if side != "" && c.Old != c.New {
		prefix = side + ": "
	}
	if r.Incomplete {
		c.warn("", prefix+"the run was stopped before its end")
	}
	compared := func(price bool) bool {
		return slices.ContainsFunc(c.Rows, func(row record.CompareRow) bool { return row.Price == price })
	}
	rows, prices := compared(false), compared(true)
	for _, w := range r.Warnings {
		if !rows && slices.ContainsFunc(r.Rows, func(row record.BenchRow) bool { return row.Name == w.Row }) ||
			!prices && slices.ContainsFunc(r.Prices, func(row record.TaxRow) bool { return row.Name == w.Row }) {
			continue
		}
		c.warn(w.Row, prefix+w.Text)
	}
}

func (c *comparison) warn(row, text string) {
	c.Warnings = append(c.Warnings, record.Warning{Row: row, Text: text})
}

// plausible orders the fields of a fingerprint by how likely they move
// XDP_REDIRECT, with the reason. What an indirect call became is a nearer
// cause than what made it so, and stands first.
func plausible() []struct{ name, why string } {
	return []struct{ name, why string }{
		{"indirect-thunk", "every indirect call of the redirect path runs through it"},
		{"call-sites", "decides whether an indirect call is a thunk or a plain call *reg"},
		{"return-thunk", "every return of the redirect path may run through it"},
		{"kernel", "the redirect path itself is other code"},
		{"compiler", "decides which calls stay indirect and whether retpolines are built in"},
		{"boot-params", "mitigations=, spectre_v2=, iommu= change calls and DMA"},
		{"mitigations", "mitigations put thunks, fences or flushes on the path"},
		{"microcode", "brings and changes mitigations without a new kernel"},
		{"drivers", "ndo_xdp_xmit, the poll and the DMA calls are the driver's"},
		{"bpf-jit", "without the JIT the program is interpreted"},
		{"bpf-jit-harden", "hardening blinds constants, and programs grow"},
		{"governor", "sets the clock the core runs at"},
		{"smt", "a busy sibling thread halves the core"},
		{"cpu", "another processor"},
		{"virtual", "a hypervisor takes time and may emulate"},
		{"cpus", "moves interrupts and neighbours to other cores"},
		{"kernel-build", "built anew: the layout and the configuration may differ"},
	}
}

func causes(old, new host.Fingerprint) []record.Cause {
	olds, news := old.Fields(), new.Fields()
	values := func(fields []host.Field) map[string]string {
		m := make(map[string]string, len(fields))
		for _, f := range fields {
			m[f.Name] = f.Value
		}
		return m
	}
	oldValue, newValue := values(olds), values(news)
	rank := make(map[string]int)
	why := make(map[string]string)
	for i, p := range plausible() {
		rank[p.name], why[p.name] = i-len(plausible()), p.why // fields it does not know rank 0
	}
	found := []record.Cause{}
	seen := make(map[string]bool)
	for _, f := range append(news, olds...) {
		if seen[f.Name] || oldValue[f.Name] == newValue[f.Name] {
			continue
		}
		seen[f.Name] = true
		family, _, _ := strings.Cut(f.Name, "/")
		cause := record.Cause{Name: f.Name, Why: why[family]}
		if v := oldValue[f.Name]; v != "" {
			cause.Old = &v
		}
		if v := newValue[f.Name]; v != "" {
			cause.New = &v
		}
		found = append(found, cause)
	}
	slices.SortStableFunc(found, func(a, b record.Cause) int {
		// What only one side could see is no difference yet.
		if seenA, seenB := a.Old != nil && a.New != nil, b.Old != nil && b.New != nil; seenA != seenB {
			if seenA {
				return -1
			}
			return 1
		}
		familyA, _, _ := strings.Cut(a.Name, "/")
		familyB, _, _ := strings.Cut(b.Name, "/")
		return rank[familyA] - rank[familyB]
	})
	return found
}
