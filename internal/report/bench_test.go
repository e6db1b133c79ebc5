package report

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestBenchGolden(t *testing.T) {
	t.Parallel()
	for _, width := range []int{0, 80, 60} {
		var b bytes.Buffer
		if err := Bench(&b, Options{Width: width}, reporttest.FullBench()); err != nil {
			t.Fatal(err)
		}
		if width == 0 {
			reporttest.Golden(t, "bench.txt", b.String())
			width = 80
		}
		reporttest.Fits(t, b.String(), width)
	}
	doc := reporttest.Bench("one", 1, 1)
	doc.Rows, doc.Incomplete = nil, true
	var b bytes.Buffer
	if err := Bench(&b, Options{}, doc); err != nil {
		t.Fatal(err)
	}
	reporttest.Golden(t, "bench-incomplete.txt", b.String())
}

// A column that no row fills is not shown; a table without a number keeps its head.
func TestDropEmpty(t *testing.T) {
	table := newTextTable([]bool{true, false, false}, " ", "a", "b", "c")
	table.heading("of all")
	table.add("1", "-", "")
	table.add("2", "-", "x")
	table.dropEmpty()
	if want := [][]string{{"a", "c"}, {"of all"}, {"1", ""}, {"2", "x"}}; !cmp.Equal(table.rows, want) {
		t.Errorf("%q, want %q", table.rows, want)
	}
	none := newTextTable([]bool{true, false}, " ", "a", "b")
	none.add("-", "-")
	none.dropEmpty()
	if want := [][]string{{"a", "b"}, {"-", "-"}}; !cmp.Equal(none.rows, want) {
		t.Errorf("%q, want %q", none.rows, want)
	}
}
