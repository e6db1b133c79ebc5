package report

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

// difference is a record of prog diff, of two programs in one run, of which the second costs factor times as much.
func difference(t *testing.T, factor float64) *record.ProgDiff {
	t.Helper()
	old, is := recordtest.Cost("run", 1, 1), recordtest.Cost("run", 1, factor)
	old.Program.Instructions, is.Program.Instructions, is.Program.Target = 300, 312, "new.o"
	c, err := compare.Records(record.NewSaved(old), record.NewSaved(is), compare.Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	c.Kind = "prog-diff"
	return &record.ProgDiff{Comparison: *c, ProgDiffParts: record.ProgDiffParts{
		OldProgram: old.Program, NewProgram: is.Program, Packets: is.Packets,
		Behaviors: []record.BehaviorChange{
			{What: "verdict", Old: "tx", New: "drop", Packets: 120, First: 7}, {What: "length", Old: "80", New: "100", Packets: 3, First: 9},
			{What: "bytes", Packets: 1, First: 99},
		},
		Calls: []record.CallChange{{Name: "lookup vip_map", Old: 1, New: 3}, {Name: "tail-call table", Old: 1, New: 0}},
	}}
}

func TestProgDiffGolden(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		width  int
		factor float64
		change func(*record.ProgDiff)
	}{
		{"prog-diff.txt", 80, 1.05, func(*record.ProgDiff) {}},
		{"prog-diff-60.txt", 60, 0.9, func(d *record.ProgDiff) {
			d.Behaviors, d.Calls = []record.BehaviorChange{}, []record.CallChange{}
			for _, id := range []*record.ProgramIdentity{&d.OldProgram, &d.NewProgram} {
				id.Programs, id.AllBytes, id.AllInstructions = 3, 3000, 700
			}
		}},
		{"prog-diff-saved.txt", 80, 1, func(d *record.ProgDiff) {
			d.Behaviors, d.Calls, d.Incomplete = nil, nil, true
			row := &d.Rows[1]
			row.New, row.Difference, row.Missing = nil, nil, "new refused: timed runs differ from a single run: the verdict of 12.5 %"
		}},
	} {
		d := difference(t, test.factor)
		test.change(d)
		var b bytes.Buffer
		if err := ProgDiff(&b, Options{Width: test.width}, d); err != nil {
			t.Fatal(err)
		}
		reporttest.Fits(t, b.String(), test.width)
		reporttest.Golden(t, test.name, b.String())
	}
}

// CI reads the behavior before the rows, and a row that is slower is a failure.
func TestProgDiffTests(t *testing.T) {
	t.Parallel()
	for _, write := range []func(w io.Writer, c record.Changes) error{JUnitComparison, KTAPComparison} {
		var b bytes.Buffer
		if err := write(&b, difference(t, 1.1)); err != nil {
			t.Fatal(err)
		}
		allowed := difference(t, 1)
		allowed.BehaviorMayChange = true
		for _, of := range []struct {
			d    *record.ProgDiff
			fail bool
		}{{difference(t, 1), true}, {allowed, false}} {
			var b bytes.Buffer
			if err := write(&b, of.d); err != nil {
				t.Fatal(err)
			}
			failed := strings.Contains(b.String(), `type="behavior"`) || strings.Contains(b.String(), "not ok 1 behavior # BEHAVIOR CHANGED")
			if failed != of.fail || of.d.Regressed() != of.fail {
				t.Errorf("behavior failed %v, want %v:\n%s", failed, of.fail, b.String())
			}
		}
		if text := b.String(); strings.Contains(text, "<testsuites") && !strings.Contains(text, `<testsuites name="unthunk prog diff"`) ||
			strings.Contains(text, "unthunk.compare") {
			t.Errorf("it is named another verb:\n%s", text)
		}
		for _, want := range []string{"BEHAVIOR CHANGED: 124 packets of 16384 come out otherwise.", "120 packets: tx → drop", "verdict/tx"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("no %q in\n%s", want, b.String())
			}
		}
	}
	steadyOnly := difference(t, 1)
	steadyOnly.Behaviors, steadyOnly.Unsteady = []record.BehaviorChange{}, 3
	said := strings.Join(cells.Behaviors(steadyOnly), " ")
	if strings.Contains(said, "All packets") || !strings.Contains(said, "Of 3 of 16384") {
		t.Error(said)
	}
	for _, write := range []func(w io.Writer, c record.Changes) error{JUnitComparison, KTAPComparison} {
		for _, unsteady := range []int{0, 3, steadyOnly.Packets.Kept} {
			var b bytes.Buffer
			steadyOnly.Unsteady = unsteady
			if err := write(&b, steadyOnly); err != nil {
				t.Fatal(err)
			}
			skipped := strings.Contains(b.String(), "ok 1 behavior # SKIP Whether packets come out otherwise is NOT known") ||
				strings.Contains(b.String(), `<skipped message="Whether packets come out otherwise is NOT known`)
			if skipped != (unsteady == steadyOnly.Packets.Kept) {
				t.Errorf("%d unsteady, skipped %v:\n%s", unsteady, skipped, b.String())
			}
		}
	}
	one := difference(t, 1)
	one.Behaviors = []record.BehaviorChange{
		{What: "bytes", Old: "always the same", New: "other each time", Packets: 2, First: 1},
		{What: "length", Old: "60", New: "other each time", Packets: 1, First: 3},
		{What: "target", Old: "device 1", New: "other each time", Packets: 1, First: 4},
	}
	if got := strings.Join(cells.Behaviors(one)[1:], "\n"); got != "  2 packets: bytes always the same → other each time, first packet 1\n"+
		"  1 packet: 60 bytes → other each time, first packet 3\n  1 packet: redirect to device 1 → other each time, first packet 4" {
		t.Error(got)
	}
	old := recordtest.Cost("run", 1, 1)
	old.Rows[2].Refused, old.Rows[2].Ns = "it differs", nil
	var b bytes.Buffer
	if err := ProgDiffBench(&b, old, recordtest.Cost("run", 1, 2)); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if strings.Count(text, "BenchmarkXDP/packets=verdict/tx/program=new 1 ") != 20 ||
		!strings.Contains(text, "# BenchmarkXDP/packets=verdict/pass/program=old refused: it differs\n") {
		t.Error(text)
	}
}
