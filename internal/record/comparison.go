package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/stat"
)

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
	// Price is set when the row is the price of a call, else it is one of
	// bench.
	Price bool `json:"price,omitempty"`
	// Old and New are in ns per packet, those of a price in ns per call. One
	// that has no number is nil.
	Old *stat.Quantity `json:"old"`
	New *stat.Quantity `json:"new"`
	// Difference is new less old in percent of old: positive is slower, or
	// dearer. Its interval and p hold for all rows of the comparison together.
	// Nil when one side has no number, or the old price is none to compare
	// with.
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
	// or has no number and why, or why it would mean nothing.
	Missing string `json:"missing,omitempty"`
}

// Regressed reports whether any row got slower by more than the threshold.
func (c *Comparison) Regressed() bool {
	return slices.ContainsFunc(c.Rows, func(r CompareRow) bool { return r.Regression })
}

// ErrKind is returned for records of a kind that is not compared so.
var ErrKind = errors.New("records of these kinds are not compared")

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

// ProfileComparison is what two profiles differ in. It marshals as a document of
// kind "compare" whose host is that of the new record.
type ProfileComparison struct {
	Document[ProfileChange]
	Old Origin `json:"old"`
	New Origin `json:"new"`
	// Threshold in percent of the old packet.
	Threshold float64 `json:"threshold"`
	Causes    []Cause `json:"causes"`
}

// ProfileChange is what two profiles differ in at one stage.
type ProfileChange struct {
	// Name of the stage; "packet" is the whole.
	Name string `json:"name"`
	// Old and New are in ns per packet; null where there is no such stage.
	Old *stat.Quantity `json:"old"`
	New *stat.Quantity `json:"new"`
	// Difference is new less old in ns per packet: positive is slower. Its
	// interval and p hold for all rows of the comparison together. Nil when
	// one side has no such stage.
	Difference *stat.Difference `json:"difference"`
	// Verdict is in the words of [stat.Verdict], for a threshold in percent of
	// the old packet; empty when one side has no such stage.
	Verdict string `json:"verdict,omitempty"`
	// Regression is set when the stage makes the packet slower by more than the
	// threshold, with confidence.
	Regression bool `json:"regression"`
	// Missing says which side has no such stage.
	Missing string `json:"missing,omitempty"`
}

// Regressed reports whether the packet, or a stage of it, got slower by more
// than the threshold.
func (c *ProfileComparison) Regressed() bool {
	return slices.ContainsFunc(c.Rows, func(r ProfileChange) bool { return r.Regression })
}

// SiteComparison is what two records of xray differ in. It marshals as a document
// of kind "compare" whose host is that of the new record.
type SiteComparison struct {
	Document[SiteChange]
	Old Origin `json:"old"`
	New Origin `json:"new"`
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

// LabComparison is what two records of lab differ in: exactly, as they are counts.
type LabComparison struct {
	Document[LabChange]
	Old    Origin  `json:"old"`
	New    Origin  `json:"new"`
	Same   int     `json:"same"`
	Causes []Cause `json:"causes"`
}

// LabChange is a row that two records differ in.
type LabChange struct {
	Name string `json:"name"`
	// What differs: "instructions: 1180.33 → 1179.71".
	What []string `json:"what"`
}

// parseComparison reads one of the four documents that compare writes. They have
// one kind and are told apart by what their rows have.
func parseComparison(b []byte) (*Saved, error) {
	var shape struct {
		Same *int `json:"same"`
		Rows []struct {
			Paired *bool   `json:"paired"`
			Change *string `json:"change"`
		} `json:"rows"`
	}
	if err := json.Unmarshal(b, &shape); err != nil {
		return nil, fmt.Errorf("not a record of compare: %w", err)
	}
	switch {
	case shape.Same != nil && len(shape.Rows) > 0 && shape.Rows[0].Change != nil:
		c := new(SiteComparison)
		err := parseCompared(b, c, &c.Document, func(i int) error { return c.Rows[i].check() })
		return savedAs(&c.Document, err, func(s *Saved) { s.SiteComparison = c })
	case shape.Same != nil:
		c := new(LabComparison)
		err := parseCompared(b, c, &c.Document, func(i int) error { return checkTexts(append(c.Rows[i].What, c.Rows[i].Name)) })
		return savedAs(&c.Document, err, func(s *Saved) { s.LabComparison = c })
	case len(shape.Rows) > 0 && shape.Rows[0].Paired == nil:
		c := new(ProfileComparison)
		err := parseCompared(b, c, &c.Document, func(i int) error { return c.Rows[i].check() })
		return savedAs(&c.Document, err, func(s *Saved) { s.ProfileComparison = c })
	}
	c := new(Comparison)
	err := parseCompared(b, c, &c.Document, func(i int) error { return c.Rows[i].check() })
	return savedAs(&c.Document, err, func(s *Saved) { s.Comparison = c })
}

// parseCompared reads a comparison, whose rows are those of doc, and checks them.
func parseCompared[Row any](b []byte, into any, doc *Document[Row], check func(i int) error) error {
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("not a record of compare: %w", err)
	}
	if doc.Run == "" {
		return errors.New("the record has no run identity")
	}
	if n := len(doc.Rows); n > MaxRows {
		return fmt.Errorf("%d rows: at most %d are possible", n, MaxRows)
	}
	for i := range doc.Rows {
		if err := check(i); err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
	}
	return nil
}

func (r *CompareRow) check() error {
	if err := checkLabels(r.Labels); err != nil {
		return err
	}
	signed := r.Price
	return checkCompared(r.Name, []string{r.Against, r.Verdict}, r.Missing, r.Difference, []quantity{{"old", "ns", r.Old, signed}, {"new", "ns", r.New, signed}})
}

func (r *ProfileChange) check() error {
	signed := r.Name == Unattributed || r.Name == PacketRow
	if r.Old == nil && r.New == nil {
		return errNeither
	}
	return checkCompared(r.Name, []string{r.Verdict}, r.Missing, r.Difference, []quantity{{"old", "ns", r.Old, signed}, {"new", "ns", r.New, signed}})
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

// checkCompared is for a row that has an old and a new number.
func checkCompared(name string, texts []string, missing string, d *stat.Difference, qs []quantity) error {
	if name == "" || !plain(name) {
		return fmt.Errorf("impossible name %.60q", name)
	}
	if err := checkTexts(texts); err != nil {
		return err
	}
	if utf8.RuneCountInString(missing) > 4*maxText || !printable(missing) { // it may hold two refusals
		return fmt.Errorf("impossible text %.60q", missing)
	}
	if err := checkMeans(qs); err != nil {
		return err
	}
	if d == nil {
		return nil
	}
	for _, q := range qs {
		if q.Quantity == nil {
			return fmt.Errorf("a difference without %s", q.name)
		}
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
