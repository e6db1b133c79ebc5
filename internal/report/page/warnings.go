package page

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// footnotes are the warnings of a record on one part of it: those of one text are one.
func (v *viewer) footnotes(s *record.Saved, p part) []note {
	return warningNotes(s, func(of part) bool { return of == p })
}

// addFootnotes adds the warnings on a part of a record beneath its figures: a few are
// read, many are folded.
func (v *viewer) addFootnotes(b *block, s *record.Saved, p part) {
	const few = 3
	notes := v.footnotes(s, p)
	title := ""
	if len(notes) > few {
		title = cells.Plural(len(notes), "warning") + " on these numbers"
	}
	b.addList(title, notes)
}

// otherNotes are the warnings of a record that stand beneath no figure of the page.
func (v *viewer) otherNotes(s *record.Saved) []note {
	return warningNotes(s, func(of part) bool { return !v.shows(s, of) })
}

// warningNotes are the warnings of a record on the parts that want tells of.
func warningNotes(s *record.Saved, want func(part) bool) []note {
	parts := partsByRow(s)
	var texts []string
	rows := make(map[string][]string)
	for i := range s.Warnings {
		w := &s.Warnings[i]
		if !want(partOf(s, w, parts)) {
			continue
		}
		text := strings.TrimPrefix(w.Text, stagesPrefix)
		if !slices.Contains(texts, text) {
			if len(texts) == maxNotes {
				continue
			}
			texts = append(texts, text)
		}
		if w.Row != "" {
			rows[text] = append(rows[text], w.Row)
		}
	}
	var out []note
	for _, text := range texts {
		const most = 6
		names := rows[text]
		word := strings.Join(names[:min(len(names), most)], ", ")
		if n := len(names) - most; n > 0 {
			word += fmt.Sprintf(" and %d more", n)
		}
		out = append(out, note{cells.Clean(word), cells.Clean(text)})
	}
	if len(texts) == maxNotes {
		out = append(out, note{"", "more warnings are in the record"})
	}
	return out
}

// maxNotes is the most notes of a list.
const maxNotes = 100

// stagesPrefix begins the warnings of a run that are of its profile.
const stagesPrefix = "stages: "

// partsByRow are the parts that warnings of rows are about.
func partsByRow(s *record.Saved) map[string]part {
	parts := make(map[string]part)
	if p := s.Stages(); p != nil {
		for i := range p.Rows {
			parts[p.Rows[i].Name] = profilePart
		}
	}
	if s.Bench() != nil {
		for i := range s.Bench().Rows {
			parts[s.Bench().Rows[i].Name] = ladderPart
		}
	}
	for i := range s.Prices() {
		parts[s.Prices()[i].Name] = pricesPart
	}
	return parts
}

// partOf is the part of a record that a warning is about; parts are those of its rows.
func partOf(s *record.Saved, w *record.Warning, parts map[string]part) part {
	switch {
	case s.Sites() != nil:
		return sitesPart
	case s.Lab() != nil:
		return labPart
	case s.ProgXray() != nil:
		return programPart
	}
	if p, ok := parts[w.Row]; ok && w.Row != "" {
		return p
	}
	switch {
	case s.Stages() != nil && (s.Bench() == nil || w.Row == "" && strings.HasPrefix(w.Text, stagesPrefix)):
		return profilePart
	case s.Bench() != nil:
		return ladderPart
	case len(s.Prices()) > 0:
		return pricesPart
	}
	return changePart
}
