package tax

import (
	"context"
	"slices"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/rounds"
)

// errEmulated is why an emulated CPU gives no price.
const errEmulated = refusal("not measured: the CPU is emulated, and its time tells nothing of a call's price")

// countOnly does what an emulated CPU is good for: it reads the code of both sides, and counts what a packet makes of calls. Then no
// pair has a price.
func (r *run) countOnly(ctx context.Context, show func(rounds.Progress)) (err error) {
	once := rounds.Schedule{Rounds: 1, Duration: r.schedule.Duration}
	r.raw.Outcome, err = once.Run(ctx, show, func(round rounds.Round) error {
		r.round = round
		if err := r.loadOnly(); err != nil {
			return err
		}
		return r.inNamespace(func(namespace *netlab.Namespace) error { return r.countCalls(ctx, namespace) })
	})
	for i := range r.raw.pairs {
		if p := &r.raw.pairs[i]; p.refused == "" {
			p.refused, p.uncharged = string(errEmulated), true
		}
	}
	return err
}

// loadOnly loads the pairs of programs, for their premises.
func (r *run) loadOnly() error {
	for _, p := range of[programs](r.raw) {
		loaded, err := r.load(p)
		if err != nil {
			return err
		}
		if r.kept == nil && loaded != nil {
			loaded.Close()
		}
	}
	return nil
}

// countCalls counts on the chains of a round what a packet makes, and reads what only loaded programs show.
func (r *run) countCalls(ctx context.Context, namespace *netlab.Namespace) error {
	pairs := of[onChain](r.raw)
	if len(pairs) == 0 {
		return nil
	}
	r.round.Show("counting calls")
	return r.onChains(ctx, namespace, pairs, func(*chains) error { return nil })
}

// uncharged tells whether a pair has all but a price: the CPU is emulated.
func (raw *Raw) uncharged(name string) bool {
	return slices.ContainsFunc(raw.pairs, func(p rawPair) bool { return p.name == name && p.uncharged })
}
