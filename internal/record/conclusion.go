package record

import (
	"errors"
	"fmt"
	"slices"

	"github.com/unthunk/unthunk/internal/stat"
)

// Conclusion is what a run says of its machine: what indirect branches take, and what
// could be won or lost.
type Conclusion struct {
	// Share is what indirect branches take of the redirect alone at bulk 16, in percent of
	// [BenchRow.Hop]; Tax is that in ns per packet. Both are nil without prices.
	Share *stat.Quantity `json:"share"`
	Tax   *stat.Quantity `json:"tax"`
	// Largest is the largest part of the redirect path by time; nil without a profile.
	Largest *ProfileRow `json:"largest"`
	// Win is what a packet could be spared, Lose what it would be charged, the largest
	// first.
	Win  []Gain `json:"win"`
	Lose []Gain `json:"lose"`
}

// Gain is what doing something changes.
type Gain struct {
	// What is to be done or left, one clause that fits on a line.
	What string `json:"what"`
	// Now is what this machine did when the run began, where that was looked at: "0 attached now".
	Now string `json:"now,omitempty"`
	// Why is what else there is to say of it. Records of before have it in What, after ": ".
	Why string `json:"why,omitempty"`
	// Ns a packet; nil when it was found here, and its price could not be measured.
	Ns *stat.Quantity `json:"ns"`
	// AtMost is set when Ns is a bound.
	AtMost bool `json:"at-most,omitempty"`
	// Verb shows more.
	Verb string `json:"verb"`
}

// maxGains bounds what a conclusion lists.
const maxGains = 64

func (v *Conclusion) check() error {
	if len(v.Win)+len(v.Lose) > maxGains {
		return fmt.Errorf("more than %d gains", maxGains)
	}
	qs := []quantity{{"share", "%", v.Share, true}, {"tax", "ns", v.Tax, true}}
	if v.Largest != nil {
		if v.Largest.Ns == nil || !plain(v.Largest.Name) {
			return errors.New("its largest stage has no number or an impossible name")
		}
		qs = append(qs, quantity{"largest stage", "ns", v.Largest.Ns, true})
	}
	for _, g := range slices.Concat(v.Win, v.Lose) {
		if g.What == "" || !plain(g.Verb) || checkTexts([]string{g.What, g.Now, g.Why}) != nil {
			return errors.New("a gain has an impossible text")
		}
		qs = append(qs, quantity{"gain", "ns", g.Ns, true})
	}
	return checkQuantities(qs)
}
