package profile

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// maxStacks is how many call chains a record holds.
const maxStacks = 20_000

// Record turns what was measured into a record without head: rows, functions,
// stacks, and warnings. price is that of one indirect call in ns, nil when none was
// measured.
func (raw *Raw) Record(price *stat.Quantity) *record.Profile {
	p := &record.Profile{}
	p.Incomplete = raw.Incomplete
	p.Rows, p.Warnings = []record.ProfileRow{}, []record.Warning{}
	p.Functions, p.Counters, p.Stacks = []record.ProfileFunction{}, []record.ProfileCounter{}, []record.ProfileStack{}
	warn := func(format string, args ...any) {
		p.Warnings = append(p.Warnings, record.Warning{Text: fmt.Sprintf(format, args...)})
	}
	raw.sampling(p)
	if raw.Event == perf.Clock {
		warn("no PMU: a timer takes the samples, and code that runs with interrupts off shows where they come on again; " +
			"cycles are those of the time stamp counter")
	}
	if text := raw.Slots.Warning(); text != "" {
		warn("%s", text)
	}
	if len(raw.Rounds) == 0 || raw.Slots.Unusable() {
		return p
	}
	v := raw.view()
	p.Packet = v.mean(v.packet)
	p.Rows = v.rows()
	p.Functions = v.functions()
	p.Stacks = v.stacks()
	p.Counters = v.counters()
	if raw.PathError != nil {
		warn("no line on indirect branches: %v", raw.PathError)
	} else if raw.Path != nil {
		p.Tax = v.tax(price)
	}
	if text := raw.Outcome.Warning(); text != "" {
		warn("%s", text)
	}
	if raw.Lost > 0 {
		warn("%d samples were lost: the ring buffer was full", raw.Lost)
	}
	if raw.Throttled > 0 {
		warn("the kernel slowed sampling down %d times: lower --rate", raw.Throttled)
	}
	if raw.Bad > 0 {
		warn("%d records of the ring buffer made no sense", raw.Bad)
	}
	if q := p.Sampling.Throughput; q != nil && q.High < minThroughput {
		warn("sampling took %.1f %% of the throughput: lower --rate", 100-q.Median)
	}
	if row := p.Rows[len(p.Rows)-1]; abs(row.Ns.Median) > maxUnattributed*p.Packet.Median {
		warn("%.0f %% of the time is unattributed: samples are missing", 100*row.Ns.Median/p.Packet.Median)
	}
	return p
}

const (
	// minThroughput is the least that sampling may leave, in percent; that it
	// leaves less has to be certain.
	minThroughput = 98
	// maxUnattributed is the largest share of a packet that goes without saying.
	maxUnattributed = 0.05
)

func abs(x float64) float64 { return max(x, -x) }

func (raw *Raw) sampling(p *record.Profile) {
	p.Sampling = record.Sampling{
		Event: raw.Event.Name, Rate: raw.Rate, CPUs: raw.CPUs,
		Lost: int(raw.Lost), Throttled: raw.Throttled,
	}
	for _, s := range raw.Stacks {
		p.Sampling.Samples += s.Samples
	}
	var plain, sampled []float64
	for _, r := range raw.Rounds {
		p.Sampling.Packets += r.Packets
		if r.PlainNs > 0 {
			plain, sampled = append(plain, r.PlainNs), append(sampled, r.SampledNs)
		}
	}
	if len(plain) > 0 {
		d := stat.Paired(sampled, plain) // ns with sampling to ns without: as rates, the other way round
		p.Sampling.Throughput = &stat.Quantity{
			Median: 100 + d.Median, Low: 100 + d.Low, High: 100 + d.High, N: d.N, Unit: "percent",
		}
	}
}

// view is what was measured, in ns per packet.
type view struct {
	*Raw
	packet []float64 // by round
	// work is the share of the time that is not sampling's own: a sample stands
	// for its period less what taking it took.
	work float64
}

func (raw *Raw) view() view {
	v := view{Raw: raw, work: 1}
	if !raw.DevicePair { // idle CPUs take samples for nothing
		v.work -= max(overhead(raw.Rounds), 0)
	}
	for _, r := range raw.Rounds {
		v.packet = append(v.packet, r.Ns/float64(r.Packets))
	}
	return v
}

// overhead is the share of the time that sampling took.
func overhead(rounds []Round) float64 {
	var shares []float64
	for _, r := range rounds {
		if r.PlainNs > 0 {
			shares = append(shares, 1-r.PlainNs/r.SampledNs)
		}
	}
	if len(shares) == 0 {
		return 0
	}
	return stat.Median(shares)
}

func (v view) mean(perRound []float64) *stat.Quantity {
	q := stat.Mean(perRound, "ns")
	if slices.Min(perRound) >= 0 { // times: no mean of them is below 0
		q.Low = max(q.Low, 0)
	}
	return &q
}

// sum adds up what stacks stand for, in ns per packet by round.
func (v view) sum(stacks []*Stack) []float64 {
	out := make([]float64, len(v.Rounds))
	for _, s := range stacks {
		v.add(out, s)
	}
	return out
}

func (v view) add(to []float64, s *Stack) {
	for i := range to {
		to[i] += s.Ns[i] / float64(v.Rounds[i].Packets) * v.work
	}
}

// rows are the stages that took any time, in order, and what is unattributed.
func (v view) rows() []record.ProfileRow {
	byStage := make(map[functions.Stage][]*Stack)
	for _, s := range v.Stacks {
		byStage[s.Stage] = append(byStage[s.Stage], s)
	}
	numbers := make([]int, len(v.Rounds))
	rest := slices.Clone(v.packet)
	for i, r := range v.Rounds {
		numbers[i] = r.Number
	}
	rows := []record.ProfileRow{}
	add := func(stage functions.Stage, ns []float64) {
		rows = append(rows, record.ProfileRow{Name: string(stage), Ns: v.mean(ns), Samples: ns, Rounds: numbers})
	}
	for _, stage := range functions.Stages() {
		ns := v.sum(byStage[stage])
		switch {
		case stage == functions.StageUnattributed:
			ns = rest
		case stage == functions.StageObserver:
			for i := range ns {
				ns[i] += v.packet[i] * (1 - v.work)
			}
		case len(byStage[stage]) == 0:
			continue
		}
		if stage != functions.StageUnattributed {
			for i := range rest {
				rest[i] -= ns[i]
			}
		}
		add(stage, ns)
	}
	return rows
}

// functions are those that samples fell into. The stage of one is where it took
// most.
func (v view) functions() []record.ProfileFunction {
	type function struct {
		stacks []*Stack
		stages map[string]float64
	}
	byName := make(map[string]*function)
	for _, s := range v.Stacks {
		name := cmp.Or(s.innermost(), "[unknown]")
		if len(s.Frames) == 0 {
			name = "[user]"
		}
		f := byName[name]
		if f == nil {
			f = &function{stages: make(map[string]float64)}
			byName[name] = f
		}
		f.stacks = append(f.stacks, s)
		f.stages[string(s.Stage)] += total(s.Ns)
	}
	var out []record.ProfileFunction
	for name, f := range byName {
		row := record.ProfileFunction{Name: name, Ns: v.mean(v.sum(f.stacks)), Stage: largest(f.stages)}
		for _, s := range f.stacks {
			row.Samples += s.Samples
		}
		out = append(out, row)
	}
	slices.SortFunc(out, func(a, b record.ProfileFunction) int {
		return cmp.Or(cmp.Compare(b.Ns.Median, a.Ns.Median), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func largest(m map[string]float64) (best string) {
	for name, x := range m {
		if best == "" || x > m[best] || x == m[best] && name < best {
			best = name
		}
	}
	return best
}

// stacks are the call chains by function, without offsets.
func (v view) stacks() []record.ProfileStack {
	type key struct{ stage, frames string }
	index := make(map[key]int)
	var out []record.ProfileStack
	for _, s := range v.Stacks {
		var frames []string
		for _, f := range s.Frames {
			frames = append(frames, cmp.Or(f.Function, "[unknown]"))
		}
		slices.Reverse(frames)
		if len(frames) == 0 {
			frames = []string{"[user]"}
		}
		k := key{string(s.Stage), fmt.Sprintf("%q", frames)}
		i, ok := index[k]
		if !ok {
			i = len(out)
			index[k] = i
			out = append(out, record.ProfileStack{Frames: frames, Stage: string(s.Stage)})
		}
		out[i].Samples += s.Samples
		out[i].Ns += stat.Mean(v.sum([]*Stack{s}), "ns").Median
	}
	slices.SortStableFunc(out, func(a, b record.ProfileStack) int { return cmp.Compare(b.Ns, a.Ns) })
	return out[:min(len(out), maxStacks)]
}

// counters are what a PMU counted, or cycles of the time stamp counter.
func (v view) counters() []record.ProfileCounter {
	out := []record.ProfileCounter{}
	for _, name := range v.Counted {
		var each []float64
		for _, r := range v.Rounds {
			if n, ok := r.Events[name]; ok {
				each = append(each, n)
			}
		}
		if len(each) > 0 {
			q := stat.Mean(each, "events")
			out = append(out, record.ProfileCounter{Name: name, PerPacket: &q})
		}
	}
	if len(out) == 0 && v.TSCRate > 0 && !v.DevicePair {
		var each []float64
		for _, ns := range v.packet {
			each = append(each, ns*v.work*v.TSCRate/1e9)
		}
		q := stat.Mean(each, "events")
		out = append(out, record.ProfileCounter{Name: "tsc-cycles", PerPacket: &q})
	}
	return out
}

// instructions are ns per packet of a function's instructions, by offset.
func (raw *Raw) instructions(function string) map[uint64]float64 {
	out := make(map[uint64]float64)
	if len(raw.Rounds) == 0 {
		return out
	}
	v := raw.view()
	for _, s := range raw.Stacks {
		if s.innermost() == function {
			out[s.Frames[0].Offset] += stat.Mean(v.sum([]*Stack{s}), "ns").Median
		}
	}
	return out
}
