package record_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

func TestSaveLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.json")
	refused := record.BenchRow{Name: "tx/bulk=1", Refused: "packet counts disagree", Samples: []float64{}, Rounds: []int{}}
	doc := recordtest.Document(record.NewRunID(), recordtest.Row("drop/bulk=1", map[string]string{"bulk": "1"}, recordtest.Steady, 1), refused)
	few := recordtest.Row("pass/bulk=1", nil, recordtest.Steady[:3], 1) // has NaN in its interval
	doc.Rows = append(doc.Rows, few)
	for range 2 { // once anew, once over
		if err := record.Save(path, doc); err != nil {
			t.Fatal(err)
		}
		got, err := record.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		rows := got.Bench().Rows
		if !math.IsNaN(rows[2].Ns.Low) {
			t.Errorf("unknown low end became %v", rows[2].Ns.Low)
		}
		if !reflect.DeepEqual(rows[:2], doc.Rows[:2]) || got.Run != doc.Run || !got.Time.Equal(doc.Time) {
			t.Errorf("got %+v\nwant %+v", got, doc)
		}
	}
	onlyFile(t, filepath.Dir(path), "a.json")
}

func onlyFile(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("directory holds %v, want %v", names, want)
	}
}

func TestSaveFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"":                                 "save: no file name",
		dir:                                "save " + dir + ": it is a directory",
		filepath.Join(dir, "no", "a.json"): "save " + filepath.Join(dir, "no", "a.json") + ": no such file or directory",
		filepath.Join(file, "a.json"):      "save " + filepath.Join(file, "a.json") + ": not a directory",
		"/dev/null":                        "save /dev/null: it is not a regular file",
		"/proc/a.json":                     "save /proc/a.json: ",
		filepath.Join(dir, "a") + "/":      "save " + filepath.Join(dir, "a") + "/: it is not a file name",
	} {
		for name, err := range map[string]error{"Check": outfile.Check(path),
			"Save": record.Save(path, recordtest.Document("x"))} {
			if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s(%q): %v, want %q", name, path, err, want)
			}
		}
	}
	if err := record.Save(file, math.NaN()); err == nil {
		t.Error("saved what is not JSON")
	}
	if b, _ := os.ReadFile(file); string(b) != "keep" {
		t.Errorf("file became %q", b)
	}
	onlyFile(t, dir, "file")
}

func TestNewRunID(t *testing.T) {
	if a, b := record.NewRunID(), record.NewRunID(); a == b || len(a) < 16 {
		t.Errorf("%q, %q", a, b)
	}
}

func TestLoadRefuses(t *testing.T) {
	good := recordtest.ValidBench(t)
	if _, err := record.Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s\nholds no %s", good, old)
		}
		return strings.Replace(good, old, new, 1)
	}
	oneRow := good[strings.Index(good, `{"name"`):strings.Index(good, `],"warnings"`)]
	for name, tt := range map[string]struct{ text, want string }{
		"empty":     {"", "the file is empty"},
		"blank":     {" \n", "the file is empty"},
		"truncated": {good[:len(good)/2], "truncated"},
		"almost":    {good[:len(good)-1], "truncated"},
		"text":      {"hello", "not JSON"},
		"binary":    {"\x7fELF\x00", "not JSON"},
		"array":     {"[1,2]", "not a record of unthunk"},
		"number":    {"42", "not a record of unthunk"},
		"null":      {"null", "not a record of unthunk: it has no schema"},
		"foreign":   {`{"version":3,"mappings":""}`, "not a record of unthunk: it has no schema"},
		"schema":    {edit("unthunk/1", "unthunk/2"), `schema "unthunk/2": this unthunk reads "unthunk/1"`},
		"kind": {edit(`"kind":"bench"`, `"kind":"drivers"`),
			`kind "drivers": only records of bench, run, tax, profile, xray, lab, check, prog-xray, prog-list, prog-cost, prog-diff, ` +
				`prog-watch, gate, agent and ` +
				"compare are read here"},
		"trailing":       {good + "{}", "more follows"},
		"garbage":        {good + "x", "more follows"},
		"run":            {edit(`"run":"run"`, `"run":""`), "no run identity"},
		"negative":       {edit(`"samples":[100,`, `"samples":[-100,`), "impossible sample of -100 ns"},
		"zero":           {edit(`"samples":[100,`, `"samples":[null,`), "impossible sample of 0 ns"},
		"huge":           {edit(`"samples":[100,`, `"samples":[1e300,`), "impossible sample"},
		"overflow":       {edit(`"samples":[100,`, `"samples":[1e999,`), "not a record of bench"},
		"lengths":        {edit(`"samples":[100,`, `"samples":[`), "11 samples but 12 rounds"},
		"rounds":         {edit(`"rounds":[0,1,`, `"rounds":[1,1,`), "round 1 is out of order"},
		"duplicate":      {edit(oneRow, oneRow+","+oneRow), "drop/bulk=1: occurs twice"},
		"name":           {edit(`"name":"drop/bulk=1"`, `"name":"drop\u001b[2J"`), "impossible name"},
		"no name":        {edit(`"name":"drop/bulk=1"`, `"name":""`), "impossible name"},
		"label":          {edit(`"bulk":"1"`, `"bulk":"\u0007"`), "impossible label"},
		"no number":      {edit(`"ns":{`, `"ns":null,"z":{`), "neither a number"},
		"unit":           {edit(`"unit":"ns"`, `"unit":"ms"`), `ns is in "ms", not in ns`},
		"outside":        {edit(`"ns":{"median":100`, `"ns":{"median":500`), "ns lies outside its interval"},
		"number and not": {edit(`"samples"`, `"refused":"no","samples"`), "a number and a reason"},
		"type":           {edit(`"samples":[100,`, `"samples":["a",`), "not a record of bench"},
		"prices": {edit(`"warnings"`, `"prices":[{"name":"a","refused":"b"}],"warnings"`),
			"not a record of bench: it has prices or stages beside its rows"},
	} {
		path := filepath.Join(t.TempDir(), "x.json")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := record.Load(path)
		if err == nil || !strings.HasPrefix(err.Error(), "load "+path+": ") || !strings.Contains(err.Error(), tt.want) ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	if _, err := record.Load(filepath.Join(t.TempDir(), "none")); err == nil ||
		!strings.HasSuffix(err.Error(), "none: no such file or directory") {
		t.Error(err)
	}
	if _, err := record.Load(t.TempDir()); err == nil || !strings.HasSuffix(err.Error(), "is a directory") {
		t.Error(err)
	}
	if _, err := record.Load("/dev/zero"); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Error(err)
	}
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, record.MaxSize+1); err != nil {
		t.Fatal(err)
	}
	if _, err := record.Load(large); err == nil || !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Error(err)
	}
}

// Whatever is loaded can be saved, loaded, and compared with itself.
func FuzzLoad(f *testing.F) {
	good := recordtest.ValidBench(f)
	f.Add([]byte(good))
	f.Add([]byte(good[:len(good)/2]))
	f.Add([]byte(recordtest.ValidTax(f)))
	f.Add([]byte(recordtest.ValidRun(f)))
	f.Add([]byte(`{"schema":"unthunk/1","kind":"bench","run":"x","rows":null}`))
	f.Add([]byte(`{"schema":"unthunk/1","kind":"bench","run":"x","rows":[{"name":"a","refused":"b"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := record.Parse(b)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %q", err)
			}
			return
		}
		again, err := json.Marshal(r.Doc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := record.Parse(again); err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, again)
		}
		if r.Tax() == nil && r.Bench() == nil {
			return
		}
		other := *r
		other.Run += "2"
		for _, new := range []*record.Saved{r, &other} {
			c, err := compare.Records(r, new, compare.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if c.Regressed() {
				t.Error("a record is slower than itself")
			}
			if _, err := json.Marshal(c); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestSaveThroughLink(t *testing.T) {
	dir := t.TempDir()
	file, name := filepath.Join(dir, "file.json"), filepath.Join(dir, "link.json")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file.json", name); err != nil {
		t.Fatal(err)
	}
	if err := record.Save(name, map[string]int{"n": 1}); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(name); err != nil || to != "file.json" {
		t.Errorf("the link is %q, %v", to, err)
	}
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), `"n": 1`) {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

// As many rows as are allowed are read, one more is not.
func TestMostRows(t *testing.T) {
	doc := recordtest.Document("run")
	for n := range record.MaxRows {
		doc.Rows = append(doc.Rows, recordtest.Row(fmt.Sprintf("drop/%d", n), map[string]string{"bulk": "1"}, recordtest.Steady, 1))
	}
	path := filepath.Join(t.TempDir(), "x.json")
	if err := record.Save(path, doc); err != nil {
		t.Fatal(err)
	}
	if r, err := record.Load(path); err != nil || len(r.Bench().Rows) != record.MaxRows {
		t.Errorf("%v", err)
	}
	doc.Rows = append(doc.Rows, recordtest.Row("drop", nil, recordtest.Steady, 1))
	if err := os.WriteFile(path, []byte(recordtest.Marshal(t, doc)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := record.Load(path); err == nil || !strings.Contains(err.Error(), "more than 10000 rows") {
		t.Error(err)
	}
}

// A record that could not be loaded again does not take the place of one that can.
func TestSaveTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.json")
	l := recordtest.GateLab("debian:6.12-cloud")
	if err := record.Save(path, l); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	stages := make([]record.LabTraceDifference, record.MaxRows)
	for want, large := range map[string]record.Lab{
		"larger than 64 MiB": {Document: record.Document[record.LabRow]{
			Warnings: []record.Warning{{Text: strings.Repeat("x", record.MaxSize)}},
		}},
		"more than 10000 warnings": {Document: record.Document[record.LabRow]{Warnings: make([]record.Warning, record.MaxRows+1)}},
		"it would take more than 320 MiB of memory": {
			TraceChanges: slices.Repeat([]record.LabTraceChange{{Stages: stages}}, 48),
		},
	} {
		large.Head = l.Head
		want = "save " + path + ": no verb could read the record: " + want
		if err := record.Save(path, &large); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: the record of before is gone: %v", want, err)
		}
	}
}
