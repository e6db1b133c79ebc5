package redirect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/unthunk/unthunk/internal/bpf/observe"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

// PairResult is what a run on real devices found.
type PairResult struct {
	Row      record.BenchRow
	Warnings []record.Warning
	// References are what fixed work took in the same rounds, on the CPU that handled most frames; none when none came.
	References []record.Reference
	Incomplete bool // ctx ended the run
}

// RunPair sends every frame that In receives the way of the scenario for the run's duration, and counts; see
// [DevicePair.Attach] for what that does to the devices. It must run on a thread in their network namespace. When ctx
// ends it returns what it has. live is told what happened, each second; it may be nil.
//
// Frames are counted by the XDP program, by receive queue and CPU. The counts are compared with the devices' own
// statistics of the whole run. With Tracepoints a round has two halves: in one nothing but the XDP program runs, and
// the rate is taken; in the other tracepoint programs run too. Requires at least Linux 5.18.
func RunPair(ctx context.Context, d DevicePair, live func(Interval)) (result PairResult, err error) {
	attached, err := d.Attach(ctx)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, attached.Close()) }()
	r := pairRun{AttachedPair: attached, plan: d.withDefaults()}
	references, warning, err := attached.References(ctx)
	if err != nil {
		return result, cmp.Or(attached.CheckPresent(), err)
	}
	defer func() { err = errors.Join(err, references.Close()) }()
	r.references = references
	if err := r.begin(); err != nil {
		return result, cmp.Or(attached.CheckPresent(), err)
	}
	stop := r.watch(live)
	outcome, err := r.plan.Schedule.Run(ctx, nil, func(round rounds.Round) error {
		err := r.round(ctx, round.Number, round.Duration())
		// In place of the error, which has it in other words.
		return cmp.Or(attached.CheckPresent(), err)
	})
	stop()
	if err != nil {
		return result, err
	}
	if err := r.settle(); err != nil {
		return result, cmp.Or(attached.CheckPresent(), err)
	}
	result.Row, result.Warnings = r.record()
	for _, text := range []string{outcome.Warning(), warning} {
		if text != "" {
			result.Warnings = append(result.Warnings, record.Warning{Text: text})
		}
	}
	result.References = references.Record()
	result.Incomplete = outcome.Incomplete
	return result, nil
}

// pairRun is a run under way.
type pairRun struct {
	*AttachedPair
	plan DevicePair
	// references are timed beside the traffic.
	references *PairReferences

	rounds            []int
	ns, mpps, perXmit []float64
	first, last       deviceCounts

	mu   sync.Mutex
	seen observe.Seen // by tracepoints, in all rounds
}

// begin reads the counts that the run begins with. What has left is read before what came: a frame that comes while a
// busy machine lets the reader wait is in both counts of the run, or in that of what left only.
func (r *pairRun) begin() error {
	left, err := r.left(r.plan.Scenario)
	if err != nil {
		return err
	}
	r.first, err = r.read()
	r.first.out = left
	return err
}

// read reads all counts.
func (r *pairRun) read() (deviceCounts, error) {
	c, err := r.counts(r.plan.Scenario)
	r.mu.Lock()
	defer r.mu.Unlock()
	c.seen = r.seen
	return c, err
}

// watch tells live what happened, each second, until stop is called.
func (r *pairRun) watch(live func(Interval)) (stop func()) {
	if live == nil {
		return func() {}
	}
	quit := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for before := r.first; ; {
			select {
			case <-quit:
				return
			case <-ticker.C:
			}
			now, err := r.read()
			if err != nil {
				return // the round finds it too, and says so
			}
			live(now.since(before, r.plan.Scenario))
			before = now
		}
	})
	return func() { close(quit); wait.Wait() }
}

func (r *pairRun) round(ctx context.Context, n int, d time.Duration) error {
	if r.plan.Tracepoints {
		d /= 2
	}
	before, err := r.programs.QueueCounts()
	if err != nil {
		return err
	}
	r.references.Begin(n)
	start := time.Now()
	if err := r.references.pause(ctx, d); err != nil {
		return err
	}
	after, err := r.programs.QueueCounts()
	took := time.Since(start)
	if err != nil {
		return err
	}
	r.references.End()
	frames := deviceCounts{queues: after}.handled() - deviceCounts{queues: before}.handled()
	if frames > 0 {
		r.rounds = append(r.rounds, n)
		ns := float64(took.Nanoseconds()) / float64(frames)
		r.ns, r.mpps = append(r.ns, ns), append(r.mpps, 1e3/ns)
	}
	if !r.plan.Tracepoints {
		return nil
	}
	return r.trace(ctx, d)
}

// trace counts by tracepoints for d.
func (r *pairRun) trace(ctx context.Context, d time.Duration) error {
	o, err := observe.New(observe.Config{Netns: r.netns, From: r.In})
	if err != nil {
		return err
	}
	stopped := pause(ctx, d)
	seen, err := o.Seen()
	if err := errors.Join(err, o.Close()); err != nil {
		return err
	}
	if seen.Calls > 0 {
		r.perXmit = append(r.perXmit, float64(seen.Frames)/float64(seen.Calls))
	}
	r.mu.Lock()
	r.seen.Add(seen)
	r.mu.Unlock()
	return stopped
}

// Drivers that read their statistics from the NIC do so every one or two seconds.
const (
	settleEach = 50 * time.Millisecond
	settleMost = 2500 * time.Millisecond
)

// settle detaches the program, and waits until what it sent out is in the statistics of the device that it left by.
// What In receives from then on is not the run's.
func (r *pairRun) settle() error {
	if err := r.links[0].Close(); err != nil {
		return fmt.Errorf("detach XDP program from %s: %w", r.plan.In, err)
	}
	r.links = r.links[1:]
	var err error
	if r.last, err = r.read(); err != nil {
		return err
	}
	for end := time.Now().Add(settleMost); time.Now().Before(end); time.Sleep(settleEach) {
		total := r.last.since(r.first, r.plan.Scenario)
		if total.Left == nil || *total.Left >= total.Frames() {
			return nil
		}
		now, err := r.read()
		if err != nil {
			return err
		}
		r.last.out = now.out
	}
	return nil
}

// record makes a row of what was measured.
func (r *pairRun) record() (row record.BenchRow, warns []record.Warning) {
	d, total := r.plan, r.last.since(r.first, r.plan.Scenario)
	in, out := d.names()
	row = record.BenchRow{
		Name: d.Name(),
		Labels: map[string]string{
			"scenario": string(d.Scenario), "in": in, "operation": d.Operation.String(), "mode": string(d.Mode),
		},
		FramesPerXmit: quantity(r.perXmit, "frames"),
		Counts: record.Counts{
			Sent: rose(r.last.in.RxPackets, r.first.in.RxPackets), Redirected: total.Frames(), Received: total.Frames(),
		},
		Samples: []float64{}, Rounds: []int{}, Queues: total.Queues, Lost: total.Lost,
	}
	if out != "" {
		row.Labels["out"] = out
	}
	if total.Left != nil {
		row.Counts.Received = *total.Left
	}
	if row.Refused = r.refusal(total); row.Refused != "" {
		return row, nil
	}
	row.Samples, row.Rounds = r.ns, r.rounds
	row.Ns, row.Mpps = quantity(r.ns, "ns"), quantity(r.mpps, "Mpps")
	texts := append([]string{r.limit(total)}, r.doubts(row.Counts)...)
	if d.Tracepoints {
		texts = append(texts, "in half of the time a program at a tracepoint ran for each call of ndo_xdp_xmit on this "+
			"machine, those of others too: some 50 ns a call (unthunk tax --pair tracepoint measures it)")
	}
	for _, text := range append(texts, stat.Warnings(row.Samples)...) {
		warns = append(warns, record.Warning{Row: row.Name, Text: text})
	}
	return row, warns
}

// refusal says why the run has no number, with what helps; empty when it has one.
func (r *pairRun) refusal(total Interval) string {
	d, frames := r.plan, total.Frames()
	in, out := d.names()
	switch {
	case frames == 0:
		text := "no packets: nothing arrived on " + in
		if n := rose(r.last.in.RxPackets, r.first.in.RxPackets); n > 0 {
			text = fmt.Sprintf("no packets: %s received %d, and its XDP program saw none of them", in, n)
		}
		return text
	case len(r.ns) == 0:
		return noRound
	case total.Left == nil:
		return ""
	}
	asked := "redirected"
	if d.Scenario == TX {
		asked = "returned by XDP_TX"
	}
	// A few frames are under way when the program is detached: 16 in the bulk queue of each CPU, and a few that leave
	// while counts are read. Never more than a hundredth of all.
	slack := min(uint64(16*runtime.NumCPU())+frames/1000, frames/100)
	failed := r.last.seen.Errors + r.last.seen.Drops
	if *total.Left+slack >= frames && failed <= frames/1000 {
		return ""
	}
	text := fmt.Sprintf("%v: of %d frames that came by %s and were %s, %d left by %s, as its own statistics say",
		rounds.ErrDisagree, frames, in, asked, *total.Left, cmp.Or(out, in))
	switch why := r.last.seen.Failure(); {
	case why != "" && d.Scenario == Map:
		text += "; while tracepoints were watched " + why
	case d.Tracepoints && d.Scenario == Map:
		text += "; tracepoints, which watched half of the time, saw no failure: the driver does not count such frames, or drops " +
			"them later"
	case d.Scenario == Map:
		text += "; --tracepoints says why"
	default:
		// veth_xdp_flush in drivers/net/veth.c asks for the program; GRO is enough for redirects alone.
		text += ". A veth returns frames only when its peer has an XDP program, a NIC when it has a queue for each CPU " +
			"(ethtool -L)"
	}
	return text
}

// limit says whether the rate is the machine's.
func (r *pairRun) limit(total Interval) string {
	missed, frames := uint64(0), total.Frames()
	for _, l := range total.Lost {
		if l.At == record.LostMissed {
			missed = l.Frames
		}
	}
	if missed > frames/1000 {
		return fmt.Sprintf("%s missed %d frames, %.1f %% of what came: its CPUs were full, and this is their rate",
			record.Name(r.plan.In), missed, 100*float64(missed)/float64(missed+frames))
	}
	return "this is the rate at which packets came, on all receiving CPUs together: it is the machine's limit only if " +
		"these were full"
}

// doubts says which of the devices' own counts differ from the program's, where the run is not refused for it.
func (r *pairRun) doubts(c record.Counts) []string {
	if c.Sent == 0 || c.Sent+c.Sent/100 >= c.Redirected && c.Redirected+c.Redirected/100 >= c.Sent {
		return nil
	}
	return []string{fmt.Sprintf("%s counts %d received frames in that time, its XDP program %d: its driver does not count "+
		"frames that XDP took, or part of them did not come to the program", record.Name(r.plan.In), c.Sent, c.Redirected)}
}
