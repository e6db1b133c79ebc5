package page

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// part is what of a record a section shows.
type part int

const (
	ladderPart part = iota
	pricesPart
	profilePart
	sitesPart
	labPart
	programPart
	changePart
)

// mergedPart is a part of a record.
type mergedPart struct {
	of   *record.Saved
	part part
}

// merge finds the parts of records that another record of the same machine has better:
// those are not shown twice. Two records of one kind are meant as two.
func (v *viewer) merge() {
	v.merged = make(map[mergedPart]*record.Saved)
	for _, part := range []part{ladderPart, pricesPart, profilePart} {
		for _, s := range v.src.Records {
			for _, other := range v.src.Records {
				if v.merged[mergedPart{other, part}] == nil && other.Kind != s.Kind && sameMachine(other.Host, s.Host) &&
					better(other, s, part) {
					v.merged[mergedPart{s, part}] = other
					break
				}
			}
		}
	}
	for of, other := range v.merged { // the better one may have a better one itself
		for next := other; next != nil; next = v.merged[mergedPart{next, of.part}] {
			v.merged[of] = next
		}
	}
}

// better tells whether a record has rows that another has too in clearly more rounds, or
// in about as many and more rows, or else later.
func better(s, than *record.Saved, p part) bool {
	has, had := partRows(s, p), partRows(than, p)
	if shared(has, had) == 0 {
		return false
	}
	a, b := mostRounds(has), mostRounds(had)
	if 2*a >= 3*b || 2*b >= 3*a {
		return a > b
	}
	return cmp.Or(cmp.Compare(len(has), len(had)), cmp.Compare(a, b), s.Time.Compare(than.Time)) > 0
}

// shared is how many rows both have.
func shared(a, b map[string]int) int {
	n := 0
	for name := range a {
		if b[name] > 0 {
			n++
		}
	}
	return n
}

// partRows are the rounds of each row of a part that has a number; of a profile, what it
// is of with its samples.
func partRows(s *record.Saved, p part) map[string]int {
	rows := make(map[string]int)
	switch p {
	case ladderPart:
		if s.Bench() != nil {
			for i := range s.Bench().Rows {
				if row := &s.Bench().Rows[i]; row.Refused == "" && row.Ns != nil {
					rows[row.Name] = max(row.Ns.N, 1)
				}
			}
		}
	case pricesPart:
		for i := range s.Prices() {
			if row := &s.Prices()[i]; row.Refused == "" && row.Price != nil {
				rows[row.Name] = max(row.Price.N, 1)
			}
		}
	case profilePart:
		if prof := s.Stages(); prof != nil && prof.Packet != nil {
			rows[profiled(s)] = max(prof.Sampling.Samples, 1)
		}
	}
	return rows
}

func mostRounds(rows map[string]int) int {
	most := 0
	for _, n := range rows {
		most = max(most, n)
	}
	return most
}

// shows tells whether a part of a record is on the page: when another has it better, only
// where that lacks some of its rows.
func (v *viewer) shows(s *record.Saved, p part) bool { return !v.folds(s, p) || v.more(s, p) > 0 }

// folds tells whether a part of a record is closed at first, as another has it better.
func (v *viewer) folds(s *record.Saved, p part) bool { return v.merged[mergedPart{s, p}] != nil }

// more is how many rows a part has that the better one lacks.
func (v *viewer) more(s *record.Saved, p part) int {
	rows := partRows(s, p)
	return len(rows) - shared(rows, partRows(v.merged[mergedPart{s, p}], p))
}

// profiles are the records of which the profile is on the page.
func (v *viewer) profiles() []*record.Saved {
	var out []*record.Saved
	for _, s := range v.src.Records {
		if p := s.Stages(); p != nil && p.Packet != nil && v.shows(s, profilePart) {
			out = append(out, s)
		}
	}
	return out
}

// mergedText says which records have the same numbers as this part; empty when none has.
func (v *viewer) mergedText(s *record.Saved, p part) string {
	count := func(s *record.Saved) string {
		unit := "round"
		if p == profilePart {
			unit = "sample"
		}
		return cells.Plural(mostRounds(partRows(s, p)), unit)
	}
	var others []string
	for _, other := range v.src.Records {
		if v.merged[mergedPart{other, p}] == s {
			others = append(others, fmt.Sprintf("%s (%s)", v.labels[other], count(other)))
		}
	}
	if len(others) == 0 {
		return ""
	}
	return fmt.Sprintf("These are from %s (%s). The same machine was measured for %s too.", v.labels[s], count(s),
		strings.Join(others, ", "))
}

// sameMachine tells whether two fingerprints are of one machine: what both have is equal.
func sameMachine(a, b host.Fingerprint) bool {
	values := seenFields(a)
	shared := 0
	for name, value := range seenFields(b) {
		switch other, ok := values[name]; {
		case !ok:
		case value != other:
			return false
		default:
			shared++
		}
	}
	return shared > 0
}

// seenFields are the fields of a fingerprint that have a value.
func seenFields(f host.Fingerprint) map[string]string {
	values := make(map[string]string)
	for _, field := range f.Fields() {
		if field.Value != "" {
			values[field.Name] = field.Value
		}
	}
	return values
}

// ladderHigh is where the axis of all ladders of the page ends.
func (v *viewer) ladderHigh() float64 {
	high := 0.0
	for _, s := range v.src.Records {
		if s.Bench() != nil && v.shows(s, ladderPart) {
			high = max(high, ladderSpan(s.Bench().Rows))
		}
	}
	return high
}
