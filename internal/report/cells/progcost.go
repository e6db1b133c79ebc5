package cells

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// Share is how many of the packets a row of prog cost has.
func Share(row *record.CostRow) string { return stat.Number(row.Share) + " %" }

// Verdicts are what comes out of the packets of a row, the most frequent first: "tx", or "tx 90 %, drop 10 %".
func Verdicts(row *record.CostRow) string { return VerdictsOf(row.Verdicts) }

// VerdictsOf are verdicts with how many packets have each, the most frequent first.
func VerdictsOf(verdicts map[string]int) string {
	total := 0
	for _, n := range verdicts {
		total += n
	}
	names := slices.SortedFunc(maps.Keys(verdicts), func(a, b string) int {
		return cmp.Or(cmp.Compare(verdicts[b], verdicts[a]), cmp.Compare(a, b))
	})
	if len(names) == 1 {
		return Clean(names[0])
	}
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %s %%", Clean(name), stat.Number(100*float64(verdicts[name])/float64(max(total, 1)))))
	}
	return strings.Join(parts, ", ")
}

// Fragmented says how packets in fragments are; empty when there are none.
func Fragmented(p *record.PacketSource) string {
	if p.Fragmented == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %s in fragments: %d bytes in the first buffer, then 4096 each, as the kernel's test run makes them.",
		p.Fragmented, Plural(p.Kept, "packet"), p.FirstBuffer)
}

// LineNs is what a source line of a program takes of a packet, in ns.
func LineNs(ns *float64) string {
	if ns == nil {
		return "-"
	}
	return strconv.FormatFloat(*ns, 'f', 2, 64)
}
