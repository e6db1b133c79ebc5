package record

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/stat"
)

// Changes is what two records differ in, whichever kind they are of. It marshals
// as a document of kind "compare" whose host is that of the new record.
type Changes interface {
	Doc
	// Regressed reports whether something got slower by more than the threshold,
	// with confidence, or a program of the user changed its behavior.
	Regressed() bool
	// Nothing says why nothing could be compared; it is empty when something was.
	Nothing() string
	// NameFiles says which files the two records were read from.
	NameFiles(old, new string)
}

// Compared are the two records that were compared.
type Compared struct {
	// Old and New are equal when the rows of one record are compared.
	Old Origin `json:"old"`
	New Origin `json:"new"`
}

// NameFiles implements [Changes].
func (c *Compared) NameFiles(old, new string) { c.Old.File, c.New.File = old, new }

// Origin names a record.
type Origin struct {
	File string    `json:"file,omitempty"`
	Time time.Time `json:"time"`
	Run  string    `json:"run"`
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

// Change is how a number of two records differs.
type Change struct {
	// Old and New are in ns per packet, those of a price in ns per call. One
	// that has no number is nil.
	Old *stat.Quantity `json:"old"`
	New *stat.Quantity `json:"new"`
	// Difference is new less old: positive is slower, or dearer. It is in percent
	// of old, that of a profile's stage in ns per packet. Its interval and p hold
	// for all rows of the comparison together. Nil when one side has no number, or
	// there is no old price to compare with.
	Difference *stat.Difference `json:"difference"`
	// Cycles is the difference in percent of the old number of cycles of the core, which a change of its clock does not
	// move; OldCycles and NewCycles are cycles per packet, those of a price per call. All are nil where a run did not
	// take the clock, and where both sides are of one run.
	OldCycles *stat.Quantity   `json:"old-cycles,omitempty"`
	NewCycles *stat.Quantity   `json:"new-cycles,omitempty"`
	Cycles    *stat.Difference `json:"cycles,omitempty"`
	// Relative is what the references of the two runs leave of Difference: see [stat.RelativeTo]. Where it is there,
	// the verdict is on it. Nil where a run has no references, and where both sides are of one run.
	Relative *stat.Difference `json:"relative,omitempty"`
	// Verdict is in the words of [stat.Verdict], on Relative or else on Difference; empty without a difference.
	Verdict string `json:"verdict,omitempty"`
	// Regression is set when the row is slower by more than the threshold,
	// with confidence.
	Regression bool `json:"regression"`
	// Missing says why there is no difference: which side has no such row,
	// or has no number and why, or why it would mean nothing.
	Missing string `json:"missing,omitempty"`
}

// Judged is the difference that the verdict is on; nil without one.
func (c *Change) Judged() *stat.Difference { return cmp.Or(c.Relative, c.Difference) }

// Outcome is the verdict without what would have been seen: [stat.Faster],
// [stat.Slower], [stat.NoDifference], [stat.CannotTell], or empty.
func (c *Change) Outcome() string {
	outcome, _, _ := strings.Cut(c.Verdict, " (")
	return outcome
}

// Comparison is what the rows of bench and the prices of two records differ in, or
// the rows of one record.
type Comparison struct {
	Document[CompareRow]
	Compared
	// By is the label whose values are compared within one record.
	By string `json:"by,omitempty"`
	// Threshold in percent.
	Threshold float64 `json:"threshold"`
	// Mean is how the geometric mean of the rows of bench that have a difference changed; its verdict is on it alone.
	// Nil for fewer than two such rows.
	Mean *Change `json:"mean,omitempty"`
	MachineChange
	// Causes are the differences of the two machines, the likeliest to move
	// XDP_REDIRECT first.
	Causes []Cause `json:"causes"`
}

// MachineChange is what two runs say of the speed of their machine.
type MachineChange struct {
	// Machine has the references that both runs took; empty where one took none, and where both are one run.
	Machine []ReferenceChange `json:"machine,omitempty"`
}

// MachineChanged tells whether a reference moved: the machine is not what it was.
func (c *MachineChange) MachineChanged() bool {
	return slices.ContainsFunc(c.Machine, func(r ReferenceChange) bool { return r.Moved })
}

// ReferenceChange is how a [Reference] changed from one run to another.
type ReferenceChange struct {
	Name string `json:"name"`
	Part string `json:"part,omitempty"`
	// Old and New are medians, in GHz, ns or percent.
	Old *stat.Quantity `json:"old"`
	New *stat.Quantity `json:"new"`
	// Difference is in percent, + is a slower machine: of a clock it is that of the time of a cycle. Nil for shares of
	// the time.
	Difference *stat.Difference `json:"difference"`
	// Moved is set when the reference took another time by more than chance and than 1 percent.
	Moved bool `json:"moved"`
}

func (c *MachineChange) check() error {
	for _, r := range c.Machine {
		unit := ReferenceUnit(r.Name)
		if !plain(r.Name) || !plain(r.Part) || r.Old == nil || r.New == nil {
			return fmt.Errorf("impossible reference %.60q", r.Name)
		}
		if err := errors.Join(checkDifference(r.Difference), checkQuantities([]quantity{
			{"old", unit, r.Old, false}, {"new", unit, r.New, false},
		})); err != nil {
			return fmt.Errorf("reference %s: %w", r.Name, err)
		}
	}
	return nil
}

// CompareRow is one row of a comparison.
type CompareRow struct {
	// Name is that of the new row.
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
	// Against is the name of the old row when it is another.
	Against string `json:"against,omitempty"`
	// Price is set when the row is the price of a call, else it is one of
	// bench.
	Price bool `json:"price,omitempty"`
	// Cost is set when the row is what packets cost a program.
	Cost bool `json:"cost,omitempty"`
	// Paired is set when both sides were measured in the same rounds.
	Paired bool `json:"paired"`
	Change
}

// Regressed implements [Changes].
func (c *Comparison) Regressed() bool {
	return slices.ContainsFunc(c.Rows, func(r CompareRow) bool { return r.Regression })
}

// Nothing implements [Changes]: no row has a number in both records.
func (c *Comparison) Nothing() string {
	for _, r := range c.Rows {
		if r.Difference != nil {
			return ""
		}
	}
	numbers, missing := [2]int{}, ""
	common := 0
	for _, r := range c.Rows {
		for i, q := range []*stat.Quantity{r.Old, r.New} {
			if q != nil {
				numbers[i]++
			}
		}
		if strings.HasPrefix(r.Missing, onlyIn) {
			continue
		}
		common++
		if missing == "" {
			missing = ": " + r.Name + ": " + r.Missing
		}
	}
	switch {
	case common == 0:
		return "the two records have no row in common"
	case numbers[1] == 0:
		return "no row of the new record has a number" + missing
	case numbers[0] == 0:
		return "no row of the old record has a number" + missing
	}
	return "no row has a number in both records" + missing
}

// onlyIn begins the text of a row that one record has.
const onlyIn = "only in "

// Lost is how many rows had a number in the old record and were refused in the new one,
// and the first of them. Rows of one record that are compared by a label have lost nothing.
func (c *Comparison) Lost() (n int, first *CompareRow) {
	if c.By != "" {
		return 0, nil
	}
	for i := range c.Rows {
		if row := &c.Rows[i]; row.Lost() {
			if n == 0 {
				first = row
			}
			n++
		}
	}
	return n, first
}

// Lost tells whether the row had a number in the old record and was refused in the new one.
func (r *CompareRow) Lost() bool {
	return r.Old != nil && r.New == nil && !strings.HasPrefix(r.Missing, onlyIn)
}

// ProfileComparison is what two profiles differ in.
type ProfileComparison struct {
	Document[ProfileChange]
	Compared
	// Threshold in percent of the old packet.
	Threshold float64 `json:"threshold"`
	MachineChange
	Causes []Cause `json:"causes"`
}

// ProfileChange is what two profiles differ in at one stage. Its difference is in ns
// per packet; its verdict is for a threshold in percent of the old packet, so that a
// stage is a regression when it makes the packet slower by more. Only stages of the
// redirect path, and those that it shares, can be one; the packet is one when these
// together got slower by more.
type ProfileChange struct {
	// Name of the stage; "packet" is the whole.
	Name string `json:"name"`
	Change
}

// Regressed implements [Changes]: the packet, or a stage of it, got slower.
func (c *ProfileComparison) Regressed() bool {
	return slices.ContainsFunc(c.Rows, func(r ProfileChange) bool { return r.Regression })
}

// Nothing implements [Changes]: each profile has stages.
func (c *ProfileComparison) Nothing() string { return "" }

// SiteComparison is what two records of xray differ in.
type SiteComparison struct {
	Document[SiteChange]
	Compared
	// Same is how many branches are in both and alike.
	Same   int     `json:"same"`
	Causes []Cause `json:"causes"`
}

// SiteChange is an indirect branch that two records differ in.
type SiteChange struct {
	Name string `json:"name"`
	// Change is "new", "gone" or "changed".
	Change string `json:"change"`
	// What of a changed one differs: "kind: thunk → register".
	What []string `json:"what,omitempty"`
	// Old and New are the rows, null where there is none.
	Old *SiteRow `json:"old"`
	New *SiteRow `json:"new"`
}

// Regressed implements [Changes]: branches are no time.
func (c *SiteComparison) Regressed() bool { return false }

// Nothing implements [Changes]: that two paths have no branch in common is a finding.
func (c *SiteComparison) Nothing() string { return "" }

// LabComparison is what two records of lab differ in: exactly, as they are counts.
type LabComparison struct {
	Document[LabChange]
	Compared
	// Same is how many rows are in both and alike.
	Same   int     `json:"same"`
	Causes []Cause `json:"causes"`
}

// LabChange is a row that two records differ in.
type LabChange struct {
	Name string `json:"name"`
	// What differs: "instructions: 1180.33 → 1179.71".
	What []string `json:"what"`
	// Missing is why the new record has no number of a row that the old one has; empty otherwise.
	Missing string `json:"missing,omitempty"`
	// Trace is where the instructions differ; nil unless both rows were traced and differ.
	Trace *LabTraceChange `json:"trace,omitempty"`
}

// Lost is how many rows had a number in the old record and were refused in the new one, and the first of them.
func (c *LabComparison) Lost() (n int, first *LabChange) {
	for i := range c.Rows {
		if row := &c.Rows[i]; row.Missing != "" {
			if n == 0 {
				first = row
			}
			n++
		}
	}
	return n, first
}

// Regressed implements [Changes]: counts are no time.
func (c *LabComparison) Regressed() bool { return false }

// Nothing implements [Changes]: the records have no row in common.
func (c *LabComparison) Nothing() string {
	alone := func(r LabChange) bool { return len(r.What) == 1 && strings.HasPrefix(r.What[0], onlyIn) }
	if c.Same > 0 || slices.ContainsFunc(c.Rows, func(r LabChange) bool { return !alone(r) }) {
		return ""
	}
	return "the two records have no row in common"
}

// readComparison reads one of the five documents that compare writes. They have
// one kind; their rows tell them apart.
func readComparison(b []byte) (Doc, error) {
	var shape struct {
		Same    *int `json:"same"`
		Checked *int `json:"checked"`
		Rows    []struct {
			Paired *bool   `json:"paired"`
			Change *string `json:"change"`
		} `json:"rows"`
	}
	if err := json.Unmarshal(b, &shape); err != nil {
		return nil, fmt.Errorf("not a record of compare: %w", err)
	}
	rows := len(shape.Rows) > 0
	switch {
	case shape.Checked != nil:
		return reader("compare", (*FindingComparison).check)(b)
	case shape.Same != nil && rows && shape.Rows[0].Change != nil:
		return reader("compare", (*SiteComparison).check)(b)
	case shape.Same != nil:
		return reader("compare", (*LabComparison).check)(b)
	case rows && shape.Rows[0].Paired == nil:
		return reader("compare", (*ProfileComparison).check)(b)
	}
	return reader("compare", (*Comparison).check)(b)
}

// checkComparison checks one of the five.
func checkComparison(d Doc) error {
	switch d := d.(type) {
	case *FindingComparison:
		return checkDoc(d, (*FindingComparison).check)
	case *SiteComparison:
		return checkDoc(d, (*SiteComparison).check)
	case *LabComparison:
		return checkDoc(d, (*LabComparison).check)
	case *ProfileComparison:
		return checkDoc(d, (*ProfileComparison).check)
	case *Comparison:
		return checkDoc(d, (*Comparison).check)
	}
	return fmt.Errorf("not a record of compare: it is a %T", d)
}

func (c *FindingComparison) check() error { return checkChanges(c.Rows) }
func (c *SiteComparison) check() error    { return checkChanges(c.Rows) }
func (c *LabComparison) check() error     { return checkChanges(c.Rows) }

func (c *ProfileComparison) check() error {
	return errors.Join(c.MachineChange.check(), checkChanges(c.Rows))
}

func (c *Comparison) check() error {
	if c.Mean != nil {
		if err := c.Mean.check("mean", []string{c.Mean.Verdict}, false); err != nil {
			return fmt.Errorf("mean: %w", err)
		}
	}
	return errors.Join(c.MachineChange.check(), checkChanges(c.Rows))
}

// checkChanges checks the rows of a comparison: with --by they may share a name.
func checkChanges[T any, P interface {
	*T
	check() error
}](rows []T) error {
	if n := len(rows); n > MaxRows {
		return errTooMany(n)
	}
	return checkEach[T, P]("row", rows)
}

func (r *CompareRow) check() error {
	if err := checkLabels(r.Labels); err != nil {
		return err
	}
	// Prices, and what a packet costs a program, may be below 0.
	return r.Change.check(r.Name, []string{r.Against, r.Verdict}, true)
}

func (r *ProfileChange) check() error {
	if r.Old == nil && r.New == nil {
		return errNeither
	}
	return r.Change.check(r.Name, []string{r.Verdict}, r.Name == Unattributed || r.Name == PacketRow)
}

func (r *LabChange) check() error {
	if r.Trace != nil {
		if err := r.Trace.check(); err != nil {
			return err
		}
	}
	return checkTexts(append([]string{r.Name}, r.What...))
}

func (r *SiteChange) check() error {
	if r.Old == nil && r.New == nil {
		return errors.New("neither an old branch nor a new one")
	}
	for _, site := range []*SiteRow{r.Old, r.New} {
		if site != nil {
			if err := site.check(); err != nil {
				return err
			}
		}
	}
	return checkTexts(append([]string{r.Name, r.Change}, r.What...))
}

// check is for a change of the row of that name, whose numbers may be below 0 when
// signed.
func (c *Change) check(name string, texts []string, signed bool) error {
	if name == "" || !plain(name) {
		return fmt.Errorf("impossible name %.60q", name)
	}
	if err := checkTexts(texts); err != nil {
		return err
	}
	if utf8.RuneCountInString(c.Missing) > 4*MaxText || !printable(c.Missing) { // it may hold two refusals
		return fmt.Errorf("impossible text %.60q", c.Missing)
	}
	if err := checkMeans([]quantity{{"old", "ns", c.Old, signed}, {"new", "ns", c.New, signed}}); err != nil {
		return err
	}
	if err := checkQuantities([]quantity{
		{"old-cycles", "cycles", c.OldCycles, signed}, {"new-cycles", "cycles", c.NewCycles, signed},
	}); err != nil {
		return err
	}
	for _, d := range []*stat.Difference{c.Difference, c.Cycles, c.Relative} {
		if err := checkDifference(d); err != nil {
			return err
		}
	}
	switch {
	case c.Difference == nil:
		return nil
	case c.Old == nil:
		return errors.New("a difference without old")
	case c.New == nil:
		return errors.New("a difference without new")
	}
	return nil
}

func checkDifference(d *stat.Difference) error {
	if d == nil {
		return nil
	}
	for _, x := range []float64{d.Median, d.Low, d.High, d.Smallest, d.P} {
		if math.Abs(x) > maxNs {
			return fmt.Errorf("impossible difference: %v", x)
		}
	}
	if d.Low > d.Median || d.Median > d.High {
		return errors.New("difference lies outside its interval")
	}
	return nil
}
