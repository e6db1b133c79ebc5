package page

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// machines are the fingerprints, those that are equal in one column.
func (v *viewer) machines() []block {
	type machine struct {
		host  host.Fingerprint
		names []string
	}
	var machines []machine
	for _, s := range v.src.Records {
		i := slices.IndexFunc(machines, func(m machine) bool { return slices.Equal(m.host.Fields(), s.Host.Fields()) })
		if i < 0 {
			i = len(machines)
			machines = append(machines, machine{host: s.Host})
		}
		machines[i].names = append(machines[i].names, v.labels[s])
	}
	const most = 12
	left := len(machines) - most
	machines = machines[:min(len(machines), most)]
	t := &table{Caption: "Fingerprints, as the records hold them", Columns: []column{{"", ""}}}
	if len(machines) > 1 {
		t.Caption += "; rows marked ≠ differ"
	}
	if left > 0 {
		t.Remark = fmt.Sprintf("%d more machines are left out.", left)
	}
	values := make([]map[string]string, len(machines))
	var names []string
	for i, m := range machines {
		name := "found"
		if len(machines) > 1 {
			name = strings.Join(m.names[:min(len(m.names), 3)], ", ")
			if n := len(m.names) - 3; n > 0 {
				name += fmt.Sprintf(" and %d more", n)
			}
		}
		t.Columns = append(t.Columns, column{name, "t"})
		values[i] = make(map[string]string)
		for _, f := range m.host.Fields() {
			if !slices.Contains(names, f.Name) {
				names = append(names, f.Name)
			}
			values[i][f.Name] = f.Value
		}
	}
	var spared []string // vulnerabilities that no CPU here has
	for _, name := range names {
		cells := []string{name}
		differs, affected := false, false
		for i := range values {
			value := values[i][name]
			differs = differs || value != values[0][name]
			affected = affected || value != "Not affected"
			cells = append(cells, cmp.Or(value, "not seen"))
		}
		if short, ok := strings.CutPrefix(name, "mitigations/"); ok && !affected {
			spared = append(spared, short)
			continue
		}
		if differs {
			cells[0] = "≠ " + cells[0]
		}
		t.add(cells...).Differs = differs
	}
	b := block{Tables: []*table{t}}
	if len(spared) > 0 {
		b.Text = []string{"Not affected: " + cells.Clean(strings.Join(spared, ", ")) + "."}
	}
	if len(machines) == 0 {
		return nil
	}
	return []block{b}
}
