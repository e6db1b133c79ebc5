package tax

import (
	"errors"
	"fmt"
	"slices"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// onChain are sides that are measured on the redirect chains of a round.
type onChain interface {
	sides
	// settings are what has to be measured.
	settings() []setting
	// check reads what only loaded programs show.
	check(*kernel.Kernel, *chains) (premise string, err error)
	// ns are both sides in this round, in ns per run of what differs. It fails
	// when packet counts disagreed.
	ns(*chains) (with, without float64, err error)
}

// setting is what a chain runs while it is measured.
type setting struct {
	bulk int
	// drop ends the chain at the program under test: there is no redirect.
	drop bool
	// second runs another program for each frame, from the devmap.
	second bool
	// watched settings are measured in a row, in the order of their observers,
	// as attaching to a tracepoint takes long.
	watched bool
	// observers is how many programs are at the tracepoint xdp_redirect.
	observers int
}

// observersWarning warns of programs that others have at the tracepoint.
func observersWarning(raw *Raw) []string {
	if !raw.foreignObservers {
		return nil
	}
	return []string{fmt.Sprintf("others' programs are at the tracepoint %s: each packet pays for them", tracepoint)}
}

// hop are the redirect hop at two bulks.
type hop struct{ with, without int }

func (hop) inspect(k *kernel.Kernel) (string, error) {
	return holds(k, functions.Holders(functions.CallsXmit))
}

func (s hop) settings() []setting {
	return []setting{
		{bulk: s.with}, {bulk: s.with, drop: true},
		{bulk: s.without}, {bulk: s.without, drop: true},
	}
}

func (hop) check(*kernel.Kernel, *chains) (string, error) { return "", nil }

func (s hop) ns(c *chains) (with, without float64, err error) {
	with, errWith := c.hop(s.with)
	without, errWithout := c.hop(s.without)
	return with, without, errors.Join(errWith, errWithout)
}

// notOnPath is why the calls of ndo_xdp_xmit have no price where a program of the user's makes none.
const notOnPath = "not on this packet's path: it makes no call of ndo_xdp_xmit"

// offPath says that packets of a program of the user's were counted, and make no call of ndo_xdp_xmit.
func (s hop) offPath(raw *Raw) bool {
	calls, ok := raw.calls[s.with]
	return ok && raw.yours && calls.Xmits == 0
}

// complete splits the price into what the calls that bulking saves account for, and
// the rest.
func (s hop) complete(raw *Raw, _ *rawPair, row *record.TaxRow) []string {
	one, okOne := raw.calls[s.with]
	bulk, okBulk := raw.calls[s.without]
	if !okOne || !okBulk {
		return observersWarning(raw)
	}
	saved := one.Xmits - bulk.Xmits
	row.PerPacket = exactly(saved, "calls")
	thunk := raw.thunk()
	if len(thunk) == 0 {
		row.Note = fmt.Sprintf("%.2f ndo_xdp_xmit calls a packet fewer; what a call costs was not measured", saved)
		return observersWarning(raw)
	}
	row.NsPerPacket = scaled(raw.atAnyClock(stat.Location(thunk, "ns")), saved, "ns")
	part := fmt.Sprintf("%.1f ns of it, %.0f %%", row.NsPerPacket.Median, 100*row.NsPerPacket.Median/row.Price.Median)
	if !row.NsPerPacket.Seen() {
		part = row.NsPerPacket.Cost(stat.Number) + " ns of it"
	}
	row.Note = fmt.Sprintf("%.2f calls a packet fewer account for %s; the rest is locks, doorbell, softirq", saved, part)
	if polls := one.Polls - bulk.Polls; polls > 0 {
		row.Note += fmt.Sprintf(", and %.2f NAPI polls fewer, which are called indirectly too", polls)
	}
	return observersWarning(raw)
}

// devmapProgram are a chain whose devmap runs a second program, and one without.
type devmapProgram struct{}

func (devmapProgram) inspect(*kernel.Kernel) (string, error) { return "", needJIT() }

func (devmapProgram) settings() []setting {
	return []setting{{bulk: topBulk, second: true}, {bulk: topBulk}}
}

func (devmapProgram) check(k *kernel.Kernel, c *chains) (string, error) {
	if !c.redirect.TakesPortProgram() {
		return "", refusal("no --devmap names an entry that has room for a program (struct bpf_devmap_val)")
	}
	at, err := dispatched(k, c.second)
	if errors.Is(err, errNoDispatcher) {
		return "the program is called through a register: there is no BPF dispatcher", nil
	}
	if err != nil {
		return "", err
	}
	if at.in {
		return "", refusal("already direct here: the dispatcher holds programs of a devmap too")
	}
	return "the program is not in the dispatcher, which ends in " + at.fallback, nil
}

func (s devmapProgram) ns(c *chains) (with, without float64, err error) {
	return c.both(s.settings(), 1)
}

// complete adds that the program runs once for each packet where it is in use.
func (devmapProgram) complete(raw *Raw, _ *rawPair, row *record.TaxRow) []string {
	setPerPacket(row, 1)
	return observersWarning(raw)
}

// observers are a chain with n empty programs at the tracepoint, and one without.
type observers struct {
	n int
	// role is that of the functions one of which makes the indirect call.
	role functions.Role
}

func (s observers) inspect(k *kernel.Kernel) (string, error) {
	return holds(k, functions.Holders(s.role))
}

func (s observers) settings() []setting {
	return []setting{
		{bulk: topBulk, watched: true, observers: s.n},
		{bulk: topBulk, watched: true},
	}
}

func (observers) check(_ *kernel.Kernel, c *chains) (string, error) {
	if c.foreignObservers {
		return "", refusal("others' programs are at " + tracepoint + " already: the price of the first cannot be measured")
	}
	return "", nil
}

// ns is per hit: the generator's redirect hits the tracepoint too, and a program of the user's may not redirect each
// packet.
func (s observers) ns(c *chains) (with, without float64, err error) {
	return c.both(s.settings(), 1+c.redirects)
}

func (observers) complete(raw *Raw, _ *rawPair, row *record.TaxRow) []string {
	if calls, ok := raw.calls[topBulk]; ok {
		setPerPacket(row, calls.Redirects)
	}
	return observersWarning(raw)
}

// Bulks are those that pairs on chains are priced at.
func Bulks() []int {
	var bulks []int
	for _, p := range pairs() {
		s, ok := p.sides.(onChain)
		if !ok {
			continue
		}
		for _, setting := range s.settings() {
			if !slices.Contains(bulks, setting.bulk) {
				bulks = append(bulks, setting.bulk)
			}
		}
	}
	return bulks
}
