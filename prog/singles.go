package prog

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/bpf/replay"
)

// Singles are the times of single runs: of each packet by itself, from a time stamp right before the program is entered
// to one right behind it. On a machine the stamps take longer than a short program. Where the clock counts instructions,
// as in a guest under QEMU with -icount shift=0, a run of the program less one of the null program is the program's
// instructions, to the digit.
type Singles struct {
	// Null and Program are ns with what is around a run, by packet and pass: of the null program, and of the program.
	Null, Program [][]uint64
	// Wrong is in how many passes a packet came out of the program otherwise than when it was run once: another verdict,
	// length or other bytes, or it could not be restored. First says what the first one was; empty when there was none.
	Wrong []int
	First string
}

// Alone runs packets one by one. It must be closed, before its [Replay] is used again.
type Alone struct {
	one *Replay // its harness
	// programs are the null program and the other one.
	programs [2]*ebpf.Program
	packets  int
}

// Alone loads what runs packets of the replay one by one, through the program of that number and the null program.
func (r *Replay) Alone(program int) (a *Alone, err error) {
	if program < 0 || program >= len(r.programs) {
		return nil, fmt.Errorf("program %d of %d", program, len(r.programs))
	}
	n := len(r.packets.Frames)
	for i := range n {
		if r.shapeOf(i).fragments > 0 {
			return nil, fmt.Errorf("packet %d of %d bytes is in fragments: such packets are not run one by one", i+1, len(r.packets.Frames[i]))
		}
	}
	opts := r.kind
	opts.Packets, opts.Programs, opts.Windows = r.packets.Frames, 2, maxWindows
	opts.Metadata, opts.Device, opts.Queue = r.opts.Metadata, r.opts.Device, r.opts.Queue
	opts.Schedule = make([]uint32, n)
	expected := [2][]replay.Expect{make([]replay.Expect, n), make([]replay.Expect, n)}
	for i, frame := range r.packets.Frames {
		opts.Schedule[i] = uint32(i)
		o := r.clean[program].Outcomes[i]
		expected[0][i] = replay.Expect{Hash: replay.Hash(frame), Verdict: pass, Length: uint32(len(frame))}
		expected[1][i] = replay.Expect{Hash: o.Hash, Verdict: o.Verdict, Length: uint32(o.Length)}
	}
	a = &Alone{one: &Replay{}, packets: n}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if a.one.harness, err = replay.Load(opts); err != nil {
		return nil, err
	}
	if a.one.null, err = replay.Null(opts); err != nil {
		return nil, err
	}
	a.programs = [2]*ebpf.Program{a.one.null, r.programs[program].Loaded}
	for i := range expected {
		if err := a.one.harness.Expect(i, expected[i]); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Close unloads what was loaded.
func (a *Alone) Close() error { return a.one.Close() }

// Time is the ns of one run of a packet, of the null program or the other one, with what is around a run. ok is false
// when it came out otherwise than when it was run once.
func (a *Alone) Time(ctx context.Context, null bool, packet int) (ns uint64, ok bool, err error) {
	program := 1
	if null {
		program = 0
	}
	err = a.run(ctx, program, []uint32{uint32(packet)}, func(_ uint32, span uint64, why string) { ns, ok = span, why == "" })
	return ns, ok, err
}

// run runs packets in that order, in calls of as many as there is room for: a call takes long by itself. got gets the ns
// of each, and what came out otherwise.
func (a *Alone) run(ctx context.Context, program int, packets []uint32, got func(packet uint32, ns uint64, why string)) error {
	// Both programs stand at one site: what the harness does between the stamps depends on it.
	if err := a.one.harness.Place(0, a.programs[program]); err != nil {
		return err
	}
	for len(packets) > 0 {
		windows := make([]replay.Window, min(maxWindows-1, len(packets)))
		for i := range windows {
			windows[i] = replay.Window{Program: uint32(program), First: packets[i], Group: 1, Timed: 1, Bytes: true}
		}
		spans, err := a.one.runWindows(ctx, windows, 0)
		if err != nil {
			return err
		}
		for i, span := range spans {
			why := ""
			if span.Verdicts+span.Lengths+span.Bytes+span.Lost > 0 {
				d, ok, err := a.one.harness.Differs()
				if err != nil {
					return err
				}
				if why = "a packet was not restored"; ok {
					why = describe(d)
				}
				if program == 0 {
					return errors.New("the harness does not restore packets: " + why)
				}
			}
			got(packets[i], span.Ns, why)
		}
		packets = packets[len(windows):]
	}
	return nil
}

// Singles runs each packet by itself, first through the null program and then through the program of that number: as
// many passes over all packets, in their order. Other than in a round there is no run to warm up, and nothing is between
// the two stamps but the program: what restores a packet is before them.
func (r *Replay) Singles(ctx context.Context, program, passes int) (s Singles, err error) {
	if passes < 1 {
		return s, fmt.Errorf("%d passes", passes)
	}
	a, err := r.Alone(program)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return a.Singles(ctx, passes)
}

// Singles is [Replay.Singles] of the program.
func (a *Alone) Singles(ctx context.Context, passes int) (s Singles, err error) {
	var order []uint32
	for range passes {
		for i := range a.packets {
			order = append(order, uint32(i))
		}
	}
	s.Wrong = make([]int, a.packets)
	s.Null, s.Program = make([][]uint64, a.packets), make([][]uint64, a.packets)
	if err := a.run(ctx, 0, order, func(packet uint32, ns uint64, _ string) { s.Null[packet] = append(s.Null[packet], ns) }); err != nil {
		return s, err
	}
	return s, a.run(ctx, 1, order, func(packet uint32, ns uint64, why string) {
		s.Program[packet] = append(s.Program[packet], ns)
		if why == "" {
			return
		}
		s.Wrong[packet]++
		if s.First == "" {
			s.First = why
		}
	})
}
