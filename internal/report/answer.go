package report

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/stat"
)

// answerLines is the most lines that an answer takes: a terminal has 24.
const answerLines = 24

// rank says which block of an answer goes first where there are too many lines: the lowest.
type rank int

const (
	rankSpace rank = iota
	rankMachine
	rankDetail
	rankLegend
	rankAvoid
	rankTrust
	rankPrograms
	rankTry
	rankPath
	rankMore
	rankCalls
	rankRates
	rankClaim
)

// block is lines of an answer that stay or go together, painted already.
type block struct {
	rank  rank
	lines []string
}

// labelWidth is what the label before a line takes.
const labelWidth = 7

// answer writes what a run says at a glance on at most 24 lines: the claim, the rates beside
// the redirect path, the price of indirect calls, what to try and to avoid, how sure, where
// to read more. Where there is no room, what matters least is left out.
func (p *printer) answer(doc *record.Document[record.BenchRow], a *conclusion.Answer) {
	space := block{rankSpace, []string{""}}
	var all []block
	if doc.Incomplete {
		all = append(all, block{rankClaim, p.painted(yellow, p.filled("", incompleteText))})
	}
	all = append(all, block{rankClaim, p.painted(bold, p.filled("", strings.Join(a.Claim, " ")))}, space)
	all = append(all, p.figures(a)...)
	if len(a.Calls) > 0 {
		all = append(all, block{rankCalls, p.filled("", "indirect calls: "+strings.Join(a.Calls, "; "))}, space)
	}
	all = append(all, p.advice("try", green, "-", rankTry, a.Try)...)
	if len(a.Try) == 0 && a.Tax != nil && !doc.Incomplete {
		all = append(all, block{rankDetail, p.labeled("try", green, "nothing that this run looks for would make a redirect cheaper here")})
	}
	all = append(all, p.advice("avoid", yellow, "+", rankAvoid, a.Avoid)...)
	all = append(all, p.attached(a.Programs)...)
	all = append(all, space)
	if lines := p.trust(a.Trust); len(lines) > 0 {
		all = append(all, block{rankTrust, lines})
	}
	if on := machineText(doc); on != "" {
		all = append(all, block{rankMachine, p.dimmed("on", on)})
	}
	all = append(all, block{rankMore, p.dimmed("more", "unthunk -v, check, bench, tax, profile, xray; report FILE for the page")})
	all = slices.CompactFunc(all, func(a, b block) bool { return a.rank == rankSpace && b.rank == rankSpace })
	for _, line := range fit(all, answerLines) {
		fmt.Fprintln(&p.buf, line)
	}
}

// fit are the lines of blocks, less those of the lowest rank until at most n are left. Of
// blocks of one rank the last one goes first.
func fit(all []block, n int) []string {
	all = slices.Clone(all)
	for {
		var lines []string
		for _, b := range all {
			lines = append(lines, b.lines...)
		}
		if len(lines) <= n {
			return lines
		}
		if len(all) == 1 {
			return lines[:n]
		}
		least := 0
		for i, b := range all {
			if b.rank <= all[least].rank {
				least = i
			}
		}
		all = slices.Delete(all, least, least+1)
	}
}

// filled is text as lines that fit.
func (p *printer) filled(first, text string) []string {
	of := printer{width: p.width}
	of.wrap(first, text)
	return strings.Split(strings.TrimSuffix(of.buf.String(), "\n"), "\n")
}

// labeled is text beside a label in a color.
func (p *printer) labeled(label, color, text string) []string {
	lines := p.filled(fmt.Sprintf("%-*s", labelWidth, label), text)
	lines[0] = p.paint(color, label) + strings.TrimPrefix(lines[0], label)
	return lines
}

// dimmed is text beside a label, of second importance.
func (p *printer) dimmed(label, text string) []string {
	return p.painted(dim, p.labeled(label, "", text))
}

// trustLines is the most lines that trust takes.
const trustLines = 3

// trust is how sure the answer is: as many clauses as there is room for.
func (p *printer) trust(clauses []string) []string {
	for n := len(clauses); n > 0; n-- {
		text := strings.Join(clauses[:n], "; ")
		if n < len(clauses) {
			text += "; more warnings: -v"
		}
		if lines := p.dimmed("sure?", text); len(lines) <= trustLines || n == 1 {
			return lines
		}
	}
	return nil
}

// painted are lines in a color.
func (p *printer) painted(color string, lines []string) []string {
	for i := range lines {
		lines[i] = p.paint(color, lines[i])
	}
	return lines
}

// figures are the rates with the redirect path beside them, or below where the text is narrow.
func (p *printer) figures(a *conclusion.Answer) []block {
	const gap = 3
	space := block{rankSpace, []string{""}}
	rates, path := rateLines(a.Rates), p.pathLines(a.Path, p.width)
	if len(rates) == 0 && len(path) == 0 {
		return nil
	}
	left := 0
	for _, line := range rates {
		left = max(left, utf8.RuneCountInString(line))
	}
	if len(path) == 0 || left+gap+pathWidth > p.width {
		var all []block
		if len(rates) > 0 {
			all = append(all, block{rankRates, rates}, block{rankLegend, p.painted(dim, p.filled("", rateLegend))}, space)
		}
		if len(path) > 0 {
			all = append(all, block{rankPath, path}, space)
		}
		return all
	}
	path = p.pathLines(a.Path, p.width-left-gap)
	legend := len(rates)
	of := printer{width: left}
	of.wrap("", rateLegend)
	rates = append(rates, strings.Split(strings.TrimSuffix(of.buf.String(), "\n"), "\n")...)
	lines := make([]string, max(len(rates), len(path)))
	for i := range lines {
		var rate, stage string
		if i < len(rates) {
			rate = rates[i]
		}
		if i < len(path) {
			stage = path[i]
		}
		pad := strings.Repeat(" ", left-utf8.RuneCountInString(rate)+gap)
		if i >= legend {
			rate = p.paint(dim, rate)
		}
		lines[i] = strings.TrimRight(rate+pad+stage, " ")
	}
	return []block{{rankRates, lines}, space}
}

const rateLegend = "test: generator, redirect and sink on one core. redirect: the test less one that drops, so no " +
	"receive, no program."

// rateLines are a table of the rates.
func rateLines(rates []conclusion.Rate) []string {
	if len(rates) == 0 {
		return nil
	}
	table := [][]string{{"bulk", "Mpps", "test ns", "redirect ns", ""}}
	for _, r := range rates {
		if r.Refused != "" {
			table = append(table, []string{cells.Clean(r.Bulk), "-", "-", "refused", ""})
			continue
		}
		mpps, _ := cells.Quantity(r.Mpps)
		ns, _ := cells.Quantity(r.Ns)
		redirect, _ := cells.Quantity(r.Redirect)
		table = append(table, []string{cells.Clean(r.Bulk), mpps, ns, redirect, cells.PlusMinus(r.Redirect)})
	}
	return columns(table, []bool{false, false, false, false, true}, " ")
}

// pathWidth is the least width of the redirect path as a chart.
const pathWidth = 34

// pathLines are the redirect path as bars, one a stage.
func (p *printer) pathLines(path conclusion.Path, width int) []string {
	if len(path.Stages) == 0 {
		return nil
	}
	most, names := 0.0, 0
	for _, s := range path.Stages {
		most, names = max(most, s.Ns.Median), max(names, utf8.RuneCountInString(cells.Clean(s.Name)))
	}
	how := "sampled"
	if path.Unsure {
		how = "unsure"
	}
	lines := []string{cut(fmt.Sprintf("redirect path, ns (bulk %s, %s)", cells.Clean(path.Bulk), how), width)}
	for _, s := range path.Stages {
		head := fmt.Sprintf("%-*s %5s ", names, cells.Clean(s.Name), stat.Number(s.Ns.Median))
		lines = append(lines, head+blocks(s.Ns.Median/most, max(width-utf8.RuneCountInString(head), 1)))
	}
	return lines
}

// advice are gains behind a label, a block each. sign is what their ns do to a packet's.
func (p *printer) advice(label, color, sign string, rank rank, gains []record.Gain) (all []block) {
	width := 0
	for _, g := range gains {
		width = max(width, utf8.RuneCountInString(gainAround(g)))
	}
	for i, g := range gains {
		ns, _ := cells.Quantity(g.Ns)
		switch {
		case ns == "":
			ns = "?"
		case g.AtMost:
			ns = "≤" + ns
		default:
			ns = sign + ns
		}
		what, _, _ := strings.Cut(cells.Clean(g.What), ": ")
		if g.Now != "" {
			what += " (now: " + cells.Clean(g.Now) + ")"
		}
		around := gainAround(g)
		said := fmt.Sprintf("%-*s%5s ns %-*s ", labelWidth, label, ns, width, around)
		lines := p.filled(said, what)
		lines[0] = p.paint(color, label) + strings.TrimPrefix(lines[0], label)
		of := rank
		if i > 0 {
			of = rankDetail
		}
		all = append(all, block{of, lines})
		label = ""
	}
	return all
}

// gainAround is the interval of a gain; empty for a bound.
func gainAround(g record.Gain) string {
	if g.AtMost {
		return ""
	}
	return cells.PlusMinus(g.Ns)
}

// attached are the XDP programs that devices run: two, and how many more there are.
func (p *printer) attached(programs []string) (all []block) {
	const most = 2
	if len(programs) == 0 {
		return nil
	}
	more := "what its own code costs: unthunk prog cost"
	if n := len(programs); n > most {
		programs, more = programs[:most], fmt.Sprintf("and %d more: unthunk prog list; what they cost: prog cost", n-most)
	}
	label := "yours"
	for _, text := range programs {
		lines := p.filled(fmt.Sprintf("%-*s", labelWidth, label), text)
		lines[0] = p.paint(green, label) + strings.TrimPrefix(lines[0], label)
		all = append(all, block{rankPrograms, lines})
		label = ""
	}
	return append(all, block{rankDetail, p.labeled("", "", more)})
}

// machineText is the machine in one line.
func machineText(doc *record.Document[record.BenchRow]) string {
	f := doc.Host
	var parts []string
	if cpu := doc.Settings["cpu"]; cpu != "" {
		parts = append(parts, "CPU "+cpu)
	}
	name, _, _ := strings.Cut(f.CPU, ", family")
	parts = append(parts, name)
	if f.Kernel != "" {
		parts = append(parts, "Linux "+f.Kernel)
	}
	if f.Virtual != "" && f.Virtual != "none" {
		parts = append(parts, "in a VM ("+f.Virtual+")")
	}
	return cells.Join(", ", parts...)
}
