package page

import (
	"context"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// Markdown writes what the page of [HTML] says, without its pictures, for issue
// trackers (GitHub Flavored Markdown). Strings of the records can be no more than
// text: no link, no mention, no picture. A section by itself has no title and no footer.
func Markdown(ctx context.Context, w io.Writer, src Source) error {
	v, err := newView(ctx, src, false)
	if err != nil {
		return fmt.Errorf("make Markdown: %w", err)
	}
	b := memory.NewBuffer(ctx, MaxPage)
	if src.Section == "" {
		v.markdownHead(b)
	}
	for _, s := range v.Sections {
		if src.Section == "" {
			fmt.Fprintf(b, "## %s\n\n", markdown(s.Title))
		}
		for _, block := range s.Blocks {
			block.markdown(b)
		}
	}
	if src.Section == "" {
		fmt.Fprintf(b, "Made by unthunk %s from %s.\n", markdown(v.Version), v.Count)
	}
	if err := b.Err(); err != nil {
		return fmt.Errorf("make Markdown: %w", tooMuch(err))
	}
	if _, err := b.WriteTo(w); err != nil {
		return fmt.Errorf("write Markdown: %w", err)
	}
	return nil
}

// markdownHead writes what is above all sections.
func (v *view) markdownHead(b *memory.Buffer) {
	fmt.Fprintf(b, "# %s\n\n", markdown(v.Title))
	if len(v.About) > 0 {
		fmt.Fprintf(b, "%s\n\n", markdown(strings.Join(v.About, ", ")))
	}
	for _, text := range v.Summary {
		fmt.Fprintf(b, "%s\n\n", markdown(text))
	}
	for _, n := range v.Banners {
		fmt.Fprintf(b, "**%s** %s\n\n", markdown(n.Word), markdown(n.Text))
	}
	if v.Glance != nil {
		v.Glance.markdown(b)
	}
}

func (bl *block) markdown(b *memory.Buffer) {
	if bl.Heading != "" {
		fmt.Fprintf(b, "### %s\n\n", markdown(bl.Heading))
	}
	for _, text := range bl.Text {
		fmt.Fprintf(b, "%s\n\n", markdown(text))
	}
	for _, t := range bl.Tables {
		t.markdown(b)
	}
	for _, l := range bl.Lists {
		if l.Title != "" {
			fmt.Fprintf(b, "<details><summary>%s</summary>\n\n", markdown(l.Title))
		}
		for _, n := range l.Notes {
			fmt.Fprintf(b, "- %s\n", markdown(cells.Join(": ", n.Word, n.Text)))
		}
		b.WriteString("\n")
		if l.Title != "" {
			b.WriteString("</details>\n\n")
		}
	}
}

func (t *table) markdown(b *memory.Buffer) {
	if t.Folded {
		fmt.Fprintf(b, "<details><summary>%s</summary>\n\n", markdown(t.Caption))
	} else {
		fmt.Fprintf(b, "%s:\n\n", markdown(t.Caption))
	}
	// A cell is as wide as its column for those who read the text as it is: up to a limit, as
	// one row of a record may be as long as the record.
	const widest = 120
	widths := make([]int, len(t.Columns))
	grow := func(i int, s string) { widths[i] = max(widths[i], min(utf8.RuneCountInString(s), widest), 3) }
	head := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		head[i] = markdown(c.Name)
		grow(i, head[i])
	}
	for _, row := range t.Rows {
		for i, c := range row.Cells {
			grow(i, markdown(c.Text))
		}
	}
	writeCell := func(i int, cell string) {
		pad := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(cell), 0))
		if t.Columns[i].numeric() {
			fmt.Fprintf(b, " %s%s |", pad, cell)
		} else {
			fmt.Fprintf(b, " %s%s |", cell, pad)
		}
	}
	b.WriteString("|")
	for i, name := range head {
		writeCell(i, name)
	}
	b.WriteString("\n|")
	for i, c := range t.Columns {
		if c.numeric() {
			b.WriteString(strings.Repeat("-", widths[i]+1) + ":|")
		} else {
			b.WriteString(strings.Repeat("-", widths[i]+2) + "|")
		}
	}
	b.WriteString("\n")
	for _, row := range t.Rows {
		b.WriteString("|")
		for i := range t.Columns {
			switch {
			case i < len(row.Cells):
				writeCell(i, markdown(row.Cells[i].Text))
			case i == 0 && row.Group != "": // the format has no cell over several columns
				writeCell(i, "*"+markdown(row.Group)+"*")
			default:
				writeCell(i, "")
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	if more := t.More(); more != "" {
		fmt.Fprintf(b, "%s\n\n", markdown(more))
	}
	if t.Folded {
		b.WriteString("</details>\n\n")
	}
}

func (c column) numeric() bool {
	for class := range strings.FieldsSeq(c.Class) {
		if class == "n" {
			return true
		}
	}
	return false
}

// markdown is text without what the format gives a meaning, and else as it is: it is
// read as text too.
func markdown(s string) string {
	const joiner = '\u2060' // not seen, and parts what trackers would make a link of
	var b strings.Builder
	runes := []rune(cells.Clean(s))
	near := func(i int) rune {
		if i < 0 || i >= len(runes) {
			return ' '
		}
		return runes[i]
	}
	word := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' }
	for i, r := range runes {
		switch r {
		case '\\', '`', '*', '<', '>', '|', '~', '$':
			b.WriteByte('\\')
		case '&':
			b.WriteString("&amp;")
			continue
		case '_': // emphasis begins and ends at words
			if !word(near(i-1)) || !word(near(i+1)) || near(i-1) == '_' || near(i+1) == '_' {
				b.WriteByte('\\')
			}
		case ']':
			if next := near(i + 1); next == '(' || next == '[' || next == ':' {
				b.WriteByte('\\')
			}
		}
		b.WriteRune(r)
		next := near(i + 1)
		if r == '@' || r == '#' || r == ':' && next == '/' || (r == 'w' || r == 'W') && next == '.' {
			b.WriteRune(joiner)
		}
	}
	return b.String()
}
