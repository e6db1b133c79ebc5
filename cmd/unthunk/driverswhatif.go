package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/tax"
	"github.com/unthunk/unthunk/internal/whatif"
)

// whatIfFlags are the flags of an estimate.
type whatIfFlags struct {
	wanted bool
	counts []string
	prices string
	dmas   []string
}

// whatIfRounds and whatIfTime are what the two prices of an estimate take.
const (
	whatIfRounds = quickRounds
	whatIfTime   = 12 * time.Second
)

// check refuses flags that go with --what-if alone, and setups that there are not.
func (f *whatIfFlags) check() error {
	if !f.wanted && (len(f.counts) > 0 || f.prices != "" || len(f.dmas) > 0) {
		return usagef("--counts, --prices and --dma go with --what-if")
	}
	for _, dma := range f.dmas {
		if !slices.Contains(whatif.DMAs(), dma) {
			return usagef("--dma %q is not one of %s", dma, strings.Join(whatif.DMAs(), ", "))
		}
	}
	return nil
}

// estimate is the record of what changes to drivers would save.
func (f *whatIfFlags) estimate(ctx context.Context, s std, drivers *record.Document[record.DriverRow]) (*record.WhatIf, error) {
	doc := &record.WhatIf{Document: *record.New[record.WhatIfRow]("what-if", drivers.Host)}
	doc.Settings, doc.Warnings = drivers.Settings, slices.Clone(drivers.Warnings)
	var all record.Together
	labs, err := reading(ctx, func() (labs []*record.Lab, err error) {
		for _, file := range f.counts {
			saved, err := all.Load(file)
			if err != nil {
				return nil, err
			}
			if saved.Lab() == nil {
				return nil, usagef("--counts %s is a record of %s: give one of lab", file, saved.Kind)
			}
			if err := whatif.CheckUse(saved.Lab(), drivers.Rows, f.setups()); err != nil {
				return nil, usagef("--counts %s: %v", file, err)
			}
			labs = append(labs, saved.Lab())
		}
		return labs, nil
	})
	if err != nil {
		return nil, err
	}
	rows, err := f.taxRows(ctx, s, &all, doc)
	if err != nil {
		return nil, err
	}
	prices, missing := whatif.PricesOf(rows)
	for _, why := range missing {
		doc.Warn("", why)
	}
	_, err = reading(ctx, func() (*record.WhatIf, error) { // many sites by many drivers take seconds
		whatif.Estimate(doc, drivers.Rows, f.setups(), labs, prices)
		return doc, nil
	})
	if err != nil {
		return nil, err
	}
	return doc, nil
}

// setups are the DMA setups that are asked for, each once.
func (f *whatIfFlags) setups() []string {
	if len(f.dmas) == 0 {
		return whatif.DMAs()
	}
	return slices.DeleteFunc(whatif.DMAs(), func(dma string) bool { return !slices.Contains(f.dmas, dma) })
}

// taxRows are prices: of --prices, or measured now.
func (f *whatIfFlags) taxRows(ctx context.Context, s std, all *record.Together, doc *record.WhatIf) ([]record.TaxRow, error) {
	if f.prices != "" {
		saved, err := reading(ctx, func() (*record.Saved, error) { return all.Load(f.prices) })
		if err != nil {
			return nil, err
		}
		if lacks := whatif.LackingPairs(saved.Prices()); len(lacks) > 0 {
			return nil, usagef("--prices %s, of %s, lacks %s: make one by unthunk tax --pair %s --save FILE", f.prices, saved.Kind,
				strings.Join(lacks, " and "), strings.Join(whatif.Pairs(), ","))
		}
		rows, err := saved.CarriedPrices()
		if err != nil {
			return nil, usagef("--prices %s %v", f.prices, err)
		}
		doc.PriceOf = "the prices of " + cmp.Or(saved.Host.CPU, "an unknown CPU") + " in " + f.prices
		here := doc.Host
		here.IndirectThunk = cmp.Or(here.IndirectThunk, saved.Host.IndirectThunk) // drivers may not read it
		doc.Warnings = append(doc.Warnings, pricedElsewhere(f.prices, saved.Host, here)...)
		doc.Warnings = append(doc.Warnings, ofPairs(saved.Warnings)...)
		return rows, nil
	}
	plan := tax.Plan{Pairs: whatif.Pairs(), Schedule: rounds.Schedule{Rounds: whatIfRounds, Duration: whatIfTime}}
	if err := checkFileLimit(priceFiles(plan)); err != nil {
		return nil, err
	}
	show, done := progress(s)
	raw, err := tax.Run(ctx, plan, show)
	done()
	if err != nil {
		return nil, err
	}
	if raw.Incomplete {
		return nil, errInterrupted
	}
	rows, warns := raw.Record()
	doc.PriceOf = "the prices of this machine, measured in this run"
	doc.Warnings = append(doc.Warnings, ofPairs(warns)...)
	return rows, nil
}

// ofPairs are the warnings of prices that an estimate is made with, with their names.
func ofPairs(warnings []record.Warning) (own []record.Warning) {
	for _, w := range warnings {
		if w.Row == "" || slices.Contains(whatif.Pairs(), w.Row) {
			own = append(own, record.Warning{Text: cells.Join(": ", w.Row, w.Text)})
		}
	}
	return own
}

// run estimates, and publishes the record.
func (f *whatIfFlags) run(ctx context.Context, s std, o outputFlags, drivers *record.Document[record.DriverRow]) error {
	doc, err := f.estimate(ctx, s, drivers)
	if err != nil {
		return err
	}
	err = o.publishRead(ctx, s, doc, func(s std) error { return report.WhatIf(s.out, textOptions(s.out), doc) })
	if err != nil || len(doc.Rows) == 0 { // that no change has anything to save is an answer
		return err
	}
	return stopped(&doc.Document, func(row record.WhatIfRow) bool { return row.Refused != "" }, err)
}
