package report

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// page is text under way. Everything a record holds goes through clean before
// it gets here, as records come from files.
type page struct {
	buf   bytes.Buffer
	width int
	color bool
}

func newPage(opts Options) *page {
	p := &page{width: opts.Width, color: opts.Color}
	if p.width <= 0 {
		p.width = 80
	}
	p.width = max(p.width, 40)
	return p
}

const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	bold   = "\x1b[1m"
	reset  = "\x1b[0m"
)

func (p *page) paint(color, s string) string {
	if !p.color || color == "" {
		return s
	}
	return color + s + reset
}

// wrap writes text filled to the page's width, first before its first line and
// as many spaces before the others.
func (p *page) wrap(first, text string) {
	indent := utf8.RuneCountInString(first)
	line := first
	empty := true
	for _, word := range strings.Fields(clean(text)) {
		for {
			room := p.width - utf8.RuneCountInString(line)
			if !empty {
				room--
			}
			if utf8.RuneCountInString(word) <= room {
				break
			}
			if empty { // no line holds it: cut it
				cut := []rune(word)
				if room < 1 {
					break
				}
				fmt.Fprintln(&p.buf, line+string(cut[:room]))
				word = string(cut[room:])
			} else {
				fmt.Fprintln(&p.buf, line)
			}
			line, empty = strings.Repeat(" ", indent), true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	fmt.Fprintln(&p.buf, strings.TrimRight(line, " "))
}

// line writes s, cut to the page's width.
func (p *page) line(s string) {
	if runes := []rune(s); len(runes) > p.width {
		s = string(runes[:p.width-1]) + "…"
	}
	fmt.Fprintln(&p.buf, strings.TrimRight(s, " "))
}

// columns aligns rows of cells, one line each. A column is flush left where left
// says so, else flush right; one without text is left out. Rows of one cell are
// headings and stay as they are. gap is added
// before columns flush right.
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

// clean makes a string from a record safe for a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '�'
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
}

// split takes the bulk size out of a row's name: the rest is the heading rows
// of a ladder share.
func split(name string) (heading, bulk string) {
	var rest []string
	for _, part := range strings.Split(clean(name), "/") {
		if b, ok := strings.CutPrefix(part, "bulk="); ok && bulk == "" {
			bulk = b
			continue
		}
		rest = append(rest, part)
	}
	return strings.Join(rest, "/"), bulk
}

// number writes x with three significant digits, "?" when unknown.
func number(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return "?"
	}
	a := math.Abs(x)
	switch {
	case a >= 99.95:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 2, 64)
}

// signedNumber is a percentage with its sign.
func signedNumber(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return "?"
	}
	digits := 1
	switch a := math.Abs(x); {
	case a >= 99.95:
		digits = 0
	case a < 0.995:
		digits = 2
	}
	s := fmt.Sprintf("%+.*f", digits, x)
	if strings.Trim(s, "+-0.") == "" {
		return s[1:]
	}
	return s
}

func interval(low, high float64, format func(float64) string) string {
	if math.IsNaN(low) || math.IsNaN(high) {
		return "[?]"
	}
	return "[" + format(low) + ", " + format(high) + "]"
}

// quantity is a median and its interval in two cells.
func quantity(q *stat.Quantity) (median, around string) {
	if q == nil {
		return "", ""
	}
	return number(q.Median), interval(q.Low, q.High, number)
}

// footnotes gathers warnings under marks.
type footnotes struct {
	texts []string
	marks map[string][]int // by row name
	loose []string         // of no row
}

func newFootnotes(warnings []record.Warning) *footnotes {
	f := &footnotes{marks: make(map[string][]int)}
	for _, w := range warnings {
		if w.Row == "" {
			if !slices.Contains(f.loose, w.Text) {
				f.loose = append(f.loose, w.Text)
			}
			continue
		}
		n := slices.Index(f.texts, w.Text)
		if n < 0 {
			n = len(f.texts)
			f.texts = append(f.texts, w.Text)
		}
		if !slices.Contains(f.marks[w.Row], n) {
			f.marks[w.Row] = append(f.marks[w.Row], n)
		}
	}
	return f
}

func (f *footnotes) mark(row string) string {
	var out []string
	for _, n := range f.marks[row] {
		out = append(out, superscript(n+1))
	}
	return strings.Join(out, ",")
}

func (f *footnotes) write(p *page) {
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

// flush writes the page at once.
func (p *page) flush(w io.Writer) error {
	if _, err := w.Write(p.buf.Bytes()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
