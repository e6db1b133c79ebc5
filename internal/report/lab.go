package report

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// Lab writes a record of lab for people: each guest's counts, then each difference
// with the indirect branches that account for it.
func Lab(w io.Writer, opts Options, l *record.Lab) error {
	p := newPrinter(opts)
	p.incomplete(l.Incomplete)
	notes := newFootnotes(l.Warnings)
	p.labChain(l, notes)
	p.labWires(l, notes)
	p.labPrograms(l, notes)
	for _, d := range l.Differences {
		fmt.Fprintln(&p.buf)
		p.wrap("", fmt.Sprintf("%s against %s: %s instructions a packet, %s of them by %s indirect branches%s, "+
			"%s by unthunk's own time stamps, %s unexplained.",
			d.With, d.Without, stat.Exact(d.Instructions), stat.Exact(d.BySites), stat.Exact(d.CallsPerPacket),
			inPackets(d.CallsPerPacket), stat.Exact(d.ByObserver), stat.Exact(d.Remainder)))
		if d.Ns != nil {
			ns, around := cells.Quantity(d.Ns)
			p.wrap("", fmt.Sprintf("At this machine's price that is %s ns a packet %s: an estimate.%s", ns, around,
				lostRate(d)))
		}
		p.labSites(l, d.With)
	}
	p.labTraces(l)
	if slices.ContainsFunc(l.Rows, func(r record.LabRow) bool { return !cells.OfProgram(&r) }) {
		fmt.Fprintln(&p.buf)
		p.wrap("", "Counts of the emulated guest, on veth exact to the digit and from the generator's call to the packet's "+
			"end; the generator and the redirect both call ndo_xdp_xmit. Instructions are no time: QEMU predicts "+
			"no branches.")
	}
	if timed(l) {
		p.wrap("", "Times in ns are those of a second boot with KVM: on veth of the whole chain, as bench takes it, "+
			"on wires (took) between packets of one poll.")
	}
	notes.write(p)
	return p.flush(w)
}

// labChain writes the rows of the veth chain.
func (p *printer) labChain(l *record.Lab, notes *footnotes) {
	timed := timed(l)
	left, head := []bool{true, false, false, false}, []string{"per packet", "instructions", "indirect", "ndo_xdp_xmit"}
	if timed {
		left, head = append(left, true), append(head, "ns")
	}
	t := newTextTable(left, "  ", head...)
	several := slices.ContainsFunc(l.Rows, func(r record.LabRow) bool { return !r.IsDefault() })
	heading := ""
	for i := range l.Rows {
		row := &l.Rows[i]
		if cells.OnWires(row) || cells.OfProgram(row) {
			continue
		}
		bulk := "bulk=" + row.Labels["bulk"]
		if several {
			bulk = cells.Clean(row.Scenario()) + "/" + bulk
		}
		if name := row.Guest(); name != heading {
			heading = name
			mark := notes.mark(name)
			name += labGuest(row)
			t.heading(cells.Join("  ", name, mark))
		}
		line := append([]string{"  " + cells.Clean(bulk)}, slices.Repeat([]string{"-"}, len(left)-1)...)
		if row.Refused != "" {
			t.add(line...)
			if i == 0 || l.Rows[i-1].Refused != row.Refused || l.Rows[i-1].Guest() != row.Guest() { // once for rows of a guest
				t.below("    no number: ", row.Refused)
			}
			continue
		}
		if row.Instructions != nil {
			line[1] = stat.Exact(*row.Instructions)
			if row.Spread != nil {
				line[1] += " ±" + cells.Few(*row.Spread)
			}
		}
		line[2] = stat.Exact(*row.CallsPerPacket)
		if len(row.Functions) > 0 { // as kprobes counted them
			line[3] = stat.Exact(row.Entries("bq_xmit_all"))
		}
		if timed && row.Ns != nil {
			ns, around := cells.Quantity(row.Ns)
			line[4] = ns + " " + around
		}
		t.add(line...)
	}
	if len(t.rows) > 1 {
		p.table(t)
	}
}

// inPackets is a count for a packet as a fraction of small numbers, "" when it is none or
// whole: 0.3125 is 5 in 16 packets.
func inPackets(perPacket float64) string {
	for packets := 2; packets <= 64; packets++ {
		if n := perPacket * float64(packets); n == math.Trunc(n) && n > 0 && perPacket != math.Trunc(perPacket) {
			return fmt.Sprintf(" (%.0f in %d packets)", n, packets)
		}
	}
	return ""
}

// labGuest is the kernel that a row's guest ran and what an indirect call is there.
func labGuest(row *record.LabRow) string {
	if row.Thunk == "" {
		return ""
	}
	return fmt.Sprintf(": Linux %s, indirect calls: %s", row.Release, row.Thunk)
}

// labWires writes the rows of interfaces on wires, one line each, under the kernel and
// command line of their guest; where a line has no room for the interface and its DMA, these are in the heading too.
func (p *printer) labWires(l *record.Lab, notes *footnotes) {
	var rows []*record.LabRow
	for i := range l.Rows {
		if cells.OnWires(&l.Rows[i]) {
			rows = append(rows, &l.Rows[i])
		}
	}
	if len(rows) == 0 {
		return
	}
	scenarios := slices.ContainsFunc(rows, func(r *record.LabRow) bool { return !r.IsDefault() })
	t := labWiresTable(l, rows, notes, scenarios, scenarios)
	if t.width() > p.width {
		t.gap = ""
	}
	if !scenarios && t.width() > p.width {
		t = labWiresTable(l, rows, notes, true, false)
	}
	p.table(t)
	fmt.Fprintln(&p.buf)
	worker, copies := "", ""
	if scenarios {
		worker = "Where a worker forwards, also in its system calls. "
	}
	if copied(rows) {
		copies = "copy: the kernel's of the frame, but for bounce buffers. "
	}
	p.wrap("", "Per packet on wires: what is executed in the NAPI polls of the device that redirects and of the device "+
		"that it redirects to, and in transmission. "+worker+"As many pages are unmapped as mapped. insns: of these instructions those "+
		"between two packets of one poll of the device that redirects: without what it does once a poll, and without what completes "+
		"transmission. So no packet as a whole, and with each driver another part of one. "+copies+"ns: indirect branches at this "+
		"machine's price of one, an estimate.")
}

// labWiresTable is the table of rows on wires. With guests their headings name interface and DMA, and rows do not; with scenarios rows
// name theirs.
func labWiresTable(l *record.Lab, rows []*record.LabRow, notes *footnotes, guests, scenarios bool) *textTable {
	heading := func(r *record.LabRow) string {
		guest := strings.Join(strings.Fields(r.Labels["kernel"]+" "+r.Labels["cpu"]+" "+r.Labels["append"]), "/")
		if guests {
			guest += fmt.Sprintf(", %s, %s", r.Labels["nic"], r.Labels["dma"])
		}
		return guest
	}
	slices.SortStableFunc(rows, func(a, b *record.LabRow) int { return strings.Compare(heading(a), heading(b)) })
	head := []string{"NIC, DMA, bulk", "insns", "indirect", "map", "sync", "bounce", "flush", "copy", "ns"}
	switch {
	case scenarios:
		head[0] = "scenario, bulk"
	case guests:
		head[0] = "bulk"
	}
	timed := timed(l)
	if timed {
		head = append(head, "took")
	}
	left := append(make([]bool, len(head)), true)
	left[0] = true
	t := newTextTable(left, " ", append(head, "")...)
	last := ""
	for _, row := range rows {
		mark := notes.mark(row.Guest())
		if h := heading(row); h != last {
			last = h
			title := h + labGuest(row)
			if guests {
				title = cells.Join("  ", title, mark)
			}
			t.heading(title)
		}
		line := labWiresCells(l, row, timed)
		switch {
		case scenarios:
			line[0] = fmt.Sprintf("  %s %s", cells.Clean(row.Scenario()), cells.Clean(row.Labels["bulk"]))
		case guests:
			line[0] = "  " + cells.Clean(row.Labels["bulk"])
		}
		if guests {
			mark = ""
		}
		t.add(append(line, mark)...)
		if row.Refused != "" {
			t.below("    no number: ", row.Refused)
		}
	}
	if !copied(rows) {
		t.drop(slices.Index(head, "copy"))
	}
	return t
}

// copied tells whether the kernel copied a frame of rows other than to bounce buffers.
func copied(rows []*record.LabRow) bool {
	return slices.ContainsFunc(rows, func(r *record.LabRow) bool { n := r.SumDMA().Copy; return n != nil && *n > 0 })
}

// labWiresCells are the cells of a row of interfaces on wires.
func labWiresCells(l *record.Lab, row *record.LabRow, timed bool) []string {
	label := func(name string) string { return cells.Clean(row.Labels[name]) }
	line := []string{fmt.Sprintf("  %s %s %s", label("nic"), label("dma"), label("bulk")), "-", "-", "-", "-", "-", "-",
		"-", "-"}
	if timed {
		took := "-"
		if row.Ns != nil {
			took = fmt.Sprintf("%.1f", row.Ns.Median)
		}
		line = append(line, took)
	}
	if row.Refused != "" {
		return line
	}
	if row.Instructions != nil {
		line[1] = fmt.Sprintf("%.0f", *row.Instructions)
		if row.Spread != nil {
			line[1] += " ±" + cells.Few(*row.Spread)
		}
	}
	sum := row.SumDMA()
	for i, n := range []float64{*row.CallsPerPacket, sum.Map, sum.Sync, sum.Bounce, sum.Flush} {
		line[2+i] = cells.Few(n)
	}
	if sum.Copy != nil {
		line[7] = cells.Few(*sum.Copy)
	}
	if ns := l.BranchNs(row); ns != nil {
		line[8] = fmt.Sprintf("%.1f", *ns)
	}
	return line
}

// lostRate says what a difference takes of a core's rate.
func lostRate(d record.LabDifference) string {
	if d.Lost == nil {
		return ""
	}
	mpps, around := cells.Quantity(d.Lost)
	return fmt.Sprintf(" A core that does %d Mpps without them loses %s Mpps %s.", record.LabMpps, mpps, around)
}

// timed tells whether time was measured.
func timed(l *record.Lab) bool {
	return slices.ContainsFunc(l.Rows, func(r record.LabRow) bool { return r.Ns != nil })
}

// labSites lists the indirect branches of a row.
func (p *printer) labSites(l *record.Lab, name string) {
	for _, row := range l.Rows {
		if row.Name != name {
			continue
		}
		var table [][]string
		for _, s := range row.Sites {
			table = append(table, []string{
				"  " + stat.Exact(s.PerPacket), fmt.Sprintf("%s+%#x", cells.Clean(s.Function), s.Offset),
				cells.Clean(cmp.Or(s.Part, s.Stage)), cells.Clean(s.Target),
			})
		}
		for _, line := range columns(table, []bool{false, true, true, true}, "") {
			p.line(line)
		}
	}
}
