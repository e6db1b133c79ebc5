package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

// --quick answers the question of the tool: what a redirect costs, what indirect calls take
// of it, on one screen.
func TestRunQuick(t *testing.T) {
	testutil.Root(t)
	file := filepath.Join(t.TempDir(), "run.json")
	code, stdout, stderr := unthunk(t, "--quick", "--save", file)
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	if len(lines) > 24 {
		t.Errorf("%d lines:\n%s", len(lines), stdout)
	}
	for _, line := range lines {
		if utf8.RuneCountInString(line) > 80 || strings.ContainsAny(line, "\x1b\r") {
			t.Errorf("%q", line)
		}
	}
	said := strings.Join(strings.Fields(stdout), " ")
	for _, want := range []string{"edirect costs", "bulk Mpps test ns redirect ns", "rounds", "more unthunk -v"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in\n%s", want, stdout)
		}
	}
	s, err := record.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	prices := make(map[string]record.TaxRow)
	for _, row := range s.Prices() {
		prices[row.Name] = row
	}
	call, ok := prices["bpf-prog"]
	if !ok {
		t.Fatalf("a call has no price: %+v", s.Prices())
	}
	// A full run of this test's machine may refuse the price; then the answer says why.
	if call.Refused != "" {
		if !strings.Contains(said, "was not measured") {
			t.Errorf("refused: %s\n%s", call.Refused, stdout)
		}
		return
	}
	if _, ok := prices["packet/bulk=16"]; !ok || !strings.Contains(said, " ns of it, ") {
		t.Errorf("what indirect calls take is missing in\n%s", stdout)
	}
}

// A run that is long enough has all parts, a shorter one the rates and one price, the
// shortest the rates; together they take the time that was asked for.
func TestShare(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		whole           time.Duration
		prices, stages  bool
		bulks, mostPair int
	}{
		{runDuration, true, true, 4, 99}, {quickDuration, true, false, 3, 2}, {2 * time.Second, false, false, 3, 0},
	} {
		p := share(tt.whole)
		if p.rates+p.prices+p.stages != tt.whole || (p.prices > 0) != tt.prices || (p.stages > 0) != tt.stages ||
			len(p.bulks) != tt.bulks || len(p.pairs) > tt.mostPair || p.rates < time.Second {
			t.Errorf("%v: %+v", tt.whole, p)
		}
	}
}

func TestInterim(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	i := interim{w: &b, lines: 3}
	i.erase()
	i.erase()
	if b.String() != "\x1b[3A\x1b[J" {
		t.Errorf("%q", &b)
	}
}
