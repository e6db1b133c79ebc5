package profile

import (
	"cmp"
	"fmt"
	"math"
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
	if raw.NoReferences != "" {
		warn("%s", raw.NoReferences)
	}
	if len(raw.Rounds) == 0 || raw.Slots.Unusable() {
		p.CannotTell = raw.nothing()
		return p
	}
	v := raw.view()
	if total(v.packet) <= 0 {
		p.CannotTell = "no sample was of a packet’s work"
		return p
	}
	p.Packet = positive(v.packet, "ns") // though in single rounds other work may seem to have had more than all of it
	p.Rows = v.rows()
	p.Functions = v.functions()
	p.Lines = v.lines()
	if len(p.Lines) > 0 && raw.NoRuns != "" {
		warn("runs of source lines are not counted: %.300s", raw.NoRuns)
	}
	p.Stacks = v.stacks()
	p.Counters = v.counters()
	p.Outside = v.outsides()
	p.Undisturbed = v.undisturbed()
	if raw.PathError != nil {
		warn("no line on indirect branches: %v", raw.PathError)
	} else if raw.Path != nil {
		p.Tax = v.tax(price)
	}
	if text := raw.Outcome.Warning(); text != "" {
		warn("%s", text)
	}
	raw.warnSampling(warn, p.Sampling.Throughput)
	if row := p.Rows[len(p.Rows)-1]; row.Name == record.Unattributed && abs(row.Ns.Median) > maxUnattributed*p.Packet.Median {
		warn("%.0f %% of the time is unattributed: samples are missing", 100*row.Ns.Median/p.Packet.Median)
	}
	p.CannotTell = raw.unsteady(p.Packet)
	return p
}

// warnSampling says what went wrong with taking samples. Only a rate that was asked for
// can be lowered.
func (raw *Raw) warnSampling(warn func(string, ...any), throughput *stat.Quantity) {
	cure := ""
	if raw.RateGiven {
		cure = ": lower --rate"
	}
	if raw.Lost > 0 {
		warn("%d samples were lost: the ring buffer was full", raw.Lost)
	}
	if raw.NoRoom > 0 {
		warn("%d samples were left out: more than %d distinct call chains, or %d places in them; a shorter --duration has fewer",
			raw.NoRoom, maxChains, maxFrames)
	}
	if raw.Throttled > 0 {
		warn("the kernel slowed sampling down %d times%s", raw.Throttled, cure)
	}
	if raw.RateWanted > 0 {
		warn("%d samples a second in place of %d: the kernel allows no more (kernel.perf_event_max_sample_rate)", raw.Rate, raw.RateWanted)
	}
	for _, name := range raw.silent() {
		warn("no %s: the PMU takes the event and counts nothing", name)
	}
	if raw.Bad > 0 {
		warn("%d records of the ring buffer made no sense", raw.Bad)
	}
	if throughput != nil && throughput.High < minThroughput && raw.RateGiven {
		warn("sampling took %.1f %% of the throughput%s", 100-throughput.Median, cure)
	}
}

// nothing is why there is no number at all.
func (raw *Raw) nothing() string {
	switch {
	case raw.Slots.Unusable():
		return "packet counts disagreed in too many slots"
	case raw.Crowded > 0:
		return "other tasks ran on the CPU in every window: stop them, or choose another CPU with --cpu"
	case raw.DevicePair && !raw.Incomplete:
		return "no packet was redirected"
	}
	return ""
}

// unsteady is why the time of a packet cannot be told from what was measured.
func (raw *Raw) unsteady(packet *stat.Quantity) string {
	if crowded := raw.Crowded; crowded > len(raw.Rounds) {
		return fmt.Sprintf("other tasks ran on the CPU in every window of %d of %d rounds: stop them, or choose another "+
			"CPU with --cpu", crowded, crowded+len(raw.Rounds))
	}
	switch half := (packet.High - packet.Low) / 2; {
	case math.IsNaN(half):
		return "there are too few rounds to know how sure the figures are"
	case half > maxUnsteady*packet.Median:
		return fmt.Sprintf("a packet’s time is uncertain by ±%.0f %%, as the rounds differ: measure for longer, or while the "+
			"machine does nothing else", 100*half/packet.Median)
	}
	return ""
}

const (
	// minThroughput is the least that sampling may leave, in percent; that it
	// leaves less has to be certain.
	minThroughput = 98
	// maxUnsteady is the largest half of the interval of a packet's time, as a share of
	// that, with which the run has an answer.
	maxUnsteady = 0.1
	// maxUnattributed is the largest share of a packet that goes without saying.
	maxUnattributed = 0.05
)

func abs(x float64) float64 { return max(x, -x) }

func (raw *Raw) sampling(p *record.Profile) {
	p.Sampling = record.Sampling{
		Event: raw.Event.Name, Rate: raw.Rate, CPUs: raw.CPUs,
		Lost: int(raw.Lost) + raw.NoRoom, Throttled: raw.Throttled,
	}
	for _, s := range raw.Stacks {
		if s.packets() {
			p.Sampling.Samples += s.Samples
		}
	}
	var plain, sampled []float64
	for _, r := range raw.Rounds {
		p.Sampling.Packets += r.Packets
		p.Sampling.Windows += r.Windows
		p.Sampling.LeftOut += r.LeftOut
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
	// own are the stacks of the packet's work.
	own    []*Stack
	packet []float64 // by round
	// work is the share of the time that is not sampling's own: a sample stands
	// for its period less what taking it took.
	work float64
}

func (raw *Raw) view() view {
	v := view{Raw: raw, work: 1}
	for _, s := range raw.Stacks {
		if s.packets() {
			v.own = append(v.own, s)
		}
	}
	if raw.DevicePair { // idle CPUs take samples for nothing
		v.packet = v.sum(v.own)
		return v
	}
	v.work -= max(overhead(raw.Rounds), 0)
	for _, r := range raw.Rounds {
		v.packet = append(v.packet, r.Ns/float64(r.Packets)*v.work)
	}
	for _, s := range raw.Stacks {
		if s.Outside != Inside && !s.Disturbed {
			for i, r := range raw.Rounds {
				v.packet[i] -= s.Ns[i] / float64(r.Packets) * v.work
			}
		}
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
	if slices.Min(perRound) >= 0 { // times
		return positive(perRound, "ns")
	}
	q := stat.Mean(perRound, "ns")
	return &q
}

// positive is the mean of times or counts. The mean cannot be below 0, so its interval ends there: Student's goes on
// where the rounds scatter much.
func positive(perRound []float64, unit string) *stat.Quantity {
	q := stat.Mean(perRound, unit)
	q.Low = max(q.Low, 0)
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

// rows are the stages that took any time, in order, and what is unattributed: of real
// devices that of code without a name, as samples are all that is known of time.
func (v view) rows() []record.ProfileRow {
	byStage := make(map[functions.Stage][]*Stack)
	for _, s := range v.own {
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
		case stage == functions.StageUnattributed && !v.DevicePair:
			ns = rest
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
	for _, s := range v.own {
		name := cmp.Or(s.innermost(), "[unknown]")
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
	for _, s := range v.own {
		var frames []string
		for _, f := range s.Frames {
			frames = append(frames, cmp.Or(f.Function, "[unknown]"))
		}
		slices.Reverse(frames)
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

// silent are events of the PMU that counted nothing in any round: a PMU may take an event that it does not have, and a packet
// takes some of each.
func (raw *Raw) silent() (names []string) {
	for _, name := range raw.Counted {
		seen, counted := false, false
		for _, r := range raw.Rounds {
			n, ok := r.Events[name]
			seen, counted = seen || ok, counted || n > 0
		}
		if seen && !counted {
			names = append(names, name)
		}
	}
	return names
}

// counters are what a PMU counted, or cycles of the time stamp counter.
func (v view) counters() []record.ProfileCounter {
	out := []record.ProfileCounter{}
	silent := v.silent()
	for _, name := range v.Counted {
		if slices.Contains(silent, name) {
			continue
		}
		var each []float64
		for _, r := range v.Rounds {
			if n, ok := r.Events[name]; ok {
				each = append(each, n)
			}
		}
		if len(each) > 0 {
			out = append(out, record.ProfileCounter{Name: name, PerPacket: positive(each, "events")})
		}
	}
	if len(out) == 0 && v.TSCRate > 0 && !v.DevicePair {
		var each []float64
		for _, ns := range v.packet {
			each = append(each, ns*v.TSCRate/1e9)
		}
		out = append(out, record.ProfileCounter{Name: "tsc-cycles", PerPacket: positive(each, "events")})
	}
	return out
}

// outsides is how much of the CPU's time each kind of work had that is no packet's, in
// percent. Windows that are left out count here: other tasks are why they are.
func (v view) outsides() []record.ProfileOutside {
	out := []record.ProfileOutside{}
	for _, name := range Outsides() {
		shares := make([]float64, len(v.Rounds))
		for _, s := range v.Stacks {
			if s.Outside == name {
				for i := range shares {
					shares[i] += 100 * s.Ns[i] / v.Rounds[i].CPUNs * v.work
				}
			}
		}
		if name == Sampling {
			for i := range shares {
				shares[i] += 100 * (1 - v.work)
			}
		}
		if slices.Max(shares) > 0 {
			out = append(out, record.ProfileOutside{Name: string(name), Share: positive(shares, "percent")})
		}
	}
	return out
}

// undisturbed is ns per packet as bench counts it; nil when that is not known.
func (v view) undisturbed() *stat.Quantity {
	var each []float64
	for _, r := range v.Rounds {
		if r.Undisturbed > 0 {
			each = append(each, r.Undisturbed)
		}
	}
	if len(each) == 0 {
		return nil
	}
	q := stat.Summarize(each, "ns")
	return &q
}

// instructions are ns per packet of a function's instructions, by offset.
func (raw *Raw) instructions(function string) map[uint64]float64 {
	out := make(map[uint64]float64)
	if len(raw.Rounds) == 0 {
		return out
	}
	v := raw.view()
	for _, s := range v.own {
		if s.innermost() == function {
			out[s.Frames[0].Offset] += stat.Mean(v.sum([]*Stack{s}), "ns").Median
		}
	}
	return out
}
