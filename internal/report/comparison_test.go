package report

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/stat"
)

// compared compares two documents that can be.
func compared[Row record.BenchRow | record.TaxRow](t *testing.T, old, new *record.Document[Row],
	opts compare.Options) *record.Comparison {
	t.Helper()
	c, err := compare.Records(record.NewSaved(old), record.NewSaved(new), opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newHost is another kernel, with another compiler, on the same CPU.
func newHost(f host.Fingerprint) host.Fingerprint {
	f.Kernel, f.Compiler, f.IndirectThunk = "6.18.2", "gcc (Debian 15.2.0-4) 15.2.0",
		"ITS thunk, at the end of its cache line: call rax is moved to the upper half"
	f.Mitigations = map[string]string{"spectre-v2": f.Mitigations["spectre-v2"],
		"indirect-target-selection": "Mitigation: Aligned branch/return thunks"}
	f.Governor = ""
	return f
}

// withReferences adds references to a run of which the kernel's loop and the clock take times what they usually do.
func withReferences(doc *record.Document[record.BenchRow], times float64) *record.Document[record.BenchRow] {
	r := rand.New(rand.NewPCG(7, 7))
	for _, one := range []struct {
		name        string
		usual, like float64
	}{{record.CoreClock, 3.1, 1 / times}, {record.KernelLoop, 0.52, times}, {record.FarWalk, 90, 1}} {
		ref := record.Reference{Name: one.name, Rounds: doc.Rows[0].Rounds}
		for range ref.Rounds {
			ref.Samples = append(ref.Samples, one.usual*one.like*math.Exp(0.004*r.NormFloat64()))
		}
		q := stat.Summarize(ref.Samples, record.ReferenceUnit(one.name))
		ref.Value = &q
		doc.References = append(doc.References, ref)
	}
	return doc
}

func TestComparisonGolden(t *testing.T) {
	t.Parallel()
	old := reporttest.Bench("one", 1, 1)
	slow := reporttest.Bench("two", 3, 2.05)
	slow.Time = slow.Time.Add(50 * time.Hour)
	slow.Host = newHost(slow.Host)
	slow.Rows[2] = record.BenchRow{Name: slow.Rows[2].Name,
		Refused: "packet counts disagree: 1048576 sent, 1048576 redirected, 0 received"}
	slow.Rows = append(slow.Rows, reporttest.BenchRow(rand.New(rand.NewPCG(5, 5)), "tx/bulk=64", "64", 70, 0, 16))
	slow.Rows[3].Samples = append([]float64{}, old.Rows[3].Samples...)
	q := stat.Summarize(slow.Rows[3].Samples, "ns")
	slow.Rows[3].Ns = &q
	slow.Warnings = reporttest.FullBench().Warnings[:1]

	same := reporttest.Bench("two", 4, 1)
	same.Time = same.Time.Add(4 * time.Minute)

	by := reporttest.Bench("one", 1, 1)
	for _, op := range []struct {
		name   string
		factor float64
	}{{"read", 1.002}, {"parse", 1.06}} {
		r := rand.New(rand.NewPCG(9, 9))
		for _, base := range by.Rows[4:7] {
			row := base
			row.Name += "/operation=" + op.name
			row.Labels = map[string]string{"bulk": base.Labels["bulk"], "scenario": "redirect-map",
				"operation": op.name}
			row.Samples = nil
			for _, x := range base.Samples {
				row.Samples = append(row.Samples, x*op.factor*math.Exp(0.005*r.NormFloat64()))
			}
			q := stat.Summarize(row.Samples, "ns")
			row.Ns = &q
			by.Rows = append(by.Rows, row)
		}
	}
	for i := range by.Rows[:7] {
		by.Rows[i].Labels["operation"] = "none"
	}
	cheap, dear := reporttest.Calls("one", 1, 1), reporttest.Calls("two", 2, 1.8)
	dear.Time, dear.Host = slow.Time, slow.Host
	dear.Rows[1] = record.TaxRow{Name: dear.Rows[1].Name, Refused: "both sides hold the same call"}
	cheap.Rows[2] = reporttest.CallRow(rand.New(rand.NewPCG(6, 6)), cheap.Rows[2].Name, 0)
	dear.Warnings = []record.Warning{{Row: "napi-poll",
		Text: "two modes, near 8.2 and 10: the median may lie in either"}}

	// Two of run, of one run: prices beneath the rows.
	run := reporttest.Bench("one", 2, 1)
	old.Kind, run.Kind = "run", "run"
	old.Prices, run.Prices = reporttest.Calls("one", 1, 1).Rows[:4], reporttest.Calls("one", 2, 1.1).Rows[:4]

	opts := compare.Options{Threshold: 2}
	within, err := compare.By(record.NewSaved(by), "operation", opts)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*record.Comparison{
		"compare-slower.txt": compared(t, old, slow, opts),
		"compare-same.txt":   compared(t, old, same, opts),
		"compare-by.txt":     within,
		"compare-tax.txt":    compared(t, cheap, dear, opts),
		"compare-run.txt":    compared(t, old, run, opts),
		"compare-machine.txt": compared(t, withReferences(reporttest.Bench("one", 1, 1), 1),
			withReferences(reporttest.Bench("two", 4, 1.28), 1.3), opts),
	} {
		c.Old.File, c.New.File = "before.json", "after.json"
		for _, width := range []int{80, 60, 100} {
			var b bytes.Buffer
			if err := Comparison(&b, Options{Width: width}, c); err != nil {
				t.Fatal(err)
			}
			if width == 80 {
				reporttest.Golden(t, name, b.String())
			}
			reporttest.Fits(t, b.String(), width)
			var colored bytes.Buffer
			if err := Comparison(&colored, Options{Width: width, Color: true}, c); err != nil {
				t.Fatal(err)
			}
			plain := regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(colored.String(), "")
			if plain != b.String() {
				t.Errorf("%s: color changes more than colors", name)
			}
			if name == "compare-slower.txt" && !strings.Contains(colored.String(), red+"slower") {
				t.Errorf("%s: no color", name)
			}
		}
	}
}

// What would have been seen belongs to the interval that the verdict is on: where that one is much wider than the one of the
// change, it is shown too, on a machine that did not change as well.
func TestComparisonMisfit(t *testing.T) {
	t.Parallel()
	for name, relative := range map[string]*stat.Difference{
		"wide":  {Median: 0.4, Low: -61, High: 159, P: 1, N: 15, Smallest: 161},
		"alike": {Median: 0.4, Low: -3.1, High: 7.6, P: 1, N: 15, Smallest: 8},
		"none":  nil,
	} {
		doc := recordtest.Document("a", recordtest.Row("redirect-map/bulk=1", nil, recordtest.Steady, 8))
		c := compared(t, doc, doc, compare.Options{Threshold: 2})
		c.MachineChange = record.MachineChange{}
		c.Rows[0].Difference = &stat.Difference{Median: 2, Low: -2.9, High: 7.5, P: 0.3, N: 15, Smallest: 7.7}
		c.Rows[0].Relative, c.Rows[0].Verdict = relative, stat.CannotTell
		var b bytes.Buffer
		if err := Comparison(&b, Options{Width: 80}, c); err != nil {
			t.Fatal(err)
		}
		text := strings.Join(strings.Fields(b.String()), " ")
		if got, want := strings.Contains(text, "unexplained +0.40 % [-61.0, +159]"), name == "wide"; got != want {
			t.Errorf("%s: %v in %s", name, got, text)
		}
		if got, want := strings.Contains(text, "are of what the references leave unexplained"), relative != nil; got != want {
			t.Errorf("%s: the basis: %v in %s", name, got, text)
		}
	}
}

// Without a row there is no title of a table.
func TestComparisonOfNothing(t *testing.T) {
	t.Parallel()
	var text, diff bytes.Buffer
	d := difference(t, 1)
	d.Rows = nil
	if err := errors.Join(Comparison(&text, Options{}, &record.Comparison{}), ProgDiff(&diff, Options{}, d)); err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{text.String(), diff.String()} {
		if strings.Contains(b, "[interval]") {
			t.Errorf("a title without a table:\n%s", b)
		}
	}
}
