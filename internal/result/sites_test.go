package result

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func sites(rows ...SiteRow) *Document[SiteRow] {
	return &Document[SiteRow]{Schema: Schema, Kind: "xray", Run: NewRunID(), Settings: map[string]string{"path": "veth"}, Rows: rows}
}

func site(function, what, kind, per string) SiteRow {
	row := SiteRow{Name: function + "/" + what, Function: function, Kind: kind, Per: per, Stage: "transmit", Sure: "certain"}
	if what != "unknown" {
		row.Calls = &what
	}
	return row
}

func TestCompareSites(t *testing.T) {
	old := sites(site("bq_xmit_all", "ndo_xdp_xmit", "thunk", "bulk"), site("a", "gone", "thunk", "poll"), site("b", "same", "thunk", "poll"))
	new := sites(site("b", "same", "thunk", "poll"), site("bq_xmit_all", "ndo_xdp_xmit", "register", "packet"), site("c", "unknown", "memory", "poll"))
	new.Rows[0].Offset = 64 // moves with every build
	c := CompareSites(old, new)
	var got []string
	for _, row := range c.Rows {
		got = append(got, row.Change+" "+row.Name+" "+strings.Join(row.What, ", "))
	}
	want := "new c/unknown |changed bq_xmit_all/ndo_xdp_xmit kind: thunk → register, per: bulk → packet|gone a/gone "
	if strings.Join(got, "|") != want || c.Same != 1 {
		t.Errorf("%d same, %q", c.Same, got)
	}
	if c = CompareSites(old, old); len(c.Rows) > 0 || c.Same != 3 || len(c.Warnings) > 0 {
		t.Errorf("with itself: %+v", c)
	}
	new.Settings["path"] = "eth0"
	if c = CompareSites(old, new); len(c.Warnings) != 1 {
		t.Errorf("%v", c.Warnings)
	}
}

func TestLoadSites(t *testing.T) {
	dir := t.TempDir()
	save := func(name string, doc any) string {
		file := filepath.Join(dir, name)
		if err := Save(file, doc); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := sites(site("f", "x", "thunk", "packet"))
	doc, err := LoadSites(save("good", good))
	if err != nil || len(doc.Rows) != 1 || *doc.Rows[0].Calls != "x" {
		t.Errorf("%+v, %v", doc, err)
	}
	for _, test := range []struct {
		name   string
		change func(*Document[SiteRow])
		want   string
	}{
		{"twice", func(d *Document[SiteRow]) { d.Rows = append(d.Rows, d.Rows[0]) }, "twice"},
		{"control", func(d *Document[SiteRow]) { d.Rows[0].Targets = []string{"\x1b[2J"} }, "impossible text"},
		{"nameless", func(d *Document[SiteRow]) { d.Rows[0].Name = "" }, "impossible name"},
		{"empty", func(d *Document[SiteRow]) { d.Rows[0].Kind = "" }, "no function"},
		{"run", func(d *Document[SiteRow]) { d.Run = "" }, "run identity"},
		{"schema", func(d *Document[SiteRow]) { d.Schema = "x" }, "schema"},
	} {
		bad := sites(site("f", "x", "thunk", "packet"))
		test.change(bad)
		if _, err := LoadSites(save(test.name, bad)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	other := *good
	other.Kind = "tax"
	if _, err := LoadSites(save("other", other)); !errors.Is(err, ErrKind) {
		t.Error(err)
	}
	if _, err := Load(filepath.Join(dir, "good")); err == nil || !strings.Contains(err.Error(), `kind "xray"`) {
		t.Error(err)
	}
	if _, err := LoadSites(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func FuzzLoadSites(f *testing.F) {
	b, err := json.Marshal(sites(site("f", "x", "thunk", "packet")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":"unthunk/1","kind":"xray","run":"x","rows":[{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := parseSites(b)
		if err == nil {
			CompareSites(doc, doc)
		}
	})
}
