package compare

import (
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

// Rows are chosen by their labels, with the warnings that are theirs, and with the options that the first row has.
func TestSubset(t *testing.T) {
	t.Parallel()
	base := recordtest.GateLab("a")
	base.Rows[0].Build.Options = []string{"HZ=250"}
	tx := base.Rows[1]
	tx.Name, tx.Labels = "a/tx/bulk=16", map[string]string{"kernel": "a", "nic": "veth", "scenario": "tx", "bulk": "16"}
	base.Rows = append(base.Rows, tx)
	for _, name := range []string{"a", "a/bulk=1", "a/bulk=16"} {
		base.Warnings = append(base.Warnings, record.Warning{Row: name, Text: "something"})
	}
	for _, test := range []struct {
		named    map[string][]string
		rows     []string
		warnings int
	}{
		{nil, []string{"a/bulk=1", "a/bulk=16", "a/tx/bulk=16"}, 3},
		{map[string][]string{"bulk": {"16"}}, []string{"a/bulk=16", "a/tx/bulk=16"}, 2},
		{map[string][]string{"scenario": {"tx"}}, []string{"a/tx/bulk=16"}, 1},
		{map[string][]string{"scenario": {"redirect-map"}, "bulk": {"1", "16"}}, []string{"a/bulk=1", "a/bulk=16"}, 3},
	} {
		got, err := Subset(base, test.named)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, r := range got.Rows {
			names = append(names, r.Name)
		}
		if !slices.Equal(names, test.rows) || len(got.Warnings) != test.warnings || !slices.Equal(got.Rows[0].Build.Options, []string{"HZ=250"}) {
			t.Errorf("%v: rows %v, %d warnings, options %v", test.named, names, len(got.Warnings), got.Rows[0].Build.Options)
		}
		g, err := Gate(got, base, GateOptions{})
		if err != nil || g.Verdict != record.GateWithin || len(g.Rows) != len(test.rows) {
			t.Errorf("%v: %+v, %v", test.named, g, err)
		}
	}
	if len(base.Rows) != 3 || base.Rows[2].Build.Options != nil {
		t.Error("the base was changed")
	}
	for want, named := range map[string]map[string][]string{
		"no row of bulk 8: it has 1, 16":            {"bulk": {"16", "8"}},
		"no row of scenario drop: it has redirect-": {"scenario": {"drop"}},
		"no row of all that is named together":      {"scenario": {"tx"}, "bulk": {"1"}},
	} {
		if _, err := Subset(base, named); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
