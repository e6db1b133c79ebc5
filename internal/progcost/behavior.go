package progcost

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/prog"
)

// maxBehaviors is how many ways to come out otherwise are told apart.
const maxBehaviors = 1000

// Behaviors are the ways in which packets come out of the two programs otherwise, run once each: those of most packets
// first. It is empty, not nil, when all come out alike. twins are what other loads of the two programs made of the
// packets, nil for one that is loaded no second time. to are the [Destinations] of each program's packets, nil where they are not
// compared. seen are more runs of packets of [Raw.Unsettled], by packet and program: what one program does the same each time and the
// other does not is another behavior. All else that a program itself does otherwise from run to run, or from load to load, is not
// compared: unsteady is of how many packets that is something.
func (raw *Raw) Behaviors(
	twins [2]*prog.Clean, to [2][]string, seen map[int][2][]Seen,
) (changes []record.BehaviorChange, unsteady int) {
	found := []record.BehaviorChange{}
	at := make(map[record.BehaviorChange]int)
	for i := range raw.Clean[0].Outcomes {
		b, varies := compared(steady(&raw.Clean[0], twins[0], i), steady(&raw.Clean[1], twins[1], i), to, i)
		if varies {
			var changed bool
			if b, changed = settled(seen[i]); !changed {
				unsteady++
				continue
			}
		}
		if b.What == "" {
			continue
		}
		n, known := at[b]
		if !known {
			if len(found) == maxBehaviors {
				continue
			}
			n = len(found)
			at[b] = n
			b.First = i + 1
			found = append(found, b)
		}
		found[n].Packets++
	}
	slices.SortStableFunc(found, func(a, b record.BehaviorChange) int { return cmp.Compare(b.Packets, a.Packets) })
	return found, unsteady
}

// compared is how a packet comes out of two programs otherwise, the zero value where it does not. varies tells whether something of it
// varies, so that it cannot be told.
func compared(old, is prog.Outcome, to [2][]string, packet int) (b record.BehaviorChange, varies bool) {
	switch {
	case old.Unsteady || is.Unsteady:
		return b, true
	case old.Verdict != is.Verdict:
		return record.BehaviorChange{What: "verdict", Old: verdict(old.Verdict), New: verdict(is.Verdict)}, false
	case old.Length != is.Length:
		return record.BehaviorChange{What: "length", Old: strconv.Itoa(old.Length), New: strconv.Itoa(is.Length)}, false
	case elsewhere(to, packet):
		return record.BehaviorChange{What: "target", Old: to[0][packet], New: to[1][packet]}, false
	case old.Hash != 0 && is.Hash != 0 && old.Hash != is.Hash: // also where it goes is not known
		return record.BehaviorChange{What: "bytes"}, false
	}
	return b, old.Hash == 0 || is.Hash == 0 || old.Verdict == Redirected && to[0] != nil && !Compared(to, packet)
}

// Compared tells whether it is known where both programs redirect a packet to.
func Compared(to [2][]string, packet int) bool { return known(to[0], packet) && known(to[1], packet) }

// known tells whether it is known where a program redirects a packet to.
func known(to []string, packet int) bool {
	return packet < len(to) && to[packet] != "" && to[packet] != Unknown
}

func elsewhere(to [2][]string, packet int) bool {
	return Compared(to, packet) && to[0][packet] != to[1][packet]
}

// steady is what comes out of a packet in all runs of a program and its twin.
func steady(clean, twin *prog.Clean, packet int) prog.Outcome {
	o := clean.Outcomes[packet]
	if twin == nil {
		return o
	}
	t := twin.Outcomes[packet]
	o.Unsteady = o.Unsteady || t.Unsteady || t.Verdict != o.Verdict || t.Length != o.Length
	if t.Hash != o.Hash {
		o.Hash = 0
	}
	return o
}
