package conclusion

import (
	"math"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// A redirect that is slower is no answer while it may be so by more than the threshold, and by less.
func TestFleetCompareSlower(t *testing.T) {
	for _, test := range []struct {
		low, high  float64
		regression bool
		said       string
		untold     string
	}{
		{1.5, 30, false, "by more than 2.0 % or not: cannot be told", "redirect/bulk=16: slower by 1.5 to 30.0 %"},
		{0.5, 2, false, "slower than the base, by no more than 2.0 % (", ""},
		{3, 30, true, "slower than the base by more than 2.0 % (", ""},
	} {
		doc := &record.FleetCompare{Threshold: 2}
		doc.Rows = []record.FleetCompareRow{{
			Name: "redirect/bulk=16", Verdict: stat.Slower, Regression: test.regression,
			Difference: &stat.Difference{Median: (test.low + test.high) / 2, Low: test.low, High: test.high},
		}}
		said, untold := FleetCompare(doc), FleetUntold(doc)
		if !strings.Contains(said, test.said) || !strings.HasPrefix(untold, test.untold) || (untold == "") != (test.untold == "") {
			t.Errorf("from %v to %v %%: %q, %q", test.low, test.high, said, untold)
		}
	}
}

// Canaries that are compared with nothing are in the sentence, and no answer is whole with them, unless it is a regression.
func TestFleetCompareUnmatched(t *testing.T) {
	for _, test := range []struct {
		name                string
		canaries, unmatched int
		regression          bool
		said, untold        string
	}{
		{"some", 20, 10, false, "10 of 20 canaries are compared with nothing; the others: no difference seen (", "10 of 20 canaries are"},
		{"one", 20, 1, false, "1 of 20 canaries is compared with nothing; the others: no difference seen (", "1 of 20 canaries is"},
		{"none", 20, 0, false, "against b: no difference seen (", ""},
		{"a regression", 20, 10, true, "10 of 20 canaries are compared with nothing; the others: slower than the base by more than 2.0 % (", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			doc := &record.FleetCompare{Base: "b", Canary: "c", CanaryMachines: test.canaries, Unmatched: test.unmatched, Threshold: 2}
			doc.Rows = []record.FleetCompareRow{{
				Name: "redirect/bulk=16", Verdict: stat.NoDifference, Regression: test.regression, Difference: &stat.Difference{},
			}}
			said, untold := FleetCompare(doc), FleetUntold(doc)
			if !strings.Contains(said, test.said) || !strings.HasPrefix(untold, test.untold) || (untold == "") != (test.untold == "") {
				t.Errorf("%q, %q", said, untold)
			}
		})
	}
	doc := &record.FleetCompare{CanaryMachines: 1, Unmatched: 1}
	if said := FleetCompare(doc); !strings.Contains(said, ": the only canary is compared with nothing (") {
		t.Errorf("%q", said)
	}
}

// Who pays is the first group with a number, the least is the last; machines are those that have the number, and what branches take
// is no part of the redirect where it is more.
func TestFleetPays(t *testing.T) {
	group := func(name string, low, high float64) record.FleetWhoRow {
		return record.FleetWhoRow{Name: name, Machines: 7, Numbers: []record.FleetNumber{{
			Row: "redirect/bulk=16", Ns: &stat.Quantity{Median: (low + high) / 2, Low: low, High: high, N: 7, Unit: "ns"},
		}}}
	}
	none := record.FleetWhoRow{Name: "none", Machines: 1}
	with := func(row record.FleetWhoRow, branches float64) record.FleetWhoRow {
		row.Machines = 9
		row.Numbers = append(row.Numbers, record.FleetNumber{Row: "indirect/bulk=16", Ns: &stat.Quantity{Median: branches, N: 6}})
		return row
	}
	for _, test := range []struct {
		rows []record.FleetWhoRow
		want string
	}{
		{[]record.FleetWhoRow{group("a", 99, 101), group("b", 79, 81), group("c", 59, 61), none},
			"; the least median is that of c (7 machines): 60.0, 40.0 less."},
		{[]record.FleetWhoRow{group("a", 99, 101), group("c", 89, 109)}, "c (7 machines): 99.0, and their intervals meet."},
		{[]record.FleetWhoRow{group("a", 99, 101), group("c", math.NaN(), math.NaN())}, "and one has no interval."},
		{[]record.FleetWhoRow{with(group("a", 99, 101), 35.7)}, "a (7 of 9 machines), 100 ns a packet in bulks of 16, some 35.7 of it for " +
			"indirect branches if each packet? one runs, at callback/loop's price."},
		{[]record.FleetWhoRow{with(group("a", 99, 101), 120)}, "bulks of 16, less than its indirect branches would take if each packet? " +
			"one ran at callback/loop's price (120)."},
		{[]record.FleetWhoRow{group("a", 99, 101), none}, "Who pays: a (7 machines), 100 ns a packet in bulks of 16."},
		{[]record.FleetWhoRow{none}, ""},
	} {
		got := FleetPays(&record.FleetWho{Document: record.Document[record.FleetWhoRow]{Rows: test.rows}})
		if !strings.HasSuffix(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

// Of many host names of one identity the first are said, and how many more there are: also of those that the answer does not name.
func TestFleetShared(t *testing.T) {
	shared := &record.FleetShared{
		SharedIDs: []string{"x", "y"}, SharedCounts: map[string]int{"x": 200},
		SharedNames: map[string][]string{"x": {"a", "b", "c", "d", "e", "f", "g", "h"}, "y": {"i", "j", "k", "l"}}, // y of an older record
	}
	got := FleetShared(shared)
	if len(got) != 1 || !strings.Contains(got[0], "(x of a, b, c and 197 more, y of i, j, k and 1 more)") {
		t.Errorf("%q", got)
	}
}
