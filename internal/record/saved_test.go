package record_test

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/testutil"
)

// savedTexts are records of every kind that [record.Parse] reads, by what they are.
func savedTexts(t testing.TB) map[string]string {
	t.Helper()
	old, new := recordtest.Document("a", recordtest.Row("drop/bulk=1", nil, recordtest.Steady, 1)),
		recordtest.Document("b", recordtest.Row("drop/bulk=1", nil, recordtest.Steady, 1.5))
	c, err := compare.Records(record.NewSaved(old), record.NewSaved(new), compare.Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	saved, err := record.Parse([]byte(recordtest.LabJSON))
	if err != nil {
		t.Fatal(err)
	}
	l := saved.Lab()
	other := *l
	other.Rows = append([]record.LabRow{}, l.Rows...)
	more := 11.0
	other.Rows[0].Instructions = &more
	withStages := recordtest.RunDocument("run", 1, 1)
	p := recordtest.FullProfile()
	withStages.Stages, withStages.Profile = p.Rows, &p.ProfileParts
	listed := recordtest.Sites(recordtest.Site("f", "x", "thunk", "packet"))
	listed.Code = []record.Listing{{Name: "__x86_indirect_thunk_rax",
		Lines: []record.ListingLine{{Offset: 5, Text: "int3", Note: "the trap"}}}}
	return map[string]string{
		"bench": recordtest.ValidBench(t), "run": recordtest.ValidRun(t), "stages": recordtest.Marshal(t, withStages),
		"tax": recordtest.ValidTax(t), "profile": recordtest.Marshal(t, recordtest.FullProfile()),
		"xray": recordtest.Marshal(t, listed), "lab": recordtest.LabJSON, "comparison": recordtest.Marshal(t, c),
		"profile comparison": recordtest.Marshal(t, compare.Profiles(recordtest.ProfileOf("a", 1, 10, recordtest.Way...),
			recordtest.ProfileOf("b", 2, 10, recordtest.ChangedWay(9)...), compare.Options{Threshold: 2})),
		"site comparison": recordtest.Marshal(t, compare.Sites(recordtest.Sites(recordtest.Site("f", "x", "thunk",
			"packet")), recordtest.Sites(recordtest.Site("f", "x", "register", "packet"), recordtest.Site("g", "y", "thunk", "bulk")))),
		"lab comparison": recordtest.Marshal(t, compare.Labs(l, &other)),
		"equal labs":     recordtest.Marshal(t, compare.Labs(l, l)),
		"gate":           recordtest.Marshal(t, gateOf(t)),
		"agent":          recordtest.Marshal(t, recordtest.Agent("run", 1, 12)),
		"prog-xray":      recordtest.Marshal(t, reporttest.ProgXray()),
		"prog-list":      recordtest.Marshal(t, reporttest.ProgramList()),
		"cost":           recordtest.Marshal(t, recordtest.Cost("run", 1, 1)),
		"watch":          recordtest.Marshal(t, recordtest.Watch("run", 1)),
		"prog diff":      recordtest.Marshal(t, progDiff(t)),
		"check":          recordtest.Marshal(t, checked(host.LevelOK)),
		"findings":       recordtest.Marshal(t, compare.Findings(checked(host.LevelOK), checked(host.LevelWarn))),
		"equal findings": recordtest.Marshal(t, compare.Findings(checked(host.LevelOK), checked(host.LevelOK))),
	}
}

// gateOf is a verdict of a gate: a kernel that takes an instruction and an indirect branch more.
func gateOf(t testing.TB) *record.Gate {
	t.Helper()
	now := recordtest.GateLab("b")
	*now.Rows[0].Instructions++
	now.Rows[1].Sites[0].Target = "other"
	now.Rows[1].Build.Compiler = "gcc 13"
	g, err := compare.Gate(recordtest.GateLab("a"), now, compare.GateOptions{Kernel: "b", Unlike: []string{"compiler"}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// progDiff is a record of prog diff.
func progDiff(t testing.TB) *record.ProgDiff {
	t.Helper()
	old, is := recordtest.Cost("run", 1, 1), recordtest.Cost("run", 1, 1.1)
	c, err := compare.Records(record.NewSaved(old), record.NewSaved(is), compare.Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	c.Kind = "prog-diff"
	return &record.ProgDiff{Comparison: *c, ProgDiffParts: record.ProgDiffParts{
		OldProgram: old.Program, NewProgram: is.Program, Packets: is.Packets,
		Behaviors: []record.BehaviorChange{{What: "verdict", Old: "tx", New: "drop", Packets: 2, First: 1}},
		Calls:     []record.CallChange{{Name: "lookup vip_map", Old: 1}},
	}}
}

// checked is a record of check with a finding of some level.
func checked(level host.Level) *record.Check {
	return &record.Check{
		Head: record.Head{Schema: record.Schema, Kind: "check", Run: "a"}, Warnings: []record.Warning{},
		Rows: []host.Finding{{Name: "bpf-jit", Found: "on", Level: level}},
	}
}

func TestLoadSaved(t *testing.T) {
	has := map[string]func(*record.Saved) bool{
		"bench":   func(s *record.Saved) bool { return s.Bench() != nil && s.Stages() == nil && s.Prices() == nil },
		"run":     func(s *record.Saved) bool { return s.Bench() != nil && len(s.Prices()) > 0 },
		"stages":  func(s *record.Saved) bool { return s.Stages() != nil && s.Stages().Tax != nil },
		"tax":     func(s *record.Saved) bool { return s.Tax() != nil && len(s.Prices()) > 0 },
		"profile": func(s *record.Saved) bool { return s.Profile() != nil && s.Stages() == s.Profile() },
		"xray":    func(s *record.Saved) bool { return s.Sites() != nil && s.Sites().Code[0].Lines[0].Note == "the trap" },
		"prog-xray": func(s *record.Saved) bool {
			return s.ProgXray() != nil && s.ProgXray().Rows[1].Source.Line > 0 && s.ProgXray().Changes[0].Saves != nil
		},
		"check": func(s *record.Saved) bool { return s.Check() != nil },
		"cost": func(s *record.Saved) bool {
			return s.ProgCost() != nil && s.ProgCost().Program.JitedBytes == 1234 && s.ProgCost().Rows[1].Verdicts["tx"] > 0
		},
		"watch": func(s *record.Saved) bool { return s.ProgWatch() != nil && len(s.ProgWatch().Profile().Stacks) == 2 },
		"prog diff": func(s *record.Saved) bool {
			return s.ProgDiff() != nil && s.Comparison() != nil && s.ProgDiff().Behaviors[0].New == "drop" && len(s.Comparison().Rows) == 3
		},
		"findings": func(s *record.Saved) bool {
			return s.FindingComparison() != nil && s.FindingComparison().Rows[0].Worse()
		},
		"equal findings": func(s *record.Saved) bool { return s.FindingComparison() != nil && s.FindingComparison().Same == 1 },
		"gate": func(s *record.Saved) bool {
			return s.Gate() != nil && s.Gate().Verdict == "beyond" && len(s.Gate().Rows[1].Sites) == 2 && s.Gate().Unlike[0].Allowed
		},
		"prog-list":          func(s *record.Saved) bool { return s.Programs() != nil && len(s.Programs().Rows) > 0 },
		"agent":              func(s *record.Saved) bool { return s.Agent() != nil },
		"lab":                func(s *record.Saved) bool { return s.Lab() != nil },
		"comparison":         func(s *record.Saved) bool { return s.Comparison() != nil },
		"profile comparison": func(s *record.Saved) bool { return s.ProfileComparison() != nil },
		"site comparison":    func(s *record.Saved) bool { return s.SiteComparison() != nil },
		"lab comparison":     func(s *record.Saved) bool { return s.LabComparison() != nil },
		"equal labs":         func(s *record.Saved) bool { return s.LabComparison() != nil },
	}
	for name, text := range savedTexts(t) {
		path := filepath.Join(t.TempDir(), "x.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := record.Load(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !has[name](s) || s.File != path || s.Run == "" || s.Kind == "" {
			t.Errorf("%s: %+v", name, s)
		}
		h := conclusion.Of(s)
		if h.Title == "" || strings.HasSuffix(h.Title, ".") || strings.Contains(h.Title+h.Text, "NaN") {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

// A record with what no measurement gives does not take the place of one that can be loaded, whatever its kind.
func TestSaveImpossible(t *testing.T) {
	t.Parallel()
	kinds := make(map[string]bool)
	for name, text := range savedTexts(t) {
		parsed := func() *record.Saved {
			s, err := record.Parse([]byte(text))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return s
		}
		saved := parsed()
		kinds[saved.Kind] = true
		path := filepath.Join(t.TempDir(), "a.json")
		if err := record.Save(path, saved.Doc); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for want, spoil := range map[string]func(reflect.Value){
			"the record has no run identity": func(head reflect.Value) { head.FieldByName("Run").SetString("") },
			"host: impossible text": func(head reflect.Value) {
				head.FieldByName("Host").FieldByName("CPU").SetString(strings.Repeat("x", 5000))
			},
		} {
			bad := parsed()
			spoil(reflect.ValueOf(bad.Doc).Elem().FieldByName("Head"))
			err := record.Save(path, bad.Doc)
			if err == nil || !strings.HasPrefix(err.Error(), "save "+path+": no verb could read the record: "+want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
		rows := reflect.ValueOf(saved.Doc).Elem().FieldByName("Rows")
		if rows.Len() == 0 {
			continue
		}
		rows.Index(0).FieldByName("Name").SetString("a\u202e")
		if err := record.Save(path, saved.Doc); err == nil || !strings.Contains(err.Error(), "no verb could read the record: ") {
			t.Errorf("%s: a name that no terminal shows: %v", name, err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: the record of before is gone: %v", name, err)
		}
	}
	for _, kind := range []string{"bench", "run", "tax", "profile", "xray", "lab", "check", "prog-xray", "prog-list", "prog-cost", "prog-diff",
		"prog-watch", "gate", "agent", "compare"} {
		if !kinds[kind] {
			t.Errorf("no record of %s was tried", kind)
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
		"kind":               {edit("bench", `"kind":"bench"`, `"kind":"drivers"`), `kind "drivers": only records of bench, run`},
		"finding level":      {edit("check", `"level":"ok"`, `"level":"bad"`), "impossible level"},
		"finding name":       {edit("check", `"name":"bpf-jit"`, `"name":"\u001b"`), "impossible name"},
		"compared run":       {edit("comparison", `"run":"b"`, `"run":""`), "no run identity"},
		"compared name":      {edit("comparison", `"name":"drop/bulk=1"`, `"name":"\u001b"`), "impossible name"},
		"compared rows":      {edit("comparison", `"rows":[`, `"rows":7,"x":[`), "not a record of compare"},
		"compared unit":      {edit("comparison", `"unit":"ns"`, `"unit":"s"`), "not in ns"},
		"difference alone":   {edit("comparison", `"old":{"median"`, `"old":null,"x":{"median"`), "a difference without old"},
		"stage without both": {`{"schema":"unthunk/1","kind":"compare","run":"x","rows":[{"name":"a"}]}`, "neither a number"},
		"branch of none": {`{"schema":"unthunk/1","kind":"compare","run":"x","same":1,"rows":[{"name":"a","change":"new"}]}`,
			"neither an old branch"},
		"lab text":       {edit("lab comparison", `instructions: `, `\u0007`), "impossible text"},
		"listing":        {edit("xray", `"text":"int3"`, `"text":"\u001b[2J"`), "listing __x86_indirect_thunk_rax: impossible text"},
		"listings":       {edit("xray", `"code":[`, `"code":[`+strings.Repeat(`{"name":"a","lines":[]},`, record.MaxListings)), "at most 8"},
		"lab difference": {edit("lab", `"differences":[]`, `"differences":[{"with":"\u0007"}]`), "impossible text"},
	} {
		_, err := record.Parse([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	if _, err := record.Parse([]byte(edit("bench", `"kind":"bench"`, `"kind":"drivers"`))); err == nil {
		t.Error(err)
	}
}

// What no terminal shows is escaped in a file, and is the same when that is loaded.
func TestSavedShown(t *testing.T) {
	t.Parallel()
	const name = "a\u202eb\u009b2J\u007f\x1b\U000e0001é"
	doc := recordtest.Document("a", recordtest.Row("drop/bulk=1", nil, recordtest.Steady, 1))
	doc.Settings = map[string]string{"in": name}
	path := filepath.Join(t.TempDir(), "a.json")
	if err := record.Save(path, doc); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := `a\u202eb\u009b2J\u007f\u001b\udb40\udc01é`; !bytes.Contains(b, []byte(want)) {
		t.Errorf("no %s in %s", want, b)
	}
	saved, err := record.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := saved.Bench().Settings["in"]; got != name {
		t.Errorf("%q", got)
	}
}

func FuzzParseSaved(f *testing.F) {
	for _, text := range savedTexts(f) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s *record.Saved
		var err error
		// An element of a list takes some hundred bytes of memory, and two or three of a file.
		testutil.Allocates(t, uint64(4<<20+1024*len(b)), func() { s, err = record.Parse(b) })
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %q", err)
			}
			return
		}
		if _, err := record.Encode(s.Doc); err != nil {
			t.Errorf("what was loaded cannot be saved: %v", err)
		}
		if h := conclusion.Of(s); h.Title == "" {
			t.Error("no title")
		}
		if p := s.Stages(); p != nil {
			p.Groups()
		}
		s.Prices()
	})
}
