package whatif

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/release"
	"github.com/unthunk/unthunk/internal/stat"
)

// call is what one call of the DMA API does.
type call struct {
	// indirect calls that it makes, nil where they were not counted; perPage of them are made for each page of a list too.
	indirect *record.Range
	perPage  record.Range
	// instructions that it executes, nil where they were not counted.
	instructions *record.Range
	// rows of lab that it is from.
	rows []string
}

// work is what calls do: direct ones, indirect ones that those make, instructions that they execute. What was not
// counted is nil, and so is what is made of it.
type work struct {
	direct                 record.Range
	indirect, instructions *record.Range
}

// work is that of one call.
func (c *call) work() work {
	return work{direct: record.Exactly(1), indirect: c.indirect, instructions: c.instructions}
}

func (w work) plus(o work) work {
	plus := func(a, b *record.Range) *record.Range { return both(a, b, record.Range.Plus) }
	return work{w.direct.Plus(o.direct), plus(w.indirect, o.indirect), plus(w.instructions, o.instructions)}
}

func (w work) minus(o work) work {
	minus := func(a, b *record.Range) *record.Range { return both(a, b, record.Range.Minus) }
	return work{w.direct.Minus(o.direct), minus(w.indirect, o.indirect), minus(w.instructions, o.instructions)}
}

// by is w so often. What was not counted is 0 where it is never done.
func (w work) by(n record.Range) work {
	times := func(r *record.Range) *record.Range {
		if n == (record.Range{}) {
			return new(record.Range)
		}
		return both(r, &n, record.Range.Times)
	}
	return work{w.direct.Times(n), times(w.indirect), times(w.instructions)}
}

func both(a, b *record.Range, op func(a, b record.Range) record.Range) *record.Range {
	if a == nil || b == nil {
		return nil
	}
	r := op(*a, *b)
	return &r
}

func (w work) counts() record.WhatIfCounts {
	return record.WhatIfCounts{Direct: w.direct, Indirect: w.indirect, Instructions: w.instructions}
}

// price puts ns beside the counts of a row, or says what is missing; how is the command that counts.
func price(row *record.WhatIfRow, prices Prices, how string) {
	cost, missing := nsOf(&row.Now, prices)
	saving, more := nsOf(&row.Saved, prices)
	if missing = append(missing, more...); len(missing) == 0 {
		row.Cost, row.Saving = cost, saving
		return
	}
	slices.Sort(missing)
	for i, what := range missing {
		if what == notCounted {
			missing[i] = fmt.Sprintf("indirect calls of the DMA API behind an IOMMU on Linux %s; %s", release.Series(row.Release), how)
		}
	}
	row.Refused = "not measured: " + strings.Join(slices.Compact(missing), "; ")
}

const notCounted = "indirect calls of maps, unmaps and syncs"

// nsOf is counts times prices; nil where a part has none.
func nsOf(c *record.WhatIfCounts, p Prices) (ns *stat.Quantity, missing []string) {
	sum, n := record.Range{}, 0
	add := func(count record.Range, price *stat.Quantity, what string) {
		switch {
		case count == (record.Range{}):
		case price == nil:
			missing = append(missing, "the price of "+what)
		default:
			sum = sum.Plus(count.Times(record.Range{Low: price.Low, High: price.High}))
			n = max(n, price.N)
		}
	}
	if c.Indirect == nil {
		missing = append(missing, notCounted)
	} else {
		add(*c.Indirect, p.Call, "an indirect call")
	}
	add(c.Direct, p.DirectCall, "a direct call")
	if len(missing) > 0 {
		return nil, missing
	}
	return &stat.Quantity{Median: (sum.Low + sum.High) / 2, Low: sum.Low, High: sum.High, N: n, Unit: "ns"}, nil
}
