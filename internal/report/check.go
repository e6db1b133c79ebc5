package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/host"
)

// Check writes the findings of `check` for people: one row each, with what
// it means and what to do below it. Vulnerabilities that the CPU does not
// have share one row.
func Check(w io.Writer, opts Options, fp host.Fingerprint, findings []host.Finding) error {
	p := checkPage{width: opts.Width, color: opts.Color}
	if p.width <= 0 {
		p.width = 80
	}
	p.width = max(p.width, 40)
	var spared []string
	count := make(map[host.Level]int)
	for _, f := range findings {
		count[f.Level]++
		if name, ok := strings.CutPrefix(f.Name, "vulnerability-"); ok && f.Found == "Not affected" {
			spared = append(spared, name)
			continue
		}
		p.row(f)
	}
	if len(spared) > 0 {
		p.row(host.Finding{Name: "not-affected", Level: host.LevelOK, Found: strings.Join(spared, ", ")})
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", "", p.summary(fp, count))
	_, err := w.Write(p.buf.Bytes())
	return err
}

type checkPage struct {
	buf   bytes.Buffer
	width int
	color bool
}

// row is the level's mark, the name, and the rest wrapped beside it:
//
//	! return-thunk    srso_return_thunk (SRSO safe ret), at 214 of 214
//	                  returns read
//	                  → every return is mispredicted on purpose
//	                  do: …
func (p *checkPage) row(f host.Finding) {
	const column = 20 // where the text begins
	mark, color := " ", ""
	switch f.Level {
	case host.LevelWarn:
		mark, color = "!", "\x1b[33m"
	case host.LevelUnknown:
		mark, color = "?", "\x1b[35m"
	case host.LevelNote:
		mark = "·"
	}
	name := clean(strings.TrimPrefix(f.Name, "vulnerability-"))
	indent := strings.Repeat(" ", column)
	head := mark + " " + name
	if n := utf8.RuneCountInString(head); n < column {
		head += strings.Repeat(" ", column-n)
	} else {
		p.line(head, color)
		head = indent
	}
	found := f.Found
	if found == "" {
		found = "-"
	}
	p.paint(color, func() { p.wrap(head, indent, found) })
	if f.Means != "" {
		p.wrap(indent+"→ ", indent+"  ", f.Means)
	}
	if f.Do != "" {
		p.wrap(indent+"do: ", indent+"    ", f.Do)
	}
}

func (p *checkPage) paint(color string, write func()) {
	if !p.color || color == "" {
		write()
		return
	}
	p.buf.WriteString(color)
	write()
	p.buf.WriteString("\x1b[0m")
}

func (p *checkPage) line(s, color string) {
	p.paint(color, func() { fmt.Fprintln(&p.buf, s) })
}

// wrap writes words after first, and after rest on further lines. A word
// longer than a line stands alone on one.
func (p *checkPage) wrap(first, rest, text string) {
	line, used := first, utf8.RuneCountInString(first)
	fresh := true
	for _, word := range strings.Fields(clean(text)) {
		n := utf8.RuneCountInString(word)
		if !fresh && used+1+n > p.width {
			fmt.Fprintln(&p.buf, line)
			line, used, fresh = rest, utf8.RuneCountInString(rest), true
		}
		if !fresh {
			line, used = line+" ", used+1
		}
		line, used, fresh = line+word, used+n, false
	}
	fmt.Fprintln(&p.buf, strings.TrimRight(line, " "))
}

func (p *checkPage) summary(fp host.Fingerprint, count map[host.Level]int) string {
	s := "In memory: "
	if fp.IndirectThunk == "" {
		s = "What indirect calls are in memory could not be seen; as root it can be."
	} else {
		s += fmt.Sprintf("indirect calls %s, thunk: %s, returns: %s.", fp.CallSites, fp.IndirectThunk, fp.ReturnThunk)
	}
	s += fmt.Sprintf(" %s (!), %s (·)", many(count[host.LevelWarn], "warning"), many(count[host.LevelNote], "note"))
	if n := count[host.LevelUnknown]; n > 0 {
		s += fmt.Sprintf(", %d not seen (?)", n)
	}
	return s + "."
}

func many(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
