package tax

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
)

// programs are two programs of internal/bpf/price that time their own work.
type programs struct {
	with, without string
	// reference tells that they do not differ in an indirect branch.
	reference bool
	// caller is the function for whose call the price stands, when each packet makes it; empty for none.
	caller string
}

func (programs) inspect(*kernel.Kernel) (string, error) { return "", needJIT() }

// programCall is [Thunk] of arm64, where there is no BPF dispatcher: each program is called through a register, and nothing calls one
// directly. The kernel's call of a callback, which is a blr too, stands for it.
func programCall() pair {
	const caller = "bpf_dispatcher_xdp_func"
	return pair{Thunk, "prog->bpf_func: called through a register for each packet, as arm64 has no BPF dispatcher",
		programs{with: "loop_called", without: "loop_inlined", caller: caller},
		"the price of the pair callback/loop: nothing calls a program directly here"}
}

// premise reads the code of both programs.
func (s programs) premise(k *kernel.Kernel, loaded *price.Pair) (string, error) {
	check := differ
	if s.reference {
		check = alike
	}
	premise, err := check(k, loaded.Programs[0], loaded.Programs[1])
	if err != nil || s.caller == "" {
		return premise, err
	}
	called, err := holds(k, []string{s.caller})
	return called + "; priced by " + premise, err
}

// complete adds how often a packet makes the call. But for that of a program, neither
// the programs of a redirect-map chain nor the kernel's path make it: their code shows it.
func (s programs) complete(raw *Raw, _ *rawPair, row *record.TaxRow) []string {
	switch {
	case s.caller == "" && !s.reference:
		setPerPacket(row, 0)
	case s.caller != "" && len(raw.calls) > 0:
		setPerPacket(row, raw.outside)
	}
	if s.with == s.without && row.Price != nil && (row.Price.Low > 0 || row.Price.High < 0) {
		return []string{"the control is not 0: prices of programs may be off by as much; one run in 20 shows this by chance"}
	}
	return nil
}

// programSlots is how often each program of a pair is run in a round: one run is
// 256 turns, some 5 µs.
const programSlots = 100

// programs prices each pair of programs once.
func (r *run) programs(ctx context.Context, namespace *netlab.Namespace) error {
	pairs := of[programs](r.raw)
	for _, i := range rand.Perm(len(pairs)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := pairs[i]
		r.round.Show(p.name)
		if err := r.references.Sample(); err != nil {
			return err
		}
		if err := r.program(namespace, p); err != nil {
			return fmt.Errorf("price %s: %w", p.name, err)
		}
	}
	return nil
}

// load loads one pair of programs and checks its premise. A sparing run does it once and keeps the pair: whenever code
// changes, the kernel interrupts all CPUs. The pair is nil where it is refused, or after an error.
func (r *run) load(p open[programs]) (*price.Pair, error) {
	if loaded := r.kept[p.name]; loaded != nil {
		return loaded, nil
	}
	loaded, err := price.LoadPair([2]string{p.sides.with, p.sides.without})
	if err != nil {
		return nil, err
	}
	if err := p.found(p.sides.premise(r.kernel, loaded)); err != nil || p.refused != "" {
		loaded.Close()
		return nil, err
	}
	if r.kept != nil {
		r.kept[p.name] = loaded
	}
	return loaded, nil
}

// program times one pair of programs in turn.
func (r *run) program(namespace *netlab.Namespace, p open[programs]) error {
	loaded, err := r.load(p)
	if err != nil || p.refused != "" {
		return err
	}
	if r.kept == nil {
		defer loaded.Close()
	}
	var first [2]price.Run
	var slots [2][]float64
	err = namespace.Do(func() error {
		for n := range programSlots + 1 {
			for k := range 2 {
				i := (n + k) % 2 // each goes first every other time
				got, err := loaded.Run(i)
				if err != nil {
					return err
				}
				if n == 0 { // warms up
					first[i] = got
					continue
				}
				slots[i] = append(slots[i], float64(got.Ns)/float64(max(got.Turns, 1)))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if first[0].Turns == 0 || first[0].Turns != first[1].Turns || first[0].Sum != first[1].Sum {
		return p.found("", refusal(fmt.Sprintf("the two programs did not do the same: %d turns gave %d, %d gave %d",
			first[0].Turns, first[0].Sum, first[1].Turns, first[1].Sum)))
	}
	p.add(r.round.Number, rounds.Undisturbed(slots[0]), rounds.Undisturbed(slots[1]))
	return nil
}
