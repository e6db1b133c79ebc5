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
// first. It is empty, not nil, when all come out alike. twin is what another load of the first program made of the
// packets, nil when it was loaded before: what comes out of that otherwise is not compared, and counted.
func (raw *Raw) Behaviors(twin *prog.Clean) (changes []record.BehaviorChange, unsteady int) {
	found := []record.BehaviorChange{}
	at := make(map[record.BehaviorChange]int)
	for i, old := range raw.Clean[0].Outcomes {
		is := raw.Clean[1].Outcomes[i]
		if twin != nil && twin.Outcomes[i] != old {
			unsteady++
			continue
		}
		var b record.BehaviorChange
		switch {
		case old.Verdict != is.Verdict:
			b = record.BehaviorChange{What: "verdict", Old: verdict(old.Verdict), New: verdict(is.Verdict)}
		case old.Length != is.Length:
			b = record.BehaviorChange{What: "length", Old: strconv.Itoa(old.Length), New: strconv.Itoa(is.Length)}
		case old.Hash != is.Hash && old.Hash != 0 && is.Hash != 0: // 0 is of bytes that differ each time
			b = record.BehaviorChange{What: "bytes"}
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
