package page

import (
	"fmt"

	"github.com/unthunk/unthunk/internal/report/cells"
)

// maxTable is the most rows a table of a page has.
const maxTable = 250

type table struct {
	Caption string
	Columns []column
	Rows    []tableRow
	// Folded tables say what a figure says, and are closed at first.
	Folded bool
	// Remark is a sentence beneath the table, or empty.
	Remark string
	// leftOut counts rows that there was no room for.
	leftOut int
}

// column has a class of the style sheet: "n" for numbers, "i" for intervals, "m" for
// code, "t" for sentences; "w" is left out on phones.
type column struct{ Name, Class string }

type tableRow struct {
	// Group is a heading, else Cells are one for each column.
	Group string
	Cells []tableCell
	// Differs marks a row that the reader looks for.
	Differs bool
}

type tableCell struct{ Text, Class string }

// add adds a row, as long as there is room for it, and returns it.
func (t *table) add(texts ...string) *tableRow {
	if len(t.Rows) >= maxTable {
		t.leftOut++
		return new(tableRow)
	}
	row := tableRow{}
	for i, c := range t.Columns {
		text := ""
		if i < len(texts) {
			text = cells.Clean(texts[i])
		}
		row.Cells = append(row.Cells, tableCell{text, c.Class})
	}
	t.Rows = append(t.Rows, row)
	return &t.Rows[len(t.Rows)-1]
}

// group adds a heading.
func (t *table) group(name string) {
	if len(t.Rows) < maxTable {
		t.Rows = append(t.Rows, tableRow{Group: cells.Clean(name)})
	}
}

// More is the text beneath the table: how many rows were left out, and the remark.
func (t *table) More() string {
	if t.leftOut == 0 {
		return t.Remark
	}
	return cells.Join(" ", fmt.Sprintf("%d more rows are in the record.", t.leftOut), t.Remark)
}
