package conclusion

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Answer is what a run says at a glance: the first screen and the page begin with it. It is
// computed from a record of run or bench of any age; what a record lacks is empty or nil.
type Answer struct {
	// Claim are the sentences that answer: what a redirect costs, what indirect calls take of
	// it, whether the packets went there.
	Claim []string
	// Of is what the answer is of: "a redirect", or a packet through a program of the user's.
	Of string
	// Redirect is the cost of the redirect alone in ns a packet at bulk Bulk: the whole test
	// less the same test that drops. Every other figure of the answer that says "of a
	// redirect" is of this one.
	Redirect *stat.Quantity
	Bulk     string
	// Tax is what indirect calls take of Redirect, in ns a packet; Share is Tax in percent of
	// Redirect.
	Tax, Share *stat.Quantity
	// Rates are up to three rows of the ladder, from small to large bulk.
	Rates []Rate
	// Path is the redirect path by stage.
	Path Path
	// Calls say the price of the indirect calls once, and what those of 2018 would cost.
	Calls []string
	// Try and Avoid are what would make this machine's redirect cheaper, and dearer, the
	// largest first.
	Try, Avoid []record.Gain
	// Programs are the XDP programs that devices ran when the run began, a clause each.
	Programs []string
	// Trust are the clauses that say how sure the figures are.
	Trust []string
}

// Rate is a row of the ladder.
type Rate struct {
	Bulk string
	// Mpps and Ns are the rate of the whole test and the time of a packet in it, Redirect that
	// of the redirect alone.
	Mpps, Ns, Redirect *stat.Quantity
	// Refused says why there is no number.
	Refused string
}

// Path is what a redirected packet runs through, by stage, in ns a packet: sampled at a bulk.
type Path struct {
	Bulk string
	// Stages are those of the redirect path, in the order that a packet takes.
	Stages []Stage
	// Total is the ns of all Stages.
	Total float64
	// Beside are stages that the redirect shares with generator and sink.
	Beside []Stage
	// Unsure says that the rounds differ too much for an answer.
	Unsure bool
}

// Stage is a stage of the redirect path.
type Stage struct {
	Name string
	Ns   *stat.Quantity
}

// NewAnswer reads the answer in a record.
func NewAnswer(doc *record.Document[record.BenchRow]) *Answer {
	a := &Answer{Bulk: record.AnswerBulk, Rates: rates(doc), Path: newPath(doc)}
	row, prices := headRow(doc.Rows), doc.Prices
	if row != nil {
		a.Redirect, a.Bulk = row.Hop, row.Labels["bulk"]
	}
	a.Of = "a redirect"
	for i := range doc.Rows {
		if r := &doc.Rows[i]; r.Labels["prog"] != "" && (row == nil || r == row) {
			a.Of = "a packet through program " + r.Labels["prog"]
			break
		}
	}
	if doc.Host.Emulated() {
		a.Redirect, prices = nil, nil
	}
	a.Tax, a.Share = share(a.Redirect, a.Bulk, prices)
	a.Claim = a.claim(doc)
	a.Calls = calls(prices, a.Bulk)
	if v := doc.Conclusion; v != nil {
		a.Try, a.Avoid = v.Win, v.Lose
	}
	a.Programs = AttachedPrograms(doc.Programs, prices)
	a.Trust = trust(doc, row)
	return a
}

// headRow is the row that the answer is about: that of bulk 16, or else the last one that
// has the cost of a redirect; nil when no row has.
func headRow(rows []record.BenchRow) (found *record.BenchRow) {
	for i := range rows {
		row := &rows[i]
		if row.Hop == nil || math.IsNaN(row.Hop.Median) {
			continue
		}
		if row.Labels["bulk"] == record.AnswerBulk {
			return row
		}
		found = row
	}
	return found
}

// share is what indirect calls take of a redirect at a bulk, in ns and in percent.
func share(redirect *stat.Quantity, bulk string, prices []record.TaxRow) (tax, percent *stat.Quantity) {
	row := priceRow(prices, "packet/bulk="+bulk)
	if row == nil {
		return nil, nil
	}
	if redirect == nil || !(redirect.Median > 0) {
		return row.Price, nil
	}
	q := &stat.Quantity{Median: 100 * row.Price.Median / redirect.Median, N: min(row.Price.N, redirect.N), Unit: "%"}
	if !(row.Price.Median > 0) { // it has no logarithm
		q.Low, q.High = 100*row.Price.Low/redirect.Low, max(q.Median, 100*row.Price.High/redirect.Low)
		if redirect.Low <= 0 {
			q.Low, q.High = math.Inf(-1), math.Inf(1)
		}
		return row.Price, q
	}
	// Both are measured apart: the errors of their logarithms add up as squares do.
	below := math.Hypot(apart(row.Price.Median, row.Price.Low), apart(redirect.Median, redirect.High))
	above := math.Hypot(apart(row.Price.Median, row.Price.High), apart(redirect.Median, redirect.Low))
	q.Low, q.High = q.Median*math.Exp(-below), q.Median*math.Exp(above)
	return row.Price, q
}

// apart is how far a bound is from a value on a logarithmic scale.
func apart(x, bound float64) float64 { return math.Abs(math.Log(max(bound, 0) / x)) }

// priceRow is a row of prices by its name; nil when it has no price.
func priceRow(prices []record.TaxRow, name string) *record.TaxRow {
	for i := range prices {
		if row := &prices[i]; row.Name == name && row.Price != nil && !math.IsNaN(row.Price.Median) {
			return row
		}
	}
	return nil
}

// rates are the rows of bulk 1, 16 and 64 of the first scenario, or else the first, a middle
// one and the last. On an emulated CPU they have no cost of the redirect alone.
func rates(doc *record.Document[record.BenchRow]) (out []Rate) {
	rows := doc.Rows
	if len(rows) == 0 {
		return nil
	}
	first := rows[0].Labels["scenario"]
	rows = slices.DeleteFunc(slices.Clone(rows), func(r record.BenchRow) bool { return r.Labels["scenario"] != first })
	at := []int{0, len(rows) / 2, len(rows) - 1}
	for i, bulk := range []string{"1", record.AnswerBulk, "64"} {
		if n := slices.IndexFunc(rows, func(r record.BenchRow) bool { return r.Labels["bulk"] == bulk }); n >= 0 {
			at[i] = n
		}
	}
	slices.Sort(at)
	for _, i := range slices.Compact(at) {
		r := rows[i]
		if doc.Host.Emulated() {
			r.Hop = nil
		}
		out = append(out, Rate{r.Labels["bulk"], r.Mpps, r.Ns, r.Hop, r.Refused})
	}
	return out
}

// newPath is the redirect path of a record's stages.
func newPath(doc *record.Document[record.BenchRow]) Path {
	p := Path{Bulk: record.AnswerBulk, Unsure: doc.Profile != nil && doc.Profile.CannotTell != ""}
	if _, bulk, ok := strings.Cut(doc.Settings["profiled"], "bulk="); ok {
		p.Bulk, _, _ = strings.Cut(bulk, "/")
	}
	for _, row := range doc.Stages {
		if row.Ns == nil || !(row.Ns.Median > 0) {
			continue
		}
		switch functions.Stage(row.Name).Group() {
		case functions.GroupPath:
			p.Stages = append(p.Stages, Stage{row.Name, row.Ns})
			p.Total += row.Ns.Median
		case functions.GroupShared:
			p.Beside = append(p.Beside, Stage{row.Name, row.Ns})
		}
	}
	return p
}

// claim are the sentences of the answer.
func (a *Answer) claim(doc *record.Document[record.BenchRow]) []string {
	if doc.Host.Emulated() {
		return []string{"What " + a.Of + " costs was not measured: the CPU is emulated, and its times say nothing of hardware."}
	}
	if a.Redirect == nil {
		said := []string{"What " + a.Of + " costs here was not measured: " + noCost(doc) + "."}
		if a.Tax == nil {
			return said
		}
		return append(said, a.taxClaim(doc)...)
	}
	ns := "ns a packet"
	if a.Of != "a redirect" {
		ns = "ns"
	}
	of := strings.ToUpper(a.Of[:1]) + a.Of[1:]
	cost := fmt.Sprintf("%s costs %s %s on one core, in bulks of %s.", of, stat.Number(a.Redirect.Median), ns, a.Bulk)
	switch half, ok := halfWidth(a.Redirect); {
	case !ok:
	case a.Redirect.Low <= 0:
		cost = fmt.Sprintf("What %s costs cannot be told: %s a packet, in bulks of %s.",
			a.Of, a.Redirect.Text(stat.Number), a.Bulk)
	case half > unsure:
		cost = fmt.Sprintf("%s costs between %s and %s %s on one core, in bulks of %s: the rounds differ too much to say more.",
			of, stat.Number(a.Redirect.Low), stat.Number(a.Redirect.High), ns, a.Bulk)
	}
	return slices.Concat([]string{cost}, a.taxClaim(doc), a.returnClaim(doc))
}

// returnClaim says what return thunks take at most, where that is a tenth of a redirect or
// more.
func (a *Answer) returnClaim(doc *record.Document[record.BenchRow]) []string {
	thunk := doc.Host.ReturnThunk
	if thunk == "" || thunk == "ret" {
		return nil
	}
	if doc.Profile == nil || doc.Profile.Tax == nil {
		return []string{fmt.Sprintf("What return thunks (%s) take was not measured: unthunk profile does that.", thunk)}
	}
	most := doc.Profile.Tax.ReturnEntries
	if most == nil || !(most.Median >= a.Redirect.Median/10) {
		return nil
	}
	return []string{fmt.Sprintf("Return thunks (%s) may take up to %s ns of the redirect path.", thunk, stat.Number(most.Median))}
}

// unsure is the half-width of an interval, as a part of the median, from which on the
// interval is said in place of the median.
const unsure = 0.2

// noCost says why no row has the cost of a redirect.
func noCost(doc *record.Document[record.BenchRow]) string {
	for _, row := range doc.Rows {
		if row.Refused != "" && !doc.Incomplete {
			return row.Refused
		}
	}
	if doc.Incomplete {
		return "the run was stopped before its end"
	}
	if len(doc.Rows) == 0 {
		return "there are no rows"
	}
	return "no row is of a redirect and has the same test without one"
}

// taxClaim says what indirect calls take of a redirect, and whether the packets went there.
func (a *Answer) taxClaim(doc *record.Document[record.BenchRow]) []string {
	if a.Tax == nil {
		return []string{"What indirect calls take of it was not measured: " + a.noPrice(doc) + "."}
	}
	what := "Indirect calls"
	if strings.Contains(doc.Host.IndirectThunk, "retpoline") {
		what = "Retpolines"
	}
	if a.Share != nil && a.Share.Median >= 100 {
		return []string{fmt.Sprintf("What indirect calls take of it cannot be told: by their price %s, more than all of it.",
			a.Tax.Text(stat.Number))}
	}
	if a.Share == nil {
		return []string{fmt.Sprintf("%s take %s ns a packet.", what, a.Tax.Cost(stat.Number))}
	}
	return []string{takes(what, a.Tax, a.Share), whereTo(a.Share)}
}

// takes is the sentence of what indirect calls, or retpolines, take: tax is in ns a packet, share the
// percentage of a redirect.
func takes(what string, tax, share *stat.Quantity) string {
	least := percent(max(share.Low, 0) / 100)
	half, ok := halfWidth(share)
	var text string
	switch {
	case !tax.Seen() && (math.IsNaN(share.High) || tax.High <= 0):
		text = tax.Cost(stat.Number) + " ns of it."
	case !tax.Seen() && share.High < 100:
		text = fmt.Sprintf("%s ns of it, %s.", tax.Cost(stat.Number), fromZero(share.High/100))
	case tax.Seen() && (!ok || half <= unsure):
		text = fmt.Sprintf("%s ns of it, %s.", stat.Number(tax.Median), percent(share.Median/100))
	case share.High >= 100 && least == percent(0):
		return fmt.Sprintf("What %s take of it cannot be told: the rounds differ too much.", strings.ToLower(what))
	case share.High >= 100:
		text = least + " of it or more: the rounds differ too much to say."
	default:
		text = fmt.Sprintf("%s ns of it, %s to %s.", stat.Number(tax.Median), percent(share.Low/100), percent(share.High/100))
	}
	return what + " take " + text
}

// noPrice says why there is no price of the indirect calls of a redirect.
func (a *Answer) noPrice(doc *record.Document[record.BenchRow]) string {
	for _, row := range doc.Prices {
		if row.Name == "bpf-prog" && row.Refused != "" { // what all estimates take the price of a call from
			return row.Refused
		}
	}
	for _, w := range doc.Warnings {
		if why, ok := strings.CutPrefix(w.Text, "no prices: "); ok {
			return why
		}
	}
	if doc.Incomplete {
		return "the run was stopped before its end"
	}
	if len(doc.Prices) > 0 {
		return "there is no estimate at bulk " + a.Bulk
	}
	return "unthunk tax does that"
}

// whereTo says whether indirect calls are where the packets went, by their share of a
// redirect: below a tenth they are not, from a half on they are.
func whereTo(share *stat.Quantity) string {
	const little, much, most = 10, 25, 50
	class := func(x float64) int {
		switch {
		case x < little:
			return 0
		case x < much:
			return 1
		case x < most:
			return 2
		}
		return 3
	}
	low, high := class(share.Low), class(share.High) // of NaN: 3
	if math.IsNaN(share.Low) || math.IsNaN(share.High) {
		low, high = class(share.Median), class(share.Median)
	}
	if high-low > 1 {
		return "Whether they are where the packets went cannot be told."
	}
	return [...]string{
		"Indirect calls are not where the packets went.",
		"Indirect calls are a small part of where the packets went.",
		"Indirect calls are a large part of where the packets went.",
		"Indirect calls are where the packets went.",
	}[class(share.Median)]
}

// calls say the price of the indirect calls of a redirect at a bulk, and what those of 2018
// would cost: a call for each packet of ndo_xdp_xmit, of the program and of a map lookup.
func calls(prices []record.TaxRow, bulk string) (said []string) {
	row := priceRow(prices, "packet/bulk="+bulk)
	if row == nil || row.PerPacket == nil || !(row.PerPacket.Median > 0) {
		return nil
	}
	n := row.PerPacket.Median
	sum := row.Price.Cost(stat.Number) + " ns"
	if half, ok := halfWidth(row.Price); ok && half > unsure && row.Price.Seen() {
		sum = row.Price.Text(stat.Number)
	}
	said = append(said, fmt.Sprintf("%s a packet × %s ns = %s", trimmed(n), row.Price.Times(1/n).Cost(stat.Number), sum))
	if old := priceRow(prices, "packet/2018"); old != nil && old.PerPacket != nil {
		said = append(said, fmt.Sprintf("the %s of 2018: %s ns", trimmed(old.PerPacket.Median),
			old.Price.Cost(stat.Number)))
	}
	return said
}

// trimmed is a count with at most two digits behind the point, three below 1.
func trimmed(x float64) string {
	digits := 100.0
	if x < 1 {
		digits = 1000
	}
	return strconv.FormatFloat(math.Round(digits*x)/digits, 'f', -1, 64)
}

// trust says how sure the answer is, what bears on it most first. row is the one that it is
// about.
func trust(doc *record.Document[record.BenchRow], row *record.BenchRow) (said []string) {
	if row != nil {
		rounds := many(len(row.Rounds), "round")
		if half, ok := halfWidth(row.Hop); ok {
			rounds += ", ±" + percent(half)
		} else {
			rounds += ", too few for an interval"
		}
		said = append(said, rounds)
	}
	for _, w := range doc.Warnings {
		// Steal is among what the machine was where the rounds have it.
		if strings.Contains(w.Text, "interval needs") { // the first clause says so
			continue
		}
		steal := strings.HasPrefix(w.Text, "the hypervisor took") && len(doc.References) == 0
		if steal || strings.HasPrefix(w.Text, "no stages: ") || row != nil && w.Row == row.Name {
			said = append(said, w.Text)
		}
	}
	if doc.Host.Emulated() {
		said = append(said, "times are those of QEMU")
	}
	said = append(said, machineWas(doc)...)
	if p := doc.Profile; p != nil && p.Sampling.Event == "cpu-clock" {
		said = append(said, "stages estimated (no PMU)")
	}
	if p := doc.Profile; p != nil && p.CannotTell != "" {
		said = append(said, "stages are no answer (-v says why)")
	}
	return said
}

// machineWas is what the core under test ran at while the rates were taken, and how much of
// its time others had; nothing in records of versions that did not look.
func machineWas(doc *record.Document[record.BenchRow]) (said []string) {
	words := map[string]string{record.CoreClock: "clock", record.Steal: "steal %s", record.OtherTasks: "other tasks %s of the CPU"}
	for _, r := range doc.References {
		if words[r.Name] == "" || r.Part != "" || len(r.Samples) == 0 {
			continue
		}
		if r.Name == record.CoreClock {
			clock, most := fmt.Sprintf("clock %.2f", slices.Min(r.Samples)), fmt.Sprintf("%.2f", slices.Max(r.Samples))
			if !strings.HasSuffix(clock, most) {
				clock += " to " + most
			}
			said = append(said, clock+" GHz")
			continue
		}
		said = append(said, fmt.Sprintf(words[r.Name], percent(mean(r.Samples)/100)))
	}
	if clock := doc.Settings["core-clock"]; clock != "" && len(said) == 0 {
		said = append(said, "clock "+clock)
	}
	return said
}

func mean(xs []float64) float64 {
	sum := 0.0
	for _, x := range xs {
		sum += x
	}
	return sum / float64(len(xs))
}

// halfWidth is half of an interval as a part of the median.
func halfWidth(q *stat.Quantity) (half float64, ok bool) {
	half = (q.High - q.Low) / 2 / q.Median
	return half, cmp.Compare(half, 0) >= 0 && !math.IsInf(half, 0)
}
