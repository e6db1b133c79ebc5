package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// saveBench writes a record of bench with one row.
func saveBench(t *testing.T, path, run string, begun time.Time, ns float64) {
	t.Helper()
	row := record.BenchRow{Name: "redirect-map/bulk=16", Labels: map[string]string{"bulk": "16"}, Samples: []float64{}, Rounds: []int{}}
	var rates []float64
	for i := range 11 {
		x := ns * (1 + 0.002*float64(i%5))
		row.Samples, row.Rounds, rates = append(row.Samples, x), append(row.Rounds, i), append(rates, 1e3/x)
	}
	q, m := stat.Summarize(row.Samples, "ns"), stat.Summarize(rates, "Mpps")
	row.Ns, row.Mpps = &q, &m
	doc := record.New[record.BenchRow]("bench", host.Fingerprint{Kernel: "6.12", Compiler: "gcc 14"})
	doc.Run, doc.Time, doc.Rows = run, begun, []record.BenchRow{row}
	if err := record.Save(path, doc); err != nil {
		t.Fatal(err)
	}
}

func TestReportRefuses(t *testing.T) {
	dir := t.TempDir()
	in := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := filepath.Join(dir, "good.json")
	saveBench(t, good, "a", time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), 100)
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.html")
	refuses(t, "report", []refused{
		{"no file", nil, exitUsage, "report needs a saved record"},
		{"too many", make([]string, maxReported+1), exitUsage, "65 records: at most 64"},
		{"format", []string{good, "--format", "pdf"}, exitUsage, `"pdf"`},
		{"page to a terminal", []string{good}, exitUsage, "add -o report.html"},
		{"empty output", []string{good, "-o", ""}, exitUsage, "--output is empty"},
		{"unknown flag", []string{good, "--color"}, exitUsage, "--color"},
		{"no such file", []string{filepath.Join(dir, "none"), "-o", out}, exitFailed, "none: no such file"},
		{"empty file", []string{in("empty.json", ""), "-o", out}, exitFailed, "empty.json: the file is empty"},
		{"truncated", []string{in("truncated.json", string(whole[:200])), "-o", out}, exitFailed, "truncated"},
		{"old schema", []string{in("old.json", strings.Replace(string(whole), "unthunk/1", "unthunk/0", 1)), "-o", out},
			exitFailed, `schema "unthunk/0"`},
		{"foreign", []string{in("foreign.json", `{"a":1}`), "-o", out}, exitFailed, "it has no schema"},
		{"kind", []string{in("drivers.json", strings.Replace(string(whole), `"bench"`, `"drivers"`, 1)), "-o", out},
			exitFailed, "only records of bench, run"},
		{"check", []string{in("check.json", `{"schema":"unthunk/1","kind":"check","run":"a","rows":[]}`), "-o", out},
			exitFailed, "unthunk compare says what two of them differ in"},
		{"hostile name", []string{in("hostile.json", strings.Replace(string(whole), "redirect-map/bulk=16", `x\u001b[2J`,
			1)), "-o", out}, exitFailed, "impossible name"},
		{"to a folder", []string{good, "-o", dir}, exitFailed, "it is a directory"},
		{"to nowhere", []string{good, "-o", filepath.Join(dir, "no", "x.html")}, exitFailed, "no such file"},
		{"folder without records", []string{t.TempDir(), "-o", out}, exitFailed, "it has no file named *.json"},
		{"svg without a profile", []string{good, "--format", "svg", "-o", out}, exitFailed, "0 records with call chains"},
		{"two folders", []string{dir, dir, "-o", out}, exitUsage, "two folders"},
	})
	if _, err := os.Stat(out); err == nil {
		t.Error("a page was written")
	}
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	file, out := filepath.Join(dir, "<script>alert(1)<script>.json"), filepath.Join(dir, "out.html")
	saveBench(t, file, "a", time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), 100)
	if code, stdout, stderr := unthunk(t, "report", file, file, "-o", out); code != exitDone || stdout+stderr != "" {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	if !strings.HasPrefix(page, "<!doctype html>") || strings.Count(page, "<script") != 1 || !strings.Contains(page, "9.96 Mpps on one core") {
		t.Errorf("%.500s", page)
	}
	for format, want := range map[string]string{"markdown": "# 9.96 Mpps on one core\n",
		"csv": "file,kind,time,run,kernel,cpu,row,measure,value,low,high,n,unit,note\n"} {
		if code, stdout, stderr := unthunk(t, "report", file, "--format", format); code != exitDone ||
			!strings.HasPrefix(stdout, want) || stderr != "" {
			t.Errorf("%s: exit code %d: %.200s%s", format, code, stdout, stderr)
		}
	}
}

func TestHistory(t *testing.T) {
	dir := t.TempDir()
	for i := range 16 {
		ns := 100 + 0.3*float64(i*7%5)
		if i >= 8 {
			ns *= 1.5
		}
		saveBench(t, filepath.Join(dir, fmt.Sprintf("%02d.json", i)), fmt.Sprint(i), time.Date(2026, 1, 1+i, 0, 0, 0, 0, time.UTC), ns)
	}
	saved := filepath.Join(t.TempDir(), "history.json")
	code, stdout, stderr := unthunk(t, "history", dir, "--save", saved)
	if code != exitDone || stderr != "" || !strings.Contains(stdout, "▲ +50.0 %") ||
		!strings.Contains(stdout, "from 2026-01-09 00:00 on (08.json)") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	for line := range strings.SplitSeq(stdout, "\n") {
		if n := len([]rune(line)); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	code, stdout, _ = unthunk(t, "history", dir, "--json")
	var doc struct {
		Schema, Kind string
		Rows         []struct {
			Name    string
			Changes []struct{ Record int }
		}
	}
	if err := json.Unmarshal([]byte(stdout), &doc); code != exitDone || err != nil || doc.Schema != record.Schema ||
		doc.Kind != "history" || len(doc.Rows) != 1 || doc.Rows[0].Changes[0].Record != 8 {
		t.Errorf("exit code %d, %v: %+v", code, err, doc)
	}
	out := filepath.Join(t.TempDir(), "out.html")
	if code, _, stderr := unthunk(t, "report", dir, "-o", out); code != exitDone {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	refuses(t, "history", []refused{
		{"no folder", nil, exitUsage, "history needs one folder"},
		{"two", []string{dir, dir}, exitUsage, "history needs one folder"},
		{"none", []string{filepath.Join(dir, "none")}, exitFailed, "no such file"},
		{"a file", []string{filepath.Join(dir, "00.json")}, exitUsage, "compare OLD NEW takes files"},
		{"empty", []string{t.TempDir()}, exitFailed, "it has no file named *.json"},
		{"its own output", []string{filepath.Dir(saved)}, exitFailed, "only records of bench, run"},
		{"save nowhere", []string{dir, "--save", filepath.Join(dir, "no", "x")}, exitFailed, "no such file"},
	})
}
