package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestProfileComparisonGolden(t *testing.T) {
	t.Parallel()
	old, new := reporttest.Stages("a", 1, 120), reporttest.Stages("b", 2, 150)
	old.Rows[2].Name = "sink" // only there
	old.Warnings = []record.Warning{{Row: "locks", Text: "few samples"}}
	new.Sampling.Event = "cycles:pp"
	new.Host.Kernel = "6.18"
	for name, tt := range map[string]struct {
		old, new *record.Profile
		opts     compare.Options
		width    int
	}{
		"compare-profile.txt":    {old, new, compare.Options{Threshold: 2}, 80},
		"compare-profile-60.txt": {old, new, compare.Options{Threshold: 2}, 60},
		"compare-profile-same.txt": {reporttest.Stages("a", 1, 120), reporttest.Stages("b", 2, 120),
			compare.Options{Threshold: 5}, 0},
	} {
		c := compare.Profiles(tt.old, tt.new, tt.opts)
		c.Old.File, c.New.File = "old.json", "new.json"
		var b bytes.Buffer
		if err := ProfileComparison(&b, Options{Width: tt.width}, c); err != nil {
			t.Fatal(err)
		}
		width := tt.width
		if width == 0 {
			width = 80
		}
		reporttest.Fits(t, b.String(), width)
		reporttest.Golden(t, name, b.String())
	}
}

func TestProfileComparisonColor(t *testing.T) {
	t.Parallel()
	for _, width := range []int{80, 40} {
		c := compare.Profiles(reporttest.Stages("a", 1, 120), reporttest.Stages("b", 2, 150),
			compare.Options{Threshold: 2})
		var b bytes.Buffer
		if err := ProfileComparison(&b, Options{Color: true, Width: width}, c); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(b.String(), red+"slower"); got != 2 {
			t.Errorf("%d red verdicts, want those of packet and transmit:\n%s", got, b.String())
		}
	}
}

// Names and warnings come from files.
func TestProfileComparisonHostile(t *testing.T) {
	t.Parallel()
	evil := "\x1b[2J\x07\nslower"
	doc := reporttest.Stages("a", 1, 120)
	doc.Warnings = []record.Warning{{Text: evil}}
	doc.Sampling.Event = evil
	doc.Rows[0].Name, doc.Rows[1].Name = evil, strings.Repeat("ä", 300)
	c := compare.Profiles(doc, reporttest.Stages("b", 2, 150), compare.Options{Threshold: 2})
	c.Rows = append(c.Rows, record.ProfileChange{Name: evil, Change: record.Change{Missing: evil}})
	var b bytes.Buffer
	if err := ProfileComparison(&b, Options{}, c); err != nil {
		t.Fatal(err)
	}
	reporttest.Fits(t, b.String(), 80)
	if err := ProfileComparison(reporttest.Broken{}, Options{}, c); err == nil ||
		!strings.Contains(err.Error(), "write report: pipe is gone") {
		t.Error(err)
	}
}
