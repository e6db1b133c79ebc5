package compare

import (
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

func TestCompareSites(t *testing.T) {
	old := recordtest.Sites(recordtest.Site("bq_xmit_all", "ndo_xdp_xmit", "thunk", "bulk"),
		recordtest.Site("a", "gone", "thunk", "poll"), recordtest.Site("b", "same", "thunk", "poll"))
	new := recordtest.Sites(recordtest.Site("b", "same", "thunk", "poll"),
		recordtest.Site("bq_xmit_all", "ndo_xdp_xmit", "register", "packet"), recordtest.Site("c", "unknown", "memory", "poll"))
	new.Rows[0].Offset = 64 // moves with every build
	c := Sites(old, new)
	var got []string
	for _, row := range c.Rows {
		got = append(got, row.Change+" "+row.Name+" "+strings.Join(row.What, ", "))
	}
	want := "new c/unknown |changed bq_xmit_all/ndo_xdp_xmit kind: thunk → register, per: bulk → packet|gone a/gone "
	if strings.Join(got, "|") != want || c.Same != 1 {
		t.Errorf("%d same, %q", c.Same, got)
	}
	if c = Sites(old, old); len(c.Rows) > 0 || c.Same != 3 || len(c.Warnings) > 0 {
		t.Errorf("with itself: %+v", c)
	}
	new.Settings["path"] = "eth0"
	if c = Sites(old, new); len(c.Warnings) != 1 {
		t.Errorf("%v", c.Warnings)
	}
}

func TestSiteDiffersInCheck(t *testing.T) {
	old, now := record.SiteRow{Kind: "thunk", Per: "packet"}, record.SiteRow{Kind: "thunk", Per: "packet", Check: "kcfi"}
	if got := siteDiffers(&old, &now); len(got) != 1 || !strings.Contains(got[0], "check") || !strings.Contains(got[0], "kcfi") {
		t.Errorf("%q", got)
	}
	if got := siteDiffers(&now, &now); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
