package tax

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/usercall"
)

// userCalls are two ways to call a function in user space.
type userCalls struct {
	with, without way
}

// way names a [usercall.Kind].
type way struct {
	name    string
	varying bool
}

var directly = way{name: "direct"}

func (userCalls) inspect(*kernel.Kernel) (string, error) {
	if len(usercall.Kinds()) == 0 {
		return "", errNoUserCalls
	}
	return "", nil
}

const errNoUserCalls = refusal("not measured: there are loops of calls in user space for x86-64 alone")

// complete leaves the row as it is: a packet makes no call in user space.
func (userCalls) complete(*Raw, *rawPair, *record.TaxRow) []string { return nil }

// Sizes of the reference in user space: one slot is some 10 µs.
const (
	userSlots       = 40
	userCallsInSlot = 1000
)

// users prices calls in user space once, on the core under test.
func (r *run) users(ctx context.Context, namespace *netlab.Namespace) error {
	pairs := of[userCalls](r.raw)
	if len(pairs) == 0 {
		return nil
	}
	r.round.Show("user space")
	kinds := make(map[way]usercall.Kind)
	for _, k := range usercall.Kinds() {
		kinds[way{k.Name, k.Varying}] = k
	}
	slots := make(map[way][]float64)
	var order []way
	for _, p := range pairs {
		for _, w := range []way{p.sides.with, p.sides.without} {
			if _, ok := kinds[w]; !ok {
				return fmt.Errorf("price %s: no such call %v", p.name, w)
			}
			if _, ok := slots[w]; !ok {
				slots[w] = nil
				order = append(order, w)
			}
		}
	}
	err := namespace.Do(func() error {
		for range userSlots {
			if err := ctx.Err(); err != nil {
				return err
			}
			for _, i := range rand.Perm(len(order)) {
				w := order[i]
				slots[w] = append(slots[w], kinds[w].Ns(userCallsInSlot))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range pairs {
		with, without := p.sides.with, p.sides.without
		p.premise = callOf(kinds[with]) + ", against " + callOf(kinds[without])
		p.add(r.round.Number, rounds.Undisturbed(slots[with]), rounds.Undisturbed(slots[without]))
	}
	return nil
}

// callOf is how a kind calls, read from its code in memory.
func callOf(k usercall.Kind) string {
	loop, thunk := k.Loop(), k.Thunk()
	for inst := range branch.Decode(loop.Bytes, loop.Addr) {
		switch {
		case inst.Kind == branch.CallIndirect:
			return inst.String()
		case inst.Kind == branch.CallDirect && inst.Target == thunk.Addr:
			return "call of " + strings.Join(branch.NameIndirectThunk(thunk.Bytes, thunk.Addr, nil).Lines, "; ")
		case inst.Kind == branch.CallDirect:
			return "a direct call"
		}
	}
	return "no call"
}
