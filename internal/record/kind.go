package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// kind is how records of one kind are read.
type kind struct {
	// name is that of the verb.
	name string
	// read decodes a document and checks it: what no measurement can give is an
	// error of one line.
	read func(b []byte) (Doc, error)
	// check is what read checks, of a document that is to be written.
	check func(Doc) error
}

// kinds are those that [Parse] reads. Records of other kinds are written only.
func kinds() []kind {
	return []kind{
		kindOf("bench", checkBench),
		kindOf("run", checkRun),
		kindOf("tax", checkTax),
		kindOf("profile", (*Profile).check),
		kindOf("xray", checkSites),
		kindOf("lab", (*Lab).check),
		kindOf("check", checkFindings),
		kindOf("prog-xray", (*ProgXray).check),
		kindOf("prog-list", (*ProgramList).check),
		kindOf("prog-cost", (*ProgCost).check),
		kindOf("prog-diff", (*ProgDiff).check),
		kindOf("prog-watch", (*ProgWatch).check),
		kindOf("gate", (*Gate).check),
		kindOf("agent", (*Agent).check),
		{"compare", readComparison, checkComparison},
	}
}

// kindOf is the kind whose documents are of type T.
func kindOf[T any, P interface {
	*T
	Doc
}](name string, check func(P) error) kind {
	return kind{name, reader(name, check), func(d Doc) error {
		doc, ok := d.(P)
		if !ok {
			return fmt.Errorf("not a record of %s: it is a %T", name, d)
		}
		return checkDoc(doc, check)
	}}
}

// reader reads records whose documents are of type T.
func reader[T any, P interface {
	*T
	Doc
}](name string, check func(P) error) func([]byte) (Doc, error) {
	return func(b []byte) (Doc, error) {
		doc := P(new(T))
		if err := json.Unmarshal(b, doc); err != nil {
			return nil, fmt.Errorf("not a record of %s: %w", name, err)
		}
		if err := checkDoc(doc, check); err != nil {
			return nil, err
		}
		return doc, nil
	}
}

// checkDoc checks what all kinds have, and what check does.
func checkDoc[D Doc](doc D, check func(D) error) error {
	if doc.head().Run == "" {
		return errors.New("the record has no run identity")
	}
	if err := checkHost(&doc.head().Host); err != nil {
		return fmt.Errorf("host: %w", err)
	}
	return check(doc)
}

// Parse reads a record of a kind that can be read. Anything else is an error of one
// line: a truncated file, another program's JSON, another schema or kind, values no
// measurement can give.
func Parse(b []byte) (*Saved, error) { return new(Together).parse(b) }

func (t *Together) parse(b []byte) (*Saved, error) {
	name, err := t.parseHead(b)
	if err != nil {
		return nil, err
	}
	all := kinds()
	i := slices.IndexFunc(all, func(k kind) bool { return k.name == name })
	if i < 0 {
		var names []string
		for _, k := range all {
			names = append(names, k.name)
		}
		last := len(names) - 1
		return nil, fmt.Errorf("kind %.40q: only records of %s and %s are read here", name, strings.Join(names[:last],
			", "), names[last])
	}
	doc, err := all[i].read(b)
	if err != nil {
		return nil, err
	}
	return NewSaved(doc), nil
}

// Load is [Parse] of a file. Errors have its name.
func Load(path string) (*Saved, error) { return new(Together).Load(path) }

// Saved is a record of any kind. A method by the name of a kind is its document,
// nil when the record is of another.
type Saved struct {
	// File is the name it was read from; empty for none.
	File string
	Head
	Warnings []Warning
	// Doc is the whole document.
	Doc Doc
}

// NewSaved is doc as one of any kind. It shares what doc has.
func NewSaved(doc Doc) *Saved {
	return &Saved{Head: *doc.head(), Warnings: doc.warnings(), Doc: doc}
}

// as is the document of s, nil when it is not of type T.
func as[T Doc](s *Saved) T {
	doc, _ := s.Doc.(T)
	return doc
}

// Bench is a record of bench or run.
func (s *Saved) Bench() *Document[BenchRow] { return as[*Document[BenchRow]](s) }

// Tax is a record of tax.
func (s *Saved) Tax() *Document[TaxRow] { return as[*Document[TaxRow]](s) }

// Profile is a record of profile.
func (s *Saved) Profile() *Profile { return as[*Profile](s) }

// Sites is a record of xray.
func (s *Saved) Sites() *Document[SiteRow] { return as[*Document[SiteRow]](s) }

// Lab is a record of lab.
func (s *Saved) Lab() *Lab { return as[*Lab](s) }

// Check is a record of check.
func (s *Saved) Check() *Check { return as[*Check](s) }

// ProgXray is a record of prog xray.
func (s *Saved) ProgXray() *ProgXray { return as[*ProgXray](s) }

// Programs is a record of prog list.
func (s *Saved) Programs() *ProgramList { return as[*ProgramList](s) }

// FindingComparison is a record of compare, of two records of check.
func (s *Saved) FindingComparison() *FindingComparison { return as[*FindingComparison](s) }

// Comparison is a record of compare, of rows of bench, of prices and of what packets cost, or that part of one of prog
// diff.
func (s *Saved) Comparison() *Comparison {
	if d := s.ProgDiff(); d != nil {
		return &d.Comparison
	}
	return as[*Comparison](s)
}

// ProfileComparison is a record of compare, of two profiles.
func (s *Saved) ProfileComparison() *ProfileComparison { return as[*ProfileComparison](s) }

// SiteComparison is a record of compare, of two records of xray.
func (s *Saved) SiteComparison() *SiteComparison { return as[*SiteComparison](s) }

// LabComparison is a record of compare, of two records of lab.
func (s *Saved) LabComparison() *LabComparison { return as[*LabComparison](s) }

// References are those of a part of the record: see [Reference.Part].
func (s *Saved) References(part string) []Reference {
	return slices.DeleteFunc(slices.Clone(s.Doc.references()), func(r Reference) bool { return r.Part != part })
}

// Stages are those of a profile, or of a run that has one; nil when it has none.
func (s *Saved) Stages() *Profile {
	if p := s.Profile(); p != nil {
		return p
	}
	b := s.Bench()
	if b == nil || b.Profile == nil {
		return nil
	}
	p := &Profile{ProfileParts: *b.Profile}
	p.Kind, p.Time, p.Run, p.Host, p.Rows = s.Kind, s.Time, s.Run, s.Host, b.Stages
	return p
}

// Redirects are the rows of a record of bench, of a run, or of an agent.
func (s *Saved) Redirects() []BenchRow {
	if a := s.Agent(); a != nil {
		return a.Redirect
	}
	if b := s.Bench(); b != nil {
		return b.Rows
	}
	return nil
}

// Prices are those of a record of tax, or of a run or an agent that has some.
func (s *Saved) Prices() []TaxRow {
	if a := s.Agent(); a != nil {
		return a.Rows
	}
	if t := s.Tax(); t != nil {
		return t.Rows
	}
	if b := s.Bench(); b != nil {
		return b.Prices
	}
	return nil
}

// CarriedPrices are the prices of a record for what is counted elsewhere. It returns an error, which goes on from the file's name, where
// there are none, and where they are of an emulated CPU.
func (s *Saved) CarriedPrices() ([]TaxRow, error) {
	rows := s.Prices()
	switch {
	case s.Host.Emulated():
		return nil, errors.New("is of an emulated CPU, and what its time says is no price")
	case len(rows) == 0:
		return nil, fmt.Errorf("is a record of %s and has no prices: give one of tax or run", s.Kind)
	}
	return rows, nil
}
