package tax

import (
	"errors"
	"slices"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// sides are the two experiments that a pair compares: one with the indirect branch,
// one without. Those that are timed together are found by their type or by a second
// interface, see [of]: [programs], [onFill], [onChain], [userCalls].
type sides interface {
	// inspect reads kernel code before anything is timed. It returns the
	// premise where that code alone shows it, and a refusal where there can be
	// no price.
	inspect(*kernel.Kernel) (premise string, err error)
	// complete adds to a row what only the sides know: how often the branch runs
	// for a packet, and notes. It returns warnings of the row. The price is nil on
	// an emulated CPU.
	complete(*Raw, *rawPair, *record.TaxRow) (warnings []string)
}

// refusal is an error that leaves a pair without a price, and the others as they are.
type refusal string

func (e refusal) Error() string { return string(e) }

// rawPair is what a run measured of one pair.
type rawPair struct {
	pair
	// premise is what was found in the code of both sides; refused why there
	// is no price.
	premise, refused string
	// uncharged is set when it is refused only as the CPU is emulated.
	uncharged bool
	// rounds are the numbers of the rounds with a price, or of the fills of the
	// dispatcher, each of which has several; withNs and withoutNs are its two
	// sides in ns per run of what differs.
	rounds            []int
	withNs, withoutNs []float64
	// failure is why there is no price of the last round that failed.
	failure string
}

// found keeps what reading the code of a pair gave: its premise unless that is
// empty, or why it has no price. It returns an error that is not a refusal.
func (p *rawPair) found(premise string, err error) error {
	var refused refusal
	if errors.As(err, &refused) {
		p.refused = string(refused)
		return nil
	}
	if err == nil && premise != "" {
		p.premise = premise
	}
	return err
}

func (p *rawPair) add(round int, with, without float64) {
	p.rounds = append(p.rounds, round)
	p.withNs = append(p.withNs, with)
	p.withoutNs = append(p.withoutNs, without)
}

// open is a pair that has not been refused, with the type of its sides.
type open[S sides] struct {
	*rawPair
	sides S
}

// of returns the pairs whose sides are of one type, unless they have been refused.
func of[S sides](raw *Raw) []open[S] {
	var out []open[S]
	for i := range raw.pairs {
		p := &raw.pairs[i]
		if s, ok := p.sides.(S); ok && p.refused == "" {
			out = append(out, open[S]{p, s})
		}
	}
	return out
}

// fills is how often the dispatcher was filled for a pair of [onFill].
func (p *rawPair) fills() int { return len(slices.Compact(slices.Clone(p.rounds))) }

// enoughRounds tells whether an interval can be made of one number a round.
func (p *rawPair) enoughRounds() bool { return p.fills() >= stat.MinRounds }

// perRound are the two sides, one number a round: numbers of one fill are alike, and
// an interval of all of them would be too narrow. With too few rounds each number
// counts.
func (p *rawPair) perRound() (rounds []int, with, without []float64) {
	if !p.enoughRounds() {
		for i := range p.rounds {
			rounds = append(rounds, i)
		}
		return rounds, p.withNs, p.withoutNs
	}
	for from := 0; from < len(p.rounds); {
		to := from
		for to < len(p.rounds) && p.rounds[to] == p.rounds[from] {
			to++
		}
		rounds = append(rounds, p.rounds[from])
		with = append(with, stat.Median(p.withNs[from:to]))
		without = append(without, stat.Median(p.withoutNs[from:to]))
		from = to
	}
	return rounds, with, without
}
