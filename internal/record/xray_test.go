package record_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

func TestLoadSites(t *testing.T) {
	dir := t.TempDir()
	save := func(name string, doc any) string { // also what [record.Save] refuses
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(recordtest.Marshal(t, doc)), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := recordtest.Sites(recordtest.Site("f", "x", "thunk", "packet"))
	s, err := record.Load(save("good", good))
	if err != nil || len(s.Sites().Rows) != 1 || *s.Sites().Rows[0].Pointer != "x" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, test := range []struct {
		name   string
		change func(*record.Document[record.SiteRow])
		want   string
	}{
		{"twice", func(d *record.Document[record.SiteRow]) { d.Rows = append(d.Rows, d.Rows[0]) }, "twice"},
		{"control", func(d *record.Document[record.SiteRow]) { d.Rows[0].Targets = []string{"\x1b[2J"} }, "impossible text"},
		{"nameless", func(d *record.Document[record.SiteRow]) { d.Rows[0].Name = "" }, "impossible name"},
		{"empty", func(d *record.Document[record.SiteRow]) { d.Rows[0].Kind = "" }, "no function"},
		{"run", func(d *record.Document[record.SiteRow]) { d.Run = "" }, "run identity"},
		{"count", func(d *record.Document[record.SiteRow]) { n := -1.0; d.Rows[0].PerPacket = &n }, "impossible count"},
		{"counted elsewhere", func(d *record.Document[record.SiteRow]) {
			d.Counts = &record.SiteCounts{Others: []record.LabSite{{Stage: "x"}}}
		}, "no name"},
		{"guest", func(d *record.Document[record.SiteRow]) { d.Counts = &record.SiteCounts{Row: "\x1b"} }, "impossible text"},
		{"schema", func(d *record.Document[record.SiteRow]) { d.Schema = "x" }, "schema"},
	} {
		bad := recordtest.Sites(recordtest.Site("f", "x", "thunk", "packet"))
		test.change(bad)
		if _, err := record.Load(save(test.name, bad)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	other := *good
	other.Kind = "tax"
	if _, err := record.Load(save("other", other)); err == nil {
		t.Error("branches are read as prices")
	}
	if _, err := record.Load(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func FuzzLoadSites(f *testing.F) {
	b, err := json.Marshal(recordtest.Sites(recordtest.Site("f", "x", "thunk", "packet")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":"unthunk/1","kind":"xray","run":"x","rows":[{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := record.Parse(b); err == nil && s.Sites() != nil {
			compare.Sites(s.Sites(), s.Sites())
		}
	})
}
