package page

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
)

// maxMachines is the most machines that a page compares.
const maxMachines = 12

// machine is what the fingerprints of one machine's records say, and their names.
type machine struct {
	host   host.Fingerprint
	values map[string]string
	names  []string
}

// machines are those of the records, and all fields that one of them has.
func (v *viewer) machines() (machines []*machine, fields []string) {
	known := make(map[string]bool)
	for _, s := range v.src.Records {
		values := seenFields(s.Host)
		if len(values) == 0 {
			continue // a comparison is of no machine
		}
		for _, f := range s.Host.Fields() {
			if f.Value != "" && !known[f.Name] {
				known[f.Name] = true
				fields = append(fields, f.Name)
			}
		}
		i := slices.IndexFunc(machines, func(m *machine) bool { return sameMachine(m.host, s.Host) })
		if i < 0 {
			i = len(machines)
			machines = append(machines, &machine{host: s.Host, values: make(map[string]string)})
		}
		machines[i].names = append(machines[i].names, v.labels[s])
		maps.Copy(machines[i].values, values)
	}
	return machines, fields
}

// machineBlocks are the fingerprints: what differs between machines, and folded what does
// not.
func (v *viewer) machineBlocks() []block {
	machines, fields := v.machines()
	if len(machines) == 0 {
		return nil
	}
	var b block
	if n := len(machines) - maxMachines; n > 0 {
		b.addText(fmt.Sprintf("%d more machines are left out.", n))
		machines = machines[:maxMachines]
	}
	differ := &table{Caption: "What differs", Columns: []column{{"", ""}, {"value", "t"}, {"in the records", "m"}}}
	alike := &table{Caption: "What the machines have in common", Columns: []column{{"", ""}, {"found", "t"}}, Folded: v.draw}
	if len(machines) == 1 {
		alike.Caption = "What the records say of the machine"
		if len(v.src.Records) > 1 {
			b.addText("All records are of one machine.")
		}
	}
	var spared []string
	for _, name := range fields {
		values := valuesOf(machines, name)
		short, mitigation := strings.CutPrefix(name, "mitigations/")
		switch {
		case len(values) == 0: // of machines that are left out
		case len(values) > 1:
			field := name
			for _, value := range values {
				differ.add(field, value, recordsWith(machines, name, value))
				field = ""
			}
		case mitigation && values[0] == "Not affected":
			spared = append(spared, short)
		default:
			alike.add(name, values[0])
		}
	}
	if len(spared) > 0 {
		alike.add("not affected by", strings.Join(spared, ", "))
	}
	for _, t := range []*table{differ, alike} {
		if len(t.Rows) > 0 {
			b.Tables = append(b.Tables, t)
		}
	}
	return []block{b}
}

// valuesOf are the distinct values that machines have of a field. A machine of which
// nothing was seen does not differ.
func valuesOf(machines []*machine, field string) []string {
	var out []string
	for _, m := range machines {
		if value := m.values[field]; value != "" && !slices.Contains(out, value) {
			out = append(out, value)
		}
	}
	return out
}

// recordsWith names the records of the machines that have a value of a field.
func recordsWith(machines []*machine, field, value string) string {
	var names []string
	for _, m := range machines {
		if m.values[field] == value {
			names = append(names, m.names...)
		}
	}
	const most = 4
	said := strings.Join(names[:min(len(names), most)], ", ")
	if n := len(names) - most; n > 0 {
		said += fmt.Sprintf(" and %d more", n)
	}
	return said
}
