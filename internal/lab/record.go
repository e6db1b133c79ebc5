package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Record turns what guests counted into rows, and into the differences of each two
// cells of one kernel and CPU, the first against the others. rows are those of
// [Plan.Rows]. price is that of one indirect call on this machine in ns; it may be nil.
func Record(cells []CellResult, rows []Row, price *stat.Quantity) *record.Lab {
	l := &record.Lab{Price: price, Differences: []record.LabDifference{}}
	l.Rows, l.Warnings = []record.LabRow{}, []record.Warning{}
	for i := range cells {
		l.Rows = append(l.Rows, cells[i].rows(rows)...)
		if e := cells[i].earlier; e != nil {
			l.Warnings = append(l.Warnings, e.warnings...)
		}
		if err := cells[i].NoTime; err != nil {
			l.Warnings = append(l.Warnings, record.Warning{Row: cells[i].Name(), Text: printable(err.Error(), maxWhy)})
		}
		if m := cells[i].Measurement; m != nil {
			if n := len(m.Uncounted); n > 0 {
				l.Warnings = append(l.Warnings, record.Warning{Row: cells[i].Name(),
					Text: fmt.Sprintf("%d indirect branches of the path could not be counted, as no kprobe can stand there: %s…", n,
						strings.Join(m.Uncounted[:min(n, 3)], ", "))})
			}
			for j := range m.Bulks {
				for _, doubt := range m.Bulks[j].doubts() {
					l.Warnings = append(l.Warnings, record.Warning{Row: cells[i].Name() + rows[j].suffix(), Text: doubt})
				}
			}
			if m.Program != nil {
				l.Warnings = append(l.Warnings, cells[i].programDoubts()...)
			}
		}
	}
	var appended string // to the command line of the guests that the others are compared with
	if len(cells) > 0 {
		appended = cells[0].Append
	}
	for _, group := range compared(l.Rows, appended) {
		for _, without := range group[1:] {
			l.Differences = append(l.Differences, difference(group[0], without, price))
		}
	}
	return l
}

// compared are rows that differ in their command line at most: the first with the given one, and those after it. Rows without
// a number, and those that are not [probed], are in none.
func compared(rows []record.LabRow, appended string) (groups [][]*record.LabRow) {
	numbers := make(map[[8]string]int) // of groups, by the labels besides append
	for i := range rows {
		row := &rows[i]
		if row.Instructions == nil || !probed(row) {
			continue
		}
		var labels [8]string
		for j, label := range [...]string{"kernel", "cpu", "nic", "dma", "scenario", "bulk", "prog", "class"} {
			labels[j] = row.Labels[label]
		}
		n, stands := numbers[labels]
		switch {
		case stands:
			groups[n] = append(groups[n], row)
		case row.Program == nil && row.Labels["append"] == appended:
			numbers[labels] = len(groups)
			groups = append(groups, []*record.LabRow{row})
		}
	}
	return groups
}

// probed tells whether kprobes counted a row's indirect branches, so that it is known how many instructions each takes.
func probed(row *record.LabRow) bool {
	return !slices.ContainsFunc(row.Sites, func(s record.LabSite) bool { return s.Kind == "" && s.Executed == 0 })
}

// rows are those of one guest.
func (c *CellResult) rows(wanted []Row) (rows []record.LabRow) {
	switch {
	case c.earlier != nil:
		return c.earlier.rows
	case c.job != nil:
		return c.programRows()
	}
	for i, w := range wanted {
		row := record.LabRow{
			Name: c.Name() + w.suffix(),
			Labels: map[string]string{"kernel": record.Name(c.Kernel), "cpu": c.CPU, "append": c.Append, "nic": c.NIC,
				"dma": string(c.DMA), "scenario": w.Scenario, "bulk": strconv.Itoa(w.Bulk)},
			Release: c.Release,
			Sites:   []record.LabSite{}, Functions: []record.LabFunction{},
		}
		switch {
		case c.Err != nil && !errors.Is(c.Err, context.Canceled):
			row.Refused = printable(c.Err.Error(), maxWhy)
		case c.Err != nil, c.Measurement == nil || i >= len(c.Bulks):
			row.Refused = "not measured: the run ended before it"
		case c.Bulks[i].Refused != "":
			row.Thunk, row.SpectreV2, row.Build = c.Host.IndirectThunk, c.Host.Mitigations["spectre-v2"], c.Build
			row.Refused = c.Bulks[i].Refused
		default:
			c.fill(&row, &c.Bulks[i])
		}
		if b := row.Build; i > 0 && b != nil && b.Options != nil {
			without := *b
			without.Options, row.Build = nil, &without
		}
		rows = append(rows, row)
	}
	return rows
}

func (c *CellResult) fill(row *record.LabRow, b *BulkCount) {
	row.Thunk, row.SpectreV2 = c.Host.IndirectThunk, c.Host.Mitigations["spectre-v2"]
	calls := 0.0
	for _, s := range b.Sites {
		calls += s.PerPacket
	}
	row.Build = c.Build
	row.Sites = append(row.Sites, b.Sites...)
	row.NotExecuted, row.Trace = b.NotExecuted, b.Trace
	row.Instructions, row.Spread, row.Ns, row.CallsPerPacket, row.Window, row.Stamp = b.Instructions, b.Spread, b.Ns, &calls, b.Window, c.Stamp
	row.Functions = append(row.Functions, b.Functions...)
	if c.NIC != Veth {
		for _, part := range b.parts() {
			row.DMA = append(row.DMA, b.dma(part))
		}
	}
	row.Counts = record.Counts{Sent: b.Sent, Redirected: b.Redirected, Received: b.Received}
}

// dma adds up what a part of the chain does of the DMA API.
func (b *BulkCount) dma(part string) record.LabDMA {
	d := record.LabDMA{Part: part, Copy: new(float64)}
	for _, f := range b.Functions {
		if f.Part != part {
			continue
		}
		switch functions.DMAOf(f.Function) {
		case functions.DMAMap, functions.DMAMapList:
			d.Map += f.PerPacket
		case functions.DMAUnmap, functions.DMAUnmapList:
			d.Unmap += f.PerPacket
		case functions.DMASync:
			d.Sync += f.PerPacket
		case functions.DMABounce:
			d.Bounce += f.PerPacket
		case functions.DMAFlush:
			d.Flush += f.PerPacket
		case functions.DMACopy:
			*d.Copy += f.PerPacket
		}
	}
	return d
}

func difference(with, without *record.LabRow, price *stat.Quantity) record.LabDifference {
	d := record.LabDifference{
		With: with.Name, Without: without.Name,
		Instructions: *with.Instructions - *without.Instructions, CallsPerPacket: *with.CallsPerPacket,
	}
	sites, observer := byBranches(with)
	sitesWithout, observerWithout := byBranches(without)
	d.BySites, d.ByObserver = sites-sitesWithout, observer-observerWithout
	d.Remainder = d.Instructions - d.BySites - d.ByObserver
	if n := with.Retpolined() - without.Retpolined(); price != nil && n > 0 { // as record.Lab.BranchNs
		d.Ns = price.Times(n)
		lost := func(ns float64) float64 { return record.LabMpps - 1e3/(1e3/record.LabMpps+ns) }
		d.Lost = &stat.Quantity{Median: lost(d.Ns.Median), Low: lost(d.Ns.Low), High: lost(d.Ns.High), N: price.N, Unit: "Mpps"}
	}
	return d
}

// tracedBranches is how many instructions of a packet the trace of a row has at its sites.
func tracedBranches(row *record.LabRow) (sites float64) {
	executed := make(map[record.LabPlace]int)
	for _, s := range row.Sites {
		executed[record.LabPlace{Function: s.Function, Offset: s.Offset}] = s.Executed
	}
	for _, b := range row.Trace.Branches {
		sites += float64(executed[record.LabPlace{Function: b.Function, Offset: b.Offset}]) * row.Trace.PerPacket(b.Times)
	}
	return sites
}

// inWindow tells whether each window of a row has a site in it. On wires a window lies within one poll: what completes
// transmission, or is executed less than once in it, is not in it.
func inWindow(s *record.LabSite, window int) bool {
	return s.Part == "" || s.Part != OutPoll && s.PerPacket*float64(window) >= 1
}

// byBranches is how many instructions of a packet are those of indirect branches and their thunks: at the sites, and for
// the observer's time stamps. On wires a trace tells which branches are in a window.
func byBranches(row *record.LabRow) (sites, observer float64) {
	for i := range row.Sites {
		if s := &row.Sites[i]; inWindow(s, row.Window) {
			sites += float64(s.Executed) * s.PerPacket
		}
	}
	if row.Trace != nil && row.Trace.Windows > 0 {
		sites = tracedBranches(row)
	}
	if row.Window > 0 {
		observer = float64(row.Stamp) / float64(row.Window)
	}
	return sites, observer
}
