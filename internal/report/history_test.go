package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestHistoryGolden(t *testing.T) {
	t.Parallel()
	h := reporttest.Trends(t)
	for _, width := range []int{80, 60, 40} {
		var b bytes.Buffer
		if err := History(&b, Options{Width: width}, h); err != nil {
			t.Fatal(err)
		}
		reporttest.Fits(t, b.String(), width)
		if width == 80 {
			reporttest.Golden(t, "history.txt", b.String())
		}
	}
	var b bytes.Buffer
	if err := History(&b, Options{}, reporttest.HostileTrends(t, reporttest.Evil+"\x1b[2J\n")); err != nil ||
		strings.ContainsAny(b.String(), "\x1b") {
		t.Errorf("%v: %q", err, b.String())
	}
}
