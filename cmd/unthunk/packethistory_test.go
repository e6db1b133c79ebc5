package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
)

// packetHistory are the records of docs/history-of-a-packet.md, as scripts/history names them.
var packetHistory = []string{"../../docs/history/amd64.json", "../../docs/history/models.json", "../../docs/history/arm64.json"}

// The tables and the figure of docs/history-of-a-packet.md are what its records say, and so is each number and each function
// of its text that names a step.
func TestPacketHistory(t *testing.T) {
	page := readFile(t, "../../docs/history-of-a-packet.md")
	_, rest, begins := strings.Cut(page, "<!-- begin of scripts/history -->\n")
	tables, _, ends := strings.Cut(rest, "<!-- end of scripts/history -->\n")
	if !begins || !ends {
		t.Fatal("the page has no place for tables")
	}
	for _, test := range []struct {
		have string
		args []string
	}{
		{tables, []string{"--format", "markdown", "--section", "kernels"}},
		{readFile(t, "../../docs/history-of-a-packet.svg"), []string{"--format", "svg"}},
	} {
		code, out, stderr := unthunk(t, append(append([]string{"report"}, packetHistory...), test.args...)...)
		if code != 0 || out != test.have {
			t.Errorf("report %v: exit code %d, %s: the page has something else: scripts/history makes it", test.args, code, stderr)
		}
	}
	// Functions of the table of steps, and the differences beside them.
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "| ") || !strings.Contains(line, "`") {
			continue
		}
		for _, m := range regexp.MustCompile("`([a-z_]+)` ([+−][0-9.]+)").FindAllStringSubmatch(line, -1) {
			difference := strings.Replace(m[2], "−", "-", 1)
			want := regexp.MustCompile(`\| ` + regexp.QuoteMeta(strings.ReplaceAll(m[1], "_", `_`)) + `[^|]*\|[^|]*\|[^|]*\| *` +
				regexp.QuoteMeta(difference) + ` \|`)
			if !want.MatchString(strings.ReplaceAll(tables, `\_`, "_")) {
				t.Errorf("the tables have no %s of %s", m[2], m[1])
			}
		}
	}
}

// The records of the page are of redirects that were counted, each of one unthunk, and small.
func TestPacketHistoryRecords(t *testing.T) {
	t.Parallel()
	for _, file := range packetHistory {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > 512<<10 {
			t.Errorf("%s has %d KiB", filepath.Base(file), info.Size()>>10)
		}
		saved, err := record.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		numbers, unthunks := 0, make(map[string]bool)
		for _, row := range saved.Lab().Rows {
			if row.Instructions != nil {
				numbers++
			}
			if row.Build != nil {
				unthunks[row.Build.Unthunk] = true
			}
		}
		if saved.Incomplete || numbers == 0 || len(unthunks) != 1 {
			t.Errorf("%s: incomplete %v, %d numbers, by %v", filepath.Base(file), saved.Incomplete, numbers, unthunks)
		}
	}
}
