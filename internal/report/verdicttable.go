package report

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/report/cells"
)

// verdictTable is a table whose rows have verdicts: beside the numbers if all fit,
// else beneath.
type verdictTable struct {
	*textTable
	// beside are the columns that are there only if all fit, that of the verdict
	// first.
	beside []int
	// verdicts are those of rows, by their index.
	verdicts map[int]verdict
}

// verdict is the text of a verdict beneath its row, and its color.
type verdict struct{ text, color string }

func newVerdictTable(left []bool, beside []int, head ...string) *verdictTable {
	return &verdictTable{newTextTable(left, "", head...), beside, make(map[int]verdict)}
}

// verdict gives the last row a verdict.
func (t *verdictTable) verdict(text, color string) { t.verdicts[len(t.rows)-1] = verdict{text, color} }

// fits tells whether all columns have room in a line of that width.
func (t *verdictTable) fits(width int) bool {
	for i, line := range columns(t.rows, t.left, t.gap) {
		if len(t.rows[i]) > 1 && utf8.RuneCountInString(line) > width {
			return false
		}
	}
	return true
}

// verdictTable writes a table, its verdicts beside the numbers or beneath.
func (p *printer) verdictTable(t *verdictTable, beside bool) {
	rows := t.rows
	if !beside {
		rows = nil
		for _, row := range t.rows {
			row = slices.Clone(row)
			if len(row) > 1 {
				for _, column := range t.beside {
					row[column] = ""
				}
			}
			rows = append(rows, row)
		}
	}
	for i, line := range columns(rows, t.left, t.gap) {
		v, judged := t.verdicts[i]
		switch {
		case len(rows[i]) == 1:
			p.wrap("", line)
		case judged && beside:
			text := rows[i][t.beside[0]]
			at := strings.LastIndex(line, text) // only a number and a mark follow
			fmt.Fprintln(&p.buf, line[:at]+p.paint(v.color, text)+line[at+len(text):])
		default:
			p.line(line)
			if judged {
				fmt.Fprintln(&p.buf, "     "+p.paint(v.color, cells.Clean(v.text)))
			}
		}
		for _, s := range t.beneath[i] {
			p.wrap(s.first, s.text)
		}
	}
}
