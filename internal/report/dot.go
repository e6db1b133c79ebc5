package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// Dot writes the call graph of the path in the language of Graphviz: functions,
// direct calls between them and, dashed, what is called indirectly.
func Dot(w io.Writer, calls map[string][]string, rows []record.SiteRow) error {
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
		if row.Pointer != nil {
			what = *row.Pointer
		}
		targets := row.Targets
		if len(targets) == 0 {
			targets = []string{what}
		}
		for _, target := range targets {
			fmt.Fprintf(&b, "\t%s -> %s [style=dashed, label=%s];\n", quoted(row.Function), quoted(target),
				quoted(what+" per "+row.Per))
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
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(cells.Clean(s)) + `"`
}
