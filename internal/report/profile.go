package report

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Profile writes a profile for people: ns per packet by stage, what samples say of
// indirect branches, the top functions, events per packet, and how it was sampled.
// name is what was profiled.
func Profile(w io.Writer, opts Options, prof *record.Profile, name string, top int) error {
	p := newPage(opts)
	if prof.Incomplete {
		p.wrap("", "INCOMPLETE: the run was stopped before its end.")
		fmt.Fprintln(&p.buf)
	}
	notes := newFootnotes(prof.Warnings)
	if prof.Packet == nil {
		notes.write(p)
		return p.flush(w)
	}
	ns, around := quantity(prof.Packet)
	p.wrap("", fmt.Sprintf("%s: %s ns a packet %s", clean(name), ns, around))
	fmt.Fprintln(&p.buf)
	p.stages(prof.Rows, prof.Packet, notes)
	fmt.Fprintln(&p.buf)
	p.indirect(prof)
	p.functions(prof, top)
	p.counters(prof)
	fmt.Fprintln(&p.buf)
	p.sampling(prof)
	notes.write(p)
	return p.flush(w)
}

// Stages writes the stages of a profile and its line on indirect branches, for the
// default verb. name is what was profiled.
func Stages(w io.Writer, opts Options, rows []record.ProfileRow, parts *record.ProfileParts, name string) error {
	p := newPage(opts)
	fmt.Fprintln(&p.buf)
	p.wrap("", fmt.Sprintf("where the %s ns of %s go", number(parts.Packet.Median), clean(name)))
	p.stages(rows, parts.Packet, newFootnotes(nil))
	p.indirectLine(parts)
	return p.flush(w)
}

// stages is the table of stages with their shares.
func (p *page) stages(rows []record.ProfileRow, packet *stat.Quantity, notes *footnotes) {
	table := [][]string{{"stage", "ns/packet", "", "share", "", ""}}
	for _, row := range rows {
		median, around := quantity(row.Ns)
		table = append(table, []string{clean(row.Name), median, around, percentOf(row.Ns, packet), bar(row.Ns, packet), notes.mark(row.Name)})
	}
	for _, line := range columns(table, []bool{true, false, true, false, true, true}, " ") {
		p.line(line)
	}
}

// percentOf is what share of a packet something is.
func percentOf(part, packet *stat.Quantity) string {
	if part == nil || packet == nil || packet.Median == 0 || math.IsNaN(part.Median) {
		return "-"
	}
	percent := 100 * part.Median / packet.Median
	if math.Abs(percent) < 0.05 {
		percent = 0 // not "-0.0"
	}
	return fmt.Sprintf("%.1f %%", percent)
}

// barWidth is what all of a packet takes, in columns.
const barWidth = 34

// bar is a share of a packet as a bar, in eighths of a column.
func bar(part, packet *stat.Quantity) string {
	if part == nil || packet == nil || !(packet.Median > 0) || !(part.Median > 0) {
		return ""
	}
	eighths := int(math.Round(8 * barWidth * min(part.Median/packet.Median, 1)))
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return s
}

// indirectLine sums up what samples say of indirect branches.
func (p *page) indirectLine(prof *record.ProfileParts) {
	tax := prof.Tax
	if tax == nil || tax.Total == nil {
		return
	}
	median, around := quantity(tax.Total)
	p.wrap("", fmt.Sprintf("indirect branches: %s ns %s, %s of the packet: %s in thunks, %s where they land. %s",
		median, around, percentOf(tax.Total, prof.Packet), or(tax.Thunks), or(tax.Landings), against(tax)))
}

func or(q *stat.Quantity) string {
	median, _ := quantity(q)
	return cmp.Or(median, "-")
}

// against is how samples and prices agree.
func against(tax *record.ProfileTax) string {
	hop, aroundHop := quantity(tax.Hop)
	if tax.Estimate == nil {
		return fmt.Sprintf("Of the hop: %s ns %s.", hop, aroundHop)
	}
	estimate, around := quantity(tax.Estimate)
	words := map[string]string{
		"agree": "they agree", "disagree": "they disagree", stat.CannotTell: "too uncertain to tell whether they agree",
	}
	return fmt.Sprintf("Of the hop: %s ns %s by samples, %s %s by price times calls: %s.", hop, aroundHop, estimate, around, words[tax.Agree])
}

// indirect is what samples say of indirect branches, by site.
func (p *page) indirect(prof *record.Profile) {
	if prof.Tax == nil {
		return
	}
	p.indirectLine(&prof.ProfileParts)
	if behind, around := quantity(prof.Tax.ReturnLandings); behind != "" {
		p.wrap("", fmt.Sprintf("returns, not counted in: %s ns in return thunks, and at most %s %s on what follows a call.", or(prof.Tax.Returns), behind, around))
	}
	fmt.Fprintln(&p.buf)
	if len(prof.Tax.Sites) == 0 {
		return
	}
	table := [][]string{{"indirect branch", "stage", "/pkt", "thunk", "lands", "enters"}}
	small := 0
	for _, s := range prof.Tax.Sites {
		if total := median(s.Thunk) + median(s.Landing); math.Abs(total) < leastShare*prof.Packet.Median {
			small++
			continue
		}
		calls := "?"
		if s.PerPacket != nil {
			calls = number(s.PerPacket.Median)
		}
		what := ""
		if s.Calls != nil {
			steps := strings.Split(*s.Calls, " → ")
			_, what, _ = strings.Cut(steps[len(steps)-1], ".")
		}
		table = append(table, []string{
			fmt.Sprintf("%s+%#x", clean(s.Function), s.Offset), clean(s.Stage), calls, or(s.Thunk), or(s.Landing),
			clean(cmp.Or(shortened(s.Targets), what)),
		})
	}
	for _, line := range columns(table, []bool{true, true, false, false, false, true}, "") {
		p.line(line)
	}
	if small > 0 {
		p.wrap("", fmt.Sprintf("and %d that took less than 0.1 %%, which --json lists", small))
	}
	fmt.Fprintln(&p.buf)
}

// leastShare is the least share of a packet that an indirect branch is shown for.
const leastShare = 0.001

// median is that of a quantity, 0 when there is none.
func median(q *stat.Quantity) float64 {
	if q == nil || math.IsNaN(q.Median) {
		return 0
	}
	return q.Median
}

// shortened are names without the tags of BPF programs.
func shortened(names []string) string {
	var out []string
	for _, name := range names {
		out = append(out, shortName(name))
	}
	return strings.Join(out, ", ")
}

// shortName is the name of a function; of a BPF program it is its own, without the
// tag.
func shortName(name string) string {
	if parts := strings.SplitN(name, "_", 4); len(parts) == 4 && parts[0] == "bpf" && parts[1] == "prog" && len(parts[2]) == 16 {
		return parts[3] + " [bpf]"
	}
	return name
}

func (p *page) functions(prof *record.Profile, top int) {
	if top == 0 || len(prof.Functions) == 0 {
		return
	}
	table := [][]string{{"function", "ns/packet", "", "share", "stage"}}
	for _, f := range prof.Functions[:min(top, len(prof.Functions))] {
		median, around := quantity(f.Ns)
		name := shortName(clean(f.Name))
		if utf8.RuneCountInString(name) > 36 {
			name = string([]rune(name)[:35]) + "…"
		}
		table = append(table, []string{name, median, around, percentOf(f.Ns, prof.Packet), clean(f.Stage)})
	}
	for _, line := range columns(table, []bool{true, false, true, false, true}, "") {
		p.line(line)
	}
}

// counters are events per packet, and instructions per cycle.
func (p *page) counters(prof *record.Profile) {
	if len(prof.Counters) == 0 {
		return
	}
	var parts []string
	per := make(map[string]float64)
	for _, c := range prof.Counters {
		median, around := quantity(c.PerPacket)
		parts = append(parts, fmt.Sprintf("%s %s %s", clean(c.Name), median, around))
		per[c.Name] = c.PerPacket.Median
	}
	if per["cycles"] > 0 && per["instructions"] > 0 {
		parts = append(parts, fmt.Sprintf("%.2f instructions per cycle", per["instructions"]/per["cycles"]))
	}
	fmt.Fprintln(&p.buf)
	p.wrap("", "per packet: "+strings.Join(parts, ", ")+".")
}

func (p *page) sampling(prof *record.Profile) {
	s := prof.Sampling
	text := fmt.Sprintf("%d samples of %s at %d Hz, %.3g million packets.", s.Samples, clean(s.Event), s.Rate, float64(s.Packets)/1e6)
	if s.Throughput != nil {
		text += fmt.Sprintf(" With sampling the throughput was %.1f %% [%.1f, %.1f] of that without.", s.Throughput.Median, s.Throughput.Low, s.Throughput.High)
	}
	rounds := 0
	if len(prof.Rows) > 0 {
		rounds = len(prof.Rows[0].Rounds)
	}
	p.wrap("", text+fmt.Sprintf(" Times are means of %d rounds [95 %% intervals].", rounds))
}

// ProfileAsm writes the instructions of a function with the ns per packet that
// samples give each, by address; they are total ns together. Branches that are
// indirect have a mark.
func ProfileAsm(w io.Writer, opts Options, name string, lines []branch.Line, ns map[uint64]float64, total float64) error {
	p := newPage(opts)
	p.wrap("", fmt.Sprintf("%s: %s ns a packet", name, number(total)))
	hottest := 0.0
	for _, x := range ns {
		hottest = max(hottest, x)
	}
	for _, l := range lines {
		cell, color := "", ""
		if x, ok := ns[l.Addr]; ok {
			cell = strconv.FormatFloat(x, 'f', 2, 64)
			if x >= hottest/2 {
				color = bold
			}
		}
		mark := " "
		if l.Indirect {
			mark = "»"
		}
		text := fmt.Sprintf("%7s %s %x  %s", cell, mark, l.Addr, clean(l.Text))
		if runes := []rune(text); len(runes) > p.width {
			text = string(runes[:p.width-1]) + "…"
		}
		fmt.Fprintln(&p.buf, p.paint(color, text))
		if l.Note != "" && l.Indirect {
			p.wrap("            ; ", l.Note)
		}
	}
	p.wrap("", "ns a packet by samples; » marks indirect branches. A sample shows on the instruction that was waited for, or on one after it.")
	return p.flush(w)
}
