package record

import "github.com/unthunk/unthunk/internal/stat"

// What [WhatIfRow.Source] may be.
const (
	FromCode   = "code"    // places in a driver's code, so a range
	FromCounts = "counted" // in a guest
)

// WhatIf is a record of `drivers --what-if`: what changes to drivers would save of a redirected packet, as an
// estimate. Rows that save most for sure come first, those without a number last.
type WhatIf struct {
	Document[WhatIfRow]
	// Call is the price of an indirect call in ns, DirectCall that of a direct one with its return, on the machine of
	// PriceOf. Each is nil where it was not measured.
	Call       *stat.Quantity `json:"call"`
	DirectCall *stat.Quantity `json:"direct-call"`
	PriceOf    string         `json:"price-of"`
	// Bulk is how many frames are taken to be returned, or mapped, together.
	Bulk int `json:"bulk"`
	// Calls is what calls of the DMA API do, by series of kernels and DMA setup.
	Calls []WhatIfCall `json:"calls"`
	// First is what to do first, by driver and DMA setup: drivers for whom most is sure come first.
	First []WhatIfFirst `json:"first"`
	// Without are the changes that have no row.
	Without []WhatIfWithout `json:"without"`
}

// WhatIfFirst is the change of a driver in a DMA setup that saves most for sure.
type WhatIfFirst struct {
	Driver  string `json:"driver"`
	Release string `json:"release"`
	DMA     string `json:"dma"`
	// Change saves Saving in ns. They are empty and nil where no change saves anything for sure, or none has a number.
	Change string         `json:"change"`
	Saving *stat.Quantity `json:"saving"`
	// Alike are the changes that may save as much: neither counts nor prices tell them apart.
	Alike []string `json:"alike"`
	// Why says why there is no change. Empty when there is one.
	Why string `json:"why,omitempty"`
}

// WhatIfWithout is a change that has no row, as it would change nothing.
type WhatIfWithout struct {
	Driver  string `json:"driver"`
	Release string `json:"release"`
	DMA     string `json:"dma"`
	Change  string `json:"change"`
	Why     string `json:"why"`
}

// WhatIfRow is a change to a driver, in a DMA setup.
type WhatIfRow struct {
	// Name is stable: "igb/iommu-strict/gather-tx-maps".
	Name string `json:"name"`
	// Labels are the row's coordinates: driver, dma, change.
	Labels map[string]string `json:"labels"`
	// Release is the kernel's of the driver.
	Release string `json:"release"`
	// Source is where the calls a packet are from: [FromCode] or [FromCounts]. Counted is then the row of lab.
	Source  string `json:"source"`
	Counted string `json:"counted,omitempty"`
	// Now is what a packet does today of that which the change is about, Saved what the change takes away. What the
	// change adds is below 0.
	Now   WhatIfCounts `json:"now"`
	Saved WhatIfCounts `json:"saved"`
	// Packet is how many instructions the row of lab has: those of its window, which lacks what completes transmission, and what
	// a driver does once a poll. So those of two drivers are not the same part of a packet. It is nil where that was not counted.
	Packet *float64 `json:"packet"`
	// Cost is what the calls of Now take in ns, Saving what those of Saved do: counts times prices, an estimate. Low and
	// High hold the uncertainty of both, Median is the middle of the two. They are nil when Refused is set.
	Cost   *stat.Quantity `json:"cost"`
	Saving *stat.Quantity `json:"saving"`
	// Besides is what the change saves besides calls, of which nothing was measured.
	Besides []string `json:"besides"`
	// Refused says why there is no saving in ns. Empty when there is one.
	Refused string `json:"refused,omitempty"`
}

// WhatIfCounts are counts a packet.
type WhatIfCounts struct {
	// Maps, Unmaps and Syncs are calls of the DMA API, Returns of frames to their memory.
	Maps    Range `json:"maps"`
	Unmaps  Range `json:"unmaps"`
	Syncs   Range `json:"syncs"`
	Returns Range `json:"returns"`
	// Direct are direct calls: one for each of the above at least.
	Direct Range `json:"direct"`
	// Indirect calls that those make; nil where they were not counted.
	Indirect *Range `json:"indirect"`
	// Instructions that maps and syncs execute, without unmaps; nil where they were not counted.
	Instructions *Range `json:"instructions"`
}

// WhatIfCall is what a call of the DMA API does in kernels of a series, as guests counted it.
type WhatIfCall struct {
	Series string `json:"series"` // "6.12"
	DMA    string `json:"dma"`
	Call   string `json:"call"` // map, unmap or sync
	// Indirect calls that one makes; those of them that are made for each page of a list too are PerPage.
	Indirect Range `json:"indirect"`
	PerPage  Range `json:"per-page"`
	// Instructions that one executes; nil where they were not counted.
	Instructions *Range `json:"instructions"`
	// Rows are those of lab that it is from; empty for what the kernel's source says.
	Rows []string `json:"rows"`
}

// Range is a count that is not known better than from Low to High.
type Range struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Exactly is a count that is known.
func Exactly(x float64) Range { return Range{x, x} }

// Plus adds, Minus takes away, Times multiplies: the ends are as far apart as both allow.
func (r Range) Plus(o Range) Range { return Range{r.Low + o.Low, r.High + o.High} }

// Minus is r without o.
func (r Range) Minus(o Range) Range { return Range{r.Low - o.High, r.High - o.Low} }

// Times is the product.
func (r Range) Times(o Range) Range {
	a, b, c, d := r.Low*o.Low, r.Low*o.High, r.High*o.Low, r.High*o.High
	return Range{min(a, b, c, d), max(a, b, c, d)}
}

// By is r so often.
func (r Range) By(x float64) Range { return r.Times(Exactly(x)) }

// Or is the least that holds both.
func (r Range) Or(o Range) Range { return Range{min(r.Low, o.Low), max(r.High, o.High)} }
