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
// packets, nil for one that is loaded no second time. What a program itself does otherwise from run to run, or from load
// to load, is not compared: unsteady is of how many packets that is something. to are the [Destinations] of each program's
// packets, nil where they are not compared.
func (raw *Raw) Behaviors(twins [2]*prog.Clean, to [2][]string) (changes []record.BehaviorChange, unsteady int) {
	found := []record.BehaviorChange{}
	at := make(map[record.BehaviorChange]int)
	for i := range raw.Clean[0].Outcomes {
		old, is := steady(&raw.Clean[0], twins[0], i), steady(&raw.Clean[1], twins[1], i)
		var b record.BehaviorChange
		switch {
		case old.Unsteady || is.Unsteady:
			unsteady++
			continue
		case old.Verdict != is.Verdict:
			b = record.BehaviorChange{What: "verdict", Old: verdict(old.Verdict), New: verdict(is.Verdict)}
		case old.Length != is.Length:
			b = record.BehaviorChange{What: "length", Old: strconv.Itoa(old.Length), New: strconv.Itoa(is.Length)}
		case elsewhere(to, i):
			b = record.BehaviorChange{What: "target", Old: to[0][i], New: to[1][i]}
		case old.Hash != 0 && is.Hash != 0 && old.Hash != is.Hash: // also where it goes is not known
			b = record.BehaviorChange{What: "bytes"}
		case old.Hash == 0 || is.Hash == 0 || old.Verdict == Redirected && to[0] != nil && !Compared(to, i):
			unsteady++
			continue
		default:
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

// Compared tells whether it is known where both programs redirect a packet to.
func Compared(to [2][]string, packet int) bool {
	for _, of := range to {
		if packet >= len(of) || of[packet] == "" || of[packet] == Unknown {
			return false
		}
	}
	return true
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
