package report

import (
	"bytes"
	"testing"

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
