package page

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// csvHead are the columns of [CSV].
var csvHead = []string{"file", "kind", "time", "run", "kernel", "cpu", "row", "measure", "value", "low", "high", "n",
	"unit", "note"}

// CSV writes every number of the records, one a line: which record and row it is of,
// what it measures, the value, its 95 % interval and rounds where it has them, its
// unit. What is unknown is empty. A text that a spreadsheet would take for a formula
// has an apostrophe before it.
func CSV(ctx context.Context, w io.Writer, src Source) error {
	b := memory.NewBuffer(ctx, memory.MaxOutput)
	out := csv.NewWriter(b)
	if err := out.Write(csvHead); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	for _, s := range src.Records {
		csvRecord{ctx, out, []string{s.File, s.Kind, csvTime(s.Time), s.Run, s.Host.Kernel, s.Host.CPU}}.write(s)
	}
	if src.History != nil {
		writeCSVHistory(ctx, out, src.History)
	}
	out.Flush()
	if err := cmp.Or(ctx.Err(), out.Error()); err != nil {
		return fmt.Errorf("make CSV: %w", tooMuch(err))
	}
	if _, err := b.WriteTo(w); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	return nil
}

// csvTime is a time as spreadsheets read it; an unknown one is empty.
func csvTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// csvNumber is a number with all its digits; an unknown one is empty.
func csvNumber(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return ""
	}
	return strconv.FormatFloat(x, 'g', -1, 64)
}

// csvText is a text that a spreadsheet does not take for a formula.
func csvText(s string) string {
	s = cells.Clean(s)
	if s != "" && strings.IndexByte("=+-@", s[0]) >= 0 {
		return "'" + s
	}
	return s
}

// csvRecord writes the lines of one record. The writer keeps its error.
type csvRecord struct {
	ctx context.Context
	out *csv.Writer
	// head are the cells that all lines of the record begin with.
	head []string
}

// line writes a quantity of a row; q.N is 0 where it has no rounds.
func (c csvRecord) line(row, measure string, q stat.Quantity, note string) {
	if c.ctx.Err() != nil || c.out.Error() != nil {
		return
	}
	rounds := ""
	if q.N > 0 {
		rounds = strconv.Itoa(q.N)
	}
	var line []string
	for _, s := range append(slices.Clone(c.head), row, measure) {
		line = append(line, csvText(s))
	}
	c.out.Write(append(line, csvNumber(q.Median), csvNumber(q.Low), csvNumber(q.High), rounds, csvText(q.Unit),
		csvText(note)))
}

// quantity writes a quantity, if there is one.
func (c csvRecord) quantity(row, measure string, q *stat.Quantity, note string) {
	if q != nil {
		c.line(row, measure, *q, note)
	}
}

// exact writes a number without an interval.
func (c csvRecord) exact(row, measure string, x float64, unit, note string) {
	c.line(row, measure, stat.Quantity{Median: x, Low: math.NaN(), High: math.NaN(), Unit: unit}, note)
}

// none writes a line without a number, and why.
func (c csvRecord) none(row, measure, note string) { c.exact(row, measure, math.NaN(), "", note) }

// write writes what a record holds: one kind of rows, and of run prices and stages too.
func (c csvRecord) write(s *record.Saved) {
	switch {
	case s.Bench() != nil:
		c.ladder(s.Bench().Rows)
	case s.Agent() != nil:
		c.agent(s.Agent())
	case s.Sites() != nil:
		c.sites(s.Sites().Rows)
	case s.Lab() != nil:
		c.lab(s.Lab())
	case s.Programs() != nil:
		c.programs(s.Programs())
	case s.ProgXray() != nil:
		c.program(s.ProgXray().Rows)
	case s.ProgCost() != nil:
		c.cost(s.ProgCost().Rows)
	case s.ProgWatch() != nil:
		c.watch(s.ProgWatch().Rows)
	case s.Who() != nil:
		c.who(s.Who())
	case s.Odd() != nil:
		c.odd(s.Odd())
	case s.Canaries() != nil:
		c.canaries(s.Canaries())
	case s.Comparison() != nil:
		for i := range s.Comparison().Rows {
			row := &s.Comparison().Rows[i]
			c.change(row.Name, row.Old, row.New, row.Difference, "percent", row.Verdict, row.Missing)
		}
	case s.ProfileComparison() != nil:
		for i := range s.ProfileComparison().Rows {
			row := &s.ProfileComparison().Rows[i]
			c.change(row.Name, row.Old, row.New, row.Difference, "ns", row.Verdict, row.Missing)
		}
	case s.SiteComparison() != nil:
		for _, row := range s.SiteComparison().Rows {
			c.none(row.Name, row.Change, strings.Join(row.What, "; "))
		}
	case s.Gate() != nil:
		c.gate(s.Gate())
	case s.LabComparison() != nil:
		for _, row := range s.LabComparison().Rows {
			c.none(row.Name, "change", strings.Join(row.What, "; "))
		}
	}
	c.prices(s.Prices())
	if p := s.Stages(); p != nil {
		c.profile(p)
	}
}

// agent writes what agent measured and counted; prices follow.
func (c csvRecord) agent(doc *record.Agent) {
	c.ladder(doc.Redirect)
	for _, p := range doc.Paths {
		c.exact("path/"+p.Device, "per-packet", float64(p.PerPacket), "branches", "")
		c.exact("path/"+p.Device, "per-bulk", float64(p.PerBulk), "branches", "")
		c.exact("path/"+p.Device, "per-poll", float64(p.PerPoll), "branches", "")
		_, most := p.Branches()
		c.exact("path/"+p.Device, "at-most", most, "branches", "of a packet in bulks of 16")
	}
	for _, code := range doc.Code {
		c.exact(code.Name, "indirect", float64(code.Indirect), "branches", "")
	}
	for _, r := range doc.Refused {
		c.none(r.Part, "refused", r.Reason+": "+r.Text)
	}
	c.exact("cost", "cpu-seconds", doc.Cost.CPUSeconds, "s", "")
	c.exact("cost", "seconds", doc.Cost.Seconds, "s", "")
}

// ladder writes the rows of bench.
func (c csvRecord) ladder(rows []record.BenchRow) {
	for _, row := range rows {
		if row.Refused != "" {
			c.none(row.Name, "mpps", "no number: "+row.Refused)
			continue
		}
		c.quantity(row.Name, "mpps", row.Mpps, "")
		c.quantity(row.Name, "ns", row.Ns, "")
		c.quantity(row.Name, "hop", row.Hop, "")
		c.quantity(row.Name, "frames-per-xmit", row.FramesPerXmit, "")
		c.quantity(row.Name, "observer", row.CountingCost, "")
	}
}

// watch writes the rows of prog watch.
func (c csvRecord) watch(rows []record.WatchRow) {
	for _, row := range rows {
		if row.Value == nil {
			c.none(row.Name, "mean", row.Refused)
			continue
		}
		c.quantity(row.Name, "mean", row.Value, "")
	}
}

// cost writes the rows of prog cost.
func (c csvRecord) cost(rows []record.CostRow) {
	for i := range rows {
		row := &rows[i]
		c.exact(row.Name, "share", row.Share, "percent", cells.Verdicts(row))
		if row.Refused != "" {
			c.none(row.Name, "ns", "no number: "+row.Refused)
			continue
		}
		c.quantity(row.Name, "ns", row.Ns, "")
		c.quantity(row.Name, "null", row.Null, "")
	}
}

// sites writes where indirect branches stand.
func (c csvRecord) sites(rows []record.SiteRow) {
	for _, row := range rows {
		c.exact(row.Name, "offset", float64(row.Offset), "bytes",
			cells.Join(", ", row.Stage, cells.Made(row), cells.HowOften(row), cells.Target(row)))
		if row.PerPacket != nil {
			c.exact(row.Name, "per-packet", *row.PerPacket, "", "executions counted by a guest of lab")
		}
	}
}

// program writes where a program calls, jumps and looks up, and what that takes.
func (c csvRecord) program(rows []record.ProgSiteRow) {
	for i := range rows {
		row := &rows[i]
		cell := cells.ProgSite(row)
		note := cells.Join(", ", cell.What, cell.Made, cell.Calls, cells.SourceLine(row.Source))
		if row.Offset == nil {
			c.none(row.Name, "offset", note)
		} else {
			c.exact(row.Name, "offset", float64(*row.Offset), "bytes", note)
		}
		c.quantity(row.Name, "price", row.Price, row.PriceOf)
	}
}

// programs writes the size of each program, and where it runs; and the costs.
func (c csvRecord) programs(doc *record.ProgramList) {
	for i := range doc.Rows {
		row := &doc.Rows[i]
		c.exact(row.Name, "jited", float64(row.JitedBytes), "bytes", cells.Join(": ", row.Program, cells.RunBy(row, doc)))
	}
	for i := range doc.Costs {
		cost := &doc.Costs[i]
		q := cost.Ns
		if q == nil {
			c.none(cost.Each, "cost", cost.What)
			continue
		}
		c.line(cost.Each, "cost", *q, cost.What)
	}
}

// prices writes the rows of tax.
func (c csvRecord) prices(rows []record.TaxRow) {
	for _, row := range rows {
		if row.Refused != "" {
			c.none(row.Name, "price", "no price: "+row.Refused)
			continue
		}
		c.quantity(row.Name, "with", row.With, "")
		c.quantity(row.Name, "without", row.Without, "")
		c.quantity(row.Name, "price", row.Price, cells.Join("; ", row.Target, row.Note))
		c.quantity(row.Name, "cycles", row.Cycles, "")
		c.quantity(row.Name, "per-packet", row.PerPacket, "")
		c.quantity(row.Name, "ns-per-packet", row.NsPerPacket, "")
	}
}

// profile writes stages, functions, counters and indirect branches.
func (c csvRecord) profile(p *record.Profile) {
	c.quantity("packet", "ns", p.Packet, "")
	for _, row := range p.Rows {
		c.quantity("stage/"+row.Name, "ns", row.Ns, "")
	}
	for _, f := range p.Functions {
		c.quantity("function/"+f.Name, "ns", f.Ns, f.Stage)
	}
	for _, counter := range p.Counters {
		c.quantity("packet", counter.Name, counter.PerPacket, "")
	}
	if p.Tax == nil {
		return
	}
	c.quantity("indirect-branches", "total", p.Tax.Total, "")
	c.quantity("indirect-branches", "thunks", p.Tax.Thunks, "")
	c.quantity("indirect-branches", "landings", p.Tax.TargetEntries, "")
	c.quantity("indirect-branches", "hop", p.Tax.Hop, "")
	c.quantity("indirect-branches", "estimate", p.Tax.Estimate, p.Tax.Agree)
	for _, site := range p.Tax.Sites {
		name := fmt.Sprintf("site/%s+%#x", site.Function, site.Offset)
		c.quantity(name, "per-packet", site.PerPacket, site.Stage)
		c.quantity(name, "thunk", site.Thunk, site.Stage)
		c.quantity(name, "landing", site.TargetEntry, site.Stage)
	}
}

// lab writes counts of guests and their differences.
func (c csvRecord) lab(l *record.Lab) {
	for _, row := range l.Rows {
		if row.Refused != "" {
			c.none(row.Name, "instructions", "no number: "+row.Refused)
			continue
		}
		if row.Instructions != nil {
			c.exact(row.Name, "instructions", *row.Instructions, "per packet", row.Thunk)
		}
		if row.CallsPerPacket != nil {
			c.exact(row.Name, "calls", *row.CallsPerPacket, "per packet", row.Thunk)
		}
		for _, site := range row.Sites {
			c.exact(row.Name, fmt.Sprintf("site/%s+%#x", site.Function, site.Offset), site.PerPacket, "per packet",
				cells.Join(", ", site.Stage, site.Pointer, site.Target))
		}
	}
	for _, d := range l.Differences {
		against := "against " + d.Without
		c.exact(d.With, "instructions-more", d.Instructions, "per packet", against)
		c.exact(d.With, "by-sites", d.BySites, "per packet", against)
		c.quantity(d.With, "estimate", d.Ns, against)
	}
}

// change writes the two sides of what was compared, and the difference.
func (c csvRecord) change(row string, old, new *stat.Quantity, d *stat.Difference, unit, verdict, missing string) {
	c.quantity(row, "old", old, "")
	c.quantity(row, "new", new, "")
	if d == nil {
		c.none(row, "change", missing)
		return
	}
	c.shift(row, d, unit, verdict)
}

// shift writes a difference.
func (c csvRecord) shift(row string, d *stat.Difference, unit, note string) {
	c.line(row, "change", stat.Quantity{Median: d.Median, Low: d.Low, High: d.High, N: d.N, Unit: unit}, note)
}

// writeCSVHistory writes each point of each row, and each change.
func writeCSVHistory(ctx context.Context, out *csv.Writer, h *record.History) {
	for i := range h.Rows {
		row := &h.Rows[i]
		var kernel, cpu string
		for _, g := range h.Groups {
			if g.Name == row.Group {
				kernel, cpu = g.Host.Kernel, g.Host.CPU
			}
		}
		of := func(n int) csvRecord {
			o := h.Origin(row, n)
			return csvRecord{ctx, out, []string{o.File, "history", csvTime(o.Time), o.Run, kernel, cpu}}
		}
		for _, p := range row.Points {
			of(p.Record).quantity(row.Name, "ns", p.Ns, "group "+row.Group)
		}
		for _, c := range row.Changes {
			of(c.Record).shift(row.Name, &c.Shift, c.Shift.Unit, "group "+row.Group+", p "+csvNumber(c.P))
		}
	}
}
