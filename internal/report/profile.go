package report

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// Profile writes a profile for people: ns per packet by stage, what samples say of
// indirect branches, the top functions, events per packet, and how it was sampled.
// name is what was profiled.
func Profile(w io.Writer, opts Options, prof *record.Profile, name string, top int) error {
	p := newPrinter(opts)
	p.incomplete(prof.Incomplete)
	notes := newFootnotes(prof.Warnings)
	p.wrap("", cells.Clean(conclusion.ProfileHead(name, prof.Rows, &prof.ProfileParts)))
	if prof.Packet == nil {
		notes.write(p)
		return p.flush(w)
	}
	fmt.Fprintln(&p.buf)
	p.stageTable(prof.Rows, prof.Packet, notes)
	for _, text := range []string{conclusion.ProfileBridge(&prof.ProfileParts), conclusion.ProfileOutside(&prof.ProfileParts)} {
		if text != "" {
			p.wrap("", cells.Clean(text))
		}
	}
	fmt.Fprintln(&p.buf)
	p.branchTable(prof)
	p.functionTable(prof, top)
	p.lineTable(prof, top)
	p.counterLine(prof)
	fmt.Fprintln(&p.buf)
	p.samplingLine(prof)
	notes.write(p)
	return p.flush(w)
}

// stageTable is the table of stages with their shares.
func (p *printer) stageTable(rows []record.ProfileRow, packet *stat.Quantity, notes *footnotes) {
	table := [][]string{{"stage", "ns/packet", "", "share", "", ""}}
	for _, row := range rows {
		median, around := cells.Quantity(row.Ns)
		table = append(table, []string{cells.Clean(row.Name), median, around, cells.Percent(row.Ns, packet),
			bar(row.Ns, packet), notes.mark(row.Name)})
	}
	for _, line := range columns(table, []bool{true, false, true, false, true, true}, " ") {
		p.line(line)
	}
}

// barWidth is what all of a packet takes, in columns.
const barWidth = 34

// bar is a share of a packet as a bar.
func bar(part, packet *stat.Quantity) string {
	if part == nil || packet == nil || !(packet.Median > 0) || !(part.Median > 0) {
		return ""
	}
	return blocks(part.Median/packet.Median, barWidth)
}

// blocks is a share of a width as a bar, in eighths of a column.
func blocks(share float64, width int) string {
	eighths := int(math.Round(8 * float64(width) * min(max(share, 0), 1)))
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return s
}

// indirectBranches sums up what samples say of indirect branches, if they do.
func (p *printer) indirectBranches(parts *record.ProfileParts) {
	if text := cells.IndirectBranches(parts); text != "" {
		p.wrap("", text)
	}
}

// branchTable is what samples say of indirect branches, by site.
func (p *printer) branchTable(prof *record.Profile) {
	if prof.Tax == nil {
		return
	}
	p.indirectBranches(&prof.ProfileParts)
	if behind, around := cells.Quantity(prof.Tax.ReturnEntries); behind != "" {
		p.wrap("", fmt.Sprintf("returns, not counted in: %s ns in return thunks, and at most %s %s on what follows "+
			"a call of the redirect path.",
			cells.OrDash(prof.Tax.Returns), behind, around))
	}
	fmt.Fprintln(&p.buf)
	if len(prof.Tax.Sites) == 0 {
		return
	}
	table := [][]string{{"indirect branch", "stage", "/pkt", "thunk", "entry", "target"}}
	small := 0
	for _, s := range prof.Tax.Sites {
		if total := cells.Value(s.Thunk) + cells.Value(s.TargetEntry); math.Abs(total) < leastShare*prof.Packet.Median {
			small++
			continue
		}
		calls := "?"
		if s.PerPacket != nil {
			calls = stat.Number(s.PerPacket.Median)
		}
		what := ""
		if s.Pointer != nil {
			steps := strings.Split(*s.Pointer, " → ")
			_, what, _ = strings.Cut(steps[len(steps)-1], ".")
		}
		table = append(table, []string{
			fmt.Sprintf("%s+%#x", cells.Clean(s.Function), s.Offset), cells.Clean(s.Stage), calls,
			cells.OrDash(s.Thunk), cells.OrDash(s.TargetEntry),
			cells.Clean(cmp.Or(cells.ShortNames(s.Targets), what)),
		})
	}
	if len(table) > 1 {
		for _, line := range columns(table, []bool{true, true, false, false, false, true}, "") {
			p.line(line)
		}
		if small > 0 {
			p.wrap("", fmt.Sprintf("and %d that took less than 0.1 %%, which --json lists", small))
		}
	} else {
		p.wrap("", fmt.Sprintf("indirect branches: %d, each of which took less than 0.1 %% (--json lists them)", small))
	}
	fmt.Fprintln(&p.buf)
}

// leastShare is the least share of a packet that an indirect branch is shown for.
const leastShare = 0.001

// functionTable are the functions that take most.
func (p *printer) functionTable(prof *record.Profile, top int) {
	if top == 0 || len(prof.Functions) == 0 {
		return
	}
	table := [][]string{{"function", "ns/packet", "", "share", "stage"}}
	for _, f := range prof.Functions[:min(top, len(prof.Functions))] {
		median, around := cells.Quantity(f.Ns)
		name := cells.ShortName(cells.Clean(f.Name))
		if utf8.RuneCountInString(name) > 36 {
			name = string([]rune(name)[:35]) + "…"
		}
		table = append(table, []string{name, median, around, cells.Percent(f.Ns, prof.Packet), cells.Clean(f.Stage)})
	}
	for _, line := range columns(table, []bool{true, false, true, false, true}, "") {
		p.line(line)
	}
}

// lineTable are the source lines of the user's program that take most, in the order of the source.
func (p *printer) lineTable(prof *record.Profile, top int) {
	if top == 0 || len(prof.Lines) == 0 {
		return
	}
	lines := slices.Clone(prof.Lines)
	slices.SortStableFunc(lines, func(a, b record.ProfileLine) int { return cmp.Compare(b.Ns.Median, a.Ns.Median) })
	lines = lines[:min(top, len(lines))]
	slices.SortStableFunc(lines, func(a, b record.ProfileLine) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	fmt.Fprintln(&p.buf)
	table := [][]string{{"ns/packet", "", "runs", "source line"}}
	for _, l := range lines {
		median, around := cells.Quantity(l.Ns)
		runs := "?"
		if l.Runs != nil {
			runs = stat.Number(*l.Runs)
		}
		text := []rune(cells.Clean(fmt.Sprintf("%s:%d  %s", filepath.Base(l.File), l.Line, l.Text)))
		if most := max(p.width-34, 10); len(text) > most {
			text = append(text[:most-1], '…')
		}
		table = append(table, []string{median, around, runs, string(text)})
	}
	for _, line := range columns(table, []bool{false, true, false, true}, "") {
		p.line(line)
	}
}

// counterLine are events per packet, and instructions per cycle.
func (p *printer) counterLine(prof *record.Profile) {
	if len(prof.Counters) == 0 {
		return
	}
	var parts []string
	per := make(map[string]float64)
	for _, c := range prof.Counters {
		median, around := cells.Quantity(c.PerPacket)
		parts = append(parts, fmt.Sprintf("%s %s %s", cells.Clean(c.Name), median, around))
		per[c.Name] = c.PerPacket.Median
	}
	if per["cycles"] > 0 && per["instructions"] > 0 {
		parts = append(parts, fmt.Sprintf("%.2f instructions per cycle", per["instructions"]/per["cycles"]))
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", "per packet: "+strings.Join(parts, ", ")+".")
}

// samplingLine says how the profile was sampled.
func (p *printer) samplingLine(prof *record.Profile) {
	s := prof.Sampling
	text := fmt.Sprintf("%d samples of %s at %d Hz, %.3g million packets.", s.Samples, cells.Clean(s.Event), s.Rate,
		float64(s.Packets)/1e6)
	if s.Throughput != nil {
		around := s.Throughput.Interval(stat.Fixed(1))
		if around != "" {
			around = " " + around
		}
		text += fmt.Sprintf(" With sampling the throughput was %.1f %%%s of that without.", s.Throughput.Median, around)
	}
	rounds := 0
	if len(prof.Rows) > 0 {
		rounds = len(prof.Rows[0].Rounds)
	}
	p.wrap("", text+fmt.Sprintf(" Times are means of %d rounds [95 %% intervals].", rounds))
}
