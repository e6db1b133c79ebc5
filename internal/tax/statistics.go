package tax

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
)

// Statistics is the pair that prices run statistics.
const Statistics = "run-statistics"

// runStatistics are an empty program while the kernel times each run of each BPF program,
// and one while it does not.
type runStatistics struct{}

func (runStatistics) inspect(*kernel.Kernel) (string, error) { return "", nil }

// complete leaves the row as it is: a redirect pays for them where they are on.
func (runStatistics) complete(*Raw, *rawPair, *record.TaxRow) []string { return nil }

// Sizes of the measurement: a slot is 2 to 4 ms, and statistics are on for three slots in
// a row, as switching them patches the kernel's text.
const (
	statisticsTurns = 4
	statisticsSlots = 3
	statisticsRuns  = 30_000
)

const errStatisticsOn = refusal("run statistics are on already: their price cannot be measured")

// statistics prices run statistics once. The program is a socket filter: the kernel times
// runs of all types at one place (__bpf_prog_run in include/linux/filter.h), and test runs of
// XDP programs would wait for RCU. Requires at least Linux 5.8.
func (r *run) statistics(ctx context.Context, namespace *netlab.Namespace) error {
	pairs := of[runStatistics](r.raw)
	if len(pairs) == 0 {
		return nil
	}
	p := pairs[0]
	r.round.Show(p.name)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("price %s: %w", p.name, err)
	}
	defer program.Close()
	var with, without timedRuns
	err = namespace.Do(func() error {
		if _, err := timeRuns(program); err != nil { // warms up, and asks what the kernel can
			return err
		}
		for range statisticsTurns {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := without.add(program); err != nil {
				return err
			}
			stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
			if err != nil {
				return err
			}
			if err := errors.Join(with.add(program), stats.Close()); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, unix.EPERM) {
		return feature.Refused(fmt.Errorf("price %s: %w", p.name, err), unix.CAP_SYS_ADMIN)
	}
	if err != nil {
		return fmt.Errorf("price %s: %w", p.name, err)
	}
	if without.counted > 0 {
		return p.found("", errStatisticsOn)
	}
	// A signal of the runtime ends a call, which is made again: then there are some runs more.
	if want := uint64(statisticsTurns * statisticsSlots * statisticsRuns); with.counted < want {
		return p.found("", refusal(fmt.Sprintf("the kernel counted %d of %d runs", with.counted, want)))
	}
	p.premise = "the kernel counted each run on one side, and none on the other"
	p.add(r.round.Number, rounds.Undisturbed(with.ns), rounds.Undisturbed(without.ns))
	return nil
}

// timedRuns are slots of runs of a program.
type timedRuns struct {
	ns []float64 // per run, of a slot
	// counted is how many runs the kernel's statistics have.
	counted uint64
}

// add times some slots.
func (t *timedRuns) add(p *ebpf.Program) error {
	before, err := p.Stats()
	if err != nil {
		return err
	}
	for range statisticsSlots {
		ns, err := timeRuns(p)
		if err != nil {
			return err
		}
		t.ns = append(t.ns, ns)
	}
	after, err := p.Stats()
	if err != nil {
		return err
	}
	t.counted += after.RunCount - before.RunCount
	return nil
}

// timeRuns runs a program and returns the ns of a run. The kernel's own figure has whole ns;
// the system call around the runs takes a few µs of their 2 ms on both sides.
func timeRuns(p *ebpf.Program) (ns float64, err error) {
	start := time.Now()
	if _, _, err := p.Benchmark(make([]byte, 64), statisticsRuns, nil); err != nil {
		return 0, err
	}
	return float64(time.Since(start).Nanoseconds()) / statisticsRuns, nil
}
