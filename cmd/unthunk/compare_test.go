package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// saved writes a record of a ladder whose rows take factor times as long.
func saved(t *testing.T, dir, name, run string, seed uint64, factor float64) string {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	doc := &record.Document[record.BenchRow]{Head: record.Head{Schema: record.Schema, Kind: "bench", Run: run}, Warnings: []record.Warning{}}
	for _, op := range []struct {
		name, suffix string
		factor       float64
	}{{"none", "", 1}, {"parse", "/operation=parse", 1.1}} {
		for _, bulk := range []string{"1", "64"} {
			row := record.BenchRow{
				Name:   "redirect-map/bulk=" + bulk + op.suffix,
				Labels: map[string]string{"bulk": bulk, "operation": op.name},
			}
			var mpps []float64
			for i := range 20 {
				x := 100 * factor * op.factor * math.Exp(0.01*r.NormFloat64())
				row.Samples, row.Rounds, mpps = append(row.Samples, x), append(row.Rounds, i), append(mpps, 1e3/x)
			}
			ns, m := stat.Summarize(row.Samples, "ns"), stat.Summarize(mpps, "Mpps")
			row.Ns, row.Mpps = &ns, &m
			doc.Rows = append(doc.Rows, row)
		}
	}
	path := filepath.Join(dir, name)
	if err := record.Save(path, doc); err != nil {
		t.Fatal(err)
	}
	return path
}

// savedTax writes a record of tax whose prices are factor times as high.
func savedTax(t *testing.T, dir, name, run string, seed uint64, factor float64) string {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	doc := &record.Document[record.TaxRow]{Head: record.Head{Schema: record.Schema, Kind: "tax", Run: run}, Warnings: []record.Warning{}}
	for _, call := range []struct {
		name string
		ns   float64
	}{{"control", 0}, {"map-lookup/hash", 2}, {"ndo-xdp-xmit/bulk=16", 10}} {
		row := record.TaxRow{Name: call.name, Labels: map[string]string{"pair": call.name}}
		var with, without []float64
		for i := range 20 {
			without = append(without, 8+0.02*r.NormFloat64())
			with = append(with, without[i]+call.ns*factor+0.02*r.NormFloat64())
			row.Samples, row.Rounds = append(row.Samples, with[i]-without[i]), append(row.Rounds, i)
		}
		w, o, p := stat.Summarize(with, "ns"), stat.Summarize(without, "ns"), stat.Shift(with, without, "ns")
		row.With, row.Without, row.Price = &w, &o, &p
		doc.Rows = append(doc.Rows, row)
	}
	path := filepath.Join(dir, name)
	if err := record.Save(path, doc); err != nil {
		t.Fatal(err)
	}
	return path
}

// savedProfile writes a profile whose transmit takes factor times as long.
func savedProfile(t *testing.T, dir, name, run string, seed uint64, factor float64) string {
	t.Helper()
	const rounds = 20
	r := rand.New(rand.NewPCG(seed, 5))
	p := new(record.Profile)
	p.Packet = &stat.Quantity{N: rounds, Unit: "ns"}
	p.Schema, p.Kind, p.Run, p.Warnings = record.Schema, "profile", run, []record.Warning{}
	p.Sampling = record.Sampling{Event: "cpu-clock", Rate: 10_000, Samples: 100_000}
	for _, stage := range []struct {
		name string
		ns   float64
	}{{"receive", 60}, {"transmit", 100 * factor}, {"dma", 0}} {
		row := record.ProfileRow{Name: stage.name, Ns: &stat.Quantity{N: rounds, Unit: "ns"}}
		for i := range rounds {
			x := stage.ns * math.Exp(0.01*r.NormFloat64())
			row.Samples, row.Rounds = append(row.Samples, x), append(row.Rounds, i)
			row.Ns.Median += x / rounds
		}
		row.Ns.Low, row.Ns.High = row.Ns.Median-1, row.Ns.Median+1
		p.Packet.Median += row.Ns.Median
		p.Rows = append(p.Rows, row)
	}
	p.Packet.Low, p.Packet.High = p.Packet.Median-1, p.Packet.Median+1
	path := filepath.Join(dir, name)
	if err := record.Save(path, p); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCompareVerb(t *testing.T) {
	dir := t.TempDir()
	old := saved(t, dir, "old.json", "a", 1, 1)
	again := saved(t, dir, "again.json", "a", 2, 1)
	slow := saved(t, dir, "slow.json", "b", 3, 2)
	fast := saved(t, dir, "fast.json", "c", 4, 0.5)
	tax, dear := savedTax(t, dir, "tax.json", "d", 5, 1), savedTax(t, dir, "dear.json", "e", 6, 1.5)
	profile, slowProfile := savedProfile(t, dir, "profile.json", "f", 7, 1), savedProfile(t, dir, "slow-profile.json", "g", 8, 1.5)
	xray, badProfile := filepath.Join(dir, "xray.json"), filepath.Join(dir, "bad-profile.json")
	truncated, foreign := filepath.Join(dir, "truncated.json"), filepath.Join(dir, "foreign.json")
	b, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		truncated: string(b[:len(b)/3]), foreign: `{"name":"left-pad"}`,
		xray:       `{"schema":"unthunk/1","kind":"xray","run":"x","rows":[]}`,
		badProfile: `{"schema":"unthunk/1","kind":"profile","run":"x","rows":[]}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		args             []string
		code             int
		stdout, stderr   string
		stdoutToo, never string
	}{
		"slower": {args: []string{old, slow}, code: exitRegression, stdout: "slower (would have seen",
			stdoutToo: "All 4 rows are slower by more than 2 %: "},
		"faster":     {args: []string{slow, old}, code: exitDone, stdout: "faster (would have seen"},
		"faster too": {args: []string{old, fast}, code: exitDone, stdout: "faster (would have seen"},
		"same run":   {args: []string{old, again}, code: exitDone, stdout: "no difference seen (would have seen", never: "slower ("},
		"itself":     {args: []string{old, old}, code: exitDone, stdout: "no difference seen"},
		"threshold":  {args: []string{old, slow, "--threshold", "150"}, code: exitDone, stdout: "slower (would"},
		"by": {args: []string{old, "--by", "operation"}, code: exitRegression,
			stdout: "redirect-map/operation=parse against redirect-map"},
		"by nothing": {args: []string{old, "--by", "place"}, code: exitUsage, stderr: "compare by place: no two rows differ in it alone"},
		"prices": {args: []string{tax, dear}, code: exitRegression, stdout: "in % of the old price",
			stdoutToo: "Both prices are higher by more than 2 %: "},
		"lower":      {args: []string{dear, tax}, code: exitDone, stdout: "faster (would have seen", stdoutToo: "Both prices are lower: "},
		"tax itself": {args: []string{tax, tax}, code: exitDone, stdout: "no difference seen", stdoutToo: "a control: its price is 0 in both"},
		"limit":      {args: []string{tax, dear, "--threshold", "80"}, code: exitDone, stdout: "slower (would"},
		"two kinds": {args: []string{old, tax}, code: exitUsage, stderr: "compare " + old + " with " + tax +
			": records of these kinds are not compared: old is of bench, new of tax"},
		"by of tax": {args: []string{tax, "--by", "pair"}, code: exitUsage,
			stderr: "compare by pair: records of these kinds are not compared: each row of tax is the price of another call"},

		"stages": {args: []string{profile, slowProfile}, code: exitRegression, stdout: "transmit ",
			stdoutToo: "2 of 4 rows slower by more than 2 % of the packet (3.2"},
		"stages faster": {args: []string{slowProfile, profile}, code: exitDone, stdout: "faster", stdoutToo: "No row of 4 is proven slower"},
		"stages themselves": {args: []string{profile, profile, "--threshold", "10"}, code: exitDone,
			stdout: "no difference seen", never: "cannot tell"},
		"stages, threshold": {args: []string{profile, slowProfile, "--threshold", "40"}, code: exitDone, stdout: "slower"},
		"profile, bench": {args: []string{profile, old}, code: exitUsage, stderr: "compare " + profile +
			" with " + old + ": the first is of profile, the second of bench"},
		"bench, profile": {args: []string{old, profile}, code: exitUsage, stderr: "compare " + old +
			" with " + profile + ": the first is of bench, the second of profile"},
		"xray, profile":    {args: []string{xray, profile}, code: exitUsage, stderr: "the second of profile"},
		"tax, profile":     {args: []string{tax, profile}, code: exitUsage, stderr: "the second of profile"},
		"profile, nothing": {args: []string{profile, foreign}, code: exitFailed, stderr: "load " + foreign + ": not a record of unthunk"},
		"bad profile":      {args: []string{profile, badProfile}, code: exitFailed, stderr: "load " + badProfile + ": it has no ns per packet"},
		"profile by": {args: []string{profile, "--by", "stage"}, code: exitUsage,
			stderr: "compare --by stage: " + profile + " is of profile"},
		"profiles by": {args: []string{profile, slowProfile, "--by", "stage"}, code: exitUsage, stderr: "--by needs one file"},

		"no files":   {args: nil, code: exitUsage, stderr: "compare needs two files"},
		"one file":   {args: []string{old}, code: exitUsage, stderr: "compare needs two files"},
		"three":      {args: []string{old, old, old}, code: exitUsage, stderr: "compare needs two files"},
		"by two":     {args: []string{old, old, "--by", "bulk"}, code: exitUsage, stderr: "--by needs one file"},
		"negative":   {args: []string{old, slow, "--threshold", "-1"}, code: exitUsage, stderr: "threshold"},
		"NaN":        {args: []string{old, slow, "--threshold", "NaN"}, code: exitUsage, stderr: "threshold"},
		"bad flag":   {args: []string{old, slow, "--frob"}, code: exitUsage, stderr: "frob"},
		"truncated":  {args: []string{old, truncated}, code: exitFailed, stderr: "load " + truncated + ": truncated"},
		"foreign":    {args: []string{foreign, old}, code: exitFailed, stderr: "load " + foreign + ": not a record of unthunk"},
		"absent":     {args: []string{old, filepath.Join(dir, "none")}, code: exitFailed, stderr: "none: no such file"},
		"unwritable": {args: []string{old, slow, "--save", filepath.Join(dir, "no", "x")}, code: exitFailed, stderr: "save "},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(context.Background(), append([]string{"compare"}, tt.args...), strings.NewReader(""), &stdout, &stderr)
			if code != tt.code {
				t.Errorf("exit %d, want %d: %s", code, tt.code, &stderr)
			}
			for _, want := range []string{tt.stdout, tt.stdoutToo} {
				if !strings.Contains(stdout.String(), want) {
					t.Errorf("stdout lacks %q:\n%s", want, &stdout)
				}
			}
			if tt.never != "" && strings.Contains(stdout.String(), tt.never) {
				t.Errorf("stdout holds %q:\n%s", tt.never, &stdout)
			}
			if !strings.Contains(stderr.String(), tt.stderr) || tt.stderr == "" && stderr.Len() > 0 || strings.Count(stderr.String(), "\n") > 1 {
				t.Errorf("stderr %q, want %q on one line", &stderr, tt.stderr)
			}
			if tt.stderr != "" && stdout.Len() > 0 {
				t.Errorf("stdout on failure: %s", &stdout)
			}
		})
	}
}

func TestCompareJSON(t *testing.T) {
	dir := t.TempDir()
	old, slow := saved(t, dir, "old.json", "a", 1, 1), saved(t, dir, "slow.json", "b", 3, 2)
	path := filepath.Join(dir, "diff.json")
	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), []string{"compare", old, slow, "--json", "--save", path}, nil, &stdout,
		&stderr); code != exitRegression {
		t.Fatalf("exit %d: %s", code, &stderr)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file, stdout.Bytes()) {
		t.Errorf("the saved document is not the printed one")
	}
	var doc struct {
		Schema, Kind string
		Host         map[string]any
		Rows         []struct{ Name, Verdict string }
		Warnings     []any
	}
	if err := json.Unmarshal(file, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Schema != "unthunk/1" || doc.Kind != "compare" || doc.Host == nil || doc.Warnings == nil ||
		len(doc.Rows) != 4 || doc.Rows[0].Verdict != "slower" {
		t.Errorf("%s", file)
	}
}

func TestCompareProfilesJSON(t *testing.T) {
	dir := t.TempDir()
	old, slow := savedProfile(t, dir, "old.json", "a", 1, 1), savedProfile(t, dir, "slow.json", "b", 3, 2)
	path := filepath.Join(dir, "diff.json")
	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), []string{"compare", old, slow, "--json", "--save", path}, nil, &stdout,
		&stderr); code != exitRegression {
		t.Fatalf("exit %d: %s", code, &stderr)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file, stdout.Bytes()) {
		t.Errorf("the saved document is not the printed one")
	}
	var doc struct {
		Kind string
		Old  record.Origin
		Rows []struct {
			Name       string
			Difference struct{ Unit string }
		}
	}
	if err := json.Unmarshal(file, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Kind != "compare" || doc.Old.File != old || len(doc.Rows) != 4 || doc.Rows[0].Name != "packet" ||
		doc.Rows[0].Difference.Unit != "ns" {
		t.Errorf("%s", file)
	}
}

// Two records of check say what changed on a machine: the first line counts it.
func TestCompareChecks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old, new := filepath.Join(dir, "old.json"), filepath.Join(dir, "new.json")
	if code, _, stderr := unthunk(t, "check", "--save", old); code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	b, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	var doc record.Check
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	doc.Rows[0].Found, doc.Rows[0].Level, doc.Run = "something else", host.LevelWarn, "another"
	doc.Rows[1].Level = host.LevelOK
	if err := record.Save(new, &doc); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := unthunk(t, "compare", old, new)
	for _, want := range []string{" differ", "new warning", "! " + doc.Rows[0].Name, "new  something else"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q:\n%s", want, stdout)
		}
	}
	if code != exitDone || stderr != "" {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	code, stdout, stderr = unthunk(t, "compare", old, old)
	if code != exitDone || stderr != "" || !strings.Contains(stdout, "0 findings differ, with 0 new warnings (!)") {
		t.Errorf("with itself: exit code %d: %s%s", code, stderr, stdout)
	}
	bench := saved(t, dir, "bench.json", "a", 1, 1)
	if code, _, stderr := unthunk(t, "compare", old, bench); code != exitUsage || !strings.Contains(stderr, "the first is of check") {
		t.Errorf("with a record of bench: exit code %d: %s", code, stderr)
	}
}
