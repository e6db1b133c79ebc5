package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// ProgramList writes which XDP programs a machine has: a block each, then what observes
// them, what all of that makes packets pay, and what could not be seen.
func ProgramList(w io.Writer, opts Options, doc *record.ProgramList) error {
	p := newPrinter(opts)
	p.incomplete(doc.Incomplete)
	for _, line := range p.painted(bold, p.filled("", programCount(doc))) {
		fmt.Fprintln(&p.buf, line)
	}
	for i := range doc.Rows {
		fmt.Fprintln(&p.buf)
		p.program(&doc.Rows[i], doc)
	}
	p.observers(doc)
	p.programCosts(doc)
	for i, text := range doc.Unseen {
		if i == 0 {
			fmt.Fprintln(&p.buf)
		}
		p.wrap("? not seen: ", text)
	}
	newFootnotes(doc.Warnings).write(p)
	return p.flush(w)
}

// programCount is the sentence above the list.
func programCount(doc *record.ProgramList) string {
	onDevices, byThose, inMaps, idle := 0, 0, 0, 0
	reached := doc.Reached()
	for i := range doc.Rows {
		switch row := &doc.Rows[i]; {
		case len(row.Attached) > 0:
			onDevices++
		case reached[row.ID]:
			byThose++
		case row.InUse():
			inMaps++
		default:
			idle++
		}
	}
	said := fmt.Sprintf("%s: %d on devices, %d run by those", cells.Plural(len(doc.Rows), "XDP program"), onDevices, byThose)
	if inMaps > 0 {
		said += fmt.Sprintf(", %d in maps that no program on a device has", inMaps)
	}
	said += fmt.Sprintf(", %d loaded only.", idle)
	seen := 0
	for _, n := range doc.Namespaces {
		if n.Unseen == "" {
			seen++
		}
	}
	said += fmt.Sprintf(" %s seen", cells.Plural(seen, "network namespace"))
	if n := len(doc.Namespaces) - seen; n > 0 {
		said += fmt.Sprintf(", %d not", n)
	}
	said += "."
	switch d := doc.Dispatcher; {
	case d == nil:
	case d.Slots == 0:
		said += " The kernel has no BPF dispatcher: each program is called indirectly."
	default:
		said += fmt.Sprintf(" BPF dispatcher: %d of %d slots taken.", d.Programs, d.Slots)
	}
	return said
}

// program writes one.
func (p *printer) program(row *record.ProgramRow, doc *record.ProgramList) {
	title := cells.Clean(row.Name)
	if row.Program != "" {
		title = cells.Clean(row.Program) + " " + title
	}
	p.line(p.paint(bold, title))
	for i, a := range row.Attached {
		if i == cells.MaxNamed {
			p.wrap("  ", fmt.Sprintf("and on %d more devices", len(row.Attached)-cells.MaxNamed))
			break
		}
		p.wrap("  ", cells.Attachment(a))
	}
	if row.PartOf != 0 {
		p.wrap("  ", "part of the libxdp dispatcher "+cells.ProgramName(row.PartOf, doc)+cells.Join("", " as ", row.Slot))
	}
	if len(row.Parts) > 0 {
		p.wrap("  libxdp dispatcher of: ", cells.Programs(row.Parts, doc))
	}
	if len(row.Entries) > 0 {
		p.wrap("  in ", cells.MapEntries(row.Entries, doc))
	}
	if !row.InUse() && row.Type != "" {
		p.wrap("  ", "loaded only: no device, map or dispatcher runs it")
	}
	if facts := programFacts(row); facts != "" {
		p.wrap("  ", facts)
	}
	if len(row.MapIDs) > 0 {
		p.wrap("  maps: ", cells.Maps(row.MapIDs, doc))
	}
	for _, id := range row.MapIDs {
		m := doc.Map(id)
		if m == nil || m.Type != "prog_array" {
			continue
		}
		var to []uint32
		for _, held := range m.Programs {
			to = append(to, held.Program)
		}
		if len(to) > 0 {
			p.wrap("  tail calls by "+cells.Clean(m.Name)+": ", cells.Programs(to, doc))
		}
	}
	for _, t := range row.Tracers {
		p.wrap("  ", fmt.Sprintf("at its entry or exit: %s id:%d", t.Name, t.ID))
	}
	if len(row.Pins) > 0 {
		p.wrap("  pinned at ", strings.Join(row.Pins, ", "))
	}
	if len(row.Holders) > 0 {
		p.wrap("  open in ", processesText(row.Holders))
	}
}

// programFacts are what a program is: its size, its place, its tag, when it was loaded.
func programFacts(row *record.ProgramRow) string {
	size := ""
	switch {
	case row.JitedBytes > 0:
		size = fmt.Sprintf("%d bytes of code", row.JitedBytes)
	case row.Type != "":
		size = "interpreted"
	}
	slot := cells.InDispatcher(row)
	tag, loaded := row.Tag, ""
	if tag != "" {
		tag = "tag " + tag
	}
	if row.Loaded != nil {
		loaded = "loaded " + row.Loaded.UTC().Format(time.DateTime) + " UTC"
	}
	return cells.Join(", ", size, slot, tag, loaded)
}

func processesText(list []record.Process) string {
	var said []string
	for _, who := range list {
		said = append(said, fmt.Sprintf("process %d (%s)", who.PID, who.Name))
	}
	return strings.Join(said, ", ")
}

// observers writes who observes the tracepoints of XDP, and whether runs are timed.
func (p *printer) observers(doc *record.ProgramList) {
	fmt.Fprintln(&p.buf)
	switch {
	case doc.Observers == nil && len(doc.Unseen) > 0:
		p.wrap("", "programs at the tracepoints of XDP: not seen, see below")
	case doc.Observers == nil:
		p.wrap("", "programs at the tracepoints of XDP: not seen")
	case len(doc.Observers) == 0:
		p.wrap("", "no program at a tracepoint of XDP")
	}
	for _, o := range doc.Observers {
		said := fmt.Sprintf("at %s: %s id:%d", o.Tracepoint, o.Name, o.ID)
		if len(o.Holders) > 0 {
			said += ", open in " + processesText(o.Holders)
		}
		p.wrap("", said)
	}
	switch s := doc.Statistics; {
	case len(s.Holders) > 0:
		p.wrap("", "run statistics (bpf_stats): on, by "+processesText(s.Holders))
	case s.Sysctl == nil:
		p.wrap("", "run statistics (bpf_stats): not seen")
	case *s.Sysctl:
		p.wrap("", "run statistics (bpf_stats): on, by kernel.bpf_stats_enabled")
	default:
		p.wrap("", "run statistics (bpf_stats): off")
	}
}

// programCosts writes what packets pay beside the programs' own instructions.
func (p *printer) programCosts(doc *record.ProgramList) {
	fmt.Fprintln(&p.buf)
	switch {
	case len(doc.Costs) > 0:
	case len(doc.Unseen) > 0 || doc.Observers == nil || doc.Dispatcher == nil:
		p.wrap("", "Nothing that was seen costs a packet beside the programs' own instructions; not all was seen.")
		return
	default:
		p.wrap("", "Nothing of this costs a packet beside the programs' own instructions.")
		return
	}
	p.wrap("", "What packets pay beside the programs' own instructions, in ns each:")
	sources := make(map[string]bool)
	for _, c := range doc.Costs {
		ns, _ := cells.Quantity(c.Ns)
		if ns == "" {
			ns = "?"
		}
		text := "a " + c.Each + ": " + c.What
		if c.Note != "" {
			text += " (" + c.Note + ")"
		}
		if c.More != "" {
			text += "; more: " + c.More
		}
		p.wrap(fmt.Sprintf("%6s  ", ns), text)
		if c.Source != "" && !sources[c.Source] {
			sources[c.Source] = true
		}
	}
	for _, c := range doc.Costs {
		if sources[c.Source] {
			p.wrap("prices: ", c.Source)
			sources[c.Source] = false
		}
	}
}
