package profile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
)

// PairPlan is a run on two real devices under the user's own traffic.
type PairPlan struct {
	// DevicePair's rounds are parts of the time, for intervals.
	redirect.DevicePair
	// CPU is what is sampled; the zero value samples all.
	CPU rounds.CPU
	// Rate is samples a second and CPU; 0 is 1000.
	Rate int
}

// deviceRate is what samples cost little at on any machine, in Hz.
const deviceRate = 1000

// drain is how often rings are emptied: at the highest rate one fills in four times
// that.
const drain = 50 * time.Millisecond

func (d PairPlan) withDefaults() PairPlan {
	d.Schedule = d.Schedule.Or(defaults())
	if d.Rate == 0 {
		d.Rate = deviceRate
	}
	return d
}

// Validate returns an error in one line when the run cannot be meant.
func (d PairPlan) Validate() error {
	if err := d.DevicePair.Validate(); err != nil {
		return err
	}
	return checkRate(d.Rate)
}

// RunPair redirects every frame that In receives to Out while it samples the CPUs; see
// [redirect.DevicePair.Attach] for what that does to the devices. It must run on a thread in
// their network namespace. A packet takes the time that the samples of its work on all
// sampled CPUs together stand for, by the packets that these redirected.
func RunPair(ctx context.Context, d PairPlan, show func(rounds.Progress)) (raw *Raw, err error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	rateGiven := d.Rate != 0
	d = d.withDefaults()
	cpu, given := d.CPU.Number()
	cpus := []int{cpu}
	if !given {
		if cpus, err = perf.Online(); err != nil {
			return nil, err
		}
	}
	event, err := perf.Best(cpus[0])
	if err != nil {
		return nil, err
	}
	b, err := d.DevicePair.Attach(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	c := collect(&Raw{
		Name: d.Name(), Event: event, Rate: d.Rate, RateGiven: rateGiven, CPUs: cpus,
		DevicePair: true,
	})
	part := d.Duration / time.Duration(d.Rounds+1)
	if c.raw.Calls, err = b.CallsPerPacket(ctx, part); err != nil && ctx.Err() == nil {
		return nil, cmp.Or(b.CheckPresent(), err)
	}
	references, warning, err := b.References(ctx)
	if err != nil {
		return nil, cmp.Or(b.CheckPresent(), err)
	}
	defer func() { err = errors.Join(err, references.Close()) }()
	m := pairRun{collector: c, pair: b, references: references, cpus: cpus, process: uint32(os.Getpid())}
	defer func() {
		for _, s := range m.samplers {
			err = errors.Join(err, c.release(s))
		}
	}()
	for _, cpu := range cpus {
		s, err := perf.NewSampler(event, cpu, d.Rate)
		if err != nil {
			return nil, err
		}
		c.raw.allow(s.Rate(), d.Rate)
		m.samplers = append(m.samplers, s)
	}
	d.Duration -= part
	c.raw.Outcome, err = d.Schedule.Run(ctx, show, func(r rounds.Round) error {
		r.Show(d.In + " to " + d.Out)
		err := m.round(ctx, r.Number, r.Duration())
		return cmp.Or(b.CheckPresent(), errors.Join(err, ctx.Err()))
	})
	if err != nil {
		return nil, err
	}
	c.raw.References, c.raw.NoReferences = references.Record(), warning
	return c.done(), nil
}

type pairRun struct {
	*collector
	pair *redirect.AttachedPair
	// references are timed while samples are taken.
	references *redirect.PairReferences

	cpus     []int
	samplers []*perf.Sampler
	process  uint32
}

// round takes samples for d.
func (m *pairRun) round(ctx context.Context, n int, d time.Duration) error {
	before, err := m.pair.Handled()
	if err != nil {
		return err
	}
	idle, err := idleTime(m.cpus)
	if err != nil {
		return err
	}
	m.references.Begin(n)
	start := time.Now()
	if err := m.each((*perf.Sampler).Start); err != nil {
		return err
	}
	for left := d; left > 0 && ctx.Err() == nil; left = d - time.Since(start) {
		select {
		case <-ctx.Done():
		case <-time.After(min(drain, left)):
		}
		m.read()
		if err := m.references.Sample(); err != nil {
			return err
		}
	}
	if err := m.each((*perf.Sampler).Stop); err != nil {
		return err
	}
	took := float64(len(m.cpus)) * float64(time.Since(start))
	m.references.End()
	idleNow, err := idleTime(m.cpus)
	if err != nil {
		return err
	}
	m.read()
	after, err := m.pair.Handled()
	if err != nil {
		return err
	}
	round := Round{Number: n, CPUNs: took}
	for _, cpu := range m.cpus {
		round.Packets += after[cpu] - before[cpu]
	}
	if round.Packets == 0 || m.stacks.weight() == 0 {
		m.stacks.drop()
		return nil
	}
	// The clock samples idle CPUs too, other events only CPUs at work.
	sampled := took
	if m.raw.Event != perf.Clock {
		sampled = max(took-float64(idleNow-idle), 0)
	}
	scale := func(kept float64) float64 {
		if kept == 0 {
			return 0
		}
		return sampled / kept
	}
	return m.end(ctx, round, scale, m.pair.In, m.pair.Out)
}

func (m *pairRun) each(f func(*perf.Sampler) error) error {
	for _, s := range m.samplers {
		if err := f(s); err != nil {
			return err
		}
	}
	return nil
}

// read empties the rings.
func (m *pairRun) read() {
	for _, s := range m.samplers {
		s.Read(func(s *perf.Sample) {
			by := anyTask
			if s.PID == m.process {
				by = unthunk
			}
			m.add(s, circumstances{by: by})
		})
	}
}

// idleTime is how long CPUs have idled since boot, or were taken away by a hypervisor,
// together. The kernel gives it in hundredths of a second (proc(5)).
func idleTime(cpus []int) (idle time.Duration, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read idle time: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // cpuN user nice system idle iowait irq softirq steal …
		if len(fields) < 9 {
			continue
		}
		number, ok := strings.CutPrefix(fields[0], "cpu")
		cpu, err := strconv.Atoi(number)
		if !ok || err != nil || !slices.Contains(cpus, cpu) {
			continue
		}
		for _, field := range []string{fields[4], fields[5], fields[8]} {
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read idle time: %w", err)
			}
			idle += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return idle, nil
}
