package report

import (
	"bytes"
	"cmp"
	"fmt"
	"html/template"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// pageView is what a page says: the same for HTML, which draws the figures too, and
// for Markdown.
type pageView struct {
	Title    string
	Kicker   []string
	Lead     []string
	Alarms   []note
	Sections []section
	Version  string
	Count    string
}

type section struct {
	ID, Title string
	Blocks    []block
}

// block is one record's part of a section.
type block struct {
	Heading string
	Text    []string
	Figure  *figure
	Tables  []*table
	// Notes are a list; NotesTitle folds it.
	Notes      []note
	NotesTitle string
}

// note is a sentence, and the row or the file it is about.
type note struct{ Word, Text string }

type table struct {
	Caption string
	Columns []column
	Rows    []tableRow
	// Folded tables say what a figure says, and are closed at first.
	Folded bool
	// More says what was left out.
	More string
}

// column has a class of the style sheet: "n" for numbers, "i" for intervals, "m" for
// code, "t" for sentences; "w" is left out on phones.
type column struct{ Name, Class string }

type tableRow struct {
	// Group is a heading, else Cells are one for each column.
	Group   string
	Cells   []tableCell
	Differs bool
}

type tableCell struct{ Text, Class string }

// maxTable is the most rows a table of a page has.
const maxTable = 250

func (t *table) add(cells ...string) *tableRow {
	if len(t.Rows) >= maxTable {
		n := 1
		if of, _, ok := strings.Cut(t.More, " more"); ok {
			n, _ = strconv.Atoi(of)
			n++
		}
		t.More = fmt.Sprintf("%d more rows are in the record.", n)
		return new(tableRow)
	}
	row := tableRow{}
	for i, c := range t.Columns {
		text := ""
		if i < len(cells) {
			text = clean(cells[i])
		}
		row.Cells = append(row.Cells, tableCell{text, c.Class})
	}
	t.Rows = append(t.Rows, row)
	return &t.Rows[len(t.Rows)-1]
}

func (t *table) group(name string) {
	if len(t.Rows) < maxTable {
		t.Rows = append(t.Rows, tableRow{Group: clean(name)})
	}
}

// viewer builds a view.
type viewer struct {
	d Dossier
	// first is the record of the title.
	first *record.Saved
	// labels name records in few letters.
	labels map[*record.Saved]string
	// draw is set when figures are wanted.
	draw bool
	ids  int
}

// id is a new one for a drawing.
func (v *viewer) id() string {
	v.ids++
	return fmt.Sprintf("f%d", v.ids)
}

func dossierView(d Dossier, draw bool) *pageView {
	v := &viewer{d: d, labels: recordLabels(d.Records), draw: draw}
	n := len(d.Records)
	if d.History != nil {
		for _, g := range d.History.Groups {
			n += len(g.Records)
		}
	}
	view := &pageView{Version: clean(d.Version), Count: records(n)}
	v.head(view)
	path := "The path of a packet"
	if slices.ContainsFunc(d.Records, func(s *record.Saved) bool { return s.Stages() != nil }) {
		path = "Where a packet’s nanoseconds go"
	}
	sections := []section{
		{"path", path, v.paths()},
		{"ladder", "The bulk ladder", v.ladders()},
		{"changes", "What changed", v.changes()},
		{"history", "Over time", v.history()},
		{"lab", "With and without, counted exactly", v.labs()},
		{"prices", "What an indirect call costs", v.prices()},
		{"flames", "Flame graphs", v.flames()},
		{"branches", "The indirect branches, and what one is", v.branches()},
		{"machines", "Machines", v.machines()},
		{"warnings", "Warnings", v.warnings()},
		{"records", "Records", v.records()},
	}
	if v.first != nil && v.first.Kind == "compare" {
		sections[0], sections[1], sections[2] = sections[2], sections[0], sections[1]
	}
	for _, s := range sections {
		if len(s.Blocks) > 0 {
			view.Sections = append(view.Sections, s)
		}
	}
	return view
}

func records(n int) string {
	if n == 1 {
		return "1 record"
	}
	return fmt.Sprintf("%d records", n)
}

// recordLabels are the files' names, with as much of the folder as tells them apart.
func recordLabels(records []*record.Saved) map[*record.Saved]string {
	count := make(map[string]int)
	for _, s := range records {
		count[filepath.Base(s.File)]++
	}
	labels := make(map[*record.Saved]string)
	for i, s := range records {
		name := filepath.Base(s.File)
		switch {
		case s.File == "":
			name = fmt.Sprintf("record %d", i+1)
		case count[name] > 1:
			name = s.File
		}
		labels[s] = clean(name)
	}
	return labels
}

// head is the title: that of the record which says most about where the packets per
// second went.
func (v *viewer) head(view *pageView) {
	if len(v.d.Records) == 0 {
		view.Title = "Nothing was measured"
		if v.d.History != nil {
			view.Title = clean(conclusion.OfHistory(v.d.History).Title)
		}
		return
	}
	rank := func(s *record.Saved) int {
		switch {
		case s.Kind == "compare" && conclusion.Of(s).Tells:
			return 0
		case s.Kind == "run":
			return 1
		case s.Kind == "bench":
			return 2
		case s.Kind == "profile":
			return 3
		case s.Kind == "lab":
			return 4
		case s.Kind == "tax":
			return 5
		}
		return 6
	}
	first := slices.MinFunc(v.d.Records, func(a, b *record.Saved) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), b.Time.Compare(a.Time))
	})
	v.first = first
	h := conclusion.Of(first)
	view.Title = clean(h.Title)
	for line := range strings.SplitSeq(h.Text, "\n") {
		if line != "" {
			view.Lead = append(view.Lead, clean(line))
		}
	}
	if len(v.d.Records) > 1 {
		view.Lead = append(view.Lead, fmt.Sprintf("That is %s, one of %s here.", v.labels[first], records(len(v.d.Records))))
	}
	view.Kicker = v.kicker(first)
	var incomplete []string
	warned := 0
	for _, s := range v.d.Records {
		if s.Incomplete {
			incomplete = append(incomplete, v.labels[s])
		}
		warned += len(s.Warnings)
	}
	if len(incomplete) > 0 {
		view.Alarms = append(view.Alarms, note{"Incomplete:", strings.Join(incomplete, ", ") + " stopped before the end."})
	}
	if warned > 0 {
		view.Alarms = append(view.Alarms, note{"! " + many(warned, "warning") + ":", "the section Warnings says what casts doubt on which number."})
	}
}

// kicker is what stands above the title: when, on what.
func (v *viewer) kicker(s *record.Saved) []string {
	var out []string
	if !s.Time.IsZero() {
		out = append(out, s.Time.UTC().Format("2006-01-02 15:04 UTC"))
	}
	if s.Host.Kernel != "" {
		out = append(out, "Linux "+clean(s.Host.Kernel))
	}
	if s.Host.CPU != "" {
		out = append(out, clean(s.Host.CPU))
	}
	if s.Host.IndirectThunk != "" {
		out = append(out, "indirect calls: "+clean(s.Host.IndirectThunk))
	}
	return out
}

// heading names a record, where there is more than one.
func (v *viewer) heading(s *record.Saved) string {
	if len(v.d.Records) == 1 {
		return ""
	}
	return v.labels[s]
}

// chain is what a profile is of.
func chain(s *record.Saved) string {
	if of := s.Settings["profiled"]; of != "" {
		return clean(of)
	}
	if s.Kind == "run" {
		return "the chain of the run"
	}
	set := s.Settings
	if set["in"] != "" {
		return clean(set["in"] + " to " + set["out"])
	}
	name := cmp.Or(set["scenario"], "redirect")
	if set["bulk"] != "" {
		name += "/bulk=" + set["bulk"]
	}
	if op := set["operation"]; op != "" && op != "none" {
		name += "/operation=" + op
	}
	return clean(name)
}

// changes are comparisons.
func (v *viewer) changes() []block {
	var out []block
	for _, s := range v.d.Records {
		switch {
		case s.Comparison != nil:
			out = append(out, v.comparison(s)...)
		case s.ProfileComparison != nil:
			out = append(out, v.profileComparison(s))
		case s.SiteComparison != nil:
			out = append(out, v.siteComparison(s))
		case s.LabComparison != nil:
			out = append(out, v.labComparison(s))
		}
	}
	return out
}

// between names the two sides of a comparison.
func (v *viewer) between(old, new record.Origin, by string) string {
	if by != "" {
		return fmt.Sprintf("%s, rows that differ in %s", clean(filepath.Base(new.File)), clean(by))
	}
	name := func(o record.Origin) string {
		s := "a record"
		if o.File != "" {
			s = clean(filepath.Base(o.File))
		}
		if !o.Time.IsZero() {
			s += " (" + o.Time.UTC().Format("2006-01-02 15:04") + ")"
		}
		return s
	}
	return name(old) + " → " + name(new)
}

const pairedCaption = "○ old, ● new, with their 95 %% intervals. %s ▲ slower, ▼ faster, = no difference seen, ? cannot tell."

func (v *viewer) comparison(s *record.Saved) []block {
	c := s.Comparison
	var out []block
	for _, prices := range []bool{false, true} {
		var rows []pairedRow
		t := &table{Caption: "Change of each row in % of old [interval]; + is slower", Columns: []column{
			{"row", ""}, {"old ns", "n"}, {"new ns", "n"}, {"change %", "n"}, {"", "i"}, {"verdict", "t"},
		}}
		if prices {
			t.Caption = "Change of each price in % of the old one [interval]; + is dearer"
		}
		for i := range c.Rows {
			row := &c.Rows[i]
			if row.Price != prices {
				continue
			}
			name := clean(row.Name)
			if row.Against != "" {
				name += " against " + clean(row.Against)
			}
			if row.Difference == nil {
				t.add(name, side(row.Old), side(row.New), "–", "", row.Missing)
				continue
			}
			d := row.Difference
			t.add(name, side(row.Old), side(row.New), signedNumber(d.Median), interval(d.Low, d.High, signedNumber), verdict(row)).Differs = row.Regression
			word, _, _ := strings.Cut(row.Verdict, " (")
			rows = append(rows, pairedRow{name, row.Old, row.New, fmt.Sprintf("%s %% %s", signedNumber(d.Median), interval(d.Low, d.High, signedNumber)), word, verdictMark(row.Verdict)})
		}
		if len(t.Rows) == 0 {
			continue
		}
		b := block{Heading: v.between(c.Old, c.New, c.By), Tables: []*table{t}}
		if len(out) > 0 {
			b.Heading = ""
		}
		if v.draw && len(rows) > 0 {
			unit, title := "ns a packet", "Old and new ns per packet"
			if prices {
				unit, title = "ns a call", "Old and new prices of calls"
			}
			b.Figure = pairedFigure(v.id(), title, unit, fmt.Sprintf(pairedCaption, "Beside them the change, whose interval holds for all rows together."), rows)
			t.Folded = true
		}
		out = append(out, b)
	}
	if len(out) == 0 {
		out = []block{{Heading: v.between(c.Old, c.New, c.By), Text: []string{"Nothing could be compared."}}}
	}
	last := &out[len(out)-1]
	last.Text = append(last.Text, summary(c))
	if c.By == "" {
		last.Tables = append(last.Tables, causesTable(c.Causes)...)
		if len(c.Causes) == 0 {
			last.Text = append(last.Text, "The machines are alike in all that was looked at.")
		}
	}
	return out
}

func causesTable(causes []record.Cause) []*table {
	if len(causes) == 0 {
		return nil
	}
	t := &table{Caption: "What the machines differ in, likeliest cause first", Columns: []column{{"", "m"}, {"old", ""}, {"new", ""}, {"why it may matter", "t"}}}
	for _, c := range causes {
		t.add(c.Name, seen(c.Old), seen(c.New), c.Why)
	}
	return []*table{t}
}

func (v *viewer) profileComparison(s *record.Saved) block {
	c := s.ProfileComparison
	t := &table{Caption: "Change of each stage in ns a packet [interval]; + is slower", Columns: []column{
		{"stage", ""}, {"old ns", "n"}, {"new ns", "n"}, {"change ns", "n"}, {"", "i"}, {"verdict", "t"},
	}}
	var rows []pairedRow
	for _, row := range c.Rows {
		d := row.Difference
		if d == nil {
			t.add(row.Name, side(row.Old), side(row.New), "–", "", row.Missing)
			continue
		}
		word, _, _ := strings.Cut(row.Verdict, " (")
		t.add(row.Name, side(row.Old), side(row.New), signedNumber(d.Median), interval(d.Low, d.High, signedNumber), word+" ("+d.WouldHaveSeen()+")").Differs = row.Regression
		rows = append(rows, pairedRow{clean(row.Name), row.Old, row.New, fmt.Sprintf("%s ns %s", signedNumber(d.Median), interval(d.Low, d.High, signedNumber)), word, verdictMark(row.Verdict)})
	}
	b := block{Heading: v.between(c.Old, c.New, ""), Text: []string{profileSummary(c)}, Tables: append([]*table{t}, causesTable(c.Causes)...)}
	if v.draw && len(rows) > 0 {
		b.Figure = pairedFigure(v.id(), "Old and new ns of each stage", "ns a packet", fmt.Sprintf(pairedCaption, "Beside them the change."), rows)
		t.Folded = true
	}
	return b
}

func (v *viewer) siteComparison(s *record.Saved) block {
	c := s.SiteComparison
	t := &table{Caption: "Indirect branches that differ", Columns: []column{{"branch", "m"}, {"change", ""}, {"per", ""}, {"what", "t"}}}
	for _, row := range c.Rows {
		of := row.New
		if of == nil {
			of = row.Old
		}
		t.add(row.Name, row.Change, of.Per, joinedBy("; ", append([]string{made(*of)}, row.What...)...))
	}
	b := block{Heading: v.between(c.Old, c.New, ""), Text: []string{conclusion.Of(s).Title + "."}, Tables: causesTable(c.Causes)}
	if len(t.Rows) > 0 {
		b.Tables = append([]*table{t}, b.Tables...)
	}
	return b
}

func (v *viewer) labComparison(s *record.Saved) block {
	c := s.LabComparison
	t := &table{Caption: "Rows that differ", Columns: []column{{"row", "m"}, {"what", "t"}}}
	for _, row := range c.Rows {
		t.add(row.Name, strings.Join(row.What, "; "))
	}
	b := block{Heading: v.between(c.Old, c.New, ""), Text: []string{fmt.Sprintf("%d rows are equal to the digit, %d are not.", c.Same, len(c.Rows))}}
	if len(t.Rows) > 0 {
		b.Tables = []*table{t}
	}
	return b
}

// sitesFor are the branches that xray found on the kernel s is of.
func (v *viewer) sitesFor(s *record.Saved) []record.SiteRow {
	if s.Settings["in"] != "" { // another device's path
		return nil
	}
	for _, other := range v.d.Records {
		if other.Sites != nil && other.Host.Kernel != "" && other.Host.Kernel == s.Host.Kernel &&
			other.Host.KernelBuild == s.Host.KernelBuild && other.Settings["path"] == "veth" {
			return other.Sites.Rows
		}
	}
	return nil
}

// paths are the stages of profiles; of xray alone when there is no profile.
func (v *viewer) paths() []block {
	var out []block
	for _, s := range v.d.Records {
		p := s.Stages()
		if p == nil || p.Packet == nil {
			continue
		}
		stages := pathStages(p, v.sitesFor(s))
		b := block{Heading: joinedBy(": ", v.heading(s), chain(s))}
		if v.draw {
			b.Figure = pathFigure(v.id(), "The path of a packet of "+chain(s), stages, p.Packet)
		}
		if s != v.first { // the title says it
			b.Text = []string{partsText(p)}
		}
		b.Tables = append(b.Tables, v.stageTable(p, stages))
		if t := siteTable(stages); t != nil {
			b.Tables = append(b.Tables, t)
		}
		if text := taxText(p); text != "" {
			b.Text = append(b.Text, text)
		}
		if t := functionTable(p); t != nil {
			b.Tables = append(b.Tables, t)
		}
		out = append(out, b)
	}
	if len(out) > 0 {
		return out
	}
	for _, s := range v.d.Records {
		if s.Sites == nil {
			continue
		}
		stages := pathStages(nil, s.Sites.Rows)
		if len(stages) == 0 {
			continue
		}
		b := block{
			Heading: joinedBy(": ", v.heading(s), "the path of "+clean(cmp.Or(s.Settings["path"], "a veth"))),
			Text:    []string{"No record here has a profile, so stages have no time."},
		}
		if v.draw {
			b.Figure = pathFigure(v.id(), "The path of a packet and its indirect branches", stages, nil)
		} else if t := siteTable(stages); t != nil {
			b.Tables = append(b.Tables, t)
		}
		out = append(out, b)
	}
	return out
}

func partsText(p *record.Profile) string {
	parts := p.Parts()
	var said []string
	for _, part := range []record.Part{record.PartPath, record.PartRig, record.PartAround, record.PartRest} {
		q := &stat.Quantity{Median: parts[part]}
		said = append(said, fmt.Sprintf("%s %s ns (%s)", part, number(parts[part]), percentOf(q, p.Packet)))
	}
	return "Of a packet: " + strings.Join(said, ", ") + "."
}

// taxText is what samples say of indirect branches.
func taxText(p *record.Profile) string {
	if p.Tax == nil || p.Tax.Total == nil {
		return ""
	}
	page := &page{width: 1 << 20}
	page.indirectLine(&p.ProfileParts)
	text := strings.TrimSpace(page.buf.String())
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

var stageMeaning = map[string]string{
	"generator":    "makes live frames and sends them: a NIC does that, or another machine",
	"receive":      "the driver’s NAPI poll",
	"program":      "the XDP program, its helpers, the dispatcher",
	"redirect":     "xdp_do_redirect, dev_map_enqueue",
	"bulk-queue":   "bq_enqueue, bq_xmit_all, xdp_do_flush",
	"transmit":     "ndo_xdp_xmit and what the driver does in it",
	"completion":   "of transmission, on NICs",
	"return":       "of frames and pages, page_pool",
	"page-pool":    "pages taken and given back",
	"dma":          "the DMA API, IOMMU, swiotlb",
	"softirq":      "softirqs and NAPI around the poll",
	"locks":        "spin locks, whoever takes them",
	"sink":         "the veth at the end of the chain: another machine, for a NIC",
	"stack":        "the network stack, for frames that it is given",
	"observer":     "tracing programs, and sampling itself",
	"other":        "interrupts, other tasks, user space",
	"unattributed": "time for which there is no sample",
}

func (v *viewer) stageTable(p *record.Profile, stages []pathStage) *table {
	t := &table{Caption: "Stages, ns a packet", Folded: v.draw, Columns: []column{
		{"stage", ""}, {"ns", "n"}, {"95 %", "i"}, {"share", "n"}, {"◆", "n"}, {"what it is", "t"},
	}}
	for _, s := range stages {
		ns, around := quantity(s.ns)
		t.add(s.name, cmp.Or(ns, "–"), around, percentOf(s.ns, p.Packet), strconv.Itoa(len(s.sites)), stageMeaning[s.name])
	}
	return t
}

func siteTable(stages []pathStage) *table {
	t := &table{Caption: "Indirect branches on the path", Folded: true, Columns: []column{
		{"branch", "m"}, {"stage", ""}, {"calls", "m"}, {"how often", ""}, {"takes", "n"},
	}}
	for _, s := range stages {
		for _, site := range s.sites {
			t.add(site.where(), s.name, site.what(), site.per, site.ns)
		}
	}
	if len(t.Rows) == 0 {
		return nil
	}
	return t
}

func functionTable(p *record.Profile) *table {
	const most = 25
	if len(p.Functions) == 0 {
		return nil
	}
	t := &table{Caption: "Functions that take most", Folded: true, Columns: []column{
		{"function", "m"}, {"ns", "n"}, {"95 %", "i"}, {"share", "n"}, {"stage", ""},
	}}
	for _, f := range p.Functions[:min(most, len(p.Functions))] {
		ns, around := quantity(f.Ns)
		t.add(shortName(clean(f.Name)), ns, around, percentOf(f.Ns, p.Packet), f.Stage)
	}
	if n := len(p.Functions) - most; n > 0 {
		t.More = fmt.Sprintf("%d more are in the record.", n)
	}
	return t
}

// ladders are the rows of bench and run.
func (v *viewer) ladders() []block {
	high := 0.0
	for _, s := range v.d.Records {
		if s.Bench != nil {
			high = max(high, ladderSpan(s.Bench.Rows))
		}
	}
	var out []block
	for _, s := range v.d.Records {
		if s.Bench == nil || len(s.Bench.Rows) == 0 {
			continue
		}
		t := &table{Caption: "Rate, ns a packet, ns of the redirect hop; medians [95 % intervals]", Folded: v.draw, Columns: []column{
			{"row", ""}, {"Mpps", "n"}, {"", "i"}, {"ns", "n"}, {"", "i"}, {"hop ns", "n"}, {"", "i"}, {"frames/xmit", "n"},
		}}
		for _, row := range s.Bench.Rows {
			if row.Refused != "" {
				t.add(row.Name, "–", "no number: "+row.Refused)
				continue
			}
			mpps, mppsAround := quantity(row.Mpps)
			ns, nsAround := quantity(row.Ns)
			hop, hopAround := quantity(row.Hop)
			frames := "–"
			if row.FramesPerXmit != nil {
				frames = number(row.FramesPerXmit.Median)
			}
			t.add(row.Name, mpps, mppsAround, ns, nsAround, cmp.Or(hop, "–"), hopAround, frames)
		}
		b := block{Heading: v.heading(s), Text: []string{measured(s.Bench)}, Tables: []*table{t}}
		if v.draw && high > 0 {
			b.Figure = ladderFigure(v.id(), "Bulk ladder of "+v.labels[s], s.Bench.Rows, high)
		}
		out = append(out, b)
	}
	return out
}

// prices are those of tax and run.
func (v *viewer) prices() []block {
	var out []block
	for _, s := range v.d.Records {
		rows := s.Prices()
		if len(rows) == 0 {
			continue
		}
		t := &table{Caption: "Price of one call: ns with it less ns without it; calls and ns for a redirected packet at bulk 64", Columns: []column{
			{"call", "m"}, {"with", "n w"}, {"without", "n w"}, {"price ns", "n"}, {"95 %", "i"}, {"cycles", "n w"}, {"calls/pkt", "n w"}, {"ns/pkt", "n"},
		}}
		calls := ""
		var calling []record.TaxRow // without estimates
		var notes []note
		for _, row := range rows {
			if row.Calls != calls {
				calls = row.Calls
				t.group(calls)
			}
			if row.Refused != "" {
				t.add(row.Name, "–", "–", "–")
				notes = append(notes, note{clean(row.Name), "no price: " + clean(row.Refused)})
				continue
			}
			with, _ := quantity(row.With)
			without, _ := quantity(row.Without)
			price, around := quantity(row.Price)
			cycles := ""
			if row.Cycles != nil {
				cycles = fmt.Sprintf("%.0f", row.Cycles.Median)
			}
			perPacket, _ := quantity(row.PerPacket)
			nsPerPacket, _ := quantity(row.NsPerPacket)
			t.add(row.Name, with, without, price, around, cycles, perPacket, nsPerPacket)
			if row.Note != "" {
				notes = append(notes, note{clean(row.Name), clean(row.Note)})
			}
			if row.Labels["pair"] != "packet" {
				calling = append(calling, row)
			}
		}
		b := block{Heading: v.heading(s), Tables: []*table{t}, Notes: notes, NotesTitle: "What else is in these prices"}
		if v.draw {
			b.Figure = priceFigure(v.id(), "Prices of calls in "+v.labels[s], calling)
		}
		out = append(out, b)
	}
	return out
}

// labs are counts of guests.
func (v *viewer) labs() []block {
	var out []block
	for _, s := range v.d.Records {
		if s.Lab == nil {
			continue
		}
		if slices.ContainsFunc(s.Lab.Rows, func(r record.LabRow) bool { return wired(&r) }) {
			out = append(out, v.labWires(s))
		}
		out = append(out, v.labDifferences(s))
		out = append(out, v.labPaths(s)...)
	}
	return out
}

// labWires are indirect branches and DMA calls of interfaces on wires, for each DMA setup.
func (v *viewer) labWires(s *record.Saved) block {
	b := block{Heading: cmp.Or(v.heading(s), "Interfaces and their DMA")}
	t := &table{Caption: "What a redirected packet makes", Columns: []column{
		{"NIC", ""}, {"DMA", ""}, {"bulk", "n"}, {"kernel", ""}, {"indirect calls are", "w"}, {"indirect branches", "n"}, {"map", "n"}, {"sync", "n w"}, {"bounce", "n w"}, {"flush", "n w"}, {"≈ ns", "n"},
	}}
	var rows []pairedRow
	drawn, bulks := make(map[string]bool), make(map[string]bool)
	for _, row := range s.Lab.Rows {
		bulks[row.Labels["bulk"]] = true
	}
	for i := range s.Lab.Rows {
		row := &s.Lab.Rows[i]
		if !wired(row) || row.Calls == nil {
			continue
		}
		dma, ns := row.SumDMA(), "–"
		if s.Lab.Price != nil && strings.HasPrefix(row.Thunk, "retpoline") {
			ns = number(*row.Calls * s.Lab.Price.Median)
		}
		t.add(row.Labels["nic"], row.Labels["dma"], row.Labels["bulk"], row.Release, row.Thunk, few(*row.Calls), few(dma.Map), few(dma.Sync), few(dma.Bounce), few(dma.Flush), ns)
		// With retpolines and without it is the same count.
		version, _, _ := strings.Cut(strings.ReplaceAll(row.Release, "+", "-"), "-")
		name := fmt.Sprintf("%s %s %s", row.Labels["nic"], row.Labels["dma"], version)
		if len(bulks) > 1 {
			name += " bulk " + row.Labels["bulk"]
		}
		if name = clean(name); !drawn[name] {
			drawn[name] = true
			change := few(*row.Calls)
			if ns != "–" {
				change += ", ≈ " + ns + " ns"
			}
			rows = append(rows, pairedRow{name, nil, &stat.Quantity{Median: *row.Calls, Low: *row.Calls, High: *row.Calls, Unit: "branches"}, change, "", ""})
		}
	}
	b.Tables = []*table{t}
	if v.draw {
		t.Folded = true
		b.Figure = pairedFigure(v.id(), "Indirect branches a packet by DMA setup", "a packet",
			"● Indirect branches that a redirected packet makes, by interface, DMA setup and kernel; ns are those at this machine’s price of one, an estimate.", rows)
	}
	return b
}

func (v *viewer) labDifferences(s *record.Saved) block {
	l := s.Lab
	b := block{Heading: v.heading(s)}
	exactOr := func(x *float64) string {
		if x == nil {
			return "–"
		}
		return exactly(*x)
	}
	var rows []pairedRow
	d := &table{Caption: "With against without: what accounts for the difference in instructions a packet", Columns: []column{
		{"with", ""}, {"without", ""}, {"instructions", "n"}, {"by branches", "n"}, {"branches", "n"}, {"by observer", "n w"}, {"left", "n w"}, {"≈ ns", "n"}, {"95 %", "i"},
	}}
	for _, diff := range l.Differences {
		ns, around := quantity(diff.Ns)
		d.add(diff.With, diff.Without, exactly(diff.Instructions), exactly(diff.BySites), exactly(diff.Calls), exactly(diff.ByObserver), exactly(diff.Remainder), cmp.Or(ns, "–"), around)
		change := fmt.Sprintf("%s branches", number(diff.Calls))
		if ns != "" {
			change += fmt.Sprintf(", ≈ %s ns", ns)
		}
		exact := func(x float64) *stat.Quantity {
			return &stat.Quantity{Median: x, Low: x, High: x, Unit: "instructions"}
		}
		if strings.Contains(diff.With, "/nic=") {
			continue // what they differ in is one picture above
		}
		rows = append(rows, pairedRow{clean(diff.With), exact(0), exact(diff.Instructions), change, "", ""})
	}
	if len(d.Rows) > 0 {
		d.Folded = v.draw
		b.Tables = append(b.Tables, d)
		if v.draw && len(rows) > 0 {
			b.Figure = pairedFigure(v.id(), "Instructions with and without", "instructions more",
				"Instructions a packet executes more ● with than ○ without, which stands at 0. Beside them the indirect branches that account for them. Instructions are no time: the ns are those branches at this machine’s price of one, an estimate.", rows)
		}
	}
	t := &table{Caption: "Counts a packet, exact", Folded: v.draw && len(l.Differences) > 0, Columns: []column{
		{"guest", ""}, {"kernel", "w"}, {"indirect calls are", ""}, {"instructions", "n"}, {"indirect branches", "n"},
	}}
	for _, row := range l.Rows {
		if row.Refused != "" {
			t.add(row.Name, row.Release, "no number: "+row.Refused, "–", "–")
			continue
		}
		t.add(row.Name, row.Release, row.Thunk, exactOr(row.Instructions), exactOr(row.Calls))
	}
	b.Tables = append(b.Tables, t)
	b.Text = append(b.Text, "Counts of the emulated guests, exact to the digit. Instructions are no time: QEMU predicts no branches.")
	return b
}

// labPaths draws where the branches of guests stand: for each kernel the row with
// most of them.
func (v *viewer) labPaths(s *record.Saved) []block {
	const most = 4
	best := make(map[string]*record.LabRow)
	var order []string
	for i := range s.Lab.Rows {
		row := &s.Lab.Rows[i]
		if row.Calls == nil || len(row.Sites) == 0 {
			continue
		}
		was := best[row.Release]
		if was == nil {
			order = append(order, row.Release)
		}
		if was == nil || *row.Calls > *was.Calls {
			best[row.Release] = row
		}
	}
	var out []block
	for _, release := range order[:min(len(order), most)] {
		row := best[release]
		stages := labStages(row)
		b := block{Heading: clean(row.Name) + ": where its indirect branches are"}
		if v.draw {
			b.Figure = pathFigure(v.id(), "The path of a packet in "+row.Name, stages, nil)
		}
		if t := siteTable(stages); t != nil {
			t.Folded = v.draw
			b.Tables = []*table{t}
		}
		out = append(out, b)
	}
	return out
}

// maxFlames is the most that flame graphs of a page may take, in bytes.
const maxFlames = 900 << 10

func (v *viewer) flames() []block {
	if !v.draw {
		return nil
	}
	var profiles []*record.Saved
	for _, s := range v.d.Records {
		if p := s.Stages(); p != nil && len(p.Stacks) > 0 {
			profiles = append(profiles, s)
		}
	}
	var out []block
	for _, s := range profiles {
		p := s.Stages()
		svg := flameInline(p, chain(s), v.id(), maxFlames/len(profiles))
		if svg == "" {
			continue
		}
		out = append(out, block{Heading: v.heading(s), Figure: &figure{
			Wide: svg, Broad: true,
			Caption: "Width is ns a packet, height is calls, colors are stages, which each frame names. A click on a frame fills the width with it. The functions that take most are in a table above.",
		}})
	}
	return out
}

// flameInline is a flame graph for a page, of at most so many bytes: frames that are
// too narrow for that are left out. It is empty when none fits.
func flameInline(p *record.Profile, name, id string, most int) template.HTML {
	root := flameOf(p)
	height := root.height()
	for _, least := range []float64{flameLeast, 1, 3, 10, 40} {
		var b bytes.Buffer
		fmt.Fprintf(&b, `<svg class="flame" viewBox="0 0 %.0f %.0f" font-family="monospace" font-size="11" role="img" aria-labelledby="%st"><title id="%st">Flame graph of %s</title>`,
			flameWidth, height, id, id, escape(title(p, name)))
		root.body(&b, p, name, height, least)
		b.WriteString("</svg>")
		if b.Len() <= most {
			return template.HTML(b.String())
		}
	}
	return ""
}

// branches are the inventories of xray, and what an indirect call is.
func (v *viewer) branches() []block {
	var out []block
	for _, s := range v.d.Records {
		if s.Sites == nil {
			continue
		}
		t := &table{Caption: "Indirect branches on the redirect path that are not rare", Columns: []column{
			{"branch", "m"}, {"stage", "w"}, {"how often", ""}, {"made", "w"}, {"calls", "m c"},
		}}
		h := conclusion.Of(s)
		for _, row := range s.Sites.Rows {
			if row.Per == "rare" {
				continue
			}
			t.add(site(row), row.Stage, often(row), made(row), calls(row))
		}
		out = append(out, block{
			Heading: joinedBy(": ", v.heading(s), "the path of "+clean(cmp.Or(s.Settings["path"], "a veth"))),
			Text:    []string{h.Title + ". " + h.Text}, Tables: []*table{t},
		})
	}
	return append(out, v.thunks()...)
}

// thunks say what an indirect call is in the memory of each machine.
func (v *viewer) thunks() []block {
	var out []block
	type kind struct{ sites, thunk, ret string }
	var order []kind
	of := make(map[kind][]string)
	for _, s := range v.d.Records {
		k := kind{s.Host.CallSites, s.Host.IndirectThunk, s.Host.ReturnThunk}
		if k.thunk == "" && k.sites == "" {
			continue
		}
		if of[k] == nil {
			order = append(order, k)
		}
		of[k] = append(of[k], v.labels[s])
	}
	for _, k := range order {
		text := fmt.Sprintf("In memory indirect calls go %s, the thunk is: %s, returns: %s.", cmp.Or(clean(k.sites), "a way that was not seen"), cmp.Or(clean(k.thunk), "not seen"), cmp.Or(clean(k.ret), "not seen"))
		b := block{Heading: "What an indirect call is", Text: []string{text}}
		if len(order) > 1 {
			b.Heading += ": " + strings.Join(of[k], ", ")
		}
		listings := v.listings(of[k])
		if len(listings) == 0 {
			b.Text = append(b.Text, "No record here holds their code: one of xray does.")
		}
		b.Tables = listings
		out = append(out, b)
	}
	return out
}

// listings are the thunks' code, of the first of the named records that has some.
func (v *viewer) listings(names []string) []*table {
	var out []*table
	for _, s := range v.d.Records {
		if s.Sites == nil || len(s.Sites.Code) == 0 || !slices.Contains(names, v.labels[s]) {
			continue
		}
		for _, l := range s.Sites.Code {
			t := &table{Caption: l.Name + ", as it stands in memory", Columns: []column{{"", "o n w"}, {l.Name, "m c"}, {"what it is there for", "t"}}}
			for _, line := range l.Lines {
				mark := ""
				if line.Indirect {
					mark = " ◆"
				}
				t.add(fmt.Sprintf("+%#x", line.Offset), line.Text+mark, line.Note)
			}
			out = append(out, t)
		}
		break
	}
	return out
}

// machines are the fingerprints, those that are equal in one column.
func (v *viewer) machines() []block {
	type machine struct {
		host  host.Fingerprint
		names []string
	}
	var machines []machine
	for _, s := range v.d.Records {
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
		t.More = fmt.Sprintf("%d more machines are left out.", left)
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
		b.Text = []string{"Not affected: " + clean(strings.Join(spared, ", ")) + "."}
	}
	if len(machines) == 0 {
		return nil
	}
	return []block{b}
}

func (v *viewer) warnings() []block {
	var out []block
	for _, s := range v.d.Records {
		if len(s.Warnings) == 0 {
			continue
		}
		b := block{Heading: v.heading(s)}
		for i, w := range s.Warnings {
			if i == maxTable {
				b.Notes = append(b.Notes, note{"", fmt.Sprintf("and %d more in the record", len(s.Warnings)-i)})
				break
			}
			b.Notes = append(b.Notes, note{clean(w.Row), clean(w.Text)})
		}
		out = append(out, b)
	}
	return out
}

// records are the files, and what they were made with.
func (v *viewer) records() []block {
	t := &table{Caption: "Files, and the settings of each run", Columns: []column{{"file", "m"}, {"kind", ""}, {"began", "i"}, {"run", "m w"}, {"settings", "t"}}}
	for _, s := range v.d.Records {
		var settings []string
		for key, value := range s.Settings {
			settings = append(settings, key+"="+value)
		}
		slices.Sort(settings)
		began := ""
		if !s.Time.IsZero() {
			began = s.Time.UTC().Format("2006-01-02 15:04:05")
		}
		t.add(v.labels[s], s.Kind, began, s.Run, strings.Join(settings, " "))
	}
	if len(t.Rows) == 0 {
		return nil
	}
	return []block{{Tables: []*table{t}}}
}
