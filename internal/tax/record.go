package tax

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Record turns what was measured into rows, the estimates for a whole packet
// last, and warnings.
func (raw *Raw) Record() ([]record.TaxRow, []record.Warning) {
	var warns []record.Warning
	if !raw.Incomplete && raw.Rounds < raw.Planned {
		warns = append(warns, record.Warning{Text: fmt.Sprintf("%d of %d rounds fitted into the duration", raw.Rounds, raw.Planned)})
	}
	rows := []record.TaxRow{}
	for i := range raw.Pairs {
		row := raw.row(&raw.Pairs[i])
		rows = append(rows, row)
		if row.Refused != "" {
			continue
		}
		warn := func(format string, args ...any) {
			warns = append(warns, record.Warning{Row: row.Name, Text: fmt.Sprintf(format, args...)})
		}
		for _, text := range stat.Warnings(row.Samples) {
			warn("%s", text)
		}
		if p := &raw.Pairs[i]; p.With.kind() == treeKind && !p.foldable() {
			warn(fewFillings, p.filled())
		}
		if raw.Observed && raw.Pairs[i].With.kind() == chainKind {
			warn("others' programs are at the tracepoint %s: each packet pays for them", observed)
		}
		if row.Name == "control" && (row.Price.Low > 0 || row.Price.High < 0) {
			warn("the control is not 0: prices of programs may be off by as much; one run in 20 shows this by chance")
		}
	}
	packets := raw.packets()
	for i := range raw.Pairs {
		if p := &raw.Pairs[i]; p.Name == Thunk && !p.foldable() {
			for _, row := range packets {
				warns = append(warns, record.Warning{Row: row.Name, Text: fmt.Sprintf(fewFillings, p.filled())})
			}
		}
	}
	return append(rows, packets...), warns
}

// fewFillings warns of an interval that knows of few fillings of the dispatcher.
const fewFillings = "fillings of the dispatcher: %d; what changes from one to the next is not in the interval"

// atAnyClock widens the interval of a price by what the core's clock did from round
// to round: it will do as much from this run to the next, and moves all prices
// alike, so the rounds of one run do not tell.
func (raw *Raw) atAnyClock(price stat.Quantity) stat.Quantity {
	n := float64(len(raw.CoreClock))
	if n < 2 {
		return price
	}
	sum, squares := 0.0, 0.0
	for _, hz := range raw.CoreClock {
		sum += hz
	}
	for _, hz := range raw.CoreClock {
		squares += (hz*n/sum - 1) * (hz*n/sum - 1)
	}
	clock := 1.96 * math.Sqrt(squares/(n-1)) * price.Median
	price.Low = price.Median - math.Hypot(price.Median-price.Low, clock)
	price.High = price.Median + math.Hypot(price.High-price.Median, clock)
	return price
}

// Clock is what the core under test ran at, in words: the median of all rounds, the
// slowest and the fastest. It is empty when that was not measured.
func (raw *Raw) Clock() string {
	if len(raw.CoreClock) == 0 {
		return ""
	}
	ghz := func(q float64) float64 { return stat.Quantile(raw.CoreClock, q) / 1e9 }
	return fmt.Sprintf("%.2f GHz (%.2f to %.2f)", ghz(0.5), ghz(0), ghz(1))
}

func (raw *Raw) row(p *RawPair) record.TaxRow {
	family, variant, _ := strings.Cut(p.Name, "/")
	row := record.TaxRow{
		Name:    p.Name,
		Labels:  map[string]string{"pair": family, "variant": variant},
		Calls:   p.Calls,
		Premise: p.Premise,
		Note:    p.Note,
		Refused: p.Refused,
		Samples: []float64{},
		Rounds:  []int{},
	}
	if row.Refused == "" && len(p.Rounds) == 0 {
		row.Refused = cmp.Or(p.failure, "not measured: the run ended before it")
	}
	if row.Refused != "" {
		return row
	}
	rounds, with, without := p.folded()
	row.Samples, row.Rounds = differences(with, without), rounds
	row.With, row.Without = summary(with, "ns"), summary(without, "ns")
	price := raw.atAnyClock(stat.Shift(with, without, "ns"))
	row.Price = &price
	if raw.TSCRate > 0 {
		row.Cycles = scaled(price, raw.TSCRate/1e9, "cycles")
	}
	if n, ok := raw.perPacket(p.Pair); ok {
		row.PerPacket = exactly(n, "calls")
		row.NsPerPacket = scaled(price, n, "ns")
		if p.PerPacket == xmitsSaved {
			row.NsPerPacket, row.Note = raw.split(p, n, price)
		}
	}
	return row
}

// differences are a less b, one by one.
func differences(a, b []float64) []float64 {
	ds := make([]float64, len(a))
	for i := range ds {
		ds[i] = a[i] - b[i]
	}
	return ds
}

// filled is how often the dispatcher was filled for a pair.
func (p *RawPair) filled() int { return len(slices.Compact(slices.Clone(p.Rounds))) }

// foldable tells whether there are rounds enough for one number each.
func (p *RawPair) foldable() bool { return p.filled() >= stat.MinRounds }

// folded are the two sides, one number a round: what a round has more of is alike,
// and would pass for certainty that there is not. With too few rounds each number
// counts as one.
func (p *RawPair) folded() (rounds []int, with, without []float64) {
	if !p.foldable() {
		for i := range p.Rounds {
			rounds = append(rounds, i)
		}
		return rounds, p.WithNs, p.WithoutNs
	}
	for from := 0; from < len(p.Rounds); {
		to := from
		for to < len(p.Rounds) && p.Rounds[to] == p.Rounds[from] {
			to++
		}
		rounds = append(rounds, p.Rounds[from])
		with = append(with, stat.Median(p.WithNs[from:to]))
		without = append(without, stat.Median(p.WithoutNs[from:to]))
		from = to
	}
	return rounds, with, without
}

// perPacket is how often a pair's call runs for a packet on the measured path.
func (raw *Raw) perPacket(p Pair) (float64, bool) {
	switch p.PerPacket {
	case onceEach:
		return 1, true
	case notOnPath:
		return 0, true
	case tracepointHits:
		calls, ok := raw.Calls[p.With.(onChain).bulk]
		return calls.Redirects, ok
	case programCalls:
		return raw.Outside, len(raw.Calls) > 0
	case xmitsSaved:
		one, ok := raw.Calls[p.With.(onChain).bulk]
		bulk, ok2 := raw.Calls[p.Without.(onChain).bulk]
		return one.Xmits - bulk.Xmits, ok && ok2
	}
	return 0, false
}

// split is what of the price of not bulking the indirect calls saved account for,
// in ns per packet, and that in words.
func (raw *Raw) split(p *RawPair, saved float64, price stat.Quantity) (calls *stat.Quantity, note string) {
	thunk := raw.thunk()
	if len(thunk) == 0 {
		return nil, fmt.Sprintf("%.2f ndo_xdp_xmit calls a packet fewer; what a call costs was not measured", saved)
	}
	calls = scaled(raw.atAnyClock(stat.Location(thunk, "ns")), saved, "ns")
	note = fmt.Sprintf("%.2f calls a packet fewer account for %.1f ns of it, %.0f %%; the rest is locks, doorbell, softirq",
		saved, calls.Median, 100*calls.Median/price.Median)
	if polls := raw.Calls[p.With.(onChain).bulk].Polls - raw.Calls[p.Without.(onChain).bulk].Polls; polls > 0 {
		note += fmt.Sprintf(", and %.2f NAPI polls fewer, which are called indirectly too", polls)
	}
	return calls, note
}

// thunk is the price of one indirect call, round by round.
func (raw *Raw) thunk() []float64 {
	for i := range raw.Pairs {
		if p := &raw.Pairs[i]; p.Name == Thunk && p.Refused == "" {
			_, with, without := p.folded()
			return differences(with, without)
		}
	}
	return nil
}

// ladderTop is the bulk whose hop the calls of 2018 are put on: what is left of
// it when nothing is called one by one.
const ladderTop = 64

// In 2018, before anything of it was bulked or made direct, a redirected packet
// made these indirect calls, as the mail that began this counts them: of the
// program, of a map lookup in it, and ndo_xdp_xmit. A NIC's DMA calls come on
// top; a veth makes none.
const calls2018 = 3

// packets are the estimates: what a redirected packet pays for indirect calls at
// each bulk, and what it would pay with those of 2018.
func (raw *Raw) packets() []record.TaxRow {
	thunk := raw.thunk()
	if len(thunk) == 0 {
		return nil
	}
	var rows []record.TaxRow
	for _, bulk := range slices.Sorted(maps.Keys(raw.Hop)) {
		hop, calls := raw.Hop[bulk], raw.Calls[bulk]
		made, xmits := raw.Outside, 0.0
		note := []string{fmt.Sprintf("programs outside the dispatcher %.0f", raw.Outside)}
		var found []string
		for _, call := range pathCalls {
			premise, ok := raw.Path[call.name]
			if !ok {
				continue
			}
			n := call.of(calls)
			made += n
			if call.name == "ndo_xdp_xmit" {
				xmits = n
			}
			note = append(note, fmt.Sprintf("%s %.2f", call.name, n))
			found = append(found, premise)
		}
		row := raw.packet(fmt.Sprintf("packet/bulk=%d", bulk), hop, thunk, made, made)
		row.Note, row.Premise = strings.Join(note, ", "), strings.Join(found, ", ")
		rows = append(rows, row)
		if bulk == ladderTop {
			row := raw.packet("packet/2018", hop, thunk, made, made-xmits-raw.Outside+calls2018)
			row.Note = "ndo_xdp_xmit, the program, and a map lookup in it, for each packet: this machine's hop at bulk 64 with those calls"
			rows = append(rows, row)
		}
	}
	return rows
}

// packet estimates a packet that makes calls indirect calls, by a hop that was
// measured with made of them. Hops and prices are of different rounds and do not
// depend on each other, so any pairing of them is a sample of the estimate.
func (raw *Raw) packet(name string, hop, thunk []float64, made, calls float64) record.TaxRow {
	var with, without, price []float64
	var rounds []int
	for i := range min(len(hop), len(thunk)) {
		with = append(with, hop[i]+(calls-made)*thunk[i])
		without = append(without, hop[i]-made*thunk[i])
		price = append(price, calls*thunk[i])
		rounds = append(rounds, i)
	}
	q := raw.atAnyClock(stat.Location(price, "ns"))
	return record.TaxRow{
		Name:    name,
		Labels:  map[string]string{"pair": "packet", "variant": strings.TrimPrefix(name, "packet/")},
		Calls:   "all indirect calls of a redirected packet: an estimate, calls times the price of " + Thunk,
		With:    summary(with, "ns"),
		Without: summary(without, "ns"),
		Price:   &q, PerPacket: exactly(calls, "calls"), NsPerPacket: &q,
		Samples: price, Rounds: rounds,
	}
}

func summary(xs []float64, unit string) *stat.Quantity {
	q := stat.Summarize(xs, unit)
	return &q
}

// exactly is a count without scatter.
func exactly(x float64, unit string) *stat.Quantity {
	return &stat.Quantity{Median: x, Low: x, High: x, N: 1, Unit: unit}
}

func scaled(q stat.Quantity, by float64, unit string) *stat.Quantity {
	q.Median, q.Low, q.High, q.Unit = q.Median*by, q.Low*by, q.High*by, unit
	return &q
}

// Sum is the closing line: what the estimates for a packet at bulk 16, and with
// the calls of 2018, add up to. It is empty when there are none.
func Sum(rows []record.TaxRow) string {
	var parts []string
	for _, row := range rows {
		if row.Price == nil {
			continue
		}
		switch row.Name {
		case "packet/bulk=16":
			parts = append(parts, "At bulk 16 a redirect makes "+adds(row))
		case "packet/2018":
			parts = append(parts, "With a call for each packet of ndo_xdp_xmit, of the program and of a map lookup, as in 2018, and all else bulked as it is at 64, it would make "+adds(row))
		}
	}
	return strings.Join(parts, " ")
}

func adds(row record.TaxRow) string {
	around := ""
	if !math.IsNaN(row.Price.Low) {
		around = fmt.Sprintf(" [%.1f, %.1f]", row.Price.Low, row.Price.High)
	}
	calls := row.PerPacket.Median
	return fmt.Sprintf("%.2f indirect calls at %.1f ns each: %.1f ns%s of its %.0f ns, %.1f %%; with none it would take %.0f ns.",
		calls, row.Price.Median/calls, row.Price.Median, around, row.With.Median, 100*row.Price.Median/row.With.Median, row.Without.Median)
}
