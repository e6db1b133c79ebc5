package prog

import (
	"context"
	"errors"
	"fmt"

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

// Singles runs each packet by itself, first through the null program and then through the program of that number: as
// many passes over all packets, in their order. Other than in a round there is no run to warm up, and nothing is between
// the two stamps but the program: what restores a packet is before them.
func (r *Replay) Singles(ctx context.Context, program, passes int) (s Singles, err error) {
	n := len(r.packets.Frames)
	switch {
	case program < 0 || program >= len(r.programs):
		return s, fmt.Errorf("program %d of %d", program, len(r.programs))
	case passes < 1:
		return s, fmt.Errorf("%d passes", passes)
	}
	opts := r.kind
	opts.Packets, opts.Programs, opts.Windows = r.packets.Frames, 2, min(passes*n+1, maxWindows)
	opts.Metadata, opts.Device, opts.Queue = r.opts.Metadata, r.opts.Device, r.opts.Queue
	opts.Schedule = make([]uint32, n)
	expected := [2][]replay.Expect{make([]replay.Expect, n), make([]replay.Expect, n)}
	for i, frame := range r.packets.Frames {
		opts.Schedule[i] = uint32(i)
		o := r.clean[program].Outcomes[i]
		expected[0][i] = replay.Expect{Hash: replay.Hash(frame), Verdict: pass, Length: uint32(len(frame))}
		expected[1][i] = replay.Expect{Hash: o.Hash, Verdict: o.Verdict, Length: uint32(o.Length)}
	}
	one := &Replay{}
	if one.harness, err = replay.Load(opts); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, one.Close()) }()
	if one.null, err = replay.Null(opts); err != nil {
		return s, err
	}
	s.Wrong = make([]int, n)
	for i, p := range []Program{{Name: "null", Loaded: one.null}, r.programs[program]} {
		if err := one.harness.Expect(i, expected[i]); err != nil {
			return s, err
		}
		// Both stand at one site: what the harness does between the stamps depends on it.
		if err := one.harness.Place(0, p.Loaded); err != nil {
			return s, err
		}
		times := make([][]uint64, n)
		if err := one.singles(ctx, i, passes*n, times, &s); err != nil {
			return s, err
		}
		if i == 0 {
			s.Null = times
		} else {
			s.Program = times
		}
	}
	return s, nil
}

// singles are runs of a program, over all packets again and again, in calls of as many as there is room for: a call takes
// long by itself.
func (r *Replay) singles(ctx context.Context, program, runs int, times [][]uint64, s *Singles) error {
	for done := 0; done < runs; {
		windows := make([]replay.Window, min(maxWindows-1, runs-done))
		for i := range windows {
			packet := uint32((done + i) % len(times))
			windows[i] = replay.Window{Program: uint32(program), First: packet, Group: 1, Timed: 1, Bytes: true}
		}
		spans, err := r.runWindows(ctx, windows, 0)
		if err != nil {
			return err
		}
		for i, span := range spans {
			packet := windows[i].First
			times[packet] = append(times[packet], span.Ns)
			if span.Verdicts+span.Lengths+span.Bytes+span.Lost == 0 {
				continue
			}
			text := "a packet was not restored"
			d, ok, err := r.harness.Differs()
			if err != nil {
				return err
			}
			if ok {
				text = describe(d)
			}
			if program == 0 {
				return errors.New("the harness does not restore packets: " + text)
			}
			s.Wrong[packet]++
			if s.First == "" {
				s.First = text
			}
		}
		done += len(windows)
	}
	return nil
}
