package compare

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

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

// ErrKind is returned for records of kinds that are not compared so.
var ErrKind = errors.New("records of these kinds are not compared")

// way is how two records of some kinds are compared.
type way struct {
	kinds []string
	// by is set when rows have labels to compare by.
	by  bool
	two func(old, new *record.Saved, opts Options) (record.Changes, error)
}

// ways are by kind: each is compared with its own, and with those beside it.
func ways() []way {
	return []way{
		{[]string{"bench", "run", "tax"}, true, func(old, new *record.Saved, opts Options) (record.Changes, error) {
			c, err := Records(old, new, opts)
			return c, err
		}},
		{[]string{"agent"}, false, func(old, new *record.Saved, opts Options) (record.Changes, error) {
			c, err := Records(old, new, opts)
			return c, err
		}},
		{[]string{"prog-cost"}, false, func(old, new *record.Saved, opts Options) (record.Changes, error) {
			c, err := Records(old, new, opts)
			return c, err
		}},
		{[]string{"profile"}, false, func(old, new *record.Saved, opts Options) (record.Changes, error) {
			return Profiles(old.Profile(), new.Profile(), opts), nil
		}},
		{[]string{"xray"}, false, func(old, new *record.Saved, _ Options) (record.Changes, error) {
			return Sites(old.Sites(), new.Sites()), nil
		}},
		{[]string{"check"}, false, func(old, new *record.Saved, _ Options) (record.Changes, error) {
			return Findings(old.Check(), new.Check()), nil
		}},
		{[]string{"lab"}, false, func(old, new *record.Saved, _ Options) (record.Changes, error) {
			return Labs(old.Lab(), new.Lab()), nil
		}},
	}
}

// wayOf is how records of a kind are compared.
func wayOf(kind string) (w way, ok bool) {
	for _, w := range ways() {
		if slices.Contains(w.kinds, kind) {
			return w, true
		}
	}
	return way{}, false
}

// kindError is an [ErrKind] whose text says all.
type kindError string

func (e kindError) Error() string        { return string(e) }
func (e kindError) Is(target error) bool { return target == ErrKind }

// Files compares two files of records by the way of their kinds. Files whose kinds
// do not go together are an [ErrKind].
func Files(old, new string, opts Options) (record.Changes, error) {
	var both record.Together
	if err := both.Fit(old, new); err != nil {
		return nil, err
	}
	oldKind, err := record.KindOf(old)
	if err != nil {
		return nil, err
	}
	newKind, err := record.KindOf(new)
	if err != nil {
		return nil, err
	}
	alone := func(kind string) bool {
		w, ok := wayOf(kind)
		return ok && len(w.kinds) == 1
	}
	if oldKind != newKind && (alone(oldKind) || alone(newKind)) {
		return nil, kindError(fmt.Sprintf("compare %s with %s: the first is of %s, the second of %s", old, new,
			oldKind, newKind))
	}
	a, w, err := load(&both, old)
	if err != nil {
		return nil, err
	}
	b, _, err := load(&both, new)
	if err != nil {
		return nil, err
	}
	c, err := w.two(a, b, opts)
	if err != nil {
		return nil, fmt.Errorf("compare %s with %s: %w", old, new, err)
	}
	c.NameFiles(old, new)
	return c, nil
}

// FileBy compares rows of one file that differ in a label only. A file whose rows have
// no labels to compare by is an [ErrKind], one without such rows an [ErrLabel].
func FileBy(file, label string, opts Options) (record.Changes, error) {
	kind, err := record.KindOf(file)
	if err != nil {
		return nil, err
	}
	if w, ok := wayOf(kind); ok && !w.by {
		return nil, kindError(fmt.Sprintf("compare --by %s: %s is of %s: only rows of bench or run have labels to "+
			"compare by", label, file, kind))
	}
	r, _, err := load(new(record.Together), file)
	if err != nil {
		return nil, err
	}
	c, err := By(r, label, opts)
	if err != nil {
		return nil, err
	}
	c.NameFiles(file, file)
	return c, nil
}

// load reads a record that can be compared, into memory with others.
func load(with *record.Together, file string) (*record.Saved, way, error) {
	kind, err := record.KindOf(file)
	if err != nil {
		return nil, way{}, err
	}
	w, ok := wayOf(kind)
	if !ok {
		var kinds []string
		for _, w := range ways() {
			kinds = append(kinds, w.kinds...)
		}
		last := len(kinds) - 1
		return nil, way{}, fmt.Errorf("load %s: kind %.40q: only records of %s and %s can be compared",
			file, kind, strings.Join(kinds[:last], ", "), kinds[last])
	}
	r, err := with.Load(file)
	return r, w, err
}

// headOf is the head of what two records differ in.
func headOf(old, new *record.Head) (record.Head, record.Compared) {
	head := *new
	head.Schema, head.Kind, head.Incomplete = record.Schema, "compare", false
	return head, record.Compared{
		Old: record.Origin{Time: old.Time, Run: old.Run}, New: record.Origin{Time: new.Time, Run: new.Run},
	}
}

// matched are the rows of equal name of two records: those of new in their order,
// then what only old has. Where a record has no such row it is nil.
func matched[Row any](old, new []Row, name func(*Row) string) iter.Seq2[*Row, *Row] {
	return func(yield func(old, new *Row) bool) {
		left := make(map[string]*Row, len(old))
		for i := range old {
			left[name(&old[i])] = &old[i]
		}
		for i := range new {
			row := &new[i]
			was := left[name(row)]
			delete(left, name(row))
			if !yield(was, row) {
				return
			}
		}
		for i := range old {
			if row := left[name(&old[i])]; row != nil && !yield(row, nil) {
				return
			}
		}
	}
}

// conclude corrects the changes of a comparison for being many, and gives the
// verdicts; threshold is in the unit of their differences. moved says whether the machine changed between the runs.
func conclude(changes []*record.Change, threshold float64, moved bool) {
	family(changes, func(c *record.Change) *stat.Difference { return c.Difference })
	family(changes, func(c *record.Change) *stat.Difference { return c.Cycles })
	family(changes, func(c *record.Change) *stat.Difference { return c.Relative })
	for _, c := range changes {
		if c.Difference == nil {
			continue
		}
		judged := c.Judged()
		c.Verdict = stat.Verdict(*judged, threshold)
		c.Regression = stat.Beyond(*judged, threshold)
		if moved && c.Verdict == stat.CannotTell {
			c.Verdict += machineChanged
		}
	}
}

// machineChanged is added to a verdict that a change of the machine leaves open.
const machineChanged = " (the machine changed)"

// family corrects one difference of each change for being many.
func family(changes []*record.Change, of func(*record.Change) *stat.Difference) {
	var ds []stat.Difference
	for _, c := range changes {
		if d := of(c); d != nil {
			ds = append(ds, *d)
		}
	}
	ds = stat.Family(ds)
	for _, c := range changes {
		if d := of(c); d != nil {
			*d, ds = ds[0], ds[1:]
		}
	}
}

// Warnings of comparisons of whichever kind.
const (
	stoppedEarly = "the run was stopped before its end"
	drifted      = "two runs at different times: their drift is counted as uncertainty; longer runs see smaller " +
		"differences"
)

// unlike says which settings of two runs differ; empty when none of the named do.
func unlike(old, new map[string]string, names []string) string {
	var differ []string
	for _, name := range names {
		if a, b := old[name], new[name]; a != b {
			differ = append(differ, fmt.Sprintf("%s (%s, %s)", name, cmp.Or(a, "default"), cmp.Or(b, "default")))
		}
	}
	if len(differ) == 0 {
		return ""
	}
	return "the runs were asked for different things: " + strings.Join(differ, ", ")
}
