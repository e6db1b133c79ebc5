package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// Check writes the findings of `check` for people, by weight: what costs packets first, then
// what could not be seen, what is worth knowing, and what is fine. Each row says what was
// found, what it means and what to do; of what is fine only verbose says more than what was
// found. Vulnerabilities that the CPU does not have share one row.
func Check(w io.Writer, opts Options, fp host.Fingerprint, findings []host.Finding, verbose bool) error {
	p := newPrinter(opts)
	p.wrap("", "! costs packets or makes numbers unsteady   ? not seen   · worth knowing when two machines are compared")
	var spared []string
	count := make(map[host.Level]int)
	for _, level := range []host.Level{host.LevelWarn, host.LevelUnknown, host.LevelNote, host.LevelOK} {
		fmt.Fprintln(&p.buf)
		for _, f := range findings {
			if f.Level != level {
				continue
			}
			count[level]++
			if name, ok := strings.CutPrefix(f.Name, "vulnerability-"); ok && f.Found == "Not affected" {
				spared = append(spared, name)
				continue
			}
			if level == host.LevelOK && !verbose {
				f.Means = ""
			}
			p.finding(f)
		}
		if count[level] == 0 {
			p.buf.Truncate(p.buf.Len() - 1)
		}
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
	case host.LevelOK:
		color = dim
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
