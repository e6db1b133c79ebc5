package report

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/report/cells"
)

// Options of the text writers. The zero value is 80 columns without color.
type Options struct {
	// Width of the text in columns; 0 means 80. Less than 40 means 40.
	Width int
	// Color turns on ANSI colors.
	Color bool
}

// printer is text under way. Everything a record holds goes through [cells.Clean]
// before it gets here, as records come from files.
type printer struct {
	buf   bytes.Buffer
	width int
	color bool
}

func newPrinter(opts Options) *printer {
	p := &printer{width: opts.Width, color: opts.Color}
	if p.width <= 0 {
		p.width = 80
	}
	p.width = max(p.width, 40)
	return p
}

const (
	red     = "\x1b[31m"
	green   = "\x1b[32m"
	yellow  = "\x1b[33m"
	magenta = "\x1b[35m"
	bold    = "\x1b[1m"
	dim     = "\x1b[2m"
	reset   = "\x1b[0m"
)

// paint is s in a color, where colors are wanted.
func (p *printer) paint(color, s string) string {
	if !p.color || color == "" {
		return s
	}
	return color + s + reset
}

// paintLines paints all that write writes.
func (p *printer) paintLines(color string, write func()) {
	if !p.color || color == "" {
		write()
		return
	}
	p.buf.WriteString(color)
	write()
	p.buf.WriteString(reset)
}

// wrap writes text filled to the printer's width, first before its first line and
// as many spaces before the others. A word that no line has room for is cut.
func (p *printer) wrap(first, text string) {
	p.fill(first, strings.Repeat(" ", utf8.RuneCountInString(first)), text, true)
}

// fill writes text filled to the printer's width, first before its first line and
// rest before the others. A word that no line has room for is cut, or else sticks
// out.
func (p *printer) fill(first, rest, text string, cut bool) {
	line, empty := first, true
	for _, word := range strings.Fields(cells.Clean(text)) {
		for width := utf8.RuneCountInString(word); ; {
			room := p.width - utf8.RuneCountInString(line)
			if !empty {
				room--
			}
			if width <= room || empty && (!cut || room < 1) {
				break
			}
			if empty {
				at := end(word, room)
				fmt.Fprintln(&p.buf, line+word[:at])
				word, width = word[at:], width-room
			} else {
				fmt.Fprintln(&p.buf, line)
			}
			line, empty = rest, true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	fmt.Fprintln(&p.buf, strings.TrimRight(line, " "))
}

// end is where so many characters of s end, in bytes.
func end(s string, characters int) int {
	for i := range s {
		if characters == 0 {
			return i
		}
		characters--
	}
	return len(s)
}

// line writes s, cut to the printer's width.
func (p *printer) line(s string) {
	fmt.Fprintln(&p.buf, strings.TrimRight(cut(s, p.width), " "))
}

// cut is s with at most width columns.
func cut(s string, width int) string {
	if runes := []rune(s); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return s
}

const incompleteText = "INCOMPLETE: the run was stopped before its end."

// incomplete says, above all else, that a run ended early.
func (p *printer) incomplete(is bool) {
	if is {
		p.wrap("", incompleteText)
		fmt.Fprintln(&p.buf)
	}
}

// command is the beginning of a line that a CI service takes for a command to itself, also behind blanks: GitHub Actions and Azure
// Pipelines (docs.github.com, "Workflow commands"; learn.microsoft.com, "Logging commands"). A record's names may be one.
var command = regexp.MustCompile(`(?m)^([ \t]*)(::|##\[|##vso\[)`)

// flush writes all text at once. A quotation mark stands before what would be a command.
func (p *printer) flush(w io.Writer) error {
	if _, err := w.Write(command.ReplaceAll(p.buf.Bytes(), []byte("$1'$2"))); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// columns aligns rows of cells, one line each. A column is flush left where left
// says so, else flush right; one without text is left out. Rows of one cell are
// headings and stay as they are. gap is added before columns flush right.
func columns(rows [][]string, left []bool, gap string) []string {
	widths := make([]int, len(left))
	for _, row := range rows {
		if len(row) < 2 {
			continue
		}
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	lines := make([]string, len(rows))
	for n, row := range rows {
		if len(row) < 2 {
			lines[n] = strings.Join(row, "")
			continue
		}
		var b strings.Builder
		for i, cell := range row {
			if widths[i] == 0 {
				continue
			}
			if b.Len() > 0 {
				b.WriteString(" ")
				if !left[i] {
					b.WriteString(gap)
				}
			}
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if left[i] {
				b.WriteString(cell + pad)
			} else {
				b.WriteString(pad + cell)
			}
		}
		lines[n] = strings.TrimRight(b.String(), " ")
	}
	return lines
}
