package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestProfileRefuses(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	refuses(t, "profile", []refused{
		{"argument", []string{"eth0"}, exitUsage, `"eth0"`},
		{"bulk 0", []string{"--bulk", "0"}, exitUsage, "bulk 0 is not within 1 … 256"},
		{"bulk 1000", []string{"--bulk", "1000"}, exitUsage, "bulk 1000"},
		{"scenario", []string{"--scenario", "nonsense"}, exitUsage, "nonsense"},
		{"two scenarios", []string{"--scenario", "tx,drop"}, exitUsage, "tx,drop"},
		{"operation", []string{"--operation", "swap"}, exitUsage, `"swap"`},
		{"rate", []string{"--rate", "-1"}, exitUsage, "-1 Hz"},
		{"high rate", []string{"--rate", "1000000"}, exitUsage, "1000000 Hz"},
		{"top", []string{"--top", "-1"}, exitUsage, "-1 functions"},
		{"rounds", []string{"--rounds", "0"}, exitUsage, "0 rounds"},
		{"annotate and JSON", []string{"--annotate", "x", "--json"}, exitUsage, "choose one"},
		{"no function", []string{"--annotate", ""}, exitUsage, "--annotate is empty"},
		{"no such function", []string{"--annotate", "nope"}, exitUsage, "this kernel has no function nope"},
		{"in alone", []string{"--in", "lo"}, exitUsage, "needs both"},
		{"no such device", []string{"--in", "lo", "--out", "no-such-dev"}, exitFailed, "no-such-dev"},
		{"devices and bulk", []string{"--in", "lo", "--out", "x", "--bulk", "1"}, exitUsage, "--bulk"},
		{"save nowhere", []string{"--save", filepath.Join(dir, "no", "x.json")}, exitFailed, "no such file"},
		{"pprof nowhere", []string{"--pprof", filepath.Join(dir, "no", "x.gz")}, exitFailed, "no such file"},
		{"svg on a folder", []string{"--svg", dir}, exitFailed, "directory"},
		{"CPU", []string{"--cpu", "9999"}, exitUsage, "CPU 9999"},
	})
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What every output of one run says, and that compare reads what --save writes.
func TestProfileOutputs(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	// The loop lets samples fall into the program, which takes 1.4 ns without it.
	code, stdout, stderr := unthunk(t, "profile", "--rounds", "6", "--duration", "3s", "--rate", "2000", "--operation", "spin:1000",
		"--annotate", "redirect_map", "--pprof", in("p.gz"), "--folded", in("p.folded"), "--svg", in("p.svg"), "--save", in("p.json"))
	answered(t, code, stderr)
	for _, want := range []string{"the redirect path takes", "generator", "unattributed", "indirect branches",
		"redirect_map [bpf]", "bpf_prog_", "throughput was"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in:\n%s", want, stdout)
		}
	}
	saved, err := record.Load(in("p.json"))
	if err != nil {
		t.Fatal(err)
	}
	if saved.Settings["bulk"] != "16" || saved.Settings["event"] == "" || saved.Settings["cpu"] == "" {
		t.Errorf("settings %v", saved.Settings)
	}

	f, err := os.Open(in("p.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pprof, err := profile.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	var samples, ns int64
	for _, s := range pprof.Sample {
		samples += s.Value[0]
		ns += s.Value[1]
	}
	if samples != int64(saved.Profile().Sampling.Samples) {
		t.Errorf("%d samples for pprof, %d saved", samples, saved.Profile().Sampling.Samples)
	}
	want := 0.0
	for _, s := range saved.Profile().Stacks {
		want += s.Ns
	}
	// pprof rounds each stack to a millionth of a ns.
	if got := float64(ns) / 1e6; math.Abs(got-want) > 1e-6*float64(len(saved.Profile().Stacks)) {
		t.Errorf("%f ns a packet for pprof, %f saved", got, want)
	}
	folded, err := os.ReadFile(in("p.folded"))
	if err != nil || strings.Count(string(folded), "\n") != len(saved.Profile().Stacks) {
		t.Errorf("%v, %d folded stacks of %d", err, strings.Count(string(folded), "\n"), len(saved.Profile().Stacks))
	}
	svg, err := os.Open(in("p.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer svg.Close()
	for d := xml.NewDecoder(svg); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}

	code, stdout, stderr = unthunk(t, "compare", in("p.json"), in("p.json"))
	if code != exitDone || !strings.Contains(stdout, "unattributed") {
		t.Errorf("exit code %d: %s\n%s", code, stderr, stdout)
	}
}

// answered fails the test when a profile neither has an answer nor says why it has none,
// as on a busy machine.
func answered(t *testing.T, code int, stderr string) {
	t.Helper()
	if noAnswer := strings.HasPrefix(stderr, "unthunk: no answer: "); code == exitFailed && noAnswer {
		t.Log(stderr)
	} else if code != exitDone || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
}

// The command contract of --json.
func TestProfileJSON(t *testing.T) {
	testutil.Root(t)
	code, stdout, stderr := unthunk(t, "profile", "--rounds", "6", "--duration", "2s", "--rate", "2000", "--json", "--scenario", "drop")
	answered(t, code, stderr)
	type quantity struct {
		Median float64
		Unit   string
	}
	var doc struct {
		Schema, Kind string
		Packet       quantity
		Rows         []struct {
			Name    string
			Ns      quantity
			Samples []float64
		}
	}
	dec := json.NewDecoder(strings.NewReader(stdout))
	if err := dec.Decode(&doc); err != nil || dec.More() {
		t.Fatalf("%v, more %v", err, dec.More())
	}
	if doc.Schema != record.Schema || doc.Kind != "profile" || doc.Packet.Unit != "ns" || len(doc.Rows) < 5 {
		t.Errorf("schema %q, kind %q, packet %+v, %d rows", doc.Schema, doc.Kind, doc.Packet, len(doc.Rows))
	}
	sum := 0.0
	for _, row := range doc.Rows {
		sum += row.Ns.Median
		if row.Name == "" || row.Ns.Unit != "ns" || len(row.Samples) == 0 || row.Name == "redirect" {
			t.Errorf("%+v", row)
		}
	}
	if sum < 0.95*doc.Packet.Median || sum > 1.05*doc.Packet.Median {
		t.Errorf("rows are %.1f ns, the packet %.1f", sum, doc.Packet.Median)
	}
}
