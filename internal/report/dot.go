package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// Dot writes the call graph of the path in the language of Graphviz: functions,
// direct calls between them and, dashed, what is called indirectly; dotted where that cannot
// run in this setup.
func Dot(w io.Writer, g *record.CallGraph) error {
	var b strings.Builder
	b.WriteString("digraph path {\n\trankdir=LR;\n\tnode [shape=box, fontname=monospace];\n")
	for _, name := range g.Functions {
		fmt.Fprintf(&b, "\t%s;\n", quoted(name))
	}
	for _, c := range g.Calls {
		if c.Site == nil {
			fmt.Fprintf(&b, "\t%s -> %s;\n", quoted(c.From), quoted(c.To))
			continue
		}
		style := "dashed"
		if c.Site.CannotRun != "" {
			style = "dotted"
		}
		fmt.Fprintf(&b, "\t%s -> %s [style=%s, label=%s];\n", quoted(c.From), quoted(c.To), style, quoted(arrow(c.Site)))
	}
	b.WriteString("}\n")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write call graph: %w", err)
	}
	return nil
}

// arrow is what stands at an indirect call: what the target is read from, and how often it
// runs.
func arrow(row *record.SiteRow) string {
	what := "?"
	if row.Pointer != nil {
		what = *row.Pointer
	}
	return what + ", " + cells.HowOften(*row)
}

// quoted is a string of Graphviz.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(cells.Clean(s)) + `"`
}
