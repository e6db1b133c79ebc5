package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/stat"
)

// Saved is a record of any kind as [LoadSaved] reads it. What all kinds have is in
// the fields above; of those below the one of its kind is set and the others are
// nil.
type Saved struct {
	// File is the name it was read from.
	File       string
	Kind       string
	Time       time.Time
	Run        string
	Host       host.Fingerprint
	Settings   map[string]string
	Incomplete bool
	Warnings   []Warning

	Bench   *Document[BenchRow] // of bench or run
	Tax     *Document[TaxRow]
	Profile *Profile
	Sites   *Document[SiteRow] // of xray
	Lab     *Lab
	// Of compare, by what was compared.
	Comparison        *Comparison
	ProfileComparison *ProfileComparison
	SiteComparison    *SiteComparison
	LabComparison     *LabComparison
}

// LoadSaved reads a record of bench, run, tax, profile, xray, lab or compare that
// was written with --save or --json. A record of another kind is an [ErrKind];
// anything else that is not one is an error of one line with the file's name.
func LoadSaved(path string) (*Saved, error) {
	s, err := load(path, ParseSaved)
	if err != nil {
		return nil, err
	}
	s.File = path
	return s, nil
}

// ParseSaved is [LoadSaved] of what a file holds.
func ParseSaved(b []byte) (*Saved, error) {
	kind, err := parseHead(b)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "bench", "run":
		doc, err := parseRows[BenchRow](b, kind)
		return savedAs(doc, err, func(s *Saved) { s.Bench = doc })
	case "tax":
		doc, err := parseRows[TaxRow](b, kind)
		return savedAs(doc, err, func(s *Saved) { s.Tax = doc })
	case "profile":
		p, err := parseProfile(b)
		if err != nil {
			return nil, err
		}
		return savedAs(&p.Document, nil, func(s *Saved) { s.Profile = p })
	case "xray":
		doc, err := parseSites(b)
		return savedAs(doc, err, func(s *Saved) { s.Sites = doc })
	case "lab":
		l, err := parseLab(b)
		if err != nil {
			return nil, err
		}
		if err := l.checkDifferences(); err != nil {
			return nil, err
		}
		return savedAs(&l.Document, nil, func(s *Saved) { s.Lab = l })
	case "compare":
		return parseComparison(b)
	}
	return nil, fmt.Errorf("kind %.40q: %w", kind, errNotReported)
}

// errNotReported is for records of a kind that has no place in a report.
var errNotReported = errors.New("only records of bench, run, tax, profile, xray, lab and compare are read here")

// savedAs is what all kinds have of doc, and what set adds.
func savedAs[Row any](doc *Document[Row], err error, set func(*Saved)) (*Saved, error) {
	if err != nil {
		return nil, err
	}
	s := &Saved{
		Kind: doc.Kind, Time: doc.Time, Run: doc.Run, Host: doc.Host, Settings: doc.Settings,
		Incomplete: doc.Incomplete, Warnings: doc.Warnings,
	}
	set(s)
	return s, nil
}

// Stages are those of a profile, or of a run that has one; nil when it has none.
func (s *Saved) Stages() *Profile {
	switch {
	case s.Profile != nil:
		return s.Profile
	case s.Bench != nil && s.Bench.Profile != nil:
		p := &Profile{ProfileParts: *s.Bench.Profile}
		p.Kind, p.Time, p.Run, p.Host, p.Rows = s.Kind, s.Time, s.Run, s.Host, s.Bench.Stages
		return p
	}
	return nil
}

// Prices are those of a record of tax, or of a run that has some.
func (s *Saved) Prices() []TaxRow {
	switch {
	case s.Tax != nil:
		return s.Tax.Rows
	case s.Bench != nil:
		return s.Bench.Prices
	}
	return nil
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
	signed := r.Name == unattributed || r.Name == packetRow
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

// checkDifferences checks what a record of lab has beside its rows.
func (l *Lab) checkDifferences() error {
	if n := len(l.Differences); n > MaxRows {
		return fmt.Errorf("%d differences: at most %d are possible", n, MaxRows)
	}
	for i, d := range l.Differences {
		if err := checkTexts([]string{d.With, d.Without}); err != nil {
			return fmt.Errorf("difference %d: %w", i, err)
		}
		for _, x := range []float64{d.Instructions, d.BySites, d.ByObserver, d.Remainder, d.Calls} {
			if !(math.Abs(x) <= maxNs) {
				return fmt.Errorf("difference %d: impossible count %v", i, x)
			}
		}
		if err := checkQuantities([]quantity{{"ns", "ns", d.Ns, true}}); err != nil {
			return fmt.Errorf("difference %d: %w", i, err)
		}
	}
	return checkQuantities([]quantity{{"price", "ns", l.Price, true}})
}
