package record

import (
	"errors"
	"fmt"
	"time"

	"github.com/unthunk/unthunk/internal/host"
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
