package report

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// footnotes gathers warnings under marks.
type footnotes struct {
	texts []string
	marks map[string][]int // by row name
	loose []string         // of no row
}

// newFootnotes numbers warnings of rows; equal ones share a number.
func newFootnotes(warnings []record.Warning) *footnotes {
	f := &footnotes{marks: make(map[string][]int)}
	loose, numbers := make(map[string]bool), make(map[string]int) // a record may have 10 000 warnings that differ at their ends
	for _, w := range warnings {
		if w.Row == "" {
			if !loose[w.Text] {
				f.loose, loose[w.Text] = append(f.loose, w.Text), true
			}
			continue
		}
		n, stands := numbers[w.Text]
		if !stands {
			n = len(f.texts)
			f.texts, numbers[w.Text] = append(f.texts, w.Text), n
		}
		if !slices.Contains(f.marks[w.Row], n) {
			f.marks[w.Row] = append(f.marks[w.Row], n)
		}
	}
	return f
}

// inOrder sorts warnings by their rows, so that footnotes are numbered as they are met.
func inOrder(warnings []record.Warning, rows []string) []record.Warning {
	at := make(map[string]int)
	for i, row := range rows {
		at[row] = i
	}
	warnings = slices.Clone(warnings)
	slices.SortStableFunc(warnings, func(a, b record.Warning) int { return cmp.Compare(at[a.Row], at[b.Row]) })
	return warnings
}

// mark are the numbers of a row's warnings.
func (f *footnotes) mark(row string) string {
	var out []string
	for _, n := range f.marks[row] {
		out = append(out, superscript(n+1))
	}
	return strings.Join(out, ",")
}

// write writes the warnings: those of rows with their numbers, then the others.
func (f *footnotes) write(p *printer) {
	if len(f.texts)+len(f.loose) > 0 {
		fmt.Fprintln(&p.buf)
	}
	for i, text := range f.texts {
		p.wrap(superscript(i+1)+" ", text)
	}
	for _, text := range f.loose {
		p.wrap("! ", text)
	}
}

func superscript(n int) string {
	digits := []rune("⁰¹²³⁴⁵⁶⁷⁸⁹")
	var out []rune
	for _, d := range strconv.Itoa(n) {
		out = append(out, digits[d-'0'])
	}
	return string(out)
}

// warningsOf are the warnings whose row is wanted.
func warningsOf(warnings []record.Warning, wanted func(row string) bool) []record.Warning {
	return slices.DeleteFunc(slices.Clone(warnings), func(w record.Warning) bool { return !wanted(w.Row) })
}
