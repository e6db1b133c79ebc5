package page

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
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
