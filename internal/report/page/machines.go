package page

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// maxMachines is the most machines that a page compares.
const maxMachines = 12

// machine is a fingerprint, and the records that have it.
type machine struct {
	host  host.Fingerprint
	names []string
}

// machines are those of the records; records of equal fingerprints share one.
func (v *viewer) machines() []machine {
	var out []machine
	for _, s := range v.src.Records {
		i := slices.IndexFunc(out, func(m machine) bool { return slices.Equal(m.host.Fields(), s.Host.Fields()) })
		if i < 0 {
			i = len(out)
			out = append(out, machine{host: s.Host})
		}
		out[i].names = append(out[i].names, v.labels[s])
	}
	return out
}

// machineBlocks are the fingerprints, those that are equal in one column.
func (v *viewer) machineBlocks() []block {
	machines := v.machines()
	if len(machines) == 0 {
		return nil
	}
	t := &table{Caption: "Fingerprints, as the records hold them", Columns: []column{{"", ""}}}
	if n := len(machines) - maxMachines; n > 0 {
		t.Remark = fmt.Sprintf("%d more machines are left out.", n)
	}
	machines = machines[:min(len(machines), maxMachines)]
	if len(machines) > 1 {
		t.Caption += "; rows marked ≠ differ"
	}
	values := make([]map[string]string, len(machines))
	var fields []string
	for i, m := range machines {
		t.Columns = append(t.Columns, column{m.heading(len(machines)), "t"})
		values[i] = make(map[string]string)
		for _, f := range m.host.Fields() {
			if !slices.Contains(fields, f.Name) {
				fields = append(fields, f.Name)
			}
			values[i][f.Name] = f.Value
		}
	}
	b := block{Tables: []*table{t}}
	if spared := addMachineRows(t, fields, values); len(spared) > 0 {
		b.Text = []string{"Not affected: " + cells.Clean(strings.Join(spared, ", ")) + "."}
	}
	return []block{b}
}

// heading is the name of a machine's column; of is how many machines the table has.
func (m machine) heading(of int) string {
	if of == 1 {
		return "found"
	}
	const most = 3
	name := strings.Join(m.names[:min(len(m.names), most)], ", ")
	if n := len(m.names) - most; n > 0 {
		name += fmt.Sprintf(" and %d more", n)
	}
	return name
}

// addMachineRows adds a row for each field, with its value on each machine. It returns
// the vulnerabilities that no CPU of them has, which get no row.
func addMachineRows(t *table, fields []string, values []map[string]string) (spared []string) {
	for _, name := range fields {
		row := []string{name}
		differs, affected := false, false
		for i := range values {
			value := values[i][name]
			differs = differs || value != values[0][name]
			affected = affected || value != "Not affected"
			row = append(row, cmp.Or(value, "not seen"))
		}
		if short, ok := strings.CutPrefix(name, "mitigations/"); ok && !affected {
			spared = append(spared, short)
			continue
		}
		if differs {
			row[0] = "≠ " + row[0]
		}
		t.add(row...).Differs = differs
	}
	return spared
}
