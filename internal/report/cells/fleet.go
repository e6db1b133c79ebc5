package cells

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// maxFleetRows is how many numbers a table of fleet who has room for: an agent measures eight.
const maxFleetRows = 50

// FleetRows are the numbers that rows of fleet who have, but the control, which says nothing of a kernel, and what indirect branches take:
// those of most machines, in the order of the rows. others is how many more there are.
func FleetRows(doc *record.FleetWho) (names []string, others int) {
	machines := make(map[string]int)
	for i := range doc.Rows {
		for _, n := range doc.Rows[i].Numbers {
			if n.Row == record.FleetControl || n.Row == record.FleetIndirect || n.Ns == nil {
				continue
			}
			if _, known := machines[n.Row]; !known {
				names = append(names, n.Row)
			}
			machines[n.Row] += n.Ns.N
		}
	}
	most := slices.Clone(names)
	slices.SortStableFunc(most, func(a, b string) int { return cmp.Compare(machines[b], machines[a]) })
	most = most[:min(len(most), maxFleetRows)]
	others = len(names) - len(most)
	return slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(most, name) }), others
}

// FleetRefused is how many machines of a group have no number, as a share, and why: "3 % (load 20, steal 4)".
func FleetRefused(row *record.FleetWhoRow) string {
	if row.Machines == row.Measured {
		return "0 %"
	}
	var why []string
	for _, reason := range slices.Sorted(maps.Keys(row.Refused)) {
		why = append(why, fmt.Sprintf("%s %d", Clean(reason), row.Refused[reason]))
	}
	return fmt.Sprintf("%s %% (%s)", stat.Number(100*float64(row.Machines-row.Measured)/float64(row.Machines)), strings.Join(why, ", "))
}

// FleetField is a field that a machine has otherwise than its twins; of mitigations those that differ.
func FleetField(f record.FleetField) string {
	value, usual := f.Value, f.Usual
	if f.Name == "mitigations" {
		value, usual = unlike(value, usual), unlike(usual, value)
	}
	return fmt.Sprintf("%s: %s; of %.0f %% of the twins: %s", f.Name, nothing(value), 100*f.Share, nothing(usual))
}

// unlike are the parts of a list that another list does not have.
func unlike(list, other string) string {
	const between = "; "
	have := strings.Split(other, between)
	return strings.Join(slices.DeleteFunc(strings.Split(list, between), func(p string) bool { return slices.Contains(have, p) }), between)
}

func nothing(value string) string {
	if value == "" {
		return "(empty)"
	}
	return Clean(value)
}

// FleetLimit is a number outside the limits of a machine's twins.
func FleetLimit(l record.FleetLimit) string {
	return fmt.Sprintf("%s: %s ns; the twins' median is %s, and less than %s or more than %s is odd", Clean(l.Row), stat.Number(l.Ns),
		stat.Number(l.Median), stat.Number(l.Low), stat.Number(l.High))
}

// FleetTwins are the fields in which machines are alike: their values only.
func FleetTwins(row *record.FleetOddRow, by []string) string {
	var parts []string
	for _, field := range by {
		if v := row.Labels[field]; v != "" {
			parts = append(parts, Clean(v))
		}
	}
	return strings.Join(parts, ", ")
}

// Needed is a number of canaries; "-" when there is none.
func Needed(n *int) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}
