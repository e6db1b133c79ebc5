package page

import (
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/stat"
)

// Time that may be 0 is not said to be left out.
func TestPathTextLeavesOutNoise(t *testing.T) {
	t.Parallel()
	p := recordtest.FullProfile()
	p.Rows = append(p.Rows[:1:1],
		record.ProfileRow{Name: "other", Ns: &stat.Quantity{Median: 3, Low: 2, High: 4, Unit: "ns"}},
		record.ProfileRow{Name: record.Unattributed, Ns: &stat.Quantity{Median: -0.35, Low: -1, High: 0.5, Unit: "ns"}})
	if got := pathText(p); !strings.HasSuffix(got, "Not the packet's, and left out: other 3.00 ns.") {
		t.Error(got)
	}
}
