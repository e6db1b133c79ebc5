package page

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

func fleetSource() Source {
	return Source{Version: "v1", Records: []*record.Saved{
		record.NewSaved(reporttest.FleetWho()), record.NewSaved(reporttest.FleetOdd()), record.NewSaved(reporttest.FleetCompare()),
	}}
}

func TestFleetGolden(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := Markdown(t.Context(), &b, fleetSource()); err != nil {
		t.Fatal(err)
	}
	reporttest.Golden(t, "fleet.md", b.String())
	b.Reset()
	if err := CSV(t.Context(), &b, fleetSource()); err != nil {
		t.Fatal(err)
	}
	reporttest.Golden(t, "fleet.csv", b.String())
}

// The page of a fleet has its tables, and texts of records are no more than text.
func TestFleetPage(t *testing.T) {
	t.Parallel()
	odd := reporttest.FleetOdd()
	odd.Rows[0].Name = "<script>alert(1)</script>"
	var b bytes.Buffer
	src := fleetSource()
	src.Records[1] = record.NewSaved(odd)
	if err := HTML(t.Context(), &b, src); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"The fleet", "Who pays what", "Machines unlike their twins", "What the canaries pay", "mitigations=off", "&lt;script&gt;alert",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(b.String(), "<script>alert") {
		t.Error("the name of a machine is a script")
	}
}

// A table of who has columns for 50 numbers, those of most machines, and says how many others there are, as its text does.
func TestWideWho(t *testing.T) {
	who := reporttest.FleetWho()
	few := *who.Rows[0].Numbers[0].Ns
	few.N = 1
	numbers := len(who.Rows[0].Numbers) - 2 // less the control and what branches take
	for i := range 300 {
		row := record.FleetWhoRow{Name: fmt.Sprintf("cpu=%d", i), Machines: 1, Measured: 1}
		for j := range 3 {
			row.Numbers = append(row.Numbers, record.FleetNumber{Row: fmt.Sprintf("call-%d-%d", i, j), Ns: &few})
		}
		who.Rows = slices.Insert(who.Rows, 0, row)
	}
	tables := whoTables(who)
	columns := len(tables[0].Columns) + len(tables[1].Columns)
	if want := 50 + 5; columns != want || len(tables[1].Rows) != maxTable || len(tables[1].Rows[0].Cells) != len(tables[1].Columns) {
		t.Errorf("%d columns, %d rows", columns, len(tables[1].Rows))
	}
	if !slices.ContainsFunc(tables[1].Columns, func(c column) bool { return c.Name == "map-lookup/lpm" }) {
		t.Errorf("what most machines have is left out: %+v", tables[1].Columns)
	}
	left := fmt.Sprintf("%d numbers", 900+numbers-50)
	if more := tables[1].More(); !strings.Contains(more, left+" without a column") || !strings.Contains(more, "52 more rows") {
		t.Errorf("%q", more)
	}
	var b bytes.Buffer
	if err := report.FleetWho(&b, report.Options{Width: 100}, who); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); !strings.Contains(text, "Left out: "+left) || strings.Count(text, "call-") != 50-numbers {
		t.Errorf("%d calls of %s", strings.Count(text, "call-"), left)
	}
}

// Prices say their unit, and branches have a column where they were counted.
func TestWhoTables(t *testing.T) {
	who := reporttest.FleetWho()
	tables := whoTables(who)
	last := tables[1].Columns[len(tables[1].Columns)-1]
	if !strings.Contains(tables[1].Caption, "in ns; indirect: ") || last.Name != "indirect" {
		t.Errorf("%q, %+v", tables[1].Caption, last)
	}
	numbers := who.Rows[0].Numbers
	who.Rows[0].Numbers = numbers[:len(numbers)-1]
	if calls := whoTables(who)[1]; strings.Contains(calls.Caption, "indirect:") || len(calls.Columns) != len(calls.Rows[0].Cells) ||
		len(calls.Columns) != len(tables[1].Columns)-1 {
		t.Errorf("%q, %+v", calls.Caption, calls.Columns)
	}
	who.Rows[0].Numbers = numbers[len(numbers)-3 : len(numbers)-1]
	if calls := whoTables(who)[1]; len(calls.Rows) != 0 {
		t.Errorf("no calls: %+v", calls.Rows)
	}
}
