package fleet

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/unthunk/unthunk/internal/record"
)

// ownCalls are machines of which each has three names of calls that no other has, and one that all have.
func ownCalls(n int) []*Machine {
	all := make([]*Machine, n)
	for i := range all {
		own := fmt.Sprintf("own-%d", i)
		all[i] = &Machine{ID: own, Setup: &Setup{calls: []string{"callback/loop", own, own + "-more"}}}
		for j := range all[i].Numbers {
			all[i].Numbers[j] = float64(j)
		}
	}
	return all
}

// Who has a pass over the machines, not one for each name that one of them has: with 200 000 machines that is no end.
func TestNamesOfManyMachines(t *testing.T) {
	const machines = 200_000
	row := whoRow(ownCalls(machines), []string{"cpu"}, nil)
	if len(row.Numbers) != 2*machines+len(redirectBulks)+4 {
		t.Errorf("%d numbers", len(row.Numbers))
	}
	for name, want := range map[string]int{
		record.FleetBranch: machines, record.FleetIndirect: machines, "own-7": 1, record.FleetRedirectAnswer: machines,
	} {
		if q := row.Number(name); q == nil || q.N != want {
			t.Errorf("%s: %+v", name, q)
		}
	}
}

// A name of a call that is the name of another number is none of a call: the number of that name is there once.
func TestNamesOfOtherNumbers(t *testing.T) {
	m := &Machine{Setup: &Setup{calls: []string{record.FleetControl, record.FleetIndirect, record.FleetBranch}}}
	names := numberNames(m, m)
	want := []string{record.FleetControl, record.FleetDirectCall, record.FleetBranch}
	for _, bulk := range redirectBulks {
		want = append(want, record.FleetRedirect+bulk)
	}
	if !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	for i := range m.Numbers {
		m.Numbers[i] = math.NaN()
	}
	m.Numbers[control] = 5
	if of := numbersByName([]*Machine{m}); len(of) != 1 || !slices.Equal(of[record.FleetControl], []float64{5}) {
		t.Errorf("%v", of)
	}
}
