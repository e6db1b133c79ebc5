package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// Check writes the findings of `check` for people: one row each, with what
// it means and what to do below it. Vulnerabilities that the CPU does not
// have share one row.
func Check(w io.Writer, opts Options, fp host.Fingerprint, findings []host.Finding) error {
	p := newPrinter(opts)
	var spared []string
	count := make(map[host.Level]int)
	for _, f := range findings {
		count[f.Level]++
		if name, ok := strings.CutPrefix(f.Name, "vulnerability-"); ok && f.Found == "Not affected" {
			spared = append(spared, name)
			continue
		}
		p.finding(f)
	}
	if len(spared) > 0 {
		p.finding(host.Finding{Name: "not-affected", Level: host.LevelOK, Found: strings.Join(spared, ", ")})
	}
	fmt.Fprintln(&p.buf)
	p.fill("", "", checkSummary(fp, count), false)
	return p.flush(w)
}

// finding is the level's mark, the name, and the rest wrapped beside it. Words that
// are longer than a line stand whole on one of their own: paths and parameters are
// there to be copied.
//
//	! return-thunk    srso_return_thunk (SRSO safe ret), at 214 of 214
//	                  returns read
//	                  → every return is mispredicted on purpose
//	                  do: …
func (p *printer) finding(f host.Finding) {
	const column = 20 // where the text begins
	mark, color := " ", ""
	switch f.Level {
	case host.LevelWarn:
		mark, color = "!", yellow
	case host.LevelUnknown:
		mark, color = "?", magenta
	case host.LevelNote:
		mark = "·"
	}
	name := cells.Clean(strings.TrimPrefix(f.Name, "vulnerability-"))
	indent := strings.Repeat(" ", column)
	head := mark + " " + name
	if n := utf8.RuneCountInString(head); n < column {
		head += strings.Repeat(" ", column-n)
	} else {
		p.paintLines(color, func() { fmt.Fprintln(&p.buf, head) })
		head = indent
	}
	found := f.Found
	if found == "" {
		found = "-"
	}
	p.paintLines(color, func() { p.fill(head, indent, found, false) })
	if f.Means != "" {
		p.fill(indent+"→ ", indent+"  ", f.Means, false)
	}
	if f.Do != "" {
		p.fill(indent+"do: ", indent+"    ", f.Do, false)
	}
}

// checkSummary says what indirect calls are in memory, and counts the findings.
func checkSummary(fp host.Fingerprint, count map[host.Level]int) string {
	s := "In memory: "
	if fp.IndirectThunk == "" {
		s = "What indirect calls are in memory could not be seen; as root it can be."
	} else {
		s += fmt.Sprintf("indirect calls %s, thunk: %s, returns: %s.", fp.CallSites, fp.IndirectThunk, fp.ReturnThunk)
	}
	s += fmt.Sprintf(" %s (!), %s (·)", cells.Plural(count[host.LevelWarn], "warning"),
		cells.Plural(count[host.LevelNote], "note"))
	if n := count[host.LevelUnknown]; n > 0 {
		s += fmt.Sprintf(", %d not seen (?)", n)
	}
	return s + "."
}
