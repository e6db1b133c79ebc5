package watch

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Result is what a watch found.
type Result struct {
	// Ended is why there was nothing to watch any more; empty when the watch ended by itself.
	Ended string
	// Incomplete is set when ctx ended a watch of a fixed duration.
	Incomplete bool

	watch *Watch
	began time.Time
}

// Nothing says in a sentence why there is no record: no second passed in which one program was at work from end to end. It is empty
// when one did.
func (r *Result) Nothing() string {
	w := r.watch
	switch {
	case len(w.all) > 0 || w.held > 0:
		return ""
	case r.Ended != "":
		return r.Ended
	case w.replacements > 0: // it is looked for at the end of a second: there was no other
		why := fmt.Sprintf("in each second another program came onto %s, %d in all: no second is of one program, and there is no record",
			w.subject.device.Name, w.replacements)
		if r.Incomplete {
			return "stopped before the end: until then " + why
		}
		return why
	}
	return "stopped before the end of the first second: there is no record"
}

// publish adds a second to the totals.
func (w *Watch) publish(t tally) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total = w.total.plus(t) // of new maps: those that Totals returned stay as they are
	w.totals = Totals{Up: true, Device: w.subject.device.Name, Program: w.subject.name}
}

// per is a by b, nil when there is nothing to divide by.
func per(a, b float64) *float64 {
	if b == 0 {
		return nil
	}
	x := a / b
	return &x
}

// minSamples is how many samples of a second say what a packet took in it.
const minSamples = 5

// line is what a second says.
func (w *Watch) line(t tally, at time.Time, event string) Second {
	packets := float64(t.packets)
	s := Second{
		End: at, Length: t.length, Packets: t.packets, Verdicts: t.verdicts, Lost: t.lost, Errors: t.errors,
		Samples: t.samples, Event: event,
		FramesPerXmit: per(float64(t.frames), float64(t.calls)), Stages: make(map[functions.Stage]float64),
	}
	enough := t.samples >= minSamples
	if enough {
		s.Program = per(t.program, packets)
	}
	if w.filter != nil {
		s.Core = per(100*t.path(), float64(t.length))
	}
	if w.filter != nil && enough {
		s.Path = per(t.path(), packets)
		for stage, ns := range t.stages {
			if packets > 0 {
				s.Stages[stage] = ns / packets
			}
		}
	}
	if w.price != nil {
		s.Cost = per(100*t.cost, float64(t.length)*float64(len(w.cpus)))
	}
	if t.statsSeconds > 0 {
		s.Stats = per(t.stats, float64(t.statsSeconds))
	}
	return s
}

// Record is the record, with the fingerprint of this machine.
func (r *Result) Record(target string) *record.ProgWatch {
	w := r.watch
	doc := &record.ProgWatch{Document: *record.New[record.WatchRow]("prog-watch", host.Identify(host.Options{Kernel: w.kernel}))}
	doc.Time, doc.Incomplete, doc.Ended = r.began.UTC().Truncate(time.Second), r.Incomplete, plain(r.Ended)
	s := w.subject
	driver, _ := w.driver.DriverName(s.device.Name)
	doc.Program = record.WatchedProgram{
		Target: plain(target), ID: s.watched, Name: plain(s.name), Tag: s.tag, JitedBytes: s.size, Device: plain(s.device.Name),
		Driver: plain(driver), Mode: s.mode, Attached: s.attached, Programs: s.programs,
	}
	tallies := w.all
	doc.Each = max(w.each, 1)
	if len(tallies) == 0 && w.held > 0 {
		tallies = []tally{w.last}
	}
	sum := w.sum()
	doc.Seconds, doc.Unfiltered = sum.length.Seconds(), plain(w.unfiltered)
	doc.Sampling = record.Sampling{
		Event: perf.Clock.Name, Rate: w.rate, CPUs: w.cpus, Samples: sum.samples, Packets: sum.packets,
		Lost: int(w.counts.Lost), Throttled: w.counts.Throttled,
	}
	if w.price != nil {
		doc.SampleNs = &record.SampleCost{Interrupt: w.price.interrupt, Frame: w.price.frame}
	}
	doc.Stacks = w.chains.record(sum.packets)
	doc.Rows = w.rows(tallies, sum, driver)
	w.warn(doc, sum)
	return doc
}

// warn adds what casts doubt on the figures.
func (w *Watch) warn(doc *record.ProgWatch, sum tally) {
	for _, text := range w.warnings {
		doc.Warn("", plain(text))
	}
	if n := w.replacements - maxReplacements; n > 0 {
		doc.Warn("", fmt.Sprintf("programs were replaced %d more times", n))
	}
	if w.unfiltered != "" {
		doc.Warn("", plain("only the program's own time is told: "+w.unfiltered))
	}
	if n := w.counts.Lost; n > 0 {
		doc.Warn("", fmt.Sprintf("%d samples were lost: a ring buffer was full", n))
	}
	if n := w.counts.Throttled; n > 0 {
		doc.Warn("", fmt.Sprintf("the kernel slowed sampling down %d times", n))
	}
	if sum.packets > 0 && sum.samples > 0 && sum.samples < 100 {
		doc.Warn("program", fmt.Sprintf("%d samples were taken of its packets: watch for longer, or at more --hz, for a figure", sum.samples))
	}
	expected := float64(w.rate) / 0.991 * sum.length.Seconds() * float64(len(w.cpus))
	if taken := float64(w.taken); w.filter != nil && taken < 0.9*expected {
		doc.Warn("", fmt.Sprintf("%.0f %% of the samples did not come: the hypervisor held timers up, or a CPU was away",
			100-100*taken/expected))
	}
}

// rows are the figures.
func (w *Watch) rows(tallies []tally, sum tally, driver string) (rows []record.WatchRow) {
	add := func(name string, row record.WatchRow) {
		row.Name = plain(name)
		rows = append(rows, row)
	}
	seconds := func(t *tally) float64 { return t.length.Seconds() }
	packets := func(t *tally) float64 { return float64(t.packets) }
	add("packets", ratio(tallies, "pps", packets, seconds))
	for _, verdict := range verdicts() {
		if _, ok := sum.verdicts[verdict]; ok {
			add("verdict/"+verdict, ratio(tallies, "pps", func(t *tally) float64 { return float64(t.verdicts[verdict]) }, seconds))
		} else if verdict != "aborted" { // most drivers count it as a drop
			add("verdict/"+verdict, refused("%s does not count it%s", cmp.Or(driver, "the driver"), generic(w.subject.mode)))
		}
	}
	perPacket := func(name string, ns func(*tally) float64) {
		if why := w.unsampled(sum); why != "" {
			add(name, refused("%s", why))
		} else {
			add(name, ratio(tallies, "ns", ns, packets))
		}
	}
	perPacket("program", func(t *tally) float64 { return t.program })
	if w.unfiltered == "" {
		perPacket("path", (*tally).path)
		for _, stage := range functions.Stages() {
			if sum.stages[stage] > 0 {
				add("stage/"+string(stage), ratio(tallies, "ns", func(t *tally) float64 { return t.stages[stage] }, packets))
			}
		}
		add("core", ratio(tallies, "percent", func(t *tally) float64 { return 100 * t.path() },
			func(t *tally) float64 { return float64(t.length) }))
	} else {
		add("path", refused("%s", w.unfiltered))
		add("core", refused("%s", w.unfiltered))
	}
	if w.plan.Tracepoints {
		add("frames-per-xmit", ratio(tallies, "frames", func(t *tally) float64 { return float64(t.frames) },
			func(t *tally) float64 { return float64(t.calls) }))
	} else {
		add("frames-per-xmit", refused("no device counts it: --tracepoints does"))
	}
	for _, name := range slices.Sorted(maps.Keys(sum.lost)) {
		add("lost/"+name, ratio(tallies, "pps", func(t *tally) float64 { return float64(t.lost[name]) }, seconds))
	}
	for _, name := range slices.Sorted(maps.Keys(sum.errors)) {
		add("error/"+name, ratio(tallies, "pps", func(t *tally) float64 { return float64(t.errors[name]) }, seconds))
	}
	if w.plan.Stats {
		add("statistics", ratio(tallies, "ns", func(t *tally) float64 { return t.stats },
			func(t *tally) float64 { return float64(t.statsSeconds) }))
	}
	if w.price == nil {
		add("cost", refused("%v", errNoPrice))
	} else {
		cpus := float64(len(w.cpus))
		add("cost", ratio(tallies, "percent", func(t *tally) float64 { return 100 * t.cost },
			func(t *tally) float64 { return float64(t.length) * cpus }))
	}
	return rows
}

// unsampled says why no time of a packet is known; empty when samples tell.
func (w *Watch) unsampled(sum tally) string {
	switch {
	case sum.samples > 0:
		return ""
	case sum.packets == 0:
		return "no packet came"
	case len(others(w.cpus)) > 0:
		return "no sample was taken of its packets: another CPU than those of the device's interrupts may poll it (--cpu)"
	}
	return "no sample was taken of its packets: watch for longer, or at more --hz"
}

// generic says why a driver counts nothing of generic XDP.
func generic(mode string) string {
	if mode == "generic" {
		return " of generic XDP"
	}
	return ""
}

func refused(format string, args ...any) record.WatchRow {
	return record.WatchRow{Refused: plain(fmt.Sprintf(format, args...)), Samples: []float64{}, Rounds: []int{}}
}

// ratio is one sum by another. The interval is that of the mean over tallies of what each adds to
// it, as in a ratio estimate (Cochran, Sampling Techniques, 6.3): of tallies with few packets the
// own ratio says little.
func ratio(tallies []tally, unit string, a, b func(*tally) float64) record.WatchRow {
	row := record.WatchRow{Samples: []float64{}, Rounds: []int{}}
	var sumA, sumB float64
	for i := range tallies {
		x, y := a(&tallies[i]), b(&tallies[i])
		sumA, sumB = sumA+x, sumB+y
		if y > 0 {
			row.Samples, row.Rounds = append(row.Samples, x/y), append(row.Rounds, i)
		}
	}
	if sumB == 0 {
		return refused("nothing came in that time")
	}
	r := sumA / sumB
	var each []float64
	for _, i := range row.Rounds {
		each = append(each, r+(a(&tallies[i])-r*b(&tallies[i]))*float64(len(row.Rounds))/sumB)
	}
	q := stat.Mean(each, unit)
	q.Median = r // but for what rounding does
	q.Low, q.High = max(q.Low, min(0, r)), max(q.High, r)
	row.Value = &q
	return row
}

// plain is text that a record may hold: of names and errors of the kernel's.
func plain(text string) string { return record.Text(text, 250, '?') }
