package report

import (
	"bytes"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func TestSiteComparisonGolden(t *testing.T) {
	t.Parallel()
	old, new := reporttest.Xray(), reporttest.Xray()
	new.Rows[2].Kind, new.Rows[2].Thunk = "register", ""
	new.Rows = append(new.Rows[:4], new.Rows[5:]...)
	old.Rows = old.Rows[1:]
	c := compare.Sites(old, new)
	c.Old.File, c.New.File = "old.json", "new.json"
	var b bytes.Buffer
	if err := SiteComparison(&b, Options{Width: 80}, c); err != nil {
		t.Fatal(err)
	}
	reporttest.Fits(t, b.String(), 80)
	reporttest.Golden(t, "compare-xray.txt", b.String())
}
