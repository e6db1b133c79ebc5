package progcost

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/reference"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/verifier"
	"github.com/unthunk/unthunk/internal/virtual"
	"github.com/unthunk/unthunk/prog"
)

// Plan is a run.
type Plan struct {
	// Programs are one, or two that are compared.
	Programs []prog.Program
	Packets  *prog.Packets
	By       By
	Replay   prog.Options
	// Cold makes each run walk through memory first: see [Raw.Cold].
	Cold bool
	// Apart replays in a network namespace of its own, for programs that change what stays in one: see [program.Effects].
	// It has no devices but loopback, no routes, neighbors, sockets or connections. Requires CAP_SYS_ADMIN.
	Apart bool
	// CPU is the core under test.
	CPU rounds.CPU
	rounds.Schedule
}

// Schedule of a default run.
const (
	DefaultRounds   = 25
	DefaultDuration = 10 * time.Second
)

// referenceSamples is how many samples of the references a round has: 80 µs each.
const referenceSamples = 8

// Validate returns an error in one line when the plan cannot be meant.
func (p Plan) Validate() error {
	if !slices.Contains(Bys(), p.By) {
		return fmt.Errorf("rows by %q: by verdict, flow, length or packet", p.By)
	}
	return p.schedule().Validate()
}

func (p Plan) schedule() rounds.Schedule {
	return p.Schedule.Or(rounds.Schedule{Rounds: DefaultRounds, Duration: DefaultDuration})
}

// Raw is what a run measured.
type Raw struct {
	// CPU is the core under test.
	CPU int
	rounds.Outcome
	// References are what fixed work took on that core in the same rounds.
	References []record.Reference
	// Cold is how many bytes of memory each run walked through before it; 0 for none.
	Cold int
	// Clean is what each program made of the packets, run once each.
	Clean []prog.Clean

	packets *prog.Packets
	by      By
	classes []class
	// mostTimed is how many packets of a row are timed.
	mostTimed int
	// samples are by row and round; numbers are those of the rounds.
	samples        [][]prog.Sample
	numbers        []int
	checked, found [][]prog.Mismatch
	// anew says which programs were loaded anew for each round.
	anew []bool
	// slow is how long loading one of them takes that therefore was not; 0 for none.
	slow time.Duration
}

// Run measures a plan. When ctx ends it returns what it has, with Incomplete set and no error. It returns a [feature.Missing] on an
// emulated CPU.
func Run(ctx context.Context, plan Plan, show func(rounds.Progress)) (raw *Raw, err error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	if err := virtual.NeedHardware(); err != nil {
		return nil, err
	}
	cpu, err := plan.CPU.Pick()
	if err != nil {
		return nil, err
	}
	err = onCPU(cpu, plan.Apart, func() error {
		raw, err = run(ctx, plan, cpu, show)
		return err
	})
	return raw, err
}

// Once says what a program makes of the packets of a plan when it is run as in [Run], and not timed.
func Once(ctx context.Context, plan Plan, p prog.Program) (clean *prog.Clean, err error) {
	cpu, err := plan.CPU.Pick()
	if err != nil {
		return nil, err
	}
	err = onCPU(cpu, plan.Apart, func() error {
		r, err := prog.New(ctx, plan.Packets, plan.Replay, p)
		if err != nil {
			return err
		}
		clean = &r.Clean()[0]
		return r.Close()
	})
	return clean, err
}

// onCPU runs f on a thread that stays on a CPU. What f replays there is in the network namespace of the process, or apart in
// one of its own, which ends with f.
func onCPU(cpu int, apart bool, f func() error) (err error) {
	if apart {
		n, err := netlab.New(cpu)
		if err != nil {
			return err
		}
		return errors.Join(n.Do(f), n.Close())
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
		var one unix.CPUSet
		one.Set(cpu)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			done <- fmt.Errorf("pin thread to CPU %d: %w", cpu, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// A run ends after three times its duration and this, which is for a machine that is busy: a packet is run five times
// before it is timed, and the fewest rounds are made of any program.
var overrun = time.Minute

// tooSlow is about packets that have not run five times each when a run has to end.
func tooSlow(packets int, limit time.Duration) error {
	return fmt.Errorf("a packet takes so long that %d of them are not through after %v: give fewer packets, or a longer --duration",
		packets, limit)
}

func run(ctx context.Context, plan Plan, cpu int, show func(rounds.Progress)) (raw *Raw, err error) {
	schedule := plan.schedule()
	begun := time.Now()
	whole, limit := ctx, 3*schedule.Duration+overrun
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer func() {
		if errors.Is(err, context.DeadlineExceeded) && whole.Err() == nil {
			err = tooSlow(len(plan.Packets.Frames), limit)
		}
	}()
	if plan.Cold {
		plan.Replay.Cold = coldBytes(cpu)
	}
	slow, err := dropSlow(ctx, plan.Programs, schedule)
	if err != nil {
		return nil, err
	}
	replay, err := prog.New(ctx, plan.Packets, plan.Replay, plan.Programs...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, replay.Close()) }()
	raw = &Raw{CPU: cpu, Clean: replay.Clean(), packets: plan.Packets, by: plan.By, Cold: plan.Replay.Cold, slow: slow,
		mostTimed: plan.Replay.MostTimed()}
	for _, p := range plan.Programs {
		raw.anew = append(raw.anew, p.Reload != nil)
	}
	raw.classes = classes(plan.By, plan.Packets, raw.Clean[0])
	rows := make([]prog.Row, len(raw.classes))
	for i, c := range raw.classes {
		rows[i] = prog.Row{Name: c.name, Packets: c.packets}
	}
	raw.samples = make([][]prog.Sample, len(rows))
	if err := replay.SetRows(rows); err != nil {
		return nil, err
	}
	if raw.checked, err = replay.Check(ctx); err != nil {
		return nil, err
	}
	watch, err := reference.Open(cpu)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, watch.Close()) }()
	// What was spent on the clean runs is part of the duration.
	schedule.Duration = max(schedule.Duration-time.Since(begun), time.Second)
	raw.Outcome, err = schedule.Run(ctx, show, func(round rounds.Round) error {
		round.Show("packets")
		end := round.End()
		watch.Begin(round.Number)
		if err := watch.Samples(referenceSamples); err != nil {
			return err
		}
		samples, err := replay.Round(ctx, time.Until(end))
		if err != nil {
			return err
		}
		watch.End()
		raw.numbers = append(raw.numbers, round.Number)
		for i, s := range samples {
			raw.samples[i] = append(raw.samples[i], s)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	raw.References, raw.found = watch.Record(), replay.Mismatches()
	return raw, nil
}

// reloadShare is the share of a run that loading programs anew may take.
const reloadShare = 0.2

// dropSlow leaves programs as they are whose loading would take too much of the run, and returns how long it takes.
func dropSlow(ctx context.Context, programs []prog.Program, schedule rounds.Schedule) (slow time.Duration, err error) {
	for i := range programs {
		p := &programs[i]
		if p.Reload == nil {
			continue
		}
		begun := time.Now()
		fresh, err := verifier.Await(ctx, p.Reload)
		if err != nil {
			return 0, err
		}
		if err := fresh.Close(); err != nil {
			return 0, err
		}
		took := time.Since(begun)
		if float64(took)*float64(schedule.Rounds) > reloadShare*float64(schedule.Duration) {
			slow = max(slow, took)
		}
	}
	if slow > 0 { // one that stays where it is, and one that moves, could not be compared
		for i := range programs {
			programs[i].Reload = nil
		}
	}
	return slow, nil
}
