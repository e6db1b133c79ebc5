package tax

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/usercall"
)

// Sizes of the reference in user space: one slot is some 10 µs.
const (
	userSlots = 40
	userCalls = 1000
)

// users prices calls in user space once, on the core under test.
func (r *run) users(ctx context.Context, lab *netlab.Namespace) error {
	pairs := r.of(userKind)
	if len(pairs) == 0 {
		return nil
	}
	r.show("user space")
	kinds := make(map[user]usercall.Kind)
	for _, k := range usercall.Kinds() {
		kinds[user{k.Name, k.Varying}] = k
	}
	slots := make(map[user][]float64)
	for _, p := range pairs {
		for _, side := range []arm{p.With, p.Without} {
			if _, ok := kinds[side.(user)]; !ok {
				return fmt.Errorf("price %s: no such call %v", p.Name, side)
			}
			slots[side.(user)] = nil
		}
	}
	order := make([]user, 0, len(slots))
	for u := range slots {
		order = append(order, u)
	}
	err := lab.Do(func() error {
		for range userSlots {
			if err := ctx.Err(); err != nil {
				return err
			}
			for _, i := range rand.Perm(len(order)) {
				u := order[i]
				slots[u] = append(slots[u], kinds[u].Ns(userCalls))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range pairs {
		p.Premise = branchOf(kinds[p.With.(user)]) + ", against " + branchOf(kinds[p.Without.(user)])
		p.add(r.round, stat.Quantile(slots[p.With.(user)], quiet), stat.Quantile(slots[p.Without.(user)], quiet))
	}
	return nil
}

// branchOf is how a kind calls, as its code stands in memory.
func branchOf(k usercall.Kind) string {
	loop, at, thunk, thunkAt := k.Code()
	for inst := range branch.Decode(loop, at) {
		switch {
		case inst.Kind == branch.CallIndirect:
			return inst.String()
		case inst.Kind == branch.CallDirect && inst.Target == thunkAt:
			return "call of " + strings.Join(branch.NameIndirectThunk(thunk, thunkAt, nil).Lines, "; ")
		case inst.Kind == branch.CallDirect:
			return "a direct call"
		}
	}
	return "no call"
}
