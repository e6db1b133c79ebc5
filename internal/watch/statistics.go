package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/traffic"
)

// statistics are the kernel's run statistics of a program (BPF_ENABLE_STATS, Linux 5.8), while
// they are switched on. A file holds the switch, so that it ends with the process.
type statistics struct {
	id uint32
	// price is what they cost each run of any program, and reported what they say an empty
	// program takes, each in ns.
	price, reported float64

	on     io.Closer
	before runs
}

// runs is how often a program ran while statistics were on, and what they say that it took.
type runs struct {
	count uint64
	ns    float64
}

// openStatistics measures what run statistics cost, by an empty XDP program that is run with them
// and without in turn, which takes half a second. Everybody on the machine pays meanwhile.
func openStatistics(ctx context.Context, id uint32) (s *statistics, err error) {
	const rounds, repeat = 7, 200_000
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "empty", Type: ebpf.XDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return()},
	})
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			return nil, feature.Refused(err, unix.CAP_BPF, unix.CAP_NET_ADMIN)
		}
		return nil, fmt.Errorf("load empty program: %w", err)
	}
	defer p.Close()
	frame, err := traffic.UDPFrame(60)
	if err != nil {
		return nil, err
	}
	run := func() (float64, error) {
		_, took, err := p.Benchmark(frame, repeat, nil)
		if err != nil {
			return 0, fmt.Errorf("run empty program: %w", err)
		}
		return float64(took), nil
	}
	var costs, reported []float64
	for range rounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		off, err := run()
		if err != nil {
			return nil, err
		}
		sw, err := switchOn()
		if err != nil {
			return nil, err
		}
		before, err := statsOf(p)
		on := 0.0
		if err == nil {
			on, err = run()
		}
		after, errAfter := statsOf(p)
		if err := errors.Join(err, errAfter, sw.Close()); err != nil {
			return nil, err
		}
		costs = append(costs, on-off)
		if n := after.count - before.count; n > 0 {
			reported = append(reported, (after.ns-before.ns)/float64(n))
		}
	}
	if len(reported) == 0 {
		return nil, errors.New("run statistics did not count the runs of an empty program")
	}
	return &statistics{id: id, price: max(stat.Median(costs), 0), reported: stat.Median(reported)}, nil
}

// switchOn switches run statistics on until it is closed. Requires CAP_SYS_ADMIN.
func switchOn() (io.Closer, error) {
	on, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if errors.Is(err, fs.ErrPermission) {
		return nil, feature.Refused(err, unix.CAP_SYS_ADMIN)
	}
	if err != nil {
		return nil, fmt.Errorf("switch run statistics on: %w", err)
	}
	return on, nil
}

func statsOf(p *ebpf.Program) (runs, error) {
	s, err := p.Stats()
	if err != nil {
		return runs{}, fmt.Errorf("read run statistics: %w", err)
	}
	return runs{s.RunCount, float64(s.Runtime / time.Nanosecond)}, nil
}

// read reads the statistics of the watched program. Nothing is read of one that is gone.
func (s *statistics) read() (runs, error) {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(s.id))
	if errors.Is(err, fs.ErrNotExist) {
		return runs{}, nil
	}
	if err != nil {
		return runs{}, fmt.Errorf("open program %d: %w", s.id, err)
	}
	defer p.Close()
	return statsOf(p)
}

// begin switches the statistics on.
func (s *statistics) begin() (err error) {
	if s.on, err = switchOn(); err != nil {
		return err
	}
	s.before, err = s.read()
	return err
}

// end switches them off. ns is what a run took above an empty program, in ns; ok is false when
// there was none.
func (s *statistics) end() (ns float64, ok bool, err error) {
	if s.on == nil {
		return 0, false, nil
	}
	now, err := s.read()
	if err := errors.Join(err, s.close()); err != nil {
		return 0, false, err
	}
	if now.count <= s.before.count {
		return 0, false, nil
	}
	return (now.ns-s.before.ns)/float64(now.count-s.before.count) - s.reported, true, nil
}

func (s *statistics) close() error {
	if s.on == nil {
		return nil
	}
	err := s.on.Close()
	s.on = nil
	return err
}
