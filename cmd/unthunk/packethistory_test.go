package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
)

// packetHistory are the records of docs/history-of-a-packet.md, as scripts/history names them.
var packetHistory = []string{"../../docs/history/amd64.json", "../../docs/history/models.json",
	"../../docs/history/packet-socket.json", "../../docs/history/arm64.json"}

// The tables and the figure of docs/history-of-a-packet.md are what its records say.
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
}

// A function of the page's table of steps with a difference behind it has that in the step of its row, at bulk 16 where the row names
// no other.
func TestPacketHistorySteps(t *testing.T) {
	t.Parallel()
	var labs []*record.Lab
	for _, file := range packetHistory {
		saved, err := record.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		labs = append(labs, saved.Lab())
	}
	steps := compare.Kernels(labs)[0].Steps
	of := func(row *record.LabRow, version string) bool {
		return strings.HasPrefix(row.Version()+".", version+".")
	}
	from, to, checked := "", "", 0
	for line := range strings.Lines(readFile(t, "../../docs/history-of-a-packet.md")) {
		if m := regexp.MustCompile(`^\| ([0-9.]+) → ([0-9.]+) \|`).FindStringSubmatch(line); m != nil {
			from, to = m[1], m[2]
		} else if !strings.HasPrefix(line, "| | `") {
			continue
		}
		bulk := "16"
		if m := regexp.MustCompile(`bulk ([0-9]+)`).FindStringSubmatch(line); m != nil {
			bulk = m[1]
		}
		i := slices.IndexFunc(steps[bulk], func(s record.LabStep) bool { return of(s.Old, from) && of(s.New, to) })
		if i < 0 {
			t.Errorf("no step from %s to %s", from, to)
			continue
		}
		for _, m := range regexp.MustCompile("`([a-z0-9_]+)` ([+−][0-9.]+)").FindAllStringSubmatch(line, -1) {
			checked++
			want, err := strconv.ParseFloat(strings.Replace(m[2], "−", "-", 1), 64)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(steps[bulk][i].Change.Functions, func(d record.LabTraceDifference) bool {
				return slices.Contains(strings.Split(d.Name, " + "), m[1]) && d.Difference == want // of functions that call one another
			}) {
				t.Errorf("%s to %s, bulk %s: %s does not differ by %v", from, to, bulk, m[1], want)
			}
		}
	}
	if checked == 0 {
		t.Error("the page has no step")
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
