package compare

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/stat"
)

// series saves records of bench in a folder, one an hour, each as slow as factor says.
func series(t *testing.T, folder, kernel string, from, n int, factor func(row, run int) float64) {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(from), 9))
	for i := range n {
		doc := recordtest.Document(fmt.Sprintf("%s-%d", kernel, i))
		for b, bulk := range []string{"1", "16", "64"} {
			rounds := make([]float64, 11)
			run := math.Exp(0.01 * r.NormFloat64())
			for j := range rounds {
				rounds[j] = 100 * float64(b+1) * run * math.Exp(0.01*r.NormFloat64())
			}
			doc.Rows = append(doc.Rows, recordtest.Row("redirect-map/bulk="+bulk, map[string]string{"bulk": bulk}, rounds, factor(b, i)))
		}
		doc.Host.Kernel = kernel
		doc.Time = doc.Time.Add(time.Duration(from+i) * time.Hour)
		// Names say nothing about time.
		if err := record.Save(filepath.Join(folder, fmt.Sprintf("%02d-%s.json", 99-i, kernel)), doc); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHistory(t *testing.T) {
	dir := t.TempDir()
	series(t, dir, "6.12", 0, 20, func(row, run int) float64 {
		if row == 1 && run >= 12 {
			return 1.1
		}
		return 1
	})
	series(t, dir, "6.18", 100, 10, func(int, int) float64 { return 1.2 })
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("bad.json", `{"schema"`)
	write("lab.json", recordtest.LabJSON)
	write("notes.txt", "not a record")
	write("copy.json", readFile(t, filepath.Join(dir, "99-6.12.json")))
	if err := os.Mkdir(filepath.Join(dir, "folder.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	h, err := LoadHistory(new(record.Together), dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Groups) != 2 || len(h.Groups[0].Records) != 20 || len(h.Groups[1].Records) != 10 || h.Groups[1].Host.Kernel != "6.18" {
		t.Fatalf("%+v", h.Groups)
	}
	if d := h.Groups[1].Differs; len(d) != 1 || d[0].Name != "kernel" || *d[0].New != "6.18" {
		t.Errorf("%+v", d)
	}
	why := make(map[string]string)
	for _, left := range h.Left {
		why[left.File] = left.Why
	}
	for file, want := range map[string]string{
		"bad.json": "truncated: the JSON ends in the middle", "lab.json": "a record of lab has no rows over time",
		"copy.json": "it is of the same run as 99-6.12.json", "99-6.12.json": "", "folder.json": "it is not a regular file",
	} {
		if why[file] != want {
			t.Errorf("%s: %q, want %q", file, why[file], want)
		}
	}
	if len(h.Rows) != 6 {
		t.Fatalf("%d rows", len(h.Rows))
	}
	for _, row := range h.Rows {
		changed := row.Group == "1" && row.Name == "redirect-map/bulk=16"
		switch {
		case changed && (len(row.Changes) != 1 || row.Changes[0].Record != 12 ||
			math.Abs(row.Changes[0].Shift.Median-10) > 3 || h.Origin(&row, 12).File != "87-6.12.json"):
			t.Errorf("%+v", row.Changes)
		case !changed && len(row.Changes) != 0:
			t.Errorf("%s of group %s: %+v", row.Name, row.Group, row.Changes)
		case row.Group == "2" && (row.Against == nil || row.AgainstGroup != "1" || len(row.Points) != 10):
			t.Errorf("%+v", row)
		}
		if row.Group != "2" {
			continue
		}
		want := 20.0
		if row.Name == "redirect-map/bulk=16" { // against what it was after the change
			want = 9.1
		}
		if math.Abs(row.Against.Median-want) > 3 || !(row.Against.Low > 0) {
			t.Errorf("%s: %+v, want %g", row.Name, row.Against, want)
		}
	}
	if title := conclusion.OfHistory(h).Title; !strings.HasPrefix(title, "kernel 6.12 → 6.18: 3 of 3 rows moved, redirect-map/bulk=") {
		t.Error(title)
	}
	b, err := json.Marshal(h)
	if err != nil || !strings.Contains(string(b), `"kind":"history"`) || !strings.Contains(string(b), `"left-out":[`) {
		t.Errorf("%v\n%.300s", err, b)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Records of run, tax and profile; few of them.
func TestHistoryKinds(t *testing.T) {
	dir := t.TempDir()
	p := recordtest.FullProfile()
	p.Time, p.Settings = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), map[string]string{"scenario": "redirect-map", "bulk": "16"}
	for name, doc := range map[string]any{"run.json": recordtest.RunDocument("r", 1, 1),
		"tax.json": recordtest.TaxDocument("t", 1, 1), "profile.json": p} {
		if err := record.Save(filepath.Join(dir, name), doc); err != nil {
			t.Fatal(err)
		}
	}
	h, err := LoadHistory(new(record.Together), dir)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, row := range h.Rows {
		names[row.Name] = true
		if len(row.Changes) > 0 || row.Drifts || !math.IsNaN(row.Level.Low) {
			t.Errorf("%+v", row)
		}
		if strings.HasPrefix(row.Name, "price/packet") {
			t.Errorf("%s is an estimate", row.Name)
		}
	}
	for _, want := range []string{"redirect-map/bulk=1", "price/control", "profile/redirect-map/bulk=16/packet",
		"profile/redirect-map/bulk=16/receive"} {
		if !names[want] {
			t.Errorf("no %s in %v", want, names)
		}
	}
	if title := conclusion.OfHistory(h).Title; !strings.HasSuffix(title, "too few to tell a change from noise") {
		t.Error(title)
	}
}

func TestHistoryRefuses(t *testing.T) {
	refused := func(folder, want string) {
		t.Helper()
		_, err := LoadHistory(new(record.Together), folder)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %q", err, want)
		}
	}
	dir := t.TempDir()
	refused(filepath.Join(dir, "none"), "no such file or directory")
	refused(dir, "it has no file named *.json")
	file := filepath.Join(dir, "x.json")
	if err := os.WriteFile(file, []byte(strings.Replace(recordtest.ValidBench(t), "unthunk/1", "unthunk/0", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(file, "not a directory")
	refused(dir, `it has no record of bench, run, tax or profile: x.json: schema "unthunk/0"`)
	large := filepath.Join(dir, "large.json")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, MaxFolder+1); err != nil {
		t.Fatal(err)
	}
	refused(dir, "its files have 512 MiB")
	many := t.TempDir()
	for i := range MaxRecords + 1 {
		if err := os.WriteFile(filepath.Join(many, fmt.Sprintf("%d.json", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused(many, "it has 1001 files: at most 1000")
}

// A series of noise has no change, and one run has no interval.
func TestHistoryNoise(t *testing.T) {
	dir := t.TempDir()
	series(t, dir, "6.12", 0, 30, func(int, int) float64 { return 1 })
	h, err := LoadHistory(new(record.Together), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range h.Rows {
		if len(row.Changes) > 0 || row.Drifts || row.Level.N != 30 || !(row.Level.Low < row.Level.High) {
			t.Errorf("%s: %+v, %+v", row.Name, row.Changes, row.Level)
		}
	}
	if want := fmt.Sprintf("No change in %d rows over time", len(h.Rows)); conclusion.OfHistory(h).Title != want || stat.MinChanges != 8 {
		t.Error(conclusion.OfHistory(h))
	}
}

// What is kept of all records has a limit, also where each record is small: here each has a machine of its own.
func TestHistoryTogether(t *testing.T) {
	dir := t.TempDir()
	saved, err := os.ReadFile(filepath.Join("..", "..", "cmd", "unthunk", "testdata", "saved", "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(saved, &doc); err != nil {
		t.Fatal(err)
	}
	many := make(map[string]string)
	for i := range 4990 {
		many[fmt.Sprint(i)] = ""
	}
	for i := range 10 {
		doc["run"], doc["host"] = fmt.Sprint(i), map[string]any{"mitigations": many}
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d.json", i)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var with record.Together
	for range 3 {
		if _, err = LoadHistory(&with, dir); err != nil {
			t.Error(err)
		}
	}
	with.Keep(0, 0, 318<<20) // of records before these
	if _, err = LoadHistory(&with, dir); !record.TooLarge(err) {
		t.Errorf("error %v", err)
	}
}
