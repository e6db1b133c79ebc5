package result

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/stat"
)

// priceRow is the row of a call whose rounds cost price ns, give or take sd.
func priceRow(r *rand.Rand, name string, price, sd float64) TaxRow {
	row := TaxRow{
		Name: name, Labels: map[string]string{"pair": strings.Split(name, "/")[0]}, Calls: "array_map_lookup_elem",
		Premise: "with: call through a thunk; without: no call", Samples: []float64{}, Rounds: []int{},
	}
	var with, without []float64
	for i := range 20 {
		without = append(without, 8+sd*r.NormFloat64())
		with = append(with, without[i]+price+sd*r.NormFloat64())
		row.Samples, row.Rounds = append(row.Samples, with[i]-without[i]), append(row.Rounds, i)
	}
	w, o, p := stat.Summarize(with, "ns"), stat.Summarize(without, "ns"), stat.Shift(with, without, "ns")
	row.With, row.Without, row.Price = &w, &o, &p
	return row
}

// quantityOf is a known number.
func quantityOf(median, low, high float64, unit string) *stat.Quantity {
	return &stat.Quantity{Median: median, Low: low, High: high, N: 20, Unit: unit}
}

// taxDocument prices calls at factor times their prices.
func taxDocument(run string, seed uint64, factor float64) *Document[TaxRow] {
	r := rand.New(rand.NewPCG(seed, 0))
	doc := &Document[TaxRow]{
		Schema: Schema, Kind: "tax", Run: run, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Host: host.Fingerprint{Kernel: "6.12"}, Warnings: []Warning{},
	}
	doc.Rows = append(doc.Rows,
		priceRow(r, "control", 0, 0.05),
		priceRow(r, "map-lookup/hash", 2*factor, 0.05),
		priceRow(r, "ndo-xdp-xmit/bulk=16", 10*factor, 0.1),
	)
	full := &doc.Rows[1]
	full.Cycles, full.PerPacket = quantityOf(6, 5.5, 6.5, "cycles"), quantityOf(1, 1, 1, "calls")
	full.NsPerPacket, full.Note = quantityOf(2, 1.9, 2.1, "ns"), "one bounds check is in it"
	return doc
}

func runDocument(run string, seed uint64, factor float64) *Document[BenchRow] {
	doc := ladder(run, seed, factor)
	doc.Kind, doc.Prices = "run", taxDocument(run, seed, factor).Rows
	return doc
}

func marshal(t testing.TB, doc any) string {
	t.Helper()
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func validTax(t testing.TB) string { return marshal(t, taxDocument("run", 1, 1)) }
func validRun(t testing.TB) string { return marshal(t, runDocument("run", 1, 1)) }

func TestSaveLoadTax(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.json")
	doc := taxDocument("run", 1, 1)
	doc.Rows = append(doc.Rows,
		TaxRow{Name: "napi-poll", Refused: "both sides hold the same call", Samples: []float64{}, Rounds: []int{}},
		TaxRow{
			Name: "packet/redirect-map", Samples: []float64{}, Rounds: []int{}, PerPacket: quantityOf(4, 4, 4, "calls"),
			With: quantityOf(300, 290, 310, "ns"), Without: quantityOf(5, -5, 15, "ns"), Price: quantityOf(295, 290, 300, "ns"),
		})
	if err := Save(path, doc); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Prices, doc.Rows) || len(got.Rows) != 0 || got.Kind != "tax" || got.Run != doc.Run || !got.Time.Equal(doc.Time) {
		t.Errorf("got %+v\nwant %+v", got, doc)
	}
	run := runDocument("run", 1, 1)
	if err := Save(path, run); err != nil {
		t.Fatal(err)
	}
	if got, err = Load(path); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Prices, run.Prices) || !reflect.DeepEqual(got.Rows, run.Rows) {
		t.Errorf("got %+v\nwant %+v", got, run)
	}
	run.Prices = nil // as before there were prices
	if got, err := parse([]byte(marshal(t, run))); err != nil || len(got.Rows) != 3 || got.Prices != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if s := marshal(t, run); strings.Contains(s, "prices") {
		t.Errorf("a record without prices names them: %s", s)
	}
}

func TestLoadTaxRefuses(t *testing.T) {
	nan := math.NaN()
	for name, tt := range map[string]struct {
		edit func(r *TaxRow) // of map-lookup/hash
		want string          // empty: is accepted
	}{
		"as it is":        {func(r *TaxRow) {}, ""},
		"negative price":  {func(r *TaxRow) { r.Samples[0] = -3; r.Price = quantityOf(-1, -2, 0.5, "ns") }, ""},
		"few rounds":      {func(r *TaxRow) { r.Price = quantityOf(2, nan, nan, "ns") }, ""},
		"unicode":         {func(r *TaxRow) { r.Note = strings.Repeat("é", 1000) }, ""},
		"calls unknown":   {func(r *TaxRow) { r.PerPacket, r.NsPerPacket, r.Cycles = nil, nil, nil }, ""},
		"no name":         {func(r *TaxRow) { r.Name = "" }, "impossible name"},
		"name":            {func(r *TaxRow) { r.Name = "a\x1b[2J" }, "impossible name"},
		"twice":           {func(r *TaxRow) { r.Name = "control" }, "row control: occurs twice"},
		"label":           {func(r *TaxRow) { r.Labels = map[string]string{"pair": "\a"} }, "impossible label"},
		"calls":           {func(r *TaxRow) { r.Calls = "a\nb" }, "impossible calls"},
		"premise":         {func(r *TaxRow) { r.Premise = "\x1b[2J" }, "impossible premise"},
		"note":            {func(r *TaxRow) { r.Note = strings.Repeat("x", 1001) }, "impossible note"},
		"lengths":         {func(r *TaxRow) { r.Samples = r.Samples[1:] }, "19 samples but 20 rounds"},
		"order":           {func(r *TaxRow) { r.Rounds[1] = 0 }, "round 0 is out of order"},
		"huge":            {func(r *TaxRow) { r.Samples[3] = -2e9 }, "impossible sample of -2e+09 ns"},
		"no samples":      {func(r *TaxRow) { r.Samples, r.Rounds = nil, nil }, "a number without samples"},
		"no price":        {func(r *TaxRow) { r.Price = nil }, "neither a number nor a reason"},
		"no side":         {func(r *TaxRow) { r.With = nil }, "neither a number nor a reason"},
		"unknown price":   {func(r *TaxRow) { r.Price.Median = nan }, "neither a number nor a reason"},
		"unknown side":    {func(r *TaxRow) { r.Without.Median = nan }, "neither a number nor a reason"},
		"both":            {func(r *TaxRow) { r.Refused = "no" }, "a number and a reason"},
		"one and reason":  {func(r *TaxRow) { r.Refused, r.With, r.Price = "no", nil, nil }, "a number and a reason"},
		"cycles alone":    {func(r *TaxRow) { r.Refused, r.With, r.Without, r.Price, r.NsPerPacket = "no", nil, nil, nil, nil }, "of no price"},
		"negative side":   {func(r *TaxRow) { r.Without = quantityOf(-1, -2, 0, "ns") }, "without is impossible"},
		"side too slow":   {func(r *TaxRow) { r.With = quantityOf(2e9, 2e9, 2e9, "ns") }, "with is impossible"},
		"price's unit":    {func(r *TaxRow) { r.Price.Unit = "us" }, `price is in "us", not in ns`},
		"cycles' unit":    {func(r *TaxRow) { r.Cycles.Unit = "ns" }, `cycles is in "ns", not in cycles`},
		"calls' unit":     {func(r *TaxRow) { r.PerPacket.Unit = "ns" }, `per-packet is in "ns", not in calls`},
		"negative calls":  {func(r *TaxRow) { r.PerPacket = quantityOf(-1, -1, -1, "calls") }, "per-packet is impossible"},
		"packet's unit":   {func(r *TaxRow) { r.NsPerPacket.Unit = "cycles" }, `ns-per-packet is in "cycles", not in ns`},
		"outside":         {func(r *TaxRow) { r.Price = quantityOf(5, 1, 2, "ns") }, "price lies outside its interval"},
		"cycles outside":  {func(r *TaxRow) { r.Cycles = quantityOf(5, 6, 7, "cycles") }, "cycles lies outside its interval"},
		"negative rounds": {func(r *TaxRow) { r.Price.N = -1 }, "price lies outside its interval"},
	} {
		doc, run := taxDocument("run", 1, 1), runDocument("run", 1, 1)
		tt.edit(&doc.Rows[1])
		tt.edit(&run.Prices[1])
		for _, d := range []any{doc, run} {
			_, err := parse([]byte(marshal(t, d)))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("%s: %v, want %q", name, err, tt.want)
			}
		}
	}
	good := validTax(t)
	first := good[strings.Index(good, `"samples":[`)+len(`"samples":[`):]
	first = first[:strings.Index(first, ",")]
	for name, tt := range map[string]struct{ text, want string }{
		"null sample": {strings.Replace(good, first, "null", 1), "row control: impossible sample of NaN ns"},
		"overflow":    {strings.Replace(good, first, "1e999", 1), "not a record of tax: "},
		"type":        {strings.Replace(good, first, `"a"`, 1), "not a record of tax: "},
		"prices":      {strings.Replace(good, `"warnings"`, `"prices":[{"name":"a","refused":"b"}],"warnings"`, 1), "not a record of tax: it has prices or stages beside its rows"},
		"bench rows":  {strings.Replace(valid(t), `"kind":"bench"`, `"kind":"tax"`, 1), "neither a number"},
		"tax rows":    {strings.Replace(good, `"kind":"tax"`, `"kind":"run"`, 1), "impossible sample"},
		"two lists":   {strings.Replace(validRun(t), `"name":"control"`, `"name":"redirect-map/bulk=16"`, 1), "row redirect-map/bulk=16: occurs twice"},
	} {
		if _, err := parse([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// Records of bench of the first version are read and written as they were.
func TestBenchUnchanged(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "bench-1.json"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.MarshalIndent(documentOf(r), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if string(again)+"\n" != string(b) {
		t.Errorf("became %s", again)
	}
}

func TestCompareTax(t *testing.T) {
	const zero = "no price to compare with: the old one is 0 within its interval"
	old := taxDocument("a", 1, 1)
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
		c, err := Compare(NewRecord(old), NewRecord(taxDocument(tt.run, 2, tt.factor)), CompareOptions{Threshold: tt.threshold})
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
		if drift := slices.Contains(c.Warnings, Warning{Text: "two runs at different times: their drift is counted as uncertainty; longer runs see smaller differences"}); drift != strings.Contains(tt.want, "cannot") {
			t.Errorf("x%v, run %s: warnings %q", tt.factor, tt.run, c.Warnings)
		}
		for _, w := range c.Warnings {
			if strings.Contains(w.Text, "moved together") || strings.Contains(w.Text, "--by") {
				t.Errorf("warning %q is of bench", w.Text)
			}
		}
	}

	r := rand.New(rand.NewPCG(9, 9))
	refused := TaxRow{Name: "a", Refused: "not seen"}
	estimate := TaxRow{Name: "packet/redirect-map", With: quantityOf(300, 290, 310, "ns"), Without: quantityOf(280, 270, 290, "ns"), Price: quantityOf(20, 18, 22, "ns")}
	few := priceRow(r, "a", 2, 0.1)
	few.Price = quantityOf(2, math.NaN(), math.NaN(), "ns")
	few.Samples, few.Rounds = few.Samples[:4], few.Rounds[:4]
	for name, tt := range map[string]struct {
		old, new []TaxRow
		want     string
	}{
		"zero":        {[]TaxRow{priceRow(r, "a", 0, 0.5)}, []TaxRow{priceRow(r, "a", 2, 0.1)}, zero},
		"to zero":     {[]TaxRow{priceRow(r, "a", 2, 0.1)}, []TaxRow{priceRow(r, "a", 0, 0.5)}, ""},
		"below":       {[]TaxRow{priceRow(r, "a", -2, 0.1)}, []TaxRow{priceRow(r, "a", 2, 0.1)}, "no price to compare with: the old one is not above 0"},
		"few":         {[]TaxRow{few}, []TaxRow{priceRow(r, "a", 2, 0.1)}, ""},
		"refused":     {[]TaxRow{priceRow(r, "a", 2, 0.1)}, []TaxRow{refused}, "new refused: not seen"},
		"new":         {nil, []TaxRow{priceRow(r, "control", 0, 0.1)}, "only in new"},
		"gone":        {[]TaxRow{refused}, nil, "only in old; old refused: not seen"},
		"estimate":    {[]TaxRow{estimate}, []TaxRow{estimate}, "an estimate without rounds: compare the prices it is made of"},
		"its rounds":  {[]TaxRow{priceRow(r, "packet/tx", 20, 1)}, []TaxRow{priceRow(r, "packet/tx", 20, 1)}, ""},
		"own control": {[]TaxRow{priceRow(r, "control/tail", 0, 1)}, []TaxRow{priceRow(r, "control/tail", 20, 1)}, "a control: its price is 0 in both"},
	} {
		for _, run := range []string{"a", "b"} {
			c, err := Compare(&Record{Kind: "tax", Run: "a", Prices: tt.old}, &Record{Kind: "tax", Run: run, Prices: tt.new}, CompareOptions{Threshold: 2})
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
	bench, tax, run := NewRecord(ladder("a", 1, 1)), NewRecord(taxDocument("b", 2, 1)), NewRecord(runDocument("c", 3, 1))
	bare := NewRecord(runDocument("d", 4, 1))
	bare.Prices = nil
	stopped := &Record{Kind: "tax", Run: "e", Incomplete: true}
	for _, r := range []*Record{bench, tax, run} {
		r.Warnings = []Warning{{Row: "map-lookup/hash", Text: "priced " + r.Kind}, {Row: "redirect-map/bulk=16", Text: "measured " + r.Kind}, {Text: "all of " + r.Kind}}
	}
	const rows, prices = "redirect-map/bulk=1, redirect-map/bulk=16, redirect-map/bulk=64", "control, map-lookup/hash, ndo-xdp-xmit/bulk=16"
	for _, tt := range []struct {
		old, new *Record
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
		c, err := Compare(tt.old, tt.new, CompareOptions{Threshold: 2})
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
			if !strings.HasPrefix(text, "two runs at") && !strings.HasPrefix(text, "the runs were asked") {
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
	old, new := NewRecord(runDocument("a", 1, 1)), NewRecord(runDocument("b", 2, 1.3))
	new.Prices = taxDocument("b", 2, 4).Rows
	c, err := Compare(old, new, CompareOptions{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(c.Warnings, func(w Warning) bool { return strings.HasPrefix(w.Text, "all 3 rows moved together, by about +30 %") }) {
		t.Errorf("warnings %q", c.Warnings)
	}
}

func TestCompareByPrices(t *testing.T) {
	_, err := CompareBy(NewRecord(taxDocument("a", 1, 1)), "pair", CompareOptions{})
	if !errors.Is(err, ErrKind) || err.Error() != "compare by pair: records of these kinds are not compared: each row of tax is the price of another call" {
		t.Error(err)
	}
	// Those of a run are left out.
	_, err = CompareBy(NewRecord(runDocument("a", 1, 1)), "pair", CompareOptions{})
	if !errors.Is(err, ErrLabel) || !strings.HasSuffix(err.Error(), "the rows have bulk, operation, scenario") {
		t.Error(err)
	}
	c, err := CompareBy(NewRecord(runDocument("a", 1, 1)), "bulk", CompareOptions{})
	if err != nil || len(c.Rows) != 2 || c.Rows[0].Price {
		t.Errorf("%+v, %v", c, err)
	}
}
