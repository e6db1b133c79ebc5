package result

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"unthunk/host"
	"unthunk/stat"
)

// DefaultThreshold is the smallest difference that matters, in percent.
const DefaultThreshold = 2

// CompareOptions are the choices of a comparison.
type CompareOptions struct {
	// Threshold is the smallest difference that matters, in percent; see
	// [stat.Verdict].
	Threshold float64
}

// Comparison is what two records, or the rows of one, differ in. It marshals
// as a document of kind "compare" whose host is that of the new record.
type Comparison struct {
	Document[CompareRow]
	// Old and New are the records compared. They are equal when the rows of
	// one record are.
	Old Origin `json:"old"`
	New Origin `json:"new"`
	// By is the label whose values are compared within one record.
	By string `json:"by,omitempty"`
	// Threshold in percent.
	Threshold float64 `json:"threshold"`
	// Causes are the differences of the two machines, the likeliest to move
	// XDP_REDIRECT first.
	Causes []Cause `json:"causes"`
}

// Origin names a record.
type Origin struct {
	File string    `json:"file,omitempty"`
	Time time.Time `json:"time"`
	Run  string    `json:"run"`
}

// CompareRow is one row of a comparison.
type CompareRow struct {
	// Name is that of the new row.
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
	// Against is the name of the old row when it is another.
	Against string `json:"against,omitempty"`
	// Old and New are in ns per packet. One that has no number is nil.
	Old *stat.Quantity `json:"old"`
	New *stat.Quantity `json:"new"`
	// Difference is new less old in percent of old: positive is slower. Its
	// interval and p hold for all rows of the comparison together. Nil when
	// one side has no number.
	Difference *stat.Difference `json:"difference"`
	// Paired is set when both sides were measured in the same rounds.
	Paired bool `json:"paired"`
	// Verdict is in the words of [stat.Verdict]; empty when one side has no
	// number.
	Verdict string `json:"verdict,omitempty"`
	// Regression is set when the row is slower by more than the threshold,
	// with confidence.
	Regression bool `json:"regression"`
	// Missing says why there is no difference: which side has no such row,
	// or has no number and why.
	Missing string `json:"missing,omitempty"`
}

// Regressed reports whether any row got slower by more than the threshold.
func (c *Comparison) Regressed() bool {
	return slices.ContainsFunc(c.Rows, func(r CompareRow) bool { return r.Regression })
}

// Compare compares the rows of equal name of two records. Rows are paired
// round by round when both records are of the same run.
func Compare(old, new *Document[BenchRow], opts CompareOptions) *Comparison {
	c := newComparison(old, new, opts)
	c.Causes = causes(old.Host, new.Host)
	olds := make(map[string]*BenchRow, len(old.Rows))
	for i := range old.Rows {
		olds[old.Rows[i].Name] = &old.Rows[i]
	}
	for i := range new.Rows {
		row := &new.Rows[i]
		c.add(olds[row.Name], row, old.Run == new.Run)
		delete(olds, row.Name)
	}
	for i := range old.Rows {
		if row := olds[old.Rows[i].Name]; row != nil {
			c.add(row, nil, false)
		}
	}
	c.conclude()
	if old.Run != new.Run {
		c.warnTwoRuns(old, new)
	}
	for _, side := range []struct {
		name string
		doc  *Document[BenchRow]
	}{{"old", old}, {"new", new}} {
		c.carry(side.name, side.doc)
		if old == new {
			break
		}
	}
	return c
}

// ErrLabel is returned by [CompareBy] when no two rows differ in a label
// alone.
var ErrLabel = errors.New("no two rows differ in it alone")

// CompareBy compares, within one record, rows that differ in one label only,
// each with the row that has the first value of that label. The rows of a
// record were measured interleaved, so all are paired.
func CompareBy(doc *Document[BenchRow], label string, opts CompareOptions) (*Comparison, error) {
	c := newComparison(doc, doc, opts)
	c.By = label
	c.Causes = []Cause{}
	var order []string // the label's values as they occur
	base := make(map[string]*BenchRow)
	known := make(map[string]bool)
	for i := range doc.Rows {
		row := &doc.Rows[i]
		value, ok := row.Labels[label]
		for key := range row.Labels {
			known[key] = true
		}
		if !ok {
			continue
		}
		if !slices.Contains(order, value) {
			order = append(order, value)
		}
		rest := others(row.Labels, label)
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
	slices.SortStableFunc(c.Rows, func(a, b CompareRow) int {
		return slices.Index(order, a.Labels[label]) - slices.Index(order, b.Labels[label])
	})
	c.conclude()
	c.carry("", doc)
	return c, nil
}

func newComparison(old, new *Document[BenchRow], opts CompareOptions) *Comparison {
	c := &Comparison{
		Old:       Origin{Time: old.Time, Run: old.Run},
		New:       Origin{Time: new.Time, Run: new.Run},
		Threshold: opts.Threshold,
	}
	c.Schema, c.Kind, c.Time, c.Run = Schema, "compare", new.Time, new.Run
	c.Host, c.Settings = new.Host, new.Settings
	c.Incomplete = old.Incomplete || new.Incomplete
	c.Rows, c.Warnings = []CompareRow{}, []Warning{}
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
func (c *Comparison) add(old, new *BenchRow, sameRun bool) {
	row := CompareRow{Paired: sameRun}
	switch {
	case new == nil:
		row.Name, row.Labels, row.Old = old.Name, old.Labels, old.Ns
		row.Missing = "only in old"
	case old == nil:
		row.Name, row.Labels, row.New = new.Name, new.Labels, new.Ns
		row.Missing = "only in new"
	default:
		row.Name, row.Labels, row.Old, row.New = new.Name, new.Labels, old.Ns, new.Ns
		if old.Name != new.Name {
			row.Against = old.Name
		}
	}
	var why []string
	for _, side := range []struct {
		name string
		row  *BenchRow
	}{{"old", old}, {"new", new}} {
		if side.row != nil && side.row.Refused != "" {
			why = append(why, side.name+" refused: "+side.row.Refused)
		}
	}
	if len(why) > 0 {
		if row.Missing != "" {
			why = append([]string{row.Missing}, why...)
		}
		row.Missing = strings.Join(why, "; ")
	}
	if row.Missing == "" {
		var d stat.Difference
		if sameRun {
			d = stat.Paired(inBoth(old, new))
		} else {
			d = stat.Unpaired(old.Samples, new.Samples)
		}
		row.Difference = &d
	}
	c.Rows = append(c.Rows, row)
}

// inBoth are the samples of the rounds both rows have.
func inBoth(a, b *BenchRow) (as, bs []float64) {
	j := 0
	for i, round := range a.Rounds {
		for j < len(b.Rounds) && b.Rounds[j] < round {
			j++
		}
		if j < len(b.Rounds) && b.Rounds[j] == round {
			as, bs = append(as, a.Samples[i]), append(bs, b.Samples[j])
		}
	}
	return as, bs
}

// conclude corrects for many rows and gives the verdicts.
func (c *Comparison) conclude() {
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
func (c *Comparison) warnTwoRuns(old, new *Document[BenchRow]) {
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
	if shift, ok := c.common(); ok {
		c.warn("", fmt.Sprintf("all %d rows moved together, by about %+.0f %%: the machine as a whole may have changed (clock, load of its host), not the path of a packet", len(c.Rows), shift))
	}
	if slices.ContainsFunc(c.Rows, func(r CompareRow) bool { return r.Verdict == stat.CannotTell }) {
		c.warn("", "two runs at different times: their drift is counted as uncertainty; longer runs see smaller differences, rows of one run (compare FILE --by LABEL) the smallest")
	}
}

func orDefault(s string) string {
	if s == "" {
		return "default"
	}
	return s
}

// common is the shift in percent that all rows share, when they do: at least
// three rows, of which none strays from the median by more than a quarter of
// it, or by more than a point.
func (c *Comparison) common() (percent float64, ok bool) {
	var shifts []float64
	for _, row := range c.Rows {
		if row.Difference == nil {
			return 0, false
		}
		shifts = append(shifts, row.Difference.Median)
	}
	if len(shifts) < 3 {
		return 0, false
	}
	mid := stat.Median(shifts)
	for _, s := range shifts {
		if math.Abs(s-mid) > max(math.Abs(mid)/4, 1) {
			return 0, false
		}
	}
	return mid, math.Abs(mid) > c.Threshold && math.Abs(mid) > 2
}

// carry takes over the warnings of a record.
func (c *Comparison) carry(side string, doc *Document[BenchRow]) {
	prefix := ""
	if side != "" && c.Old != c.New {
		prefix = side + ": "
	}
	if doc.Incomplete {
		c.warn("", prefix+"the run was stopped before its end")
	}
	for _, w := range doc.Warnings {
		c.warn(w.Row, prefix+w.Text)
	}
}

func (c *Comparison) warn(row, text string) {
	c.Warnings = append(c.Warnings, Warning{Row: row, Text: text})
}

// Cause is a difference of two machines that may explain a difference of
// their numbers.
type Cause struct {
	// Name is that of the fingerprint's field.
	Name string `json:"name"`
	// Old and New are its values; nil when not seen.
	Old *string `json:"old"`
	New *string `json:"new"`
	// Why it may matter to XDP_REDIRECT, one clause.
	Why string `json:"why"`
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

func causes(old, new host.Fingerprint) []Cause {
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
	found := []Cause{}
	seen := make(map[string]bool)
	for _, f := range append(news, olds...) {
		if seen[f.Name] || oldValue[f.Name] == newValue[f.Name] {
			continue
		}
		seen[f.Name] = true
		family, _, _ := strings.Cut(f.Name, "/")
		cause := Cause{Name: f.Name, Why: why[family]}
		if v := oldValue[f.Name]; v != "" {
			cause.Old = &v
		}
		if v := newValue[f.Name]; v != "" {
			cause.New = &v
		}
		found = append(found, cause)
	}
	slices.SortStableFunc(found, func(a, b Cause) int {
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
