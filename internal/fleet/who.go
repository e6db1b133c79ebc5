package fleet

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

func orNaN(x sql.NullFloat64) float64 {
	if !x.Valid {
		return math.NaN()
	}
	return x.Float64
}

// ErrNoMachines is a question about no machine.
var ErrNoMachines = errors.New("no machine has a record of that time that meets the conditions")

// machineField groups machines one by one; it is no field of a setup, so that no condition is about it.
const machineField = "machine"

// CheckBy refuses fields that machines cannot be grouped by.
func CheckBy(by []string) error {
	if len(by) == 0 {
		return errors.New("no field to group machines by")
	}
	for i, field := range by {
		if err := checkField(field); err != nil && field != machineField {
			return fmt.Errorf("%w, %s", err, machineField)
		}
		if slices.Contains(by[:i], field) {
			return fmt.Errorf("the field %s is named twice", field)
		}
	}
	return nil
}

// Who groups machines by fields and says what each group pays: the medians over machines of their newest records. Groups are
// sorted by what their redirect takes in bulks of 16, the longest first.
func (s *Store) Who(ctx context.Context, w Window, where Where, by []string) (*record.FleetWho, error) {
	if err := CheckBy(by); err != nil {
		return nil, err
	}
	h := s.room()
	machines, head, err := s.about(ctx, h, w, where)
	if err != nil {
		return nil, err
	}
	groups := group(machines, by)
	if n := len(groups); n > record.MaxRows {
		return nil, fmt.Errorf("%d groups: at most %d are answered; name fewer machines by --where, or group by fewer fields", n,
			record.MaxRows)
	}
	doc := &record.FleetWho{Document: *record.New[record.FleetWhoRow]("fleet-who", host.Fingerprint{}), FleetHead: head, By: by}
	titles := titles(machines)
	for _, g := range groups {
		row := whoRow(g, by, titles)
		if err := h.take(len(row.Name) + len(row.Numbers)*costNumber); err != nil {
			return nil, err
		}
		doc.Rows = append(doc.Rows, row)
	}
	slices.SortStableFunc(doc.Rows, func(a, b record.FleetWhoRow) int {
		return cmp.Or(-cmp.Compare(redirectOf(a), redirectOf(b)), -cmp.Compare(a.Machines, b.Machines), strings.Compare(a.Name, b.Name))
	})
	return doc, nil
}

// redirectOf is what the redirect of a group takes in bulks of 16; -Inf when no machine of it says.
func redirectOf(row record.FleetWhoRow) float64 {
	if q := row.Number(record.FleetRedirectAnswer); q != nil {
		return q.Median
	}
	return math.Inf(-1)
}

// group parts machines by the values of fields, in the order of their first.
func group(machines []*Machine, by []string) [][]*Machine {
	at := make(map[string]int)
	var groups [][]*Machine
	known := keys{by, make(map[*Setup]string)}
	each := slices.Contains(by, machineField)
	for _, m := range machines {
		key := known.of(m.Setup)
		if each {
			key += m.ID
		}
		i, ok := at[key]
		if !ok {
			i = len(groups)
			at[key] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], m)
	}
	return groups
}

// maxKey is the longest text by which machines are grouped, in bytes: setups have long texts in common, and their keys have none.
const maxKey = 256

// key is a text that setups with the same values of fields have in common: the values, or their SHA-256.
func (s *Setup) key(by []string) string {
	var key strings.Builder
	key.WriteByte('v')
	for _, field := range by {
		key.WriteString(s.Value(field))
		key.WriteByte(0)
	}
	if key.Len() <= maxKey {
		return key.String()
	}
	sum := sha256.Sum256([]byte(key.String()))
	return "h" + string(sum[:])
}

// keys are those of setups by the same fields, each made once: a fleet has some hundred setups.
type keys struct {
	by   []string
	made map[*Setup]string
}

func (k keys) of(s *Setup) string {
	key, ok := k.made[s]
	if !ok {
		key = s.key(k.by)
		k.made[s] = key
	}
	return key
}

// titles is how many of machines have each title.
func titles(machines []*Machine) map[string]int {
	count := make(map[string]int)
	for _, m := range machines {
		count[m.Title()]++
	}
	return count
}

// labels are the values of fields, and both as one text. A machine whose title another has, too, is told apart by its identity.
func labels(m *Machine, by []string, titles map[string]int) (map[string]string, string) {
	of := make(map[string]string)
	var parts []string
	for _, field := range by {
		of[field] = shown(field, m.Setup.Value(field))
		if field == machineField {
			of[field] = m.Title()
			if titles[m.Title()] > 1 {
				of[field] += " (" + m.ID + ")"
			}
		}
		parts = append(parts, field+"="+of[field])
	}
	return of, strings.Join(parts, ", ")
}

func whoRow(machines []*Machine, by []string, titles map[string]int) record.FleetWhoRow {
	row := record.FleetWhoRow{Machines: len(machines), Refused: map[string]int{}, Numbers: []record.FleetNumber{}}
	row.Labels, row.Name = labels(machines[0], by, titles)
	for _, m := range machines {
		switch {
		case m.Measured():
			row.Measured++
		default:
			row.Refused[cmp.Or(m.Refused, record.FleetNotMeasured)]++
		}
	}
	of := numbersByName(machines)
	for _, name := range append(numberNames(machines...), record.FleetIndirect) {
		if xs := of[name]; len(xs) > 0 {
			q := stat.Summarize(xs, "ns")
			row.Numbers = append(row.Numbers, record.FleetNumber{Row: name, Ns: &q})
		}
	}
	return row
}

// numbersByName are the numbers of machines by their names, those of a name in the order of the machines that have it.
func numbersByName(machines []*Machine) map[string][]float64 {
	of := make(map[string][]float64)
	names := make(map[*Setup][]string)
	for _, m := range machines {
		if names[m.Setup] == nil {
			names[m.Setup] = append(numberNames(m), record.FleetIndirect)
		}
		for _, name := range names[m.Setup] {
			if x := m.number(name); !math.IsNaN(x) {
				of[name] = append(of[name], x)
			}
		}
	}
	return of
}
