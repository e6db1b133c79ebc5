package report

import (
	"slices"
	"unicode/utf8"
)

// textTable is rows of cells under headings, with sentences beneath rows.
type textTable struct {
	// left says which columns are flush left; gap is written before the others.
	left []bool
	gap  string
	// rows have one cell for a heading, else one for each column.
	rows [][]string
	// beneath are the sentences under a row, by the row's index.
	beneath map[int][]sentence
}

// sentence is wrapped behind first.
type sentence struct{ first, text string }

func newTextTable(left []bool, gap string, head ...string) *textTable {
	return &textTable{left: left, gap: gap, rows: [][]string{head}, beneath: make(map[int][]sentence)}
}

// heading adds a heading, add a row.
func (t *textTable) heading(s string)    { t.rows = append(t.rows, []string{s}) }
func (t *textTable) add(cells ...string) { t.rows = append(t.rows, cells) }

// below puts a sentence beneath the last row.
func (t *textTable) below(first, text string) {
	n := len(t.rows) - 1
	t.beneath[n] = append(t.beneath[n], sentence{first, text})
}

// dropEmpty removes the columns in which no row has anything. A table of none but such rows
// stays as it is.
func (t *textTable) dropEmpty() {
	empty := func(column int) bool {
		for _, row := range t.rows[1:] {
			if len(row) > 1 && row[column] != "" && row[column] != "-" {
				return false
			}
		}
		return true
	}
	columns := len(t.rows[0])
	var kept []int
	for i := range columns {
		if !empty(i) {
			kept = append(kept, i)
		}
	}
	if len(kept) == 0 {
		return
	}
	t.left = pick(t.left, kept)
	for i, row := range t.rows {
		if len(row) == columns { // else a heading
			t.rows[i] = pick(row, kept)
		}
	}
}

// width is how many columns of text the longest row takes.
func (t *textTable) width() (most int) {
	for i, line := range columns(t.rows, t.left, t.gap) {
		if len(t.rows[i]) > 1 {
			most = max(most, utf8.RuneCountInString(line))
		}
	}
	return most
}

// drop removes a column.
func (t *textTable) drop(column int) {
	columns := len(t.rows[0])
	t.left = slices.Delete(t.left, column, column+1)
	for i, row := range t.rows {
		if len(row) == columns {
			t.rows[i] = slices.Delete(row, column, column+1)
		}
	}
}

// pick are some elements.
func pick[T any](of []T, at []int) []T {
	picked := make([]T, 0, len(at))
	for _, i := range at {
		picked = append(picked, of[i])
	}
	return picked
}

// table writes a table: headings wrapped, rows cut to the width.
func (p *printer) table(t *textTable) { p.tableBy(t, func(_ []string, line string) { p.line(line) }) }

// tableBy writes a table and calls row for each row after the head, with its cells and
// with these as one line.
func (p *printer) tableBy(t *textTable, row func(cells []string, line string)) {
	for i, line := range columns(t.rows, t.left, t.gap) {
		switch {
		case i == 0:
			p.line(line)
		case len(t.rows[i]) == 1:
			p.wrap("", line)
		default:
			row(t.rows[i], line)
		}
		for _, s := range t.beneath[i] {
			p.wrap(s.first, s.text)
		}
	}
}
