package conclusion

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// New reads a record of run, with what was found of its machine.
func New(doc *record.Document[record.BenchRow], findings []host.Finding) *record.Conclusion {
	v := &record.Conclusion{Win: []record.Gain{}, Lose: []record.Gain{}}
	price := func(name string) *record.TaxRow {
		for i := range doc.Prices {
			if row := &doc.Prices[i]; row.Name == name && row.Price != nil {
				return row
			}
		}
		return nil
	}
	do := func(name string) string {
		for _, f := range findings {
			if f.Name == name {
				return f.Do
			}
		}
		return ""
	}
	win := func(g record.Gain) {
		// What cannot be distinguished from 0 is no gain.
		if g.Ns != nil && (g.AtMost || g.Ns.Low > 0) {
			v.Win = append(v.Win, g)
		}
	}
	if row := price("packet/bulk=16"); row != nil && row.With != nil && row.With.Median > 0 {
		v.Tax = row.Price
		of := 100 / row.With.Median
		v.Share = &stat.Quantity{Median: of * row.Price.Median, Low: of * row.Price.Low, High: of * row.Price.High,
			N: row.Price.N, Unit: "%"}
		if what := do("indirect-call"); what != "" {
			win(record.Gain{What: what, Ns: row.Price, Verb: "check"})
		}
	}
	if doc.Profile != nil {
		for i := range doc.Stages {
			row := &doc.Stages[i]
			if row.Ns != nil && functions.Stage(row.Name).OnPath() && (v.Largest == nil || row.Ns.Median > v.Largest.Ns.Median) {
				v.Largest = row
			}
		}
		if what := do("return-thunk"); what != "" && doc.Profile.Tax != nil {
			win(record.Gain{What: what, Ns: doc.Profile.Tax.ReturnEntries, AtMost: true, Verb: "profile"})
		}
	}
	win(bulkGain(doc.Rows))
	if one := price("bpf-prog"); one != nil {
		if what := do("iommu"); what != "" {
			if older(doc.Host.Kernel, 6, 12) {
				win(record.Gain{What: fmt.Sprintf("update to Linux 6.12, which calls iommu-dma directly (b5c58b2fdc42, "+
					"dma-mapping: direct calls for dma-iommu): %d indirect calls fewer for each packet behind an IOMMU",
					iommuCalls), Ns: times(iommuCalls, one.Price), Verb: "lab"})
			}
			win(record.Gain{What: what + fmt.Sprintf(": an interface behind an IOMMU makes %d indirect calls or more for "+
				"each packet", iommuCalls), Ns: times(iommuCalls, one.Price), Verb: "lab"})
		}
	}
	for _, loss := range []struct{ row, what string }{
		{"tracepoint/1", "a program at the tracepoint xdp_redirect, as xdp-monitor and xdpdump attach"},
		{"bpf-prog", "an XDP program that the dispatcher has no room for: it holds 48"},
		{"devmap-prog", "a second program, in the devmap"},
	} {
		if row := price(loss.row); row != nil && row.Price.Low > 0 {
			v.Lose = append(v.Lose, record.Gain{What: loss.what, Ns: row.Price, Verb: "tax"})
		}
	}
	for _, gains := range [][]record.Gain{v.Win, v.Lose} {
		slices.SortStableFunc(gains, func(a, b record.Gain) int { return cmp.Compare(b.Ns.Median, a.Ns.Median) })
	}
	return v
}

// iommuCalls is what the map and unmap of one transmitted packet make at least on Linux
// 6.12 behind Intel's IOMMU, and how many more on 6.1, as lab counts them (docs/lab.md).
const iommuCalls = 4

// older tells whether a kernel release, "6.1.0-56-amd64", is from before a version.
func older(release string, major, minor int) bool {
	var x, y int
	if n, _ := fmt.Sscanf(release, "%d.%d", &x, &y); n != 2 {
		return false
	}
	return x < major || x == major && y < minor
}

func times(n float64, q *stat.Quantity) *stat.Quantity {
	return &stat.Quantity{Median: n * q.Median, Low: n * q.Low, High: n * q.High, N: q.N, Unit: q.Unit}
}

// bulkGain is what the largest bulk of a ladder saves of a hop against the smallest.
func bulkGain(rows []record.BenchRow) record.Gain {
	if len(rows) < 2 {
		return record.Gain{}
	}
	first, last := rows[0], rows[len(rows)-1]
	if first.Hop == nil || last.Hop == nil || math.IsNaN(first.Hop.Low) || math.IsNaN(last.Hop.Low) {
		return record.Gain{}
	}
	return record.Gain{
		What: fmt.Sprintf("raise the bulk from %s to %s: more frames a poll, so that one call serves them (interrupt "+
			"moderation, busy polling, fewer queues)", first.Labels["bulk"], last.Labels["bulk"]),
		Ns: &stat.Quantity{
			Median: first.Hop.Median - last.Hop.Median, Low: first.Hop.Low - last.Hop.High, High: first.Hop.High - last.Hop.Low,
			N: min(first.Hop.N, last.Hop.N), Unit: "ns",
		},
		Verb: "bench",
	}
}
