package compare

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/stat"
)

// compared compares documents of bench.
func compared(t *testing.T, old, new *record.Document[record.BenchRow], opts Options) *record.Comparison {
	t.Helper()
	c, err := Records(record.NewSaved(old), record.NewSaved(new), opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func verdicts(c *record.Comparison) string {
	var out []string
	for _, r := range c.Rows {
		v, _, _ := strings.Cut(r.Verdict, " (")
		out = append(out, v)
	}
	return strings.Join(out, ", ")
}

func TestCompareRuns(t *testing.T) {
	old := recordtest.Ladder("a", 1, 1)
	for _, tt := range []struct {
		factor    float64
		run, want string
		regressed bool
	}{
		{2, "b", "slower, slower, slower", true},
		{0.5, "b", "faster, faster, faster", false},
		{1, "b", "cannot tell, cannot tell, cannot tell", false},
		{1, "a", "no difference seen, no difference seen, no difference seen", false},
		{1.05, "a", "slower, slower, slower", true},
		{1.015, "a", "slower, slower, slower", false}, // within the threshold
	} {
		c := compared(t, old, recordtest.Ladder(tt.run, 2, tt.factor), Options{Threshold: 2})
		if got := verdicts(c); got != tt.want || c.Regressed() != tt.regressed {
			t.Errorf("x%v, run %s: %s, regressed %v; want %s, %v", tt.factor, tt.run, got, c.Regressed(), tt.want, tt.regressed)
		}
		for _, r := range c.Rows {
			if r.Paired != (tt.run == "a") {
				t.Errorf("run %s: paired %v", tt.run, r.Paired)
			}
		}
	}
	// What is not seen by default is settled by a threshold that suits.
	c := compared(t, old, recordtest.Ladder("b", 2, 1), Options{Threshold: 10})
	if got := verdicts(c); got != "no difference seen, no difference seen, no difference seen" {
		t.Error(got)
	}
}

func TestCompareSelf(t *testing.T) {
	doc := recordtest.Ladder("a", 1, 1)
	c := compared(t, doc, doc, Options{Threshold: 2})
	for _, r := range c.Rows {
		if r.Difference.Median != 0 || r.Regression || len(c.Causes) != 0 {
			t.Errorf("%+v", r)
		}
	}
}

func TestCompareRows(t *testing.T) {
	old, new := recordtest.Ladder("a", 1, 1), recordtest.Ladder("b", 2, 1)
	old.Rows = old.Rows[:2]
	old.Rows[0] = record.BenchRow{Name: old.Rows[0].Name, Refused: "counts disagree"}
	new.Rows = new.Rows[1:]
	new.Rows[1].Refused, new.Rows[1].Ns = "link down", nil
	new.Incomplete = true
	old.Warnings = []record.Warning{{Row: "redirect-map/bulk=16", Text: "drifted"}}
	c := compared(t, old, new, Options{})
	var got []string
	for _, r := range c.Rows {
		got = append(got, r.Name+": "+r.Missing)
		if (r.Missing == "") != (r.Difference != nil) {
			t.Errorf("%+v", r)
		}
	}
	want := []string{
		"redirect-map/bulk=16: ",
		"redirect-map/bulk=64: only in new; new refused: link down",
		"redirect-map/bulk=1: only in old; old refused: counts disagree",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !slices.Contains(c.Warnings, record.Warning{Row: "redirect-map/bulk=16", Text: "old: drifted"}) ||
		!slices.Contains(c.Warnings, record.Warning{Text: "new: the run was stopped before its end"}) {
		t.Errorf("warnings %q", c.Warnings)
	}
}

// Rounds missing on one side are left out on the other.
func TestInBoth(t *testing.T) {
	a := &entry{samples: []float64{10, 11, 13}, rounds: []int{0, 1, 3}}
	b := &entry{samples: []float64{21, 22, 23, 24}, rounds: []int{1, 2, 3, 4}}
	as, bs := inBoth(a, b)
	if !slices.Equal(as, []float64{11, 13}) || !slices.Equal(bs, []float64{21, 23}) {
		t.Errorf("%v, %v", as, bs)
	}
}

func TestCompareBy(t *testing.T) {
	doc := recordtest.Ladder("a", 1, 1)
	for _, op := range []struct {
		name   string
		factor float64
	}{{"parse", 1.04}, {"read", 1}} {
		for _, r := range recordtest.Ladder("a", 3, op.factor).Rows {
			r.Name += "/operation=" + op.name
			r.Labels = maps.Clone(r.Labels)
			r.Labels["operation"] = op.name
			doc.Rows = append(doc.Rows, r)
		}
	}
	c, err := By(record.NewSaved(doc), "operation", Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := verdicts(c), "slower, slower, slower, no difference seen, no difference seen, no difference seen"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if r := c.Rows[0]; r.Name != "redirect-map/bulk=1/operation=parse" || r.Against != "redirect-map/bulk=1" || !r.Paired || !r.Regression {
		t.Errorf("%+v", r)
	}
	if _, err := By(record.NewSaved(doc), "place", Options{}); !errors.Is(err, ErrLabel) ||
		err.Error() != "compare by place: no two rows differ in it alone: the rows have bulk, operation, scenario" {
		t.Error(err)
	}
}

func TestCauses(t *testing.T) {
	old := host.Fingerprint{
		Kernel: "6.12", Governor: "performance", IndirectThunk: "retpoline", CPUs: 2, Microcode: "",
		Mitigations: map[string]string{"spectre-v2": "Retpolines"}, Drivers: map[string]string{"eth0": "ixgbe"},
	}
	new := old
	new.Kernel, new.Governor, new.IndirectThunk, new.Microcode = "6.18", "powersave", "ITS thunk", "0x1"
	new.Mitigations = map[string]string{"spectre-v2": "IBRS", "its": "on"}
	var names []string
	for _, cause := range causes(old, new) {
		names = append(names, cause.Name)
		if cause.Why == "" {
			t.Errorf("%s: no reason", cause.Name)
		}
	}
	if got, want := strings.Join(names, " "), "indirect-thunk kernel mitigations/spectre-v2 governor mitigations/its microcode"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// Every field has a reason, so that a new one is not forgotten.
	for _, f := range old.Fields() {
		family, _, _ := strings.Cut(f.Name, "/")
		known := false
		for _, p := range plausible() {
			known = known || p.name == family
		}
		if !known {
			t.Errorf("field %s has no place among the causes", f.Name)
		}
	}
}

func TestCommonShift(t *testing.T) {
	has := func(c *record.Comparison) bool {
		return slices.ContainsFunc(c.Warnings, func(w record.Warning) bool { return strings.Contains(w.Text, "moved together, by about +30 %") })
	}
	old, new := recordtest.Ladder("a", 1, 1), recordtest.Ladder("b", 2, 1.3)
	if !has(compared(t, old, new, Options{Threshold: 2})) {
		t.Error("no warning of a common shift")
	}
	new.Rows[1] = old.Rows[1]
	if has(compared(t, old, new, Options{Threshold: 2})) {
		t.Error("warning of a common shift that is not common")
	}
}

func TestComparisonJSON(t *testing.T) {
	b, err := json.Marshal(compared(t, recordtest.Ladder("a", 1, 1), recordtest.Ladder("b", 2, 2), Options{Threshold: 2}))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Schema, Kind string
		Host         *host.Fingerprint
		Rows         []struct {
			Name       string
			Old, New   stat.Quantity
			Difference struct {
				Median, Low, High, P, Smallest *float64
				Unit                           string
			}
			Verdict string
		}
		Warnings []record.Warning
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Schema != record.Schema || got.Kind != "compare" || got.Host == nil || len(got.Rows) != 3 || got.Warnings == nil {
		t.Errorf("%s", b)
	}
	if d := got.Rows[0].Difference; d.Median == nil || d.Smallest == nil || d.Unit != "percent" || got.Rows[0].Verdict != "slower" {
		t.Errorf("%s", b)
	}
}
