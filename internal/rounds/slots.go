package rounds

import (
	"errors"
	"fmt"
	"slices"

	"github.com/unthunk/unthunk/internal/stat"
)

// maxBad is the share of slots whose counts may disagree before there is no number: a frame can be lost to an interrupt
// that came at a bad moment, but not often.
const maxBad = 0.05

// Slots counts the slots of a run.
type Slots struct {
	// All is how many slots ran, Bad in how many of them the packet counts disagreed.
	All, Bad int
}

// Add counts a slot; good tells whether its packet counts agreed.
func (s *Slots) Add(good bool) {
	s.All++
	if !good {
		s.Bad++
	}
}

// Unusable tells whether the counts of more than one slot in twenty disagreed: then there is no number.
func (s Slots) Unusable() bool { return float64(s.Bad) > maxBad*float64(s.All) }

// Warning says how many slots were left out. It is empty when none was.
func (s Slots) Warning() string {
	if s.Bad == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d slots left out: their packet counts disagreed", s.Bad, s.All)
}

// ErrDisagree says that packet counts disagree.
var ErrDisagree = errors.New("packet counts disagree")

// Counts are frames, as the programs that generate, redirect and receive them count.
type Counts struct {
	Sent, Redirected, Received uint64
}

// Add adds the counts of a slot.
func (c *Counts) Add(more Counts) {
	c.Sent += more.Sent
	c.Redirected += more.Redirected
	c.Received += more.Received
}

// Agree tells whether each frame that was sent was redirected and arrived in the given number of copies. Counts of no
// frames do not agree.
func (c Counts) Agree(copies uint64) bool {
	return c.Sent > 0 && c.Sent == c.Redirected && c.Received == c.Redirected*copies
}

// Disagree returns an error that wraps [ErrDisagree] and has the counts.
func (c Counts) Disagree() error {
	return fmt.Errorf("%w: %d sent, %d redirected, %d received", ErrDisagree, c.Sent, c.Redirected, c.Received)
}

// Undisturbed makes the one number of a round of its windows or slots: their 10th percentile. What disturbs a window,
// an interrupt, another guest, a colder cache, makes it longer, never shorter. On a shared machine it scattered by 9 to
// 10 % from round to round where medians did by 10 to 12 % (BenchmarkScatter of package redirect).
func Undisturbed(windows []float64) float64 { return stat.Quantile(windows, 0.1) }

// QuickHalf is the mean of the smaller half: as deaf to disturbance as a low quantile, but finer than the whole ns of
// its values. There must be at least one value.
func QuickHalf(xs []float64) float64 {
	s := slices.Sorted(slices.Values(xs))
	s = s[:(len(s)+1)/2]
	sum := 0.0
	for _, x := range s {
		sum += x
	}
	return sum / float64(len(s))
}
