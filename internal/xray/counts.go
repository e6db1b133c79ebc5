package xray

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// defaultBulk is the bulk whose counts are taken when nobody names a row: what the path calls
// a bulk are 16 frames, the devmap's.
const defaultBulk = "16"

// driverOf is that of the devices of a guest.
func driverOf(r *record.LabRow) string {
	switch nic := r.Labels["nic"]; nic {
	case "":
		return "veth"
	case "virtio":
		return "virtio_net"
	default:
		return nic
	}
}

// AddCounts adds to the rows of a record of xray how often a guest of lab executed each
// for a packet: the row of that name, of a guest that ran the same kernel with a device of
// the same driver. Without a name it is the only such row that has counts, or the only one
// of 16 frames that a map redirects.
//
// A row whose branch no packet went through has 0; one that was not counted has none. Errors
// say which counts there are instead.
func AddCounts(doc *record.Document[record.SiteRow], driver string, l *record.Lab, name string) error {
	row, err := counted(l.Rows, doc.Host.Kernel, strings.ReplaceAll(driver, "-", "_"), name)
	if err != nil {
		return err
	}
	at := placesOf(row)
	of := make(map[string][]*record.SiteRow) // by function
	for i := range doc.Rows {
		of[doc.Rows[i].Function] = append(of[doc.Rows[i].Function], &doc.Rows[i])
	}
	c := &record.SiteCounts{Row: row.Name, Release: row.Release, CallsPerPacket: *row.CallsPerPacket}
	matched := make(map[record.LabPlace]bool)
	for function, rows := range of {
		for site, p := range match(rows, at[function]) {
			site.PerPacket, matched[p.LabPlace] = &p.perPacket, true
		}
	}
	for _, s := range row.Sites {
		if !matched[placeOf(s)] {
			c.Others = append(c.Others, s)
		}
	}
	doc.Counts = c
	return nil
}

// counted finds the row of a kernel and a driver that has counts.
func counted(rows []record.LabRow, release, driver, name string) (*record.LabRow, error) {
	// Rows of a user's program are of no path.
	rows = slices.DeleteFunc(slices.Clone(rows), func(r record.LabRow) bool { return r.Program != nil })
	var found []*record.LabRow
	for i := range rows {
		if name == "" || rows[i].Name == name {
			found = append(found, &rows[i])
		}
	}
	if len(found) == 0 && name != "" {
		return nil, fmt.Errorf("it has no row %s, but %s", name, names(rows))
	}
	for _, by := range []struct {
		want string
		of   func(*record.LabRow) string
		flag string
	}{
		{"Linux " + release, func(r *record.LabRow) string { return "Linux " + r.Release }, "--root has the path of another kernel"},
		{driver, driverOf, "--driver names another one"},
	} {
		var others []string
		found = slices.DeleteFunc(found, func(r *record.LabRow) bool {
			of := by.of(r)
			if of != by.want && !slices.Contains(others, of) {
				others = append(others, of)
			}
			return of != by.want
		})
		if len(found) == 0 {
			return nil, fmt.Errorf("no counts of %s, only of %s: %s", by.want, cmp.Or(strings.Join(others, ", "), "nothing"), by.flag)
		}
	}
	return countedOnce(found)
}

// countedOnce is the row that has counts, or the one of the default bulk.
func countedOnce(rows []*record.LabRow) (*record.LabRow, error) {
	why := rows[0].Refused
	rows = slices.DeleteFunc(rows, func(r *record.LabRow) bool { return r.Refused != "" })
	if len(rows) == 0 {
		return nil, fmt.Errorf("its counts were refused: %s", why)
	}
	usual := slices.DeleteFunc(slices.Clone(rows), func(r *record.LabRow) bool {
		return r.Labels["bulk"] != defaultBulk || !r.IsDefault()
	})
	switch {
	case len(rows) == 1:
		return rows[0], nil
	case len(usual) == 1:
		return usual[0], nil
	}
	var all []record.LabRow
	for _, r := range rows {
		all = append(all, *r)
	}
	return nil, fmt.Errorf("%d rows have counts of it: choose one with --row: %s", len(rows), names(all))
}

// names are those of rows, at most a few.
func names(rows []record.LabRow) string {
	const most = 8
	var out []string
	for _, r := range rows[:min(most, len(rows))] {
		out = append(out, r.Name)
	}
	if n := len(rows) - most; n > 0 {
		out = append(out, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(out, ", ")
}

// place is one that a guest watched, and how often it was executed for a packet.
type place struct {
	record.LabPlace
	perPacket float64
}

func placeOf(s record.LabSite) record.LabPlace {
	return record.LabPlace{Function: s.Function, Offset: s.Offset, Pointer: s.Pointer}
}

// placesOf are those of a row by their function, by their offsets.
func placesOf(row *record.LabRow) map[string][]*place {
	out := make(map[string][]*place)
	add := func(p record.LabPlace, perPacket float64) {
		all := out[p.Function]
		i := slices.IndexFunc(all, func(o *place) bool { return o.LabPlace == p })
		if i < 0 {
			out[p.Function] = append(all, &place{p, perPacket})
			return
		}
		all[i].perPacket += perPacket // of another part of the chain, or into another target
	}
	for _, s := range row.Sites {
		add(placeOf(s), s.PerPacket)
	}
	for _, p := range row.NotExecuted {
		add(p, 0)
	}
	for _, all := range out {
		slices.SortFunc(all, func(a, b *place) int { return cmp.Compare(a.Offset, b.Offset) })
	}
	return out
}

// match finds the places of the rows of one function: by their offsets where some are the
// same, as they are in the same build; otherwise by what they call and, where that repeats,
// by their order, for calls that both have equally many of.
func match(rows []*record.SiteRow, places []*place) map[*record.SiteRow]*place {
	out := make(map[*record.SiteRow]*place)
	for _, p := range places {
		if i := slices.IndexFunc(rows, func(r *record.SiteRow) bool {
			return r.Offset == p.Offset && (r.Pointer == nil || p.Pointer == "" || member(*r.Pointer) == member(p.Pointer))
		}); i >= 0 {
			out[rows[i]] = p
		}
	}
	if len(out) > 0 {
		return out
	}
	byCall := make(map[string][]*place)
	for _, p := range places {
		byCall[member(p.Pointer)] = append(byCall[member(p.Pointer)], p)
	}
	rowsByCall := make(map[string][]*record.SiteRow)
	for _, r := range rows {
		pointer := ""
		if r.Pointer != nil {
			pointer = *r.Pointer
		}
		rowsByCall[member(pointer)] = append(rowsByCall[member(pointer)], r)
	}
	for call, at := range rowsByCall {
		if len(at) != len(byCall[call]) {
			continue
		}
		slices.SortFunc(at, func(a, b *record.SiteRow) int { return cmp.Compare(a.Offset, b.Offset) })
		for i, r := range at {
			out[r] = byCall[call][i]
		}
	}
	return out
}

// member is the last step of a chain of struct members: which steps before it are known
// depends on where a walk came from.
func member(pointer string) string {
	steps := strings.Split(pointer, " → ")
	return steps[len(steps)-1]
}
