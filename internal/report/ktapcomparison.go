package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// KTAPComparison writes a comparison in the Kernel Test Anything Protocol, version 1
// (Documentation/dev-tools/ktap.rst of Linux): each row is a test. A row that is slower by
// more than the threshold is not ok, nor is behavior that changed; one that lost its number is an ERROR, and one that
// these runs cannot tell of a SKIP.
func KTAPComparison(w io.Writer, c record.Changes) error {
	s := newTestSuite(c)
	var b bytes.Buffer
	fmt.Fprintf(&b, "KTAP version 1\n1..%d\n# %s\n", len(s.tests), cells.Clean(s.finding))
	for _, p := range s.properties {
		fmt.Fprintf(&b, "# %s: %s\n", cells.Clean(p.name), cells.Clean(p.value))
	}
	for i, t := range s.tests {
		for _, line := range t.more {
			fmt.Fprintf(&b, "# %s\n", cells.Clean(line))
		}
		result, directive := "ok", ""
		switch t.outcome {
		case testFailed:
			result = "not ok"
		case testError:
			result, directive = "not ok", "ERROR "
		case testSkipped:
			directive = "SKIP "
		}
		fmt.Fprintf(&b, "%s %d %s", result, i+1, ktap(t.name))
		if text := directive + ktap(t.text); text != "" {
			fmt.Fprintf(&b, " # %s", text)
		}
		b.WriteString("\n")
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write KTAP: %w", err)
	}
	return nil
}

// ktap is text on one line without the sign that ends the name of a test.
func ktap(s string) string { return strings.ReplaceAll(cells.Clean(s), "#", "_") }
