package compare

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

// taxOf is a record of tax.
func taxOf(run string, rows []record.TaxRow) *record.Saved {
	doc := record.New[record.TaxRow]("tax", host.Fingerprint{})
	doc.Run, doc.Rows = run, rows
	return record.NewSaved(doc)
}

func TestCompareTax(t *testing.T) {
	const zero = "no price to compare with: the old one is 0 within its interval"
	old := recordtest.TaxDocument("a", 1, 1)
	for _, tt := range []struct {
		factor, threshold float64
		run, want         string
		regressed         bool
	}{
		{1.5, 2, "b", "slower, slower", true},
		{1.5, 80, "b", "slower, slower", false},
		{0.5, 2, "b", "faster, faster", false},
		{1, 0.5, "b", "cannot tell, cannot tell", false},
		{1, 20, "b", "no difference seen, no difference seen", false},
		{1.2, 2, "a", "slower, slower", true},
		{1, 10, "a", "no difference seen, no difference seen", false},
	} {
		c, err := Records(record.NewSaved(old), record.NewSaved(recordtest.TaxDocument(tt.run, 2, tt.factor)), Options{Threshold: tt.threshold})
		if err != nil {
			t.Fatal(err)
		}
		if c.Rows[0].Missing != "a control: its price is 0 in both" || c.Rows[0].Difference != nil || c.Rows[0].Verdict != "" {
			t.Errorf("control: %+v", c.Rows[0])
		}
		control := c.Rows[0]
		c.Rows = c.Rows[1:]
		if got := verdicts(c); got != tt.want || c.Regressed() != tt.regressed || control.Regression {
			t.Errorf("x%v, run %s: %s, regressed %v; want %s, %v", tt.factor, tt.run, got, c.Regressed(), tt.want, tt.regressed)
		}
		for _, r := range c.Rows {
			if !r.Price || r.Paired != (tt.run == "a") || r.Difference.Low > 100*(tt.factor-1) || r.Difference.High < 100*(tt.factor-1) {
				t.Errorf("x%v, run %s: %+v", tt.factor, tt.run, r)
			}
		}
		if r := c.Rows[1]; r.Old.Unit != "ns" || math.Abs(r.Old.Median-10) > 0.5 || math.Abs(r.New.Median-10*tt.factor) > 0.5 {
			t.Errorf("prices %+v, %+v", r.Old, r.New)
		}
		if drift := slices.Contains(c.Warnings, record.Warning{Text: "two runs at different times: their drift is counted " +
			"as uncertainty; longer runs see smaller differences"}); drift != strings.Contains(tt.want, "cannot") {
			t.Errorf("x%v, run %s: warnings %q", tt.factor, tt.run, c.Warnings)
		}
		for _, w := range c.Warnings {
			if strings.Contains(w.Text, "moved together") || strings.Contains(w.Text, "--by") {
				t.Errorf("warning %q is of bench", w.Text)
			}
		}
	}

	r := rand.New(rand.NewPCG(9, 9))
	refused := record.TaxRow{Name: "a", Refused: "not seen"}
	estimate := record.TaxRow{Name: "packet/redirect-map", With: recordtest.Quantity(300, 290, 310, "ns"),
		Without: recordtest.Quantity(280, 270, 290, "ns"), Price: recordtest.Quantity(20, 18, 22, "ns")}
	few := recordtest.PriceRow(r, "a", 2, 0.1)
	few.Price = recordtest.Quantity(2, math.NaN(), math.NaN(), "ns")
	few.Samples, few.Rounds = few.Samples[:4], few.Rounds[:4]
	for name, tt := range map[string]struct {
		old, new []record.TaxRow
		want     string
	}{
		"zero":    {[]record.TaxRow{recordtest.PriceRow(r, "a", 0, 0.5)}, []record.TaxRow{recordtest.PriceRow(r, "a", 2, 0.1)}, zero},
		"to zero": {[]record.TaxRow{recordtest.PriceRow(r, "a", 2, 0.1)}, []record.TaxRow{recordtest.PriceRow(r, "a", 0, 0.5)}, ""},
		"below": {[]record.TaxRow{recordtest.PriceRow(r, "a", -2, 0.1)},
			[]record.TaxRow{recordtest.PriceRow(r, "a", 2, 0.1)}, "no price to compare with: the old one is not above 0"},
		"few":      {[]record.TaxRow{few}, []record.TaxRow{recordtest.PriceRow(r, "a", 2, 0.1)}, ""},
		"refused":  {[]record.TaxRow{recordtest.PriceRow(r, "a", 2, 0.1)}, []record.TaxRow{refused}, "new refused: not seen"},
		"new":      {nil, []record.TaxRow{recordtest.PriceRow(r, "control", 0, 0.1)}, "only in new"},
		"gone":     {[]record.TaxRow{refused}, nil, "only in old; old refused: not seen"},
		"estimate": {[]record.TaxRow{estimate}, []record.TaxRow{estimate}, "an estimate without rounds: compare the prices it is made of"},
		"its rounds": {[]record.TaxRow{recordtest.PriceRow(r, "packet/tx", 20, 1)},
			[]record.TaxRow{recordtest.PriceRow(r, "packet/tx", 20, 1)}, ""},
		"own control": {[]record.TaxRow{recordtest.PriceRow(r, "control/tail", 0, 1)},
			[]record.TaxRow{recordtest.PriceRow(r, "control/tail", 20, 1)}, "a control: its price is 0 in both"},
	} {
		for _, run := range []string{"a", "b"} {
			c, err := Records(taxOf("a", tt.old), taxOf(run, tt.new), Options{Threshold: 2})
			if err != nil {
				t.Fatal(err)
			}
			if row := c.Rows[0]; row.Missing != tt.want || (row.Difference == nil) != (tt.want != "") || !row.Price {
				t.Errorf("%s: %+v, want %q", name, row, tt.want)
			}
			if _, err := json.Marshal(c); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestCompareKinds(t *testing.T) {
	bench, tax, run := record.NewSaved(recordtest.Ladder("a", 1, 1)),
		record.NewSaved(recordtest.TaxDocument("b", 2, 1)), record.NewSaved(recordtest.RunDocument("c", 3, 1))
	unpriced := recordtest.RunDocument("d", 4, 1)
	unpriced.Prices = nil
	bare := record.NewSaved(unpriced)
	stopped := taxOf("e", nil)
	stopped.Incomplete = true
	for _, r := range []*record.Saved{bench, tax, run} {
		r.Warnings = []record.Warning{{Row: "map-lookup/hash", Text: "priced " + r.Kind},
			{Row: "redirect-map/bulk=16", Text: "measured " + r.Kind}, {Text: "all of " + r.Kind}}
	}
	const rows, prices = "redirect-map/bulk=1, redirect-map/bulk=16, redirect-map/bulk=64", "control, map-lookup/hash, ndo-xdp-xmit/bulk=16"
	for _, tt := range []struct {
		old, new *record.Saved
		want     string // the rows, or the error
		warns    string
	}{
		{bench, bench, rows, "priced bench, measured bench, all of bench"},
		{tax, tax, prices, "priced tax, measured tax, all of tax"},
		{run, run, rows + ", " + prices, "priced run, measured run, all of run"},
		{bare, run, rows, "measured run, all of run"},
		{run, bench, rows, "measured run, all of run, priced bench, measured bench, all of bench"},
		{run, tax, prices, "priced run, all of run, priced tax, measured tax, all of tax"},
		{tax, stopped, prices, "priced tax, measured tax, all of tax, the run was stopped before its end"},
		{bench, tax, "records of these kinds are not compared: old is of bench, new of tax, and they share no rows", ""},
		{tax, bench, "records of these kinds are not compared: old is of tax, new of bench, and they share no rows", ""},
		{bare, tax, "records of these kinds are not compared: old is of run, new of tax, and they share no rows", ""},
	} {
		c, err := Records(tt.old, tt.new, Options{Threshold: 2})
		if err != nil {
			if !errors.Is(err, ErrKind) || err.Error() != tt.want {
				t.Errorf("%s, %s: %v, want %s", tt.old.Kind, tt.new.Kind, err, tt.want)
			}
			continue
		}
		var names, warns []string
		for _, r := range c.Rows {
			names = append(names, r.Name)
			if r.Price != !strings.HasPrefix(r.Name, "redirect-map") {
				t.Errorf("%+v", r)
			}
		}
		for _, w := range c.Warnings {
			text := strings.TrimPrefix(strings.TrimPrefix(w.Text, "old: "), "new: ")
			if !strings.HasPrefix(text, "two runs at") && !strings.HasPrefix(text, "the runs were asked") &&
				!strings.HasPrefix(text, "the machine's speed is unknown") {
				warns = append(warns, text)
			}
		}
		if got := strings.Join(names, ", "); got != tt.want {
			t.Errorf("%s, %s: %s, want %s", tt.old.Kind, tt.new.Kind, got, tt.want)
		}
		if got := strings.Join(warns, ", "); got != tt.warns {
			t.Errorf("%s, %s: warnings %s, want %s", tt.old.Kind, tt.new.Kind, got, tt.warns)
		}
	}
}

// A shift that all rows of bench share is said with prices beside them, whose
// own does not count.
func TestCommonShiftOfRun(t *testing.T) {
	old, new := record.NewSaved(recordtest.RunDocument("a", 1, 1)), record.NewSaved(recordtest.RunDocument("b", 2, 1.3))
	new.Bench().Prices = recordtest.TaxDocument("b", 2, 4).Rows
	c, err := Records(old, new, Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(c.Warnings, func(w record.Warning) bool {
		return strings.HasPrefix(w.Text, "all 3 rows moved together, by about +30 %")
	}) {
		t.Errorf("warnings %q", c.Warnings)
	}
}

// Prices of a run that have too few rounds say so, and leave the other rows their intervals.
func TestPricesSetAside(t *testing.T) {
	shorter := func(run string, seed uint64) *record.Saved {
		doc := recordtest.RunDocument(run, seed, 1)
		for i := range doc.Prices {
			row := &doc.Prices[i]
			row.Rounds, row.Samples = row.Rounds[:5], row.Samples[:5]
		}
		return record.NewSaved(doc)
	}
	c, err := Records(shorter("a", 1), shorter("b", 2), Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range c.Rows {
		switch {
		case !row.Price && (row.Difference == nil || math.IsNaN(row.Difference.Low)):
			t.Errorf("%s has no interval", row.Name)
		case row.Price && (row.Difference != nil || row.Name != "control" && row.Missing != "too few rounds: 5"):
			t.Errorf("%s: %+v, %q", row.Name, row.Difference, row.Missing)
		}
	}
	if !slices.ContainsFunc(c.Warnings, func(w record.Warning) bool {
		return strings.HasPrefix(w.Text, "prices are not compared: 5 rounds, and 5 rows need ")
	}) {
		t.Errorf("warnings %q", c.Warnings)
	}
}

func TestCompareByPrices(t *testing.T) {
	_, err := By(record.NewSaved(recordtest.TaxDocument("a", 1, 1)), "pair", Options{})
	if !errors.Is(err, ErrKind) || err.Error() != "compare by pair: records of these kinds are not compared: each row of "+
		"tax is the price of another call" {
		t.Error(err)
	}
	// Those of a run are left out.
	_, err = By(record.NewSaved(recordtest.RunDocument("a", 1, 1)), "pair", Options{})
	if !errors.Is(err, ErrLabel) || !strings.HasSuffix(err.Error(), "the rows have bulk, operation, scenario") {
		t.Error(err)
	}
	c, err := By(record.NewSaved(recordtest.RunDocument("a", 1, 1)), "bulk", Options{})
	if err != nil || len(c.Rows) != 2 || c.Rows[0].Price {
		t.Errorf("%+v, %v", c, err)
	}
}
