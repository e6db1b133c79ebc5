package record_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

func TestSaveLoadTax(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.json")
	doc := recordtest.TaxDocument("run", 1, 1)
	doc.Rows = append(doc.Rows,
		record.TaxRow{Name: "napi-poll", Refused: "both sides hold the same call", Samples: []float64{}, Rounds: []int{}},
		record.TaxRow{
			Name: "packet/redirect-map", Samples: []float64{}, Rounds: []int{}, PerPacket: recordtest.Quantity(4, 4, 4, "calls"),
			With: recordtest.Quantity(300, 290, 310, "ns"), Without: recordtest.Quantity(5, -5, 15, "ns"),
			Price: recordtest.Quantity(295, 290, 300, "ns"),
		})
	if err := record.Save(path, doc); err != nil {
		t.Fatal(err)
	}
	got, err := record.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Prices(), doc.Rows) || got.Bench() != nil || got.Kind != "tax" || got.Run != doc.Run ||
		!got.Time.Equal(doc.Time) {
		t.Errorf("got %+v\nwant %+v", got, doc)
	}
	run := recordtest.RunDocument("run", 1, 1)
	if err := record.Save(path, run); err != nil {
		t.Fatal(err)
	}
	if got, err = record.Load(path); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Prices(), run.Prices) || !reflect.DeepEqual(got.Bench().Rows, run.Rows) {
		t.Errorf("got %+v\nwant %+v", got, run)
	}
	run.Prices = nil // as before there were prices
	if got, err := record.Parse([]byte(recordtest.Marshal(t, run))); err != nil || len(got.Bench().Rows) != 3 || got.Prices() != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if s := recordtest.Marshal(t, run); strings.Contains(s, "prices") {
		t.Errorf("a record without prices names them: %s", s)
	}
}

func TestLoadTaxRefuses(t *testing.T) {
	nan := math.NaN()
	for name, tt := range map[string]struct {
		edit func(r *record.TaxRow) // of map-lookup/hash
		want string                 // empty: is accepted
	}{
		"as it is":       {func(r *record.TaxRow) {}, ""},
		"negative price": {func(r *record.TaxRow) { r.Samples[0] = -3; r.Price = recordtest.Quantity(-1, -2, 0.5, "ns") }, ""},
		"few rounds":     {func(r *record.TaxRow) { r.Price = recordtest.Quantity(2, nan, nan, "ns") }, ""},
		"unicode":        {func(r *record.TaxRow) { r.Note = strings.Repeat("é", 1000) }, ""},
		"calls unknown":  {func(r *record.TaxRow) { r.PerPacket, r.NsPerPacket, r.Cycles = nil, nil, nil }, ""},
		"no name":        {func(r *record.TaxRow) { r.Name = "" }, "impossible name"},
		"name":           {func(r *record.TaxRow) { r.Name = "a\x1b[2J" }, "impossible name"},
		"twice":          {func(r *record.TaxRow) { r.Name = "control" }, "row control: occurs twice"},
		"label":          {func(r *record.TaxRow) { r.Labels = map[string]string{"pair": "\a"} }, "impossible label"},
		"calls":          {func(r *record.TaxRow) { r.Target = "a\nb" }, "impossible calls"},
		"premise":        {func(r *record.TaxRow) { r.Premise = "\x1b[2J" }, "impossible premise"},
		"note":           {func(r *record.TaxRow) { r.Note = strings.Repeat("x", 1001) }, "impossible note"},
		"lengths":        {func(r *record.TaxRow) { r.Samples = r.Samples[1:] }, "19 samples but 20 rounds"},
		"order":          {func(r *record.TaxRow) { r.Rounds[1] = 0 }, "round 0 is out of order"},
		"huge":           {func(r *record.TaxRow) { r.Samples[3] = -2e12 }, "impossible sample of -2e+12 ns"},
		"no samples":     {func(r *record.TaxRow) { r.Samples, r.Rounds = nil, nil }, "a number without samples"},
		"no price":       {func(r *record.TaxRow) { r.Price = nil }, "neither a number nor a reason"},
		"no side":        {func(r *record.TaxRow) { r.With = nil }, "neither a number nor a reason"},
		"unknown price":  {func(r *record.TaxRow) { r.Price.Median = nan }, "neither a number nor a reason"},
		"unknown side":   {func(r *record.TaxRow) { r.Without.Median = nan }, "neither a number nor a reason"},
		"both":           {func(r *record.TaxRow) { r.Refused = "no" }, "a number and a reason"},
		"one and reason": {func(r *record.TaxRow) { r.Refused, r.With, r.Price = "no", nil, nil }, "a number and a reason"},
		"cycles alone": {func(r *record.TaxRow) {
			r.Refused, r.With, r.Without, r.Price, r.NsPerPacket = "no", nil, nil, nil, nil
		}, "of no price"},
		"negative side":   {func(r *record.TaxRow) { r.Without = recordtest.Quantity(-1, -2, 0, "ns") }, "without is impossible"},
		"side too slow":   {func(r *record.TaxRow) { r.With = recordtest.Quantity(2e12, 2e12, 2e12, "ns") }, "with is impossible"},
		"price's unit":    {func(r *record.TaxRow) { r.Price.Unit = "us" }, `price is in "us", not in ns`},
		"cycles' unit":    {func(r *record.TaxRow) { r.Cycles.Unit = "ns" }, `cycles is in "ns", not in cycles`},
		"calls' unit":     {func(r *record.TaxRow) { r.PerPacket.Unit = "ns" }, `per-packet is in "ns", not in calls`},
		"negative calls":  {func(r *record.TaxRow) { r.PerPacket = recordtest.Quantity(-1, -1, -1, "calls") }, "per-packet is impossible"},
		"packet's unit":   {func(r *record.TaxRow) { r.NsPerPacket.Unit = "cycles" }, `ns-per-packet is in "cycles", not in ns`},
		"outside":         {func(r *record.TaxRow) { r.Price = recordtest.Quantity(5, 1, 2, "ns") }, "price lies outside its interval"},
		"cycles outside":  {func(r *record.TaxRow) { r.Cycles = recordtest.Quantity(5, 6, 7, "cycles") }, "cycles lies outside its interval"},
		"negative rounds": {func(r *record.TaxRow) { r.Price.N = -1 }, "price lies outside its interval"},
	} {
		doc, run := recordtest.TaxDocument("run", 1, 1), recordtest.RunDocument("run", 1, 1)
		tt.edit(&doc.Rows[1])
		tt.edit(&run.Prices[1])
		for _, d := range []any{doc, run} {
			_, err := record.Parse([]byte(recordtest.Marshal(t, d)))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) ||
				strings.Contains(err.Error(), "\n")) {
				t.Errorf("%s: %v, want %q", name, err, tt.want)
			}
		}
	}
	good := recordtest.ValidTax(t)
	first := good[strings.Index(good, `"samples":[`)+len(`"samples":[`):]
	first = first[:strings.Index(first, ",")]
	for name, tt := range map[string]struct{ text, want string }{
		"null sample": {strings.Replace(good, first, "null", 1), "row control: impossible sample of NaN ns"},
		"overflow":    {strings.Replace(good, first, "1e999", 1), "not a record of tax: "},
		"type":        {strings.Replace(good, first, `"a"`, 1), "not a record of tax: "},
		"prices": {strings.Replace(good, `"warnings"`, `"prices":[{"name":"a","refused":"b"}],"warnings"`, 1),
			"not a record of tax: it has prices or stages beside its rows"},
		"bench rows": {strings.Replace(recordtest.ValidBench(t), `"kind":"bench"`, `"kind":"tax"`, 1), "neither a number"},
		"tax rows":   {strings.Replace(good, `"kind":"tax"`, `"kind":"run"`, 1), "impossible sample"},
		"two lists": {strings.Replace(recordtest.ValidRun(t), `"name":"control"`, `"name":"redirect-map/bulk=16"`, 1),
			"row redirect-map/bulk=16: occurs twice"},
	} {
		if _, err := record.Parse([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
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
	r, err := record.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.MarshalIndent(r.Doc, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if string(again)+"\n" != string(b) {
		t.Errorf("became %s", again)
	}
}
