package conclusion

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/release"
	"github.com/unthunk/unthunk/internal/stat"
)

// New reads a record of run, with what was found of its machine. Nothing has a price on an emulated CPU.
func New(doc *record.Document[record.BenchRow], findings []host.Finding) *record.Conclusion {
	v := &record.Conclusion{}
	found := make(map[string]host.Finding)
	for _, f := range findings {
		found[f.Name] = f
	}
	var redirect *stat.Quantity
	if row := headRow(doc.Rows); row != nil && row.Labels["bulk"] == record.AnswerBulk {
		redirect = row.Hop
	}
	if !doc.Host.Emulated() {
		v.Tax, v.Share = share(redirect, record.AnswerBulk, doc.Prices)
		if v.Share != nil && (math.IsInf(v.Share.Low, 0) || math.IsInf(v.Share.High, 0)) { // no record has such a bound
			v.Share.Low, v.Share.High = math.NaN(), math.NaN()
		}
	}
	v.Largest = largestStage(doc.Stages)
	v.Win = slices.Concat(unpriced(found), calledLess(doc, v.Tax, found), bulkGain(doc.Rows, findings),
		withoutIOMMU(doc, found), slotGain(doc.Prices, found))
	v.Lose = avoid(doc.Prices, found)
	noise := noiseOf(doc.Prices)
	for _, gains := range []*[]record.Gain{&v.Win, &v.Lose} {
		*gains = slices.DeleteFunc(*gains, func(g record.Gain) bool { return !known(g, noise) || g.Ns != nil && doc.Host.Emulated() })
		slices.SortStableFunc(*gains, func(a, b record.Gain) int { return cmp.Compare(size(b), size(a)) })
		if *gains == nil {
			*gains = []record.Gain{}
		}
	}
	return v
}

// known tells whether a gain is one: what cannot be distinguished from 0 is none, and neither is what is no more than noise.
func known(g record.Gain, noise float64) bool {
	return g.Ns == nil || g.AtMost || g.Ns.Low > 0 && g.Ns.Median > noise
}

// noiseOf is by how many ns two loads of one program may differ in a run: the far end of the interval of its control; 0
// without one.
func noiseOf(prices []record.TaxRow) float64 {
	row := priceRow(prices, "control")
	if row == nil || math.IsNaN(row.Price.Low) || math.IsNaN(row.Price.High) {
		return 0
	}
	return max(math.Abs(row.Price.Low), math.Abs(row.Price.High))
}

// size orders gains. What has no price was found on this machine, and comes first.
func size(g record.Gain) float64 {
	if g.Ns == nil {
		return math.Inf(1)
	}
	return g.Ns.Median
}

// advice is a gain of what a finding says is to be done: its first clause, and why.
func advice(do string, ns *stat.Quantity, verb string) record.Gain {
	what, why, _ := strings.Cut(do, ": ")
	return record.Gain{What: what, Why: why, Ns: ns, Verb: verb}
}

// largestStage is the largest stage of the redirect path.
func largestStage(stages []record.ProfileRow) (found *record.ProfileRow) {
	for i := range stages {
		row := &stages[i]
		if row.Ns != nil && functions.Stage(row.Name).OnPath() && (found == nil || row.Ns.Median > found.Ns.Median) {
			found = row
		}
	}
	return found
}

// unpriced are what makes each packet of this machine dearer and what a run does not price:
// settings, and programs that others have at the tracepoints.
func unpriced(found map[string]host.Finding) (gains []record.Gain) {
	for _, name := range []string{host.ObserversFinding, "bpf-jit", "bpf-jit-harden", "bpf-stats"} {
		f := found[name]
		if f.Level != host.LevelWarn || f.Do == "" {
			continue
		}
		g := advice(f.Do, nil, "check")
		g.Now, g.Why = f.Found, cmp.Or(g.Why, f.Means)
		if name != host.ObserversFinding {
			g.Now = name + " is " + f.Found
		}
		gains = append(gains, g)
	}
	return gains
}

// calledLess are what makes indirect calls and returns cheaper on this machine.
func calledLess(doc *record.Document[record.BenchRow], tax *stat.Quantity, found map[string]host.Finding) (gains []record.Gain) {
	if do := found["indirect-call"].Do; do != "" && tax != nil {
		gains = append(gains, advice(do, tax, "check"))
	}
	do := found["return-thunk"].Do
	if do != "" && doc.Profile != nil && doc.Profile.Tax != nil && doc.Profile.Tax.ReturnEntries != nil {
		g := advice(do, doc.Profile.Tax.ReturnEntries, "profile")
		g.AtMost = true
		gains = append(gains, g)
	}
	return gains
}

// withoutIOMMU are what a NIC behind an IOMMU could be spared.
func withoutIOMMU(doc *record.Document[record.BenchRow], found map[string]host.Finding) (gains []record.Gain) {
	one, do := priceRow(doc.Prices, "bpf-prog"), found["iommu"].Do
	if one == nil || do == "" {
		return nil
	}
	ns := one.Price.Times(iommuCalls)
	if release.Before(doc.Host.Kernel, "6.12") {
		gains = append(gains, record.Gain{
			What: "update to Linux 6.12, which calls iommu-dma directly",
			Why: fmt.Sprintf("b5c58b2fdc42, dma-mapping: direct calls for dma-iommu: %d indirect calls fewer for each "+
				"packet behind an IOMMU", iommuCalls),
			Ns: ns, Verb: "lab",
		})
	}
	g := advice(do, ns, "lab")
	g.Why = fmt.Sprintf("a device behind an IOMMU makes %d indirect calls or more for each packet", iommuCalls)
	return append(gains, g)
}

// slotGain is what a program pays that found no slot of the BPF dispatcher.
func slotGain(prices []record.TaxRow, found map[string]host.Finding) []record.Gain {
	f, row := found[host.DispatcherFinding], priceRow(prices, "bpf-prog")
	if f.Level != host.LevelWarn || row == nil {
		return nil
	}
	return []record.Gain{{What: f.Do, Now: f.Found, Why: f.Means, Ns: row.Price, Verb: "check"}}
}

// avoid are what would make each packet dearer, with what this machine has of it now.
func avoid(prices []record.TaxRow, found map[string]host.Finding) (gains []record.Gain) {
	for _, loss := range []struct{ row, what, why, finding string }{
		{"tracepoint/1", "a program at tracepoint xdp_redirect", "xdp-monitor and xdpdump attach one", host.ObserversFinding},
		{"bpf-prog", "a 49th XDP program", "the BPF dispatcher holds 48; others are called indirectly", host.DispatcherFinding},
		{"devmap-prog", "a second XDP program, in the devmap", "", ""},
		{"tail-call", "a tail call to an index that is not constant", "", ""},
	} {
		has := found[loss.finding].Level == host.LevelWarn // then it is not to be avoided but undone
		if row := priceRow(prices, loss.row); row != nil && !has {
			gains = append(gains, record.Gain{
				What: loss.what, Now: found[loss.finding].Found, Why: loss.why, Ns: row.Price, Verb: "tax",
			})
		}
	}
	return gains
}

// iommuCalls is what the map and unmap of one transmitted packet make at least on Linux
// 6.12 behind Intel's IOMMU, and how many more on 6.1, as lab counts them (docs/lab.md).
const iommuCalls = 4

// bulkGain is what the largest bulk of a ladder saves of a redirect against the smallest,
// where a NIC of this machine raises an interrupt for each frame.
func bulkGain(rows []record.BenchRow, findings []host.Finding) []record.Gain {
	at := slices.IndexFunc(findings, func(f host.Finding) bool {
		return strings.HasSuffix(f.Name, "-coalescing") && f.Do != ""
	})
	if len(rows) < 2 || at < 0 {
		return nil
	}
	first, last := rows[0], rows[len(rows)-1]
	if first.Hop == nil || last.Hop == nil || math.IsNaN(first.Hop.Low) || math.IsNaN(last.Hop.Low) {
		return nil
	}
	what, why, _ := strings.Cut(findings[at].Do, ": ")
	return []record.Gain{{
		What: what, Now: findings[at].Found,
		Why: fmt.Sprintf("%s: that is bulk %s after bulk %s", why, last.Labels["bulk"], first.Labels["bulk"]),
		Ns: &stat.Quantity{
			Median: first.Hop.Median - last.Hop.Median, Low: first.Hop.Low - last.Hop.High, High: first.Hop.High - last.Hop.Low,
			N: min(first.Hop.N, last.Hop.N), Unit: "ns",
		},
		AtMost: true, Verb: "bench",
	}}
}
