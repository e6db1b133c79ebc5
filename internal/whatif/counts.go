package whatif

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/release"
)

// The parts of a chain over wires, by the names of lab.
const (
	inPoll  = "in-poll"
	outXmit = "out-xmit"
	outPoll = "out-poll"
)

// emulated are the drivers of the NICs that lab emulates.
var emulated = map[string]string{"igb": "igb", "virtio": virtioNet, "virtio-no-indirect": virtioNet, "vmxnet3": "vmxnet3"}

// virtioNet is the driver whose bus maps for it.
const virtioNet = "virtio_net"

// counts are rows of lab that may be used: a redirect over wires, with its indirect calls.
type counts []*record.LabRow

func newCounts(labs []*record.Lab) (all counts) {
	for _, l := range labs {
		for i := range l.Rows {
			r := &l.Rows[i]
			if r.Refused == "" && r.CallsPerPacket != nil && r.IsDefault() && len(r.DMA) > 0 && emulated[r.Labels["nic"]] != "" {
				all = append(all, r)
			}
		}
	}
	return all
}

// CheckUse returns an error when a record of lab has no row that an estimate of drivers in DMA setups takes.
func CheckUse(l *record.Lab, drivers []record.DriverRow, dmas []string) error {
	rows := newCounts([]*record.Lab{l})
	if len(rows) == 0 {
		nics := strings.Join(slices.Sorted(maps.Keys(emulated)), ", ")
		return fmt.Errorf("it has no row of a redirect by %s whose indirect calls were counted", nics)
	}
	var series []string
	for i := range drivers {
		s := release.Series(drivers[i].Release)
		if slices.ContainsFunc(dmas, func(dma string) bool { return len(rows.of(s, dma)) > 0 }) {
			return nil
		}
		series = append(series, s)
	}
	slices.Sort(series)
	return fmt.Errorf("it has no row of Linux %s with DMA %s", strings.Join(slices.Compact(series), ", "), strings.Join(dmas, ", "))
}

// of are the rows of a series and a setup, the largest bulk of each guest: it is the nearest to a stream of packets.
func (all counts) of(series, dma string) (rows counts) {
	guests := make(map[string]*record.LabRow)
	for _, r := range all {
		if release.Series(r.Release) != series || r.Labels["dma"] != dma {
			continue
		}
		if old := guests[r.Guest()]; old == nil || bulk(r) > bulk(old) {
			guests[r.Guest()] = r
		}
	}
	for _, guest := range slices.Sorted(maps.Keys(guests)) {
		rows = append(rows, guests[guest])
	}
	return rows
}

func bulk(r *record.LabRow) int {
	n, _ := strconv.Atoi(r.Labels["bulk"]) // a row without one is the smallest
	return n
}

// use is what a packet does with a driver in a setup: as counted, where it was.
func (all counts) use(d *record.DriverRow, dma string) *use {
	u := &use{driver: d, dma: dma}
	rows := all.of(release.Series(d.Release), dma)
	// The driver's own release before another of the series.
	own := slices.DeleteFunc(slices.Clone(rows), func(r *record.LabRow) bool { return emulated[r.Labels["nic"]] != d.Name })
	slices.SortStableFunc(own, func(a, b *record.LabRow) int {
		return cmp.Compare(boolean(b.Release == d.Release), boolean(a.Release == d.Release))
	})
	if len(own) > 0 {
		u.byCounts(own[0], rows)
	} else {
		u.byCode(rows)
	}
	return u
}

func boolean(is bool) int {
	if is {
		return 1
	}
	return 0
}

// byCounts is of a row. What a sync does that the driver makes none of is the kernel's, as for [use.byCode].
func (u *use) byCounts(r *record.LabRow, rows counts) {
	u.counted = r
	u.rx = countedMapping(r, inPoll, inPoll)
	u.tx = countedMapping(r, outXmit, outXmit, outPoll)
	u.syncs, u.sync = record.Exactly(r.SumDMA().Sync), oneCall(r, functions.DMASync, inPoll, outXmit, outPoll)
	if u.syncs.High == 0 {
		u.sync = rows.call(functions.DMASync, u.driver.Release, u.dma)
	}
	for _, f := range r.Functions {
		if functions.Has(f.Function, functions.ReturnsOne) {
			u.returns = u.returns.Plus(record.Exactly(f.PerPacket))
		}
	}
}

// countedMapping is a side that maps in one part of the chain, and unmaps in some.
func countedMapping(r *record.LabRow, part string, parts ...string) mapping {
	maps, unmaps := made(r, functions.DMAMap, part), made(r, functions.DMAUnmap, parts...)
	m := mapping{
		maps: record.Exactly(maps), unmaps: 1,
		mapped: oneCall(r, functions.DMAMap, parts...), unmapped: oneCall(r, functions.DMAUnmap, parts...),
	}
	if maps > 0 {
		m.unmaps = unmaps / maps
	}
	return m
}

// oneCall is what one call of a kind does in parts of a chain, on average: nothing where there is none. Where lists are
// mapped as well nobody knows what a single one does.
func oneCall(r *record.LabRow, kind functions.DMA, parts ...string) call {
	calls, indirect, perPage := made(r, kind, parts...), 0.0, 0.0
	if lists(r, kind, parts...) > 0 {
		return call{rows: []string{r.Name}}
	}
	c := call{rows: []string{r.Name}, indirect: new(record.Range)}
	if calls == 0 {
		return c
	}
	for i := range r.Sites {
		if s := &r.Sites[i]; slices.Contains(parts, s.Part) && kindOf(s) == kind {
			indirect += s.PerPacket
			if member(s.Pointer) == "map_pages" {
				perPage += s.PerPacket
			}
		}
	}
	*c.indirect, c.perPage = record.Exactly(indirect/calls), record.Exactly(perPage/calls)
	c.instructions = executed(r, kind)
	return c
}

// executed is how many instructions one call of a kind takes with what it calls, by those that the windows of the row's trace
// entered. A window lacks what completes transmission, and so most unmaps: these count as 0.
func executed(r *record.LabRow, kind functions.DMA) *record.Range {
	if r.Trace == nil {
		return nil
	}
	if kind == functions.DMAUnmap {
		return new(record.Range)
	}
	all, entered := uint64(0), uint64(0)
	for i := range r.Trace.Stacks {
		s := &r.Trace.Stacks[i]
		of, depth := outermost(s.Frames)
		if of != kind {
			continue
		}
		all += s.Executed
		if depth == len(s.Frames)-1 { // the call itself, and not what it calls
			entered += s.Entered
		}
	}
	if entered == 0 {
		return nil
	}
	n := record.Exactly(float64(all) / float64(entered))
	return &n
}

// outermost is the kind of the outermost call of the DMA API in a chain of calls, as one may make others: those of virtio
// do. at is where it stands. The kind is "" where there is none.
func outermost(frames []string) (kind functions.DMA, at int) {
	for at, frame := range frames {
		switch kind := functions.DMAOf(frame); kind {
		case functions.DMAMap, functions.DMAMapList, functions.DMAUnmap, functions.DMAUnmapList, functions.DMASync:
			return kind, at
		}
	}
	return "", -1
}

// member is the last of a chain of members.
func member(pointer string) string { return pointer[strings.LastIndexByte(pointer, '.')+1:] }

// kinds are those of calls through a pointer, by its name.
var kinds = map[string]functions.DMA{
	"map_page": functions.DMAMap, "map_phys": functions.DMAMap, "map_pages": functions.DMAMap, "iotlb_sync_map": functions.DMAMap,
	"mapping_error": functions.DMAMap,
	"unmap_page":    functions.DMAUnmap, "unmap_phys": functions.DMAUnmap, "unmap_pages": functions.DMAUnmap,
	"iova_to_phys": functions.DMAUnmap, "iotlb_sync": functions.DMAUnmap, "flush_iotlb_all": functions.DMAUnmap,
	"sync_single_for_cpu": functions.DMASync, "sync_single_for_device": functions.DMASync,
}

// kindOf is what kind of call an indirect branch is in: by the pointer that it is made through, else by its function.
func kindOf(s *record.LabSite) functions.DMA {
	if kind := kinds[member(s.Pointer)]; kind != "" {
		return kind
	}
	name := functions.Source(s.Function)
	for _, prefix := range []string{"dma_", "__dma_", "iommu_", "__iommu_", "intel_", "amd_iommu_", "fq_", "qi_", "cache_tag_"} {
		switch {
		case !strings.HasPrefix(name, prefix):
		case strings.Contains(name, "_sync_single"):
			return functions.DMASync
		case strings.Contains(name, "unmap"), strings.Contains(name, "flush"), strings.Contains(name, "iova_to_phys"),
			strings.Contains(name, "tlb_sync"):
			return functions.DMAUnmap
		case strings.Contains(name, "map"):
			return functions.DMAMap
		}
	}
	return ""
}

// byCode is what the driver's code shows. What its calls do is the kernel's, as other drivers' rows of the same kernels have it.
func (u *use) byCode(rows counts) {
	d := u.driver
	mapped, unmapped := rows.call(functions.DMAMap, d.Release, u.dma), rows.call(functions.DMAUnmap, d.Release, u.dma)
	u.sync = rows.call(functions.DMASync, d.Release, u.dma)
	if d.DMA && (!d.PagePool || d.MapsPool) {
		u.rx.maps = record.Range{High: float64(d.Receive.Maps)} // or it uses its pages again, as igb does
	}
	if d.Transmit.Maps > 0 && d.Transmit.Gathers == 0 {
		u.tx.maps = record.Range{Low: 1, High: float64(d.Transmit.Maps)}
	}
	for _, m := range []*mapping{&u.rx, &u.tx} {
		m.unmaps, m.mapped, m.unmapped = 1, mapped, unmapped
	}
	u.unseen = d.Xmit != "" && d.Transmit.Maps+d.Transmit.Gathers == 0 &&
		(d.Receive.Maps > 0 || d.Name == virtioNet || d.Name == "xen_netfront")
	u.syncs = record.Range{High: float64(d.Receive.Syncs)}
	if d.Return == "each" {
		u.returns = record.Exactly(1)
	}
}

// call is what a call of a kind does in rows of one series and setup, of NICs whose drivers call the DMA API themselves. Without
// rows that is not known behind an IOMMU; without one it is no indirect call since Linux 5.0 (356da6d0cde3).
func (all counts) call(kind functions.DMA, kernel, dma string) (c call) {
	parts := []string{inPoll, outXmit, outPoll}
	for _, r := range all {
		if emulated[r.Labels["nic"]] == virtioNet || made(r, kind, parts...) == 0 {
			continue
		}
		one := oneCall(r, kind, parts...)
		if one.indirect == nil {
			continue
		}
		if c.indirect == nil {
			c = one
			continue
		}
		*c.indirect, c.perPage = c.indirect.Or(*one.indirect), c.perPage.Or(one.perPage)
		if c.instructions != nil && one.instructions != nil {
			*c.instructions = c.instructions.Or(*one.instructions)
		}
		c.instructions = cmp.Or(c.instructions, one.instructions)
		c.rows = append(c.rows, one.rows...)
	}
	if c.indirect == nil && (dma == record.DMADirect || dma == record.DMASwiotlb) && release.AtLeast(kernel, "5.0") {
		c.indirect = new(record.Range)
	}
	return c
}

// lists are how many calls of a kind are of lists.
func lists(r *record.LabRow, kind functions.DMA, parts ...string) (calls float64) {
	of := map[functions.DMA]functions.DMA{functions.DMAMap: functions.DMAMapList, functions.DMAUnmap: functions.DMAUnmapList}[kind]
	for _, f := range r.Functions {
		if of != "" && slices.Contains(parts, f.Part) && functions.DMAOf(f.Function) == of {
			calls += f.PerPacket
		}
	}
	return calls
}

// made is how many calls of a kind, of single buffers, a packet makes in parts of a chain.
func made(r *record.LabRow, kind functions.DMA, parts ...string) (calls float64) {
	for _, d := range r.DMA {
		if slices.Contains(parts, d.Part) {
			switch kind {
			case functions.DMAMap:
				calls += d.Map
			case functions.DMAUnmap:
				calls += d.Unmap
			case functions.DMASync:
				calls += d.Sync
			}
		}
	}
	return max(0, calls-lists(r, kind, parts...)) // which the record counts with the others
}

// calls are what calls of the DMA API do in the kernels of drivers.
func (all counts) calls(drivers []record.DriverRow, dmas []string) []record.WhatIfCall {
	out := []record.WhatIfCall{}
	var seen []string
	for i := range drivers {
		s := release.Series(drivers[i].Release)
		if slices.Contains(seen, s) {
			continue
		}
		seen = append(seen, s)
		for _, dma := range dmas {
			rows := all.of(s, dma)
			for _, kind := range []functions.DMA{functions.DMAMap, functions.DMAUnmap, functions.DMASync} {
				if kind == functions.DMASync && dma != record.DMASwiotlb && release.AtLeast(s, skipsSyncs) {
					continue // it is no call
				}
				if c := rows.call(kind, s, dma); c.indirect != nil {
					if kind == functions.DMAUnmap {
						c.instructions = nil // a trace lacks them
					}
					out = append(out, record.WhatIfCall{Series: s, DMA: dma, Call: string(kind), Indirect: *c.indirect, PerPage: c.perPage,
						Instructions: c.instructions, Rows: append([]string{}, c.rows...)})
				}
			}
		}
	}
	return out
}

// howToCount are the commands that count what uses lack, by series of kernels, complete: the NICs of all drivers that can be
// emulated, and one of them for the others, in each setup that something is missing of.
func howToCount(uses []*use) map[string]string {
	nics, dmas := make(map[string][]string), make(map[string][]string)
	for _, u := range uses {
		if !u.lacks() && (!u.unseen || nicOf(u.driver.Name) == "") {
			continue
		}
		s := release.Series(u.driver.Release)
		nics[s] = append(nics[s], cmp.Or(nicOf(u.driver.Name), "igb"))
		dmas[s] = append(dmas[s], u.dma)
	}
	how := make(map[string]string)
	for s := range nics {
		chosen := slices.DeleteFunc(DMAs(), func(dma string) bool { return !slices.Contains(dmas[s], dma) })
		slices.Sort(nics[s])
		how[s] = fmt.Sprintf("unthunk lab debian:%s --nic %s --dma %s --bulk 64 --trace --save FILE, for --counts FILE",
			s, strings.Join(slices.Compact(nics[s]), ","), strings.Join(chosen, ","))
	}
	return how
}

// lacks tells whether a change has no number as indirect calls of the DMA API were not counted.
func (u *use) lacks() bool {
	return slices.ContainsFunc(Changes(), func(change string) bool {
		if u.nothing(change) != "" {
			return false
		}
		row := u.row(change)
		return row.Now.Indirect == nil || row.Saved.Indirect == nil
	})
}

// nicOf is the NIC that lab emulates for a driver; "" for none.
func nicOf(driver string) string {
	for _, nic := range slices.Sorted(maps.Keys(emulated)) {
		if emulated[nic] == driver {
			return nic
		}
	}
	return ""
}
