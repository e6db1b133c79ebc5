package progcost

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/bpf/replay"
	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/verify"
	"github.com/unthunk/unthunk/prog"
)

// testCPU is the one that is measured.
func testCPU(t *testing.T) int {
	t.Helper()
	cpu, err := rounds.CPU{}.Pick()
	if err != nil {
		t.Fatal(err)
	}
	return cpu
}

// turning is the sample program loop with so many turns.
func turning(t *testing.T, turns uint32) prog.Program { return changedSample(t, "loop", turns, 0) }

// changedSample is a sample program that was loaded with these flags, where the program loop turns so often.
func changedSample(t *testing.T, name string, turns, flags uint32) prog.Program {
	t.Helper()
	testutil.Root(t)
	load := func() (*ebpf.Collection, error) {
		spec, err := sample.Spec()
		if err != nil {
			return nil, err
		}
		if err := spec.Variables[sample.Turns].Set(turns); err != nil {
			return nil, err
		}
		spec.Programs[name].Flags |= flags
		return sample.LoadOf(spec, name)
	}
	coll, err := load()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	return prog.Program{Name: name, Loaded: coll.Programs[name], Reload: func() (*ebpf.Program, error) {
		coll, err := load()
		if err != nil {
			return nil, err
		}
		defer coll.Close()
		return coll.Programs[name].Clone()
	}}
}

// chained is a program of so many multiplications and additions that wait for each other, 4 cycles together, without a
// branch: where a loop ends is predicted for some numbers of turns and not for others.
func chained(t *testing.T, units int) prog.Program {
	t.Helper()
	testutil.Root(t)
	load := func() (*ebpf.Program, error) {
		ins := asm.Instructions{asm.LoadMem(asm.R2, asm.R1, 16, asm.Word), asm.Mov.Reg(asm.R3, asm.R2)} // rx_queue_index
		for range units {
			ins = append(ins, asm.Mul.Imm(asm.R2, 12345), asm.Add.Reg(asm.R2, asm.R3))
		}
		ins = append(ins, asm.And.Imm(asm.R2, 1), asm.Mov.Reg(asm.R0, asm.R2), asm.Add.Imm(asm.R0, 1), asm.Return())
		return ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "chained", Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "Dual BSD/GPL", Instructions: ins,
		})
	}
	p, err := load()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return prog.Program{Name: "chained", Loaded: p, Reload: load}
}

// costs runs programs on one packet.
func costs(t *testing.T, length time.Duration, programs ...prog.Program) *Raw {
	t.Helper()
	return costsOf(t, "udp4", length, programs...)
}

// costsOf runs programs on packets that are made.
func costsOf(t *testing.T, packets string, length time.Duration, programs ...prog.Program) *Raw {
	t.Helper()
	raw, err := Run(t.Context(), Plan{
		Programs: programs, Packets: made(t, packets), By: ByVerdict,
		Schedule: rounds.Schedule{Rounds: max(6, int(length/(400*time.Millisecond))), Duration: length},
	}, nil)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// of is the cost of the first program.
func of(t *testing.T, raw *Raw) *stat.Quantity {
	t.Helper()
	rows, _ := raw.Record(0)
	if rows[0].Ns == nil {
		t.Fatalf("%+v", rows[0])
	}
	return rows[0].Ns
}

// A loop of twice the turns costs twice as much, and what the kernel's own test run says less what it says of a program
// that only passes.
func TestVerifyLoop(t *testing.T) {
	verify.Run(t, verify.Check{
		Claim: "a loop costs what the kernel's test run says less its own loop, within 3 %, and twice of it twice as much",
		CPU:   testCPU(t),
		Measure: func(t *testing.T, short bool) verify.Finding {
			tries := 7
			if short {
				tries = 1
			}
			// Both in turn, as the machine's speed moves.
			var once, off, double []float64
			for range tries {
				ns, kernel := of(t, costs(t, time.Second, turning(t, 2000))).Median, kernelCost(t, turning(t, 2000))
				twice := of(t, costs(t, time.Second, turning(t, 4000))).Median
				once, off, double = append(once, ns), append(off, 100*(ns/kernel-1)), append(double, 100*(twice/ns/2-1))
			}
			return verify.Finding{
				Figure: fmt.Sprintf("%.0f ns, against the kernel %+.1f %%, twice %+.1f %%", stat.Median(once), stat.Median(off),
					stat.Median(double)),
				Holds: math.Abs(stat.Median(off)) <= 3 && math.Abs(stat.Median(double)) <= 3,
			}
		},
	})
}

// A packet in fragments costs a program that touches none of it what a short one does.
func TestVerifyFragments(t *testing.T) {
	const turns, flags = 2000, unix.BPF_F_XDP_HAS_FRAGS
	sizes := []int{1500, 4000, 9000, 60000}
	verify.Run(t, verify.Check{
		Claim: "of packets of 1500 to 60000 bytes, in up to 14 fragments, a program that only passes costs 0 within its interval " +
			"or 0.3 ns, and a loop what it costs of one of 60 bytes, within 3 %",
		CPU: testCPU(t),
		Measure: func(t *testing.T, short bool) verify.Finding {
			length, tries := 10*time.Second, 5
			if short {
				length, tries = time.Second, 1
			}
			f := verify.Finding{Holds: true}
			var figures []string
			for _, size := range sizes {
				packet := fmt.Sprintf("udp4:%d", size)
				pass := of(t, costsOf(t, packet, length, changedSample(t, "pass", turns, flags)))
				var off []float64
				for range tries { // in turn, as the machine's speed moves
					short := of(t, costs(t, time.Second, changedSample(t, "loop", turns, flags)))
					long := of(t, costsOf(t, packet, time.Second, changedSample(t, "loop", turns, flags)))
					off = append(off, 100*(long.Median/short.Median-1))
				}
				f.Holds = f.Holds && pass.Low <= 0.3 && pass.High >= -0.3 && math.Abs(stat.Median(off)) <= 3
				figures = append(figures, fmt.Sprintf("%d bytes: pass %.2f ±%.2f ns, loop %+.1f %%", size, pass.Median,
					(pass.High-pass.Low)/2, stat.Median(off)))
			}
			f.Figure = strings.Join(figures, "; ")
			return f
		},
	})
}

// kernelCost is the kernel's figure of a program, which is in whole ns, less that of one that passes: medians of
// several, in turn.
func kernelCost(t *testing.T, p prog.Program) float64 {
	t.Helper()
	null, err := replay.Null(replay.Options{Attach: ebpf.AttachXDP})
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var found [2][]float64
	err = onCPU(testCPU(t), false, func() error {
		for range 7 {
			for i, program := range []*ebpf.Program{null, p.Loaded} {
				in := replay.Input{Data: made(t, "udp4").Frames[0], Repeat: 100_000}
				out, err := replay.TestRun(program, in)
				for errors.Is(err, unix.EINTR) { // a signal of Go's came to this thread
					out, err = replay.TestRun(program, in)
				}
				if err != nil {
					return err
				}
				found[i] = append(found[i], float64(out.Ns))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return stat.Median(found[1]) - stat.Median(found[0])
}

// The null program costs 0 within its interval, and intervals are narrow.
func TestVerifyPrecise(t *testing.T) {
	verify.Run(t, verify.Check{
		Claim: "in 10 s, intervals of a cost are ±0.5 ns or ±2 %, and a program that only passes costs less than 0.3 ns",
		CPU:   testCPU(t),
		Measure: func(t *testing.T, short bool) verify.Finding {
			length := 10 * time.Second
			if short {
				length = time.Second
			}
			f := verify.Finding{Holds: true}
			var figures []string
			for _, name := range []string{"pass", "ttl", "encap", "nat", "each"} {
				q := of(t, costs(t, length, sampled(t, name)))
				half := (q.High - q.Low) / 2
				f.Holds = f.Holds && (half <= 0.5 || half <= 0.02*q.Median)
				if name == "pass" {
					f.Holds = f.Holds && math.Abs(q.Median) < 0.3
				}
				figures = append(figures, fmt.Sprintf("%s %.2f ±%.2f ns", name, q.Median, half))
			}
			f.Figure = strings.Join(figures, ", ")
			return f
		},
	})
}

// changed compares two programs of one run, and says whether the first row has a difference.
func changed(t *testing.T, length time.Duration, old, is prog.Program) (outcome string, d *stat.Difference) {
	t.Helper()
	raw := costs(t, length, old, is)
	docs := [2]*record.ProgCost{}
	for i := range docs {
		docs[i] = &record.ProgCost{}
		docs[i].Run = "one"
		docs[i].Rows, _ = raw.Record(i)
	}
	c, err := compare.Records(record.NewSaved(docs[0]), record.NewSaved(docs[1]), compare.Options{Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	return c.Rows[0].Outcome(), c.Rows[0].Difference
}

// Two percent of a program of some 50 ns are found, and a program against itself is not called another.
func TestVerifyDifference(t *testing.T) {
	verify.Run(t, verify.Check{
		Claim: "in 20 s, 2 % more instructions in a program of some 50 ns are slower, and the same program is not, each in 4 tries",
		CPU:   testCPU(t),
		Measure: func(t *testing.T, short bool) verify.Finding {
			length, tries := 20*time.Second, 4
			if short {
				length, tries = time.Second, 1
			}
			found, called := 0, 0
			var seen []float64
			for range tries {
				outcome, d := changed(t, length, chained(t, 50), chained(t, 51))
				if outcome == stat.Slower {
					found++
				}
				seen = append(seen, d.Median)
				if outcome, _ = changed(t, length, chained(t, 50), chained(t, 50)); outcome == stat.Slower || outcome == stat.Faster {
					called++
				}
			}
			return verify.Finding{
				Figure: fmt.Sprintf("found %d of %d, median %+.1f %%; called without a difference: %d", found, tries, stat.Median(seen), called),
				Holds:  found == tries && called == 0,
			}
		},
	})
}
