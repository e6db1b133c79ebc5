package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
	"github.com/unthunk/unthunk/internal/stat"
)

// ciComparisons are comparisons of each kind, with a row of each outcome, and of nothing.
func ciComparisons(t *testing.T) map[string]record.Changes {
	t.Helper()
	opts := compare.Options{Threshold: 2}
	old, slow := reporttest.Bench("one", 1, 1), reporttest.Bench("two", 3, 2.05)
	slow.Host = newHost(slow.Host)
	slow.Rows[2] = record.BenchRow{Name: slow.Rows[2].Name, Refused: "packet counts disagree: 1 sent, 0 received"}
	slow.Rows[3].Name = "tx/bulk=8"
	slow.Rows[4].Samples = slices.Clone(old.Rows[4].Samples)
	rows := compared(t, old, slow, opts)
	nothing := compared(t, old, &record.Document[record.BenchRow]{Head: slow.Head}, opts)
	profile := compare.Profiles(reporttest.Stages("one", 1, 10), reporttest.Stages("two", 2, 30), opts)
	lab := compare.Labs(reporttest.Lab(), reporttest.Lab())
	sites := compare.Sites(reporttest.Xray(), &record.Document[record.SiteRow]{Head: reporttest.Xray().Head})
	all := map[string]record.Changes{"rows": rows, "nothing": nothing, "profile": profile, "lab": lab, "sites": sites}
	for name, g := range gates(t) {
		all[name] = g
	}
	for _, c := range all {
		c.NameFiles("before.json", "after.json")
	}
	return all
}

func TestCIGolden(t *testing.T) {
	t.Parallel()
	c := ciComparisons(t)["rows"]
	for name, write := range map[string]func(b *bytes.Buffer) error{
		"compare.junit": func(b *bytes.Buffer) error { return JUnitComparison(b, c) },
		"compare.ktap":  func(b *bytes.Buffer) error { return KTAPComparison(b, c) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		reporttest.Golden(t, name, b.String())
	}
}

// JUnit reports have the elements and attributes that junit-10.xsd of Jenkins' xunit-plugin
// asks for and no others, and their counts are right.
func TestJUnit(t *testing.T) {
	t.Parallel()
	type element struct {
		children, attributes []string
		required             []string
	}
	schema := map[string]element{
		"testsuites": {[]string{"testsuite"}, []string{"name", "time", "tests", "failures", "errors"}, nil},
		"testsuite": {[]string{"properties", "testcase", "system-out"},
			[]string{"name", "tests", "failures", "errors", "time", "skipped", "timestamp"},
			[]string{"name", "tests", "failures", "errors"}},
		"properties": {[]string{"property"}, nil, nil},
		"property":   {nil, []string{"name", "value"}, []string{"name", "value"}},
		"testcase": {[]string{"skipped", "error", "failure", "system-out"},
			[]string{"name", "time", "classname"}, []string{"name"}},
		"skipped": {nil, []string{"type", "message"}, nil}, "error": {nil, []string{"type", "message"}, nil},
		"failure": {nil, []string{"type", "message"}, nil}, "system-out": {},
	}
	for name, c := range ciComparisons(t) {
		var b bytes.Buffer
		if err := JUnitComparison(&b, c); err != nil {
			t.Fatal(err)
		}
		counts, attributes := map[string]int{}, map[string]string{}
		var path []string
		decoder := xml.NewDecoder(&b)
		for {
			token, err := decoder.Token()
			if token == nil {
				if len(path) > 0 || len(counts) == 0 {
					t.Errorf("%s: %v within %v", name, err, path)
				}
				break
			}
			switch token := token.(type) {
			case xml.StartElement:
				tag := token.Name.Local
				counts[tag]++
				if len(path) > 0 && !slices.Contains(schema[path[len(path)-1]].children, tag) {
					t.Errorf("%s: <%s> within %v", name, tag, path)
				}
				var has []string
				for _, a := range token.Attr {
					has = append(has, a.Name.Local)
					if tag == "testsuite" {
						attributes[a.Name.Local] = a.Value
					}
					if !slices.Contains(schema[tag].attributes, a.Name.Local) {
						t.Errorf("%s: <%s %s>", name, tag, a.Name.Local)
					}
				}
				for _, a := range schema[tag].required {
					if !slices.Contains(has, a) {
						t.Errorf("%s: <%s> without %s", name, tag, a)
					}
				}
				path = append(path, tag)
			case xml.EndElement:
				path = path[:len(path)-1]
			}
		}
		for attribute, tag := range map[string]string{
			"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped",
		} {
			if attributes[attribute] != fmt.Sprint(counts[tag]) {
				t.Errorf("%s: %s=%s, and %d of <%s>", name, attribute, attributes[attribute], counts[tag], tag)
			}
		}
		failed := counts["failure"] > 0
		if failed != c.Regressed() || (counts["error"] > 0) != (c.Nothing() != "" || name == "rows" || name == "gate beyond") {
			t.Errorf("%s: %d failures, %d errors", name, counts["failure"], counts["error"])
		}
	}
}

// KTAP has only lines of its four types, as many results as planned, numbered.
func TestKTAP(t *testing.T) {
	t.Parallel()
	result := regexp.MustCompile(`^(ok|not ok) ([0-9]+) [^#]+( # (SKIP |ERROR )?[^#]+)?$`)
	for name, c := range ciComparisons(t) {
		var b bytes.Buffer
		if err := KTAPComparison(&b, c); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		n := 0
		for _, line := range lines[2:] {
			if strings.HasPrefix(line, "# ") {
				continue
			}
			n++
			if m := result.FindStringSubmatch(line); m == nil || m[2] != fmt.Sprint(n) {
				t.Errorf("%s: result %d: %q", name, n, line)
			}
		}
		if lines[0] != "KTAP version 1" || lines[1] != fmt.Sprintf("1..%d", n) || n == 0 {
			t.Errorf("%s: %d results after\n%s\n%s", name, n, lines[0], lines[1])
		}
	}
}

// A machine whose references moved is said: as a property, and where a row is skipped.
func TestCIMachine(t *testing.T) {
	t.Parallel()
	old := reporttest.Bench("one", 1, 1)
	c := compared(t, old, reporttest.Bench("two", 3, 1), compare.Options{Threshold: 2})
	clock := func(ghz float64) *stat.Quantity {
		return &stat.Quantity{Median: ghz, Low: ghz, High: ghz, N: 9, Unit: "GHz"}
	}
	change := stat.Difference{Median: 20, Low: 19, High: 21, Smallest: 1}
	c.Machine = []record.ReferenceChange{{Name: record.CoreClock, Old: clock(3), New: clock(2.5), Difference: &change, Moved: true}}
	row := &c.Rows[0].Change
	row.Verdict, row.Relative = stat.CannotTell, &stat.Difference{Median: 1, Low: -3, High: 4, P: 0.5, Smallest: 5}
	row.OldCycles, row.NewCycles = clock(300), clock(310)
	var junit, ktap bytes.Buffer
	if err := errors.Join(JUnitComparison(&junit, c), KTAPComparison(&ktap, c)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`<property name="reference/core-clock" value="3.00 → 2.50 GHz, time +20.0 % [+19.0, +21.0], moved">`,
		"relative to the references +1.0 % [-3.0, +4.0], 300 → 310 cycles, p 0.5 (would have seen 5.0 %); the machine changed: core-clock",
	} {
		if !strings.Contains(junit.String(), want) {
			t.Errorf("JUnit lacks %s:\n%s", want, &junit)
		}
	}
	if !strings.Contains(ktap.String(), "\nok 1 redirect-map/bulk=1 # SKIP cannot tell: ") ||
		!strings.Contains(ktap.String(), "; the machine changed: core-clock\n") {
		t.Errorf("KTAP:\n%s", &ktap)
	}
}

// Names and texts of a record are text in each format, whatever they hold.
func TestCIHostile(t *testing.T) {
	t.Parallel()
	const hostile = "a\nnot ok 1 b # SKIP \x1b[31m]]> <failure/> \x00&\" | `x`"
	c := &record.Comparison{}
	c.Rows = []record.CompareRow{{Name: hostile, Change: record.Change{Missing: hostile}}}
	c.Causes = []record.Cause{{Name: hostile, Old: new(string), Why: hostile}}
	*c.Causes[0].Old = hostile
	c.NameFiles(hostile, hostile)
	var junit, ktap bytes.Buffer
	if err := JUnitComparison(&junit, c); err != nil {
		t.Fatal(err)
	}
	if err := KTAPComparison(&ktap, c); err != nil {
		t.Fatal(err)
	}
	var suites junitSuites
	if err := xml.Unmarshal(junit.Bytes(), &suites); err != nil {
		t.Fatalf("%v:\n%s", err, &junit)
	}
	if len(suites.Suite.Cases) != 2 || suites.Failures != 0 || suites.Errors != 1 { // the row, and that nothing was compared
		t.Errorf("JUnit: %+v", suites)
	}
	if got := suites.Suite.Cases[0].Name; !strings.HasPrefix(got, "a not ok 1 b # SKIP �[31m]]> <failure/> �&\"") {
		t.Errorf("JUnit: name %q", got)
	}
	if lines := strings.Count(ktap.String(), "\n"); strings.ContainsAny(ktap.String(), "\x1b\x00") || lines != 3+3+2 ||
		!strings.Contains(ktap.String(), "\nok 1 a not ok 1 b _ SKIP") {
		t.Errorf("KTAP of %d lines:\n%s", lines, &ktap)
	}
	for _, write := range []func() error{
		func() error { return JUnitComparison(reporttest.Broken{}, c) },
		func() error { return KTAPComparison(reporttest.Broken{}, c) },
	} {
		if err := write(); err == nil {
			t.Error("no error of a broken pipe")
		}
	}
}
