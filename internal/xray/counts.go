package xray

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
)

// DefaultBulk is the bulk whose counts are taken when nobody names one: what the path
// calls a bulk are 16 frames, the devmap's.
const DefaultBulk = 16

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
// for a packet. The guest is the first of the record that ran the same kernel with a
// device of the same driver. bulk is the one that is wanted; 0 is [DefaultBulk] or, where
// it was not counted, the first that was.
//
// A row whose branch no packet went through has 0; one that the guest did not watch has
// no count. Errors say which counts there are instead.
func AddCounts(doc *record.Document[record.SiteRow], driver string, l *record.Lab, bulk int) error {
	row, err := counted(l.Rows, doc.Host.Kernel, driver, bulk)
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

// counted finds the row of a kernel, a driver and a bulk.
func counted(rows []record.LabRow, release, driver string, bulk int) (*record.LabRow, error) {
	found := make([]*record.LabRow, 0, len(rows))
	for i := range rows {
		found = append(found, &rows[i])
	}
	for _, by := range []struct {
		want string
		of   func(*record.LabRow) string
		flag string
	}{
		{"Linux " + release, func(r *record.LabRow) string { return "Linux " + r.Release }, "--root has the path of another kernel"},
		{strings.ReplaceAll(driver, "-", "_"), driverOf, "--driver names another one"},
	} {
		var others []string
		rest := slices.DeleteFunc(slices.Clone(found), func(r *record.LabRow) bool {
			if of := by.of(r); of != by.want && !slices.Contains(others, of) {
				others = append(others, of)
			}
			return by.of(r) != by.want
		})
		if len(rest) == 0 {
			return nil, fmt.Errorf("no counts of %s, only of %s: %s", by.want, cmp.Or(strings.Join(others, ", "), "nothing"), by.flag)
		}
		found = rest
	}
	return countedBulk(found, bulk)
}

// countedBulk is the row of a bulk that has counts.
func countedBulk(rows []*record.LabRow, bulk int) (*record.LabRow, error) {
	find := func(bulk string) *record.LabRow {
		for _, r := range rows {
			if r.Refused == "" && (bulk == "" || r.Labels["bulk"] == bulk) {
				return r
			}
		}
		return nil
	}
	row := find(strconv.Itoa(cmp.Or(bulk, DefaultBulk)))
	if row == nil && bulk == 0 {
		row = find("")
	}
	if row != nil {
		return row, nil
	}
	var has []string
	for _, r := range rows {
		if b := r.Labels["bulk"]; r.Refused == "" && !slices.Contains(has, b) {
			has = append(has, b)
		}
	}
	if len(has) == 0 {
		return nil, fmt.Errorf("its counts were refused: %s", rows[0].Refused)
	}
	return nil, fmt.Errorf("no counts of bulk %d, only of %s", bulk, strings.Join(has, ", "))
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

// match finds the places of the rows of one function: by their offsets when the function
// has a row at each, as it has in the same build; otherwise by what they call and, where
// that repeats, by their order, for calls that both have equally many of.
func match(rows []*record.SiteRow, places []*place) map[*record.SiteRow]*place {
	out := make(map[*record.SiteRow]*place)
	for _, p := range places {
		if i := slices.IndexFunc(rows, func(r *record.SiteRow) bool {
			return r.Offset == p.Offset && (r.Pointer == nil || p.Pointer == "" || member(*r.Pointer) == member(p.Pointer))
		}); i >= 0 {
			out[rows[i]] = p
		}
	}
	if len(out) == len(places) {
		return out
	}
	clear(out)
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
