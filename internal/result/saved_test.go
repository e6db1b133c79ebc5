package result

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/stat"
)

// savedTexts are records of every kind that [ParseSaved] reads, by what they are.
func savedTexts(t testing.TB) map[string]string {
	t.Helper()
	old, new := document("a", row("drop/bulk=1", nil, steady, 1)), document("b", row("drop/bulk=1", nil, steady, 1.5))
	c, err := Compare(NewRecord(old), NewRecord(new), CompareOptions{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	l, err := parseLab([]byte(labJSON))
	if err != nil {
		t.Fatal(err)
	}
	other := *l
	other.Rows = append([]LabRow{}, l.Rows...)
	more := 11.0
	other.Rows[0].Instructions = &more
	withStages := runDocument("run", 1, 1)
	p := fullProfile()
	withStages.Stages, withStages.Profile = p.Rows, &p.ProfileParts
	listed := sites(site("f", "x", "thunk", "packet"))
	listed.Code = []Listing{{Name: "__x86_indirect_thunk_rax", Lines: []ListingLine{{Offset: 5, Text: "int3", Note: "the trap"}}}}
	return map[string]string{
		"bench": valid(t), "run": validRun(t), "stages": marshal(t, withStages), "tax": validTax(t), "profile": marshal(t, fullProfile()),
		"xray": marshal(t, listed), "lab": labJSON, "comparison": marshal(t, c),
		"profile comparison": marshal(t, CompareProfiles(profileOf("a", 1, 10, wayOf...), profileOf("b", 2, 10, changedWay(9)...), CompareOptions{Threshold: 2})),
		"site comparison":    marshal(t, CompareSites(sites(site("f", "x", "thunk", "packet")), sites(site("f", "x", "register", "packet"), site("g", "y", "thunk", "bulk")))),
		"lab comparison":     marshal(t, CompareLabs(l, &other)),
		"equal labs":         marshal(t, CompareLabs(l, l)),
	}
}

func TestLoadSaved(t *testing.T) {
	has := map[string]func(*Saved) bool{
		"bench":              func(s *Saved) bool { return s.Bench != nil && s.Stages() == nil && s.Prices() == nil },
		"run":                func(s *Saved) bool { return s.Bench != nil && len(s.Prices()) > 0 },
		"stages":             func(s *Saved) bool { return s.Stages() != nil && s.Stages().Tax != nil },
		"tax":                func(s *Saved) bool { return s.Tax != nil && len(s.Prices()) > 0 },
		"profile":            func(s *Saved) bool { return s.Profile != nil && s.Stages() == s.Profile },
		"xray":               func(s *Saved) bool { return s.Sites != nil && s.Sites.Code[0].Lines[0].Note == "the trap" },
		"lab":                func(s *Saved) bool { return s.Lab != nil },
		"comparison":         func(s *Saved) bool { return s.Comparison != nil },
		"profile comparison": func(s *Saved) bool { return s.ProfileComparison != nil },
		"site comparison":    func(s *Saved) bool { return s.SiteComparison != nil },
		"lab comparison":     func(s *Saved) bool { return s.LabComparison != nil },
		"equal labs":         func(s *Saved) bool { return s.LabComparison != nil },
	}
	for name, text := range savedTexts(t) {
		path := filepath.Join(t.TempDir(), "x.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := LoadSaved(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !has[name](s) || s.File != path || s.Run == "" || s.Kind == "" {
			t.Errorf("%s: %+v", name, s)
		}
		h := s.Headline()
		if h.Title == "" || strings.HasSuffix(h.Title, ".") || strings.Contains(h.Title+h.Text, "NaN") {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

func TestLoadSavedRefuses(t *testing.T) {
	texts := savedTexts(t)
	edit := func(name, old, new string) string {
		t.Helper()
		if !strings.Contains(texts[name], old) {
			t.Fatalf("%s\nholds no %s", texts[name], old)
		}
		return strings.Replace(texts[name], old, new, 1)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"empty":              {"", "the file is empty"},
		"truncated":          {texts["comparison"][:300], "truncated"},
		"old schema":         {edit("lab", "unthunk/1", "unthunk/0"), `schema "unthunk/0": this unthunk reads "unthunk/1"`},
		"foreign":            {`{"rows":[]}`, "it has no schema"},
		"kind":               {edit("bench", `"kind":"bench"`, `"kind":"check"`), `kind "check": only records of bench, run`},
		"compared run":       {edit("comparison", `"run":"b"`, `"run":""`), "no run identity"},
		"compared name":      {edit("comparison", `"name":"drop/bulk=1"`, `"name":"\u001b"`), "impossible name"},
		"compared rows":      {edit("comparison", `"rows":[`, `"rows":7,"x":[`), "not a record of compare"},
		"compared unit":      {edit("comparison", `"unit":"ns"`, `"unit":"s"`), "not in ns"},
		"difference alone":   {edit("comparison", `"old":{"median"`, `"old":null,"x":{"median"`), "a difference without old"},
		"stage without both": {`{"schema":"unthunk/1","kind":"compare","run":"x","rows":[{"name":"a"}]}`, "neither a number"},
		"branch of none":     {`{"schema":"unthunk/1","kind":"compare","run":"x","same":1,"rows":[{"name":"a","change":"new"}]}`, "neither an old branch"},
		"lab text":           {edit("lab comparison", `instructions: `, `\u0007`), "impossible text"},
		"listing":            {edit("xray", `"text":"int3"`, `"text":"\u001b[2J"`), "listing __x86_indirect_thunk_rax: impossible text"},
		"listings":           {edit("xray", `"code":[`, `"code":[`+strings.Repeat(`{"name":"a","lines":[]},`, MaxListings)), "at most 8"},
		"lab difference":     {edit("lab", `"differences":[]`, `"differences":[{"with":"\u0007"}]`), "impossible text"},
	} {
		_, err := ParseSaved([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	if _, err := ParseSaved([]byte(edit("bench", `"kind":"bench"`, `"kind":"drivers"`))); !errors.Is(err, errNotReported) {
		t.Error(err)
	}
}

func FuzzParseSaved(f *testing.F) {
	for _, text := range savedTexts(f) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSaved(b)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %q", err)
			}
			return
		}
		if h := s.Headline(); h.Title == "" {
			t.Error("no title")
		}
		if p := s.Stages(); p != nil {
			p.Parts()
		}
		s.Prices()
	})
}

func TestHeadlines(t *testing.T) {
	parse := func(text string) Headline {
		t.Helper()
		s, err := ParseSaved([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return s.Headline()
	}
	q := func(x, half float64, unit string) *stat.Quantity {
		return &stat.Quantity{Median: x, Low: x - half, High: x + half, N: 11, Unit: unit}
	}
	bench := document("a", row("redirect-map/bulk=1", nil, steady, 8), row("redirect-map/bulk=64", nil, steady, 2))
	bench.Rows[1].Hop = q(80, 2, "ns")
	if h := parse(marshal(t, bench)); h.Title != "5.00 Mpps on one core; the redirect takes 40 % of a packet’s 200 ns" ||
		!strings.Contains(h.Text, "The slowest row, redirect-map/bulk=1, sends 1.25 Mpps: 600 ns a packet more.") {
		t.Errorf("%+v", h)
	}
	p := fullProfile()
	p.Packet, p.Tax.Total = q(200, 3, "ns"), q(4, 1, "ns")
	for i := range p.Rows {
		p.Rows[i].Ns = q(20, 1, "ns")
	}
	parts := p.Parts()
	if h := parse(marshal(t, p)); !strings.HasPrefix(h.Title, "Of a packet’s 200 ns the redirect path takes ") || !strings.HasSuffix(h.Title, ", indirect branches 2.0 %") {
		t.Errorf("%+v, %v", h, parts)
	}
	slower, err := Compare(NewRecord(ladder("a", 1, 1)), NewRecord(ladder("b", 2, 1.5)), CompareOptions{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	if h := parse(marshal(t, slower)); !h.Tells || !strings.Contains(h.Title, "slower [+") || !strings.Contains(h.Title, "Mpps") {
		t.Errorf("%+v", h)
	}
	few, err := Compare(NewRecord(document("a", row("drop/bulk=1", nil, steady[:4], 1))), NewRecord(document("b", row("drop/bulk=1", nil, steady[:4], 1))), CompareOptions{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	if h := parse(marshal(t, few)); h.Tells || h.Title != "Cannot tell whether the two differ in 1 of 1 row" {
		t.Errorf("%+v", h)
	}
	l, err := parseLab([]byte(labJSON))
	if err != nil {
		t.Fatal(err)
	}
	l.Rows[0].Labels["bulk"] = "1"
	l.Differences = []LabDifference{{With: "k/bulk=1", Without: "k2/bulk=1", Instructions: 10, Calls: 5, Ns: q(61, 5, "ns")}}
	if h := parse(marshal(t, l)); h.Title != "Indirect branches cost a packet about 61.0 ns at bulk 1" || !strings.Contains(h.Text, "k against k2: 5.00 indirect branches a packet, +10.00 instructions, about 61.0 ns [56.0, 66.0]") {
		t.Errorf("%+v", h)
	}
}

// Nothing of a headline depends on what JSON cannot hold.
func TestHeadlineUnknown(t *testing.T) {
	var s Saved
	if h := s.Headline(); h.Title != "Nothing was measured" {
		t.Errorf("%+v", h)
	}
	b, err := json.Marshal(document("a", BenchRow{Name: "tx/bulk=1", Refused: "no", Samples: []float64{}, Rounds: []int{}}))
	if err != nil {
		t.Fatal(err)
	}
	saved, err := ParseSaved(b)
	if err != nil {
		t.Fatal(err)
	}
	if h := saved.Headline(); h.Title != "No row has a number" {
		t.Errorf("%+v", h)
	}
}
