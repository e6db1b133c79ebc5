package page

import (
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/stat"
)

// ofOneMachine are a run, a tax and a profile of one machine.
func ofOneMachine(t *testing.T) (run, tax, profile *record.Saved) {
	t.Helper()
	doc := reporttest.Bench("run", 1, 1)
	doc.Kind, doc.Prices = "run", reporttest.Calls("run", 1, 1).Rows
	for i := range doc.Prices { // fewer rounds than tax has
		q := *doc.Prices[i].Price
		q.N = 3
		doc.Prices[i].Price = &q
	}
	p := loadableProfile()
	parts := p.ProfileParts
	doc.Stages, doc.Profile = p.Rows, &parts
	doc.Settings = map[string]string{"profiled": "redirect-map/bulk=16"}
	calls := reporttest.Calls("tax", 1, 1)
	calls.Host, p.Host = doc.Host, doc.Host
	calls.Host.Drivers = map[string]string{"eth0": "virtio_net"} // that a run does not look for
	p.Sampling.Samples *= 2
	return savedAs(t, "run.json", doc), savedAs(t, "tax.json", calls), savedAs(t, "profile.json", p)
}

// What several records of one machine have is on the page once, of the better one, which
// is said; of two machines it is there twice.
func TestMerge(t *testing.T) {
	t.Parallel()
	run, tax, profile := ofOneMachine(t)
	text := checkHTML(t, pageOf(t, Source{Records: []*record.Saved{run, tax, profile}}))
	for _, want := range []string{
		"These are from tax.json (", "The same machine was measured for run.json (3 rounds) too.",
		"These are from profile.json (10000 samples). The same machine was measured for run.json (5000 samples) too.",
		"All records are of one machine.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	for what, want := range map[string]int{"one indirect call": 2, "The path of a packet of": 2, "Bulk ladder of": 2} {
		if n := strings.Count(text, what); n != want { // wide and narrow
			t.Errorf("%q: %d times, want %d", what, n, want)
		}
	}
	other := *tax
	other.Host.Kernel = "6.1.0"
	text = checkHTML(t, pageOf(t, Source{Records: []*record.Saved{run, &other}}))
	if n := strings.Count(text, "Prices of calls in"); n != 4 || strings.Contains(text, "These are from") {
		t.Errorf("prices of two machines: %d pictures", n)
	}
	if !strings.Contains(text, "What differs") || !strings.Contains(text, "6.1.0") {
		t.Error("it is not said what the machines differ in")
	}
	if i := strings.Index(text, "What differs"); strings.Contains(text[:i], "virtio_net") {
		t.Error("a field that one record lacks differs")
	}
}

// The answer of several records is of all of them.
func TestAnswerOfSeveral(t *testing.T) {
	t.Parallel()
	run, tax, profile := ofOneMachine(t)
	bench := savedAs(t, "bench.json", reporttest.Bench("bench", 1, 1))
	for _, records := range [][]*record.Saved{{run, tax, profile}, {profile, tax, bench}} {
		v := &viewer{ctx: t.Context(), src: Source{Records: records}, labels: recordLabels(records), first: firstRecord(records)}
		v.merge()
		answer, from := v.answer()
		if answer == nil || answer.Redirect == nil || len(answer.Path.Stages) == 0 {
			t.Fatalf("%s: %+v", records[0].File, answer)
		}
		if got := strings.Join(from, " "); got != v.labels[v.first]+" tax.json profile.json" {
			t.Errorf("from %s", got)
		}
	}
}

// A machine that changed is said above all, with the references that moved; a row has what
// they leave of its change. A profile that cannot tell is said there too.
func TestBannerMachineChanged(t *testing.T) {
	t.Parallel()
	c, err := compare.Records(record.NewSaved(reporttest.Bench("a", 1, 1)), record.NewSaved(reporttest.Bench("b", 2, 1.1)),
		compare.Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	c.Machine = []record.ReferenceChange{
		{Name: record.CoreClock, Old: reporttest.Around(3.6, 0.1, "GHz"), New: reporttest.Around(2.9, 0.1, "GHz"),
			Difference: &stat.Difference{Median: 24, Low: 23, High: 25}, Moved: true},
		{Name: record.FarWalk, Old: reporttest.Around(80, 1, "ns"), New: reporttest.Around(80, 1, "ns"),
			Difference: &stat.Difference{Median: 0, Low: -1, High: 1}},
	}
	c.Rows[0].Relative = &stat.Difference{Median: -1.25, Low: -3, High: 0.5}
	p := vethProfile(2)
	p.CannotTell = "other tasks ran in all windows"
	text := checkHTML(t, pageOf(t, Source{Records: []*record.Saved{savedAs(t, "c.json", c), savedAs(t, "p.json", p)}}))
	head, rest, _ := strings.Cut(text, "What changed")
	for _, want := range []string{"The machine changed:", "core-clock 3.60 → 2.90 GHz, +24.0 % [+23.0, +25.0]",
		"The stages are no answer:", "p.json: other tasks ran in all windows."} {
		if !strings.Contains(head, want) {
			t.Errorf("the head has no %q: %s", want, head)
		}
	}
	if strings.Contains(head, record.FarWalk) || !strings.Contains(rest, record.FarWalk) || !strings.Contains(rest, "-1.2") {
		t.Error("references, or what they leave, are elsewhere")
	}
}

// Warnings stand where their figures stand, those of one text together, and all of them.
func TestWarningsStand(t *testing.T) {
	t.Parallel()
	run, tax, profile := ofOneMachine(t)
	run.Warnings = []record.Warning{
		{Row: "redirect-map/bulk=64", Text: "of the ladder"}, {Row: run.Prices()[0].Name, Text: "of a price"},
		{Text: "stages: of the profile"}, {Text: "of the run"},
	}
	tax.Warnings = []record.Warning{{Row: tax.Prices()[0].Name, Text: "twice"}, {Row: tax.Prices()[1].Name, Text: "twice"}}
	page := string(pageOf(t, Source{Records: []*record.Saved{run, tax, profile}}))
	at := func(s string) int {
		if n := strings.Count(page, s); n != 1 {
			t.Errorf("%q: %d times", s, n)
		}
		return strings.Index(page, s)
	}
	ladder, prices, records := at(`<section id="ladder">`), at(`<section id="prices">`), at(`<section id="records">`)
	for _, of := range []string{"of the ladder", "of the run"} {
		if i := at(of); i < ladder || i > prices {
			t.Errorf("%q stands elsewhere", of)
		}
	}
	if i := at("twice"); i < prices || i > records {
		t.Error("warnings of prices stand elsewhere")
	}
	for _, of := range []string{"of a price", "of the profile"} { // of what is not shown
		if i := at(of); i < records {
			t.Errorf("%q stands elsewhere", of)
		}
	}
	if strings.Contains(page, "banner\"") {
		t.Error("a warning is a banner")
	}
}
