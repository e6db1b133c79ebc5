package report

import (
	"fmt"
	"io"
	"strings"

	"unthunk/result"
)

// Lab writes a record of lab for people: each guest's counts, then each difference
// with the indirect branches that account for it.
func Lab(w io.Writer, opts Options, l *result.Lab) error {
	p := newPage(opts)
	if l.Incomplete {
		p.wrap("", "INCOMPLETE: the run was stopped before its end.")
		fmt.Fprintln(&p.buf)
	}
	table := [][]string{{"per packet", "instructions", "indirect", "ndo_xdp_xmit"}}
	heading := ""
	beneath := make(map[int]string)
	for _, row := range l.Rows {
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
			table = append(table, []string{"  " + clean(bulk), "-", "-", "-"})
			continue
		}
		table = append(table, []string{"  " + clean(bulk), exactly(*row.Instructions), exactly(*row.Calls), exactly(row.Functions["bq_xmit_all"])})
	}
	for i, line := range columns(table, []bool{true, false, false, false}, "  ") {
		if len(table[i]) == 1 {
			p.wrap("", line)
			continue
		}
		p.line(line)
		if why, ok := beneath[i]; ok {
			p.wrap("    no number: ", why)
		}
	}
	for _, d := range l.Differences {
		fmt.Fprintln(&p.buf)
		p.wrap("", fmt.Sprintf("%s against %s: %s instructions a packet, %s of them by %s indirect branches, %s by the observer's time stamps, %s left.",
			d.With, d.Without, exactly(d.Instructions), exactly(d.BySites), exactly(d.Calls), exactly(d.ByObserver), exactly(d.Remainder)))
		if d.Ns != nil {
			ns, around := quantity(d.Ns)
			p.wrap("", fmt.Sprintf("At this machine's price that is %s ns a packet %s: an estimate.", ns, around))
		}
		p.labSites(l, d.With)
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", "Counts of the emulated guest, exact to the digit, from the generator's call to the sink's verdict. Instructions are no time: QEMU predicts no branches.")
	newFootnotes(l.Warnings).write(p)
	return p.flush(w)
}

// labSites lists the indirect branches of a row.
func (p *page) labSites(l *result.Lab, name string) {
	for _, row := range l.Rows {
		if row.Name != name {
			continue
		}
		var table [][]string
		for _, s := range row.Sites {
			table = append(table, []string{"  " + exactly(s.PerPacket), fmt.Sprintf("%s+%#x", clean(s.Function), s.Offset), clean(s.Stage), clean(s.Target)})
		}
		for _, line := range columns(table, []bool{false, true, true, true}, "") {
			p.line(line)
		}
	}
}

// exactly writes a count with all its digits.
func exactly(x float64) string { return result.Exact(x) }

// LabComparison writes what two records of lab differ in.
func LabComparison(w io.Writer, opts Options, c *result.LabComparison) error {
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
