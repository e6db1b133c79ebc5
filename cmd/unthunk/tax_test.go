package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestTaxRefuses(t *testing.T) {
	dir := t.TempDir()
	refuses(t, "tax", []refused{
		{"unknown pair", []string{"--pair", "map-lookups"}, exitUsage, `"map-lookups" is not one of control, bpf-prog`},
		{"one of two", []string{"--pair", "control,x"}, exitUsage, `"x"`},
		{"empty pair", []string{"--pair", ""}, exitUsage, "--pair is empty"},
		{"argument", []string{"control"}, exitUsage, `"control"`},
		{"rounds", []string{"--rounds", "0"}, exitUsage, "0 rounds"},
		{"duration", []string{"--duration", "1ms"}, exitUsage, "1ms"},
		{"save nowhere", []string{"--save", filepath.Join(dir, "no", "x.json")}, exitFailed, "no such file"},
		{"CPU", []string{"--cpu", "9999"}, exitUsage, "CPU 9999"},
	})
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The command contract of --json, and that compare reads what --save writes.
func TestTaxJSON(t *testing.T) {
	testutil.Root(t)
	file := filepath.Join(t.TempDir(), "tax.json")
	code, stdout, stderr := unthunk(t, "tax", "--pair", "control,map-lookup/lpm,user", "--rounds", "6", "--duration",
		"2s", "--json", "--save", file)
	if code != exitDone || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	type quantity struct {
		Median, Low, High float64
		Unit              string
	}
	var doc struct {
		Schema, Kind string
		Settings     map[string]string
		Rows         []struct {
			Name, Premise        string
			With, Without, Price *quantity
			Samples              []float64
		}
	}
	dec := json.NewDecoder(strings.NewReader(stdout))
	if err := dec.Decode(&doc); err != nil || dec.More() {
		t.Fatalf("%v, more %v", err, dec.More())
	}
	if doc.Schema != record.Schema || doc.Kind != "tax" || len(doc.Rows) != 8 {
		t.Errorf("schema %q, kind %q, %d rows", doc.Schema, doc.Kind, len(doc.Rows))
	}
	if doc.Settings["pair"] != "control,map-lookup/lpm,user" || doc.Settings["rounds"] != "6" || doc.Settings["cpu"] == "" {
		t.Errorf("settings %v", doc.Settings)
	}
	for _, row := range doc.Rows {
		if row.Price == nil || row.Price.Unit != "ns" || row.With == nil || row.Without == nil || row.Premise == "" || len(row.Samples) != 6 {
			t.Errorf("%+v", row)
		}
	}

	code, stdout, stderr = unthunk(t, "compare", file, file)
	if code != exitDone || !strings.Contains(stdout, "map-lookup/lpm") {
		t.Errorf("exit code %d: %s\n%s", code, stderr, stdout)
	}
	code, stdout, _ = unthunk(t, "tax", "--pair", "user/retpoline", "--rounds", "6", "--duration", "1s", "--verbose")
	if code != exitDone || !strings.Contains(stdout, "mov %rax,(%rsp)") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
}

// A run in which no pair has a price is not a success.
func TestTaxNoPrice(t *testing.T) {
	testutil.Root(t)
	code, stdout, stderr := unthunk(t, "tax", "--pair", "return-frame", "--rounds", "1", "--duration", "1s")
	if code != exitFailed || !strings.Contains(stderr, "no row has a number") || !strings.Contains(stdout, "no price:") {
		t.Errorf("exit code %d: %s\n%s", code, stderr, stdout)
	}
}
