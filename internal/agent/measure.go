package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/reference"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/tax"
)

// MeasureTime is the most that measuring takes, from the first frame or program to the last.
const MeasureTime = 3 * time.Second

// Schedules of the two parts. Seven rounds make an interval at 95 %, which takes six.
const (
	measureRounds = 7
	pricesTime    = time.Second // the least that a schedule can have; the rounds end before
	redirectTime  = 1500 * time.Millisecond
)

// Bulks are those at which the redirect alone is measured.
func bulks() []int { return []int{1, 16, 64} }

// pairs are those of tax that charge nobody else: programs of unthunk's own that a system call runs once each, so that the
// BPF dispatcher never holds them. The two in the middle differ in one indirect branch and nothing else.
func pairs() []string { return []string{"control", "callback/loop", "map-lookup/lpm", "direct-call"} }

// leastFree is how many entries of the BPF dispatcher have to be free before some are taken: what production attaches in
// these seconds has to find one, as it would stay outside for as long as it is attached.
const leastFree = redirect.SparingSlots + 8

// Measured are the numbers of a run.
type Measured struct {
	Rows       []record.TaxRow      `json:"rows"`
	Redirect   []record.BenchRow    `json:"redirect"`
	References []record.Reference   `json:"references"`
	Warnings   []record.Warning     `json:"warnings"`
	Refused    *record.AgentRefusal `json:"refused"`
	// Slots is the most entries of the BPF dispatcher that it took.
	Slots int `json:"slots"`
	// Others is the share of the time in which tasks of others had the CPU, from 0 to 1.
	Others float64 `json:"others"`
}

// errDispatcher says that the BPF dispatcher has not enough free entries.
var errDispatcher = errors.New("the BPF dispatcher has not enough free entries")

// Measure prices calls and the redirect alone on a CPU, in at most [MeasureTime]. Others do not notice: it attaches nothing
// to tracepoints, does not switch run statistics on, takes at most four entries of the BPF dispatcher, and sends in network
// namespaces of its own. emulated takes the time of an emulated CPU for one. It returns a [feature.Missing] as redirect.Run and
// tax.Run do.
func Measure(ctx context.Context, cpu int, emulated bool) (*Measured, error) {
	ctx, cancel := context.WithTimeout(ctx, MeasureTime)
	defer cancel()
	m := &Measured{}
	k, err := kernel.OpenNamed(func(name, _ []byte) bool { return kernel.DispatcherSymbol(name) })
	if err != nil {
		return nil, err
	}
	defer k.Close()
	before, err := dispatched(k)
	if err != nil {
		return nil, err
	}
	if free := kernel.DispatcherSlots - len(before); free < leastFree {
		m.Refused = refusal(record.RefusedDispatcher, "%d of the BPF dispatcher's %d entries are free: %d have to be, as the redirect takes "+
			"%d of them for a second", free, kernel.DispatcherSlots, leastFree, redirect.SparingSlots)
		return m, nil
	}
	built := func(programs []*ebpf.Program) error {
		now, err := dispatched(k)
		if err != nil {
			return err
		}
		if len(now) > kernel.DispatcherSlots-(leastFree-redirect.SparingSlots) {
			return errDispatcher
		}
		in := 0
		for _, p := range programs {
			if functions, err := kernel.Program(p); err == nil && functions != nil && kernel.Dispatched(now, functions[0]) {
				in++
			}
		}
		m.Slots = max(m.Slots, in)
		return nil
	}
	others := watchOthers(cpu)
	err = m.prices(ctx, cpu, emulated)
	if err == nil {
		err = m.redirect(ctx, cpu, built)
	}
	m.Others = others()
	if ctx.Err() != nil {
		m.Refused = refusal(record.RefusedTime, "it took longer than %v", MeasureTime)
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	// It says how long the pinned threads waited: all of this process are, and wait for one another.
	m.References = slices.DeleteFunc(m.References, func(r record.Reference) bool { return r.Name == record.OtherTasks })
	return m, nil
}

// dispatched are the programs that have an entry of the BPF dispatcher, by address; none where the kernel has no dispatcher.
func dispatched(k *kernel.Kernel) (programs []uint64, err error) {
	programs, _, err = k.Dispatcher()
	if errors.Is(err, kernel.ErrNoDispatcher) {
		err = nil
	}
	return programs, err
}

// hasDispatcher tells whether the kernel has a BPF dispatcher, as far as it can be read.
func hasDispatcher(k *kernel.Kernel) bool {
	_, _, err := k.Dispatcher()
	return !errors.Is(err, kernel.ErrNoDispatcher)
}

// watchOthers returns what says how long tasks of others had a CPU since, as a share of the time.
func watchOthers(cpu int) func() float64 {
	proc := sub(here(), "proc")
	before, _ := reference.ReadTimes(proc, cpu)
	began, own := time.Now(), cpuTime()
	return func() float64 {
		after, _ := reference.ReadTimes(proc, cpu)
		others := after.Tasks - before.Tasks - (cpuTime() - own)
		return min(1, max(0, others.Seconds()/time.Since(began).Seconds()))
	}
}

func (m *Measured) prices(ctx context.Context, cpu int, emulated bool) error {
	raw, err := tax.Run(ctx, tax.Plan{
		Pairs: pairs(), Sparing: true, Emulated: emulated, CPU: rounds.OnCPU(cpu),
		Schedule: rounds.Schedule{Rounds: measureRounds, Duration: pricesTime},
	}, nil)
	if err != nil {
		return err
	}
	rows, warnings := raw.Record()
	// Beside the pairs there are estimates for a whole packet, which take the pair that fills the dispatcher.
	m.Rows = slices.DeleteFunc(rows, func(r record.TaxRow) bool { return !slices.Contains(pairs(), r.Name) })
	m.add(warnings)
	for _, r := range raw.References {
		r.Part = record.PartPrices
		m.References = append(m.References, r)
	}
	return nil
}

func (m *Measured) redirect(ctx context.Context, cpu int, built func([]*ebpf.Program) error) error {
	raw, err := redirect.Run(ctx, redirect.Plan{
		Bulks: bulks(), Sparing: true, Built: built, CPU: rounds.OnCPU(cpu),
		Schedule: rounds.Schedule{Rounds: measureRounds, Duration: redirectTime},
	}, nil)
	if errors.Is(err, errDispatcher) {
		m.Refused = refusal(record.RefusedDispatcher, "others attached programs while the redirect was measured: too few entries of the BPF "+
			"dispatcher are free")
		return nil
	}
	if err != nil {
		return err
	}
	rows, warnings := raw.Record()
	m.Redirect = rows
	m.add(warnings)
	m.References = append(m.References, raw.References...)
	return nil
}

// add adds warnings of rows that are there.
func (m *Measured) add(warnings []record.Warning) {
	for _, w := range warnings {
		if !slices.Contains(m.Warnings, w) {
			m.Warnings = append(m.Warnings, w)
		}
	}
}
