package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"unthunk/result"
)

// Xray writes the indirect branches of the redirect path for people: by stage,
// what each calls, how often it runs and how it is made, then totals. Rare ones,
// those of errors and slow paths, are counted and left out unless rare is set.
// path is what was looked at.
func Xray(w io.Writer, opts Options, doc *result.Document[result.SiteRow], path string, rare bool) error {
	p := newPage(opts)
	p.wrap("", path)
	fmt.Fprintln(&p.buf)
	table := [][]string{{"", "per", "made", "calls"}}
	stage := ""
	hidden := 0
	for _, row := range doc.Rows {
		if row.Per == "rare" && !rare {
			hidden++
			continue
		}
		if row.Stage != stage {
			stage = row.Stage
			table = append(table, []string{clean(stage)})
		}
		per := clean(row.Per)
		if !row.Always {
			per += "?"
		}
		table = append(table, []string{"  " + site(row), per, made(row), calls(row)})
	}
	for i, line := range columns(table, []bool{true, true, true, true}, "") {
		if len(table[i]) == 1 || i == 0 {
			p.line(line)
			continue
		}
		p.site(table[i], line)
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", totals(doc.Rows, hidden))
	if len(doc.Partial) > 0 {
		names := make([]string, len(doc.Partial))
		for i, f := range doc.Partial {
			names[i] = f.Name
		}
		p.wrap("", fmt.Sprintf("Not followed to their end, so that more may be called from them (--json says why): %s.", strings.Join(names, ", ")))
	}
	notes := newFootnotes(doc.Warnings)
	notes.write(p)
	return p.flush(w)
}

// site is where a branch stands.
func site(row result.SiteRow) string { return fmt.Sprintf("%s+%#x", clean(row.Function), row.Offset) }

// made is how a branch is made, in one word.
func made(row result.SiteRow) string {
	verb := "call"
	if row.Jump {
		verb = "jmp"
	}
	return verb + " " + clean(row.Kind)
}

// calls is what a branch calls: the last member of the chain, how sure that is
// when it is not, and what the pointer holds now.
func calls(row result.SiteRow) string {
	what := "?"
	if row.Calls != nil {
		steps := strings.Split(*row.Calls, " → ")
		what = clean(steps[len(steps)-1])
		if row.Sure == "likely" {
			what += " (likely)"
		}
	}
	if len(row.Targets) > 0 {
		what += " = " + clean(strings.Join(row.Targets, ", "))
	}
	return what
}

// site writes a line of the table, what is called beneath the rest when it does
// not fit beside it.
func (p *page) site(cells []string, line string) {
	what := cells[3]
	if len([]rune(line)) <= p.width {
		p.line(line)
		return
	}
	p.line(strings.TrimSuffix(line, what))
	p.wrap("    → ", what)
}

// totals counts branches by how often they run.
func totals(rows []result.SiteRow, hidden int) string {
	always, maybe := make(map[string]int), make(map[string]int)
	for _, row := range rows {
		if row.Always {
			always[row.Per]++
		} else {
			maybe[row.Per]++
		}
	}
	var parts []string
	for _, per := range []string{"packet", "bulk", "poll", "unknown"} {
		n, m := always[per], maybe[per]
		if n+m == 0 {
			continue
		}
		name := "per " + per
		if per == "unknown" {
			name = "how often is not known"
		}
		switch {
		case m == 0:
			parts = append(parts, fmt.Sprintf("%s %d", name, n))
		case n == 0:
			parts = append(parts, fmt.Sprintf("%s %d that may run", name, m))
		default:
			parts = append(parts, fmt.Sprintf("%s %d and %d that may run", name, n, m))
		}
	}
	if len(parts) == 0 {
		parts = []string{"none"}
	}
	text := "Indirect branches: " + strings.Join(parts, "; ") + "."
	if hidden > 0 {
		text += fmt.Sprintf(" Rare, on errors and slow paths: %d, which --rare shows.", hidden)
	}
	return text + " ? after how often: not on every way through its function."
}

// Dot writes the call graph of the path in the language of Graphviz: functions,
// direct calls between them and, dashed, what is called indirectly.
func Dot(w io.Writer, calls map[string][]string, rows []result.SiteRow) error {
	var b strings.Builder
	b.WriteString("digraph path {\n\trankdir=LR;\n\tnode [shape=box, fontname=monospace];\n")
	names := make([]string, 0, len(calls))
	for name := range calls {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "\t%s;\n", quoted(name))
		for _, called := range calls[name] {
			fmt.Fprintf(&b, "\t%s -> %s;\n", quoted(name), quoted(called))
		}
	}
	for _, row := range rows {
		what := "?"
		if row.Calls != nil {
			what = *row.Calls
		}
		targets := row.Targets
		if len(targets) == 0 {
			targets = []string{what}
		}
		for _, target := range targets {
			fmt.Fprintf(&b, "\t%s -> %s [style=dashed, label=%s];\n", quoted(row.Function), quoted(target), quoted(what+" per "+row.Per))
		}
	}
	b.WriteString("}\n")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write call graph: %w", err)
	}
	return nil
}

// quoted is a string of Graphviz.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(clean(s)) + `"`
}
