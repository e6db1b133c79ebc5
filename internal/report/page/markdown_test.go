package page

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestMarkdownGolden(t *testing.T) {
	t.Parallel()
	bench := reporttest.Bench("one", 1, 1)
	bench.Warnings = []record.Warning{{Row: "redirect-map/bulk=64", Text: "a warning of *a* row_"}}
	var b bytes.Buffer
	if err := Markdown(t.Context(), &b, Source{Records: []*record.Saved{savedAs(t, "dir/bench.json", bench)},
		Version: "v1"}); err != nil {
		t.Fatal(err)
	}
	reporttest.Golden(t, "page.md", b.String())
	b.Reset()
	if err := Markdown(t.Context(), &b, Source{Records: everyRecord(t), History: reporttest.Trends(t)}); err != nil ||
		strings.Contains(b.String(), "NaN") {
		t.Error(err)
	}
	// Each line of a table has as many cells as its head.
	cells := 0
	for line := range strings.SplitSeq(b.String(), "\n") {
		n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
		if !strings.HasPrefix(line, "|") {
			cells = 0
			continue
		}
		if cells != 0 && n != cells {
			t.Errorf("%d cells, not %d: %s", n, cells, line)
		}
		cells = n
	}
}
