package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Lab writes a record of lab for people: each guest's counts, then each difference
// with the indirect branches that account for it.
func Lab(w io.Writer, opts Options, l *record.Lab) error {
	p := newPage(opts)
	if l.Incomplete {
		p.wrap("", "INCOMPLETE: the run was stopped before its end.")
		fmt.Fprintln(&p.buf)
	}
	p.labChain(l)
	p.labWires(l)
	for _, d := range l.Differences {
		fmt.Fprintln(&p.buf)
		p.wrap("", fmt.Sprintf("%s against %s: %s instructions a packet, %s of them by %s indirect branches, %s by the observer's time stamps, %s left.",
			d.With, d.Without, exactly(d.Instructions), exactly(d.BySites), exactly(d.Calls), exactly(d.ByObserver), exactly(d.Remainder)))
		if d.Ns != nil {
			ns, around := quantity(d.Ns)
			p.wrap("", fmt.Sprintf("At this machine's price that is %s ns a packet %s: an estimate.%s", ns, around, lost(d)))
		}
		p.labSites(l, d.With)
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", "Counts of the emulated guest, on veth exact to the digit and from the generator's call to the sink's verdict. Instructions are no time: QEMU predicts no branches.")
	if timed(l) {
		p.wrap("", "Times in ns are those of a second boot with KVM: on veth of the whole chain, as bench takes it, on wires (took) between packets of one poll.")
	}
	newFootnotes(l.Warnings).write(p)
	return p.flush(w)
}

// wired tells whether a row is of interfaces on wires.
func wired(row *record.LabRow) bool { return row.Labels["nic"] != "" && row.Labels["nic"] != "veth" }

// labChain writes the rows of the veth chain.
func (p *page) labChain(l *record.Lab) {
	table := [][]string{{"per packet", "instructions", "indirect", "ndo_xdp_xmit"}}
	right := []bool{true, false, false, false}
	if timed(l) {
		table[0], right = append(table[0], "ns"), append(right, true)
	}
	heading := ""
	beneath := make(map[int]string)
	for i := range l.Rows {
		row := &l.Rows[i]
		if wired(row) {
			continue
		}
		bulk := "bulk=" + row.Labels["bulk"]
		if name := strings.TrimSuffix(row.Name, "/"+bulk); name != heading {
			heading = name
			state := ""
			if row.Refused == "" {
				state = fmt.Sprintf(": Linux %s, indirect calls: %s", row.Release, row.Thunk)
			}
			table = append(table, []string{name + state})
		}
		if row.Refused != "" {
			beneath[len(table)] = row.Refused
			table = append(table, append([]string{"  " + clean(bulk)}, slices.Repeat([]string{"-"}, len(right)-1)...))
			continue
		}
		line := []string{"  " + clean(bulk), instructions(row), exactly(*row.Calls), exactly(row.Entries("bq_xmit_all"))}
		if timed(l) {
			line = append(line, timeOf(row))
		}
		table = append(table, line)
	}
	if len(table) == 1 {
		return
	}
	for i, line := range columns(table, right, "  ") {
		if len(table[i]) == 1 {
			p.wrap("", line)
			continue
		}
		p.line(line)
		if why, ok := beneath[i]; ok {
			p.wrap("    no number: ", why)
		}
	}
}

// labWires writes the rows of interfaces on wires, one line each, under the kernel and
// command line of their guest.
func (p *page) labWires(l *record.Lab) {
	var rows []*record.LabRow
	for i := range l.Rows {
		if wired(&l.Rows[i]) {
			rows = append(rows, &l.Rows[i])
		}
	}
	if len(rows) == 0 {
		return
	}
	heading := func(r *record.LabRow) string {
		return strings.Join(strings.Fields(r.Labels["kernel"]+" "+r.Labels["cpu"]+" "+r.Labels["append"]), "/")
	}
	slices.SortStableFunc(rows, func(a, b *record.LabRow) int { return strings.Compare(heading(a), heading(b)) })
	table := [][]string{{"NIC, DMA, bulk", "insns", "indirect", "map", "sync", "bounce", "flush", "ns"}}
	right := []bool{true, false, false, false, false, false, false, false}
	if timed(l) {
		table[0], right = append(table[0], "took"), append(right, false)
	}
	last := ""
	beneath := make(map[int]string)
	for _, row := range rows {
		if h := heading(row); h != last {
			last = h
			if row.Thunk != "" {
				h += fmt.Sprintf(": Linux %s, indirect calls: %s", row.Release, row.Thunk)
			}
			table = append(table, []string{h})
		}
		line := []string{fmt.Sprintf("  %s %s %s", clean(row.Labels["nic"]), clean(row.Labels["dma"]), clean(row.Labels["bulk"])), "-", "-", "-", "-", "-", "-", "-"}
		if timed(l) {
			took := "-"
			if row.Ns != nil {
				took = fmt.Sprintf("%.1f", row.Ns.Median)
			}
			line = append(line, took)
		}
		if row.Refused != "" {
			beneath[len(table)] = row.Refused
		} else {
			sum := row.SumDMA()
			if row.Instructions != nil {
				line[1] = fmt.Sprintf("%.0f", *row.Instructions)
			}
			for i, n := range []float64{*row.Calls, sum.Map, sum.Sync, sum.Bounce, sum.Flush} {
				line[2+i] = few(n)
			}
			if l.Price != nil && strings.HasPrefix(row.Thunk, "retpoline") {
				line[7] = fmt.Sprintf("%.1f", *row.Calls*l.Price.Median)
			}
		}
		table = append(table, line)
	}
	for i, line := range columns(table, right, " ") {
		if len(table[i]) == 1 {
			p.wrap("", line)
			continue
		}
		p.line(line)
		if why, ok := beneath[i]; ok {
			p.wrap("    no number: ", why)
		}
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", "Per packet on wires: what the NAPI polls of the interface that redirects and of the one it redirects to execute, and transmission. As many pages are unmapped as mapped. insns are those between packets of one poll; ns are indirect branches at this machine's price of one, an estimate.")
}

// lost says what a difference takes of a core's rate.
func lost(d record.LabDifference) string {
	if d.Lost == nil {
		return ""
	}
	mpps, around := quantity(d.Lost)
	return fmt.Sprintf(" A core that does %d Mpps without them loses %s %s.", record.LabMpps, mpps, around)
}

// timed tells whether time was measured.
func timed(l *record.Lab) bool {
	return slices.ContainsFunc(l.Rows, func(r record.LabRow) bool { return r.Ns != nil })
}

// instructions are a row's, or a dash.
func instructions(row *record.LabRow) string {
	if row.Instructions == nil {
		return "-"
	}
	return exactly(*row.Instructions)
}

// timeOf is a row's time, or a dash.
func timeOf(row *record.LabRow) string {
	if row.Ns == nil {
		return "-"
	}
	ns, around := quantity(row.Ns)
	return ns + " " + around
}

// few writes a count with three digits.
func few(x float64) string { return strconv.FormatFloat(x, 'g', 3, 64) }

// labSites lists the indirect branches of a row.
func (p *page) labSites(l *record.Lab, name string) {
	for _, row := range l.Rows {
		if row.Name != name {
			continue
		}
		var table [][]string
		for _, s := range row.Sites {
			table = append(table, []string{"  " + exactly(s.PerPacket), fmt.Sprintf("%s+%#x", clean(s.Function), s.Offset), clean(cmp.Or(s.Part, s.Stage)), clean(s.Target)})
		}
		for _, line := range columns(table, []bool{false, true, true, true}, "") {
			p.line(line)
		}
	}
}

// exactly writes a count with all its digits.
func exactly(x float64) string { return stat.Exact(x) }

// LabComparison writes what two records of lab differ in.
func LabComparison(w io.Writer, opts Options, c *record.LabComparison) error {
	p := newPage(opts)
	p.line(fmt.Sprintf("old  %s %s", clean(c.Old.File), c.Old.Time.UTC().Format("2006-01-02 15:04 UTC")))
	p.line(fmt.Sprintf("new  %s %s", clean(c.New.File), c.New.Time.UTC().Format("2006-01-02 15:04 UTC")))
	fmt.Fprintln(&p.buf)
	for _, row := range c.Rows {
		p.wrap("", row.Name)
		for _, what := range row.What {
			p.wrap("  ", what)
		}
	}
	if len(c.Rows) > 0 {
		fmt.Fprintln(&p.buf)
	}
	p.wrap("", fmt.Sprintf("%d rows are equal to the digit, %d are not.", c.Same, len(c.Rows)))
	return p.flush(w)
}
