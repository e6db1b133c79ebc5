package main

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// bench of rows, each with a number of rounds and ns, 0 for a refused one.
func savedRows(t *testing.T, dir, name, run string, seed uint64, rounds int, ns map[string]float64) string {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	head := record.Head{Schema: record.Schema, Kind: "bench", Run: run}
	doc := &record.Document[record.BenchRow]{Head: head, Warnings: []record.Warning{}}
	for _, row := range []string{"1", "2", "4", "8", "16", "32", "64"} {
		mid, ok := ns[row]
		if !ok {
			continue
		}
		b := record.BenchRow{Name: "redirect-map/bulk=" + row, Labels: map[string]string{"bulk": row}}
		if mid == 0 {
			b.Refused = "packet counts disagree: 1024 sent, 1024 redirected, 0 received"
			doc.Rows = append(doc.Rows, b)
			continue
		}
		var mpps []float64
		for i := range rounds {
			x := mid * math.Exp(0.01*r.NormFloat64())
			b.Samples, b.Rounds, mpps = append(b.Samples, x), append(b.Rounds, i), append(mpps, 1e3/x)
		}
		q, m := stat.Summarize(b.Samples, "ns"), stat.Summarize(mpps, "Mpps")
		b.Ns, b.Mpps = &q, &m
		doc.Rows = append(doc.Rows, b)
	}
	path := filepath.Join(dir, name)
	if err := record.Save(path, doc); err != nil {
		t.Fatal(err)
	}
	return path
}

// rowsOf are the seven rows of a ladder, each of some ns.
func rowsOf(ns float64) map[string]float64 {
	m := make(map[string]float64)
	for _, bulk := range []string{"1", "2", "4", "8", "16", "32", "64"} {
		m[bulk] = ns
	}
	return m
}

// A system that is broken, or that was measured in another way, does not pass.
func TestCompareNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := savedRows(t, dir, "good.json", "a", 1, 20, rowsOf(100))
	refused := savedRows(t, dir, "refused.json", "b", 2, 20, rowsOf(0))
	other := savedRows(t, dir, "other.json", "c", 3, 20, map[string]float64{"64": 90})
	low := savedRows(t, dir, "low.json", "d", 4, 20, map[string]float64{"1": 90})
	partly := rowsOf(100)
	partly["4"] = 0
	lost := savedRows(t, dir, "lost.json", "e", 5, 20, partly)
	slower := rowsOf(150)
	slower["4"] = 0
	slow := savedRows(t, dir, "slow.json", "f", 6, 20, slower)
	for _, test := range []struct {
		name     string
		old, new string
		code     int
		first    string
		why      string
	}{
		{"refused", good, refused, exitFailed, "Nothing could be compared: no row of the new record has a number: " +
			"redirect-map/bulk=1: new refused: packet counts disagree", "no row of the new record has a number"},
		{"old refused", refused, good, exitFailed, "Nothing could be compared: no row of the old record has a number",
			"old record"},
		{"no common row", other, low, exitFailed,
			"Nothing could be compared: the two records have no row in common.", "no row in common"},
		{"one row lost", good, lost, exitFailed, "1 row lost its number: redirect-map/bulk=4: new refused: packet " +
			"counts disagree: 1024 sent, 1024 redirected, 0 received. No row of 6 is proven slower",
			"compare: redirect-map/bulk=4 lost its number: new refused: packet counts disagree"},
		{"one row lost, others slower", good, slow, exitRegression, "1 row lost its number: redirect-map/bulk=4: ", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := unthunk(t, "compare", test.old, test.new, "--threshold", "5")
			if code != test.code || !strings.Contains(stderr, test.why) || strings.Count(stderr, "\n") > 1 {
				t.Errorf("exit code %d, want %d: %s", code, test.code, stderr)
			}
			_, body, _ := strings.Cut(stdout, "\n\n")
			if !strings.HasPrefix(strings.Join(strings.Fields(body), " "), test.first) {
				t.Errorf("not said first: %q:\n%s", test.first, stdout)
			}
			code, stdout, _ = unthunk(t, "compare", test.old, test.new, "--threshold", "5", "--json")
			if code != test.code || !json.Valid([]byte(stdout)) {
				t.Errorf("--json: exit code %d: %s", code, stdout)
			}
			for format, begin := range map[string]string{"markdown": "### ", "junit": "<?xml", "ktap": "KTAP version 1\n", "json": "{"} {
				code, stdout, _ = unthunk(t, "compare", test.old, test.new, "--threshold", "5", "--format", format)
				if code != test.code || !strings.HasPrefix(stdout, begin) {
					t.Errorf("--format %s: exit code %d: %s", format, code, stdout)
				}
			}
		})
	}
}

// Seven rounds, as --quick has, show a change of 10 % in each of seven rows.
func TestCompareSevenRounds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, run := range []string{"a", "b"} { // rows of one run are paired, of two not
		old := savedRows(t, dir, "old.json", "a", 1, 7, rowsOf(100))
		slow := savedRows(t, dir, "slow.json", run, 2, 7, rowsOf(110))
		code, stdout, _ := unthunk(t, "compare", old, slow)
		if code != exitRegression || strings.Contains(stdout, "cannot tell") ||
			strings.Contains(stdout, "would have seen ?") {
			t.Errorf("slower: exit code %d:\n%s", code, stdout)
		}
		code, stdout, _ = unthunk(t, "compare", slow, old)
		said := strings.Join(strings.Fields(stdout), " ")
		if code != exitDone || !strings.Contains(said, "All 7 rows are faster: ") ||
			!strings.Contains(said, "The largest change: redirect-map/bulk=") || !strings.Contains(said, " Mpps, ") ||
			strings.Contains(said, "proven slower") {
			t.Errorf("faster: exit code %d:\n%s", code, stdout)
		}
	}
}

// Too few rounds can show nothing: how many are needed is said.
func TestCompareFewRounds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := savedRows(t, dir, "old.json", "a", 1, 4, rowsOf(100))
	for run, needed := range map[string]string{"a": "6", "b": "7"} { // of one run, of two
		slow := savedRows(t, dir, "slow.json", run, 2, 4, rowsOf(110))
		code, stdout, _ := unthunk(t, "compare", old, slow)
		said := strings.Join(strings.Fields(stdout), " ")
		if code != exitDone ||
			!strings.Contains(said, "These runs cannot tell whether any row of 7 is slower or faster.") ||
			!strings.Contains(said, "too few rounds for a verdict: 4, and 7 rows need "+needed+" (unthunk bench --rounds "+needed+")") {
			t.Errorf("exit code %d:\n%s", code, stdout)
		}
	}
}

// What is not the packet is no regression of it.
func TestCompareProfilesOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, stage := range []string{"other", "generator", "sink", "observer", "unattributed", "transmit"} {
		old := savedStages(t, dir, "old.json", "a", 1, stage, 40)
		new := savedStages(t, dir, "new.json", "b", 2, stage, 80)
		code, stdout, stderr := unthunk(t, "compare", old, new)
		want := exitDone
		if stage == "transmit" {
			want = exitRegression
		}
		if code != want {
			t.Errorf("%s twice as long: exit code %d, want %d: %s\n%s", stage, code, want, stderr, stdout)
		}
	}
}

// savedStages writes a profile of receive and of one stage more.
func savedStages(t *testing.T, dir, name, run string, seed uint64, stage string, ns float64) string {
	t.Helper()
	path := savedProfile(t, dir, name, run, seed, 1)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := new(record.Profile)
	if err := json.Unmarshal(b, p); err != nil {
		t.Fatal(err)
	}
	p.Rows = p.Rows[:2]
	row := &p.Rows[1]
	row.Name = stage
	for i := range row.Samples {
		row.Samples[i] *= ns / 100
	}
	for _, x := range []*float64{&row.Ns.Median, &row.Ns.Low, &row.Ns.High} {
		*x *= ns / 100
	}
	p.Packet.Median = p.Rows[0].Ns.Median + row.Ns.Median
	p.Packet.Low, p.Packet.High = p.Packet.Median-1, p.Packet.Median+1
	if err := record.Save(path, p); err != nil {
		t.Fatal(err)
	}
	return path
}
