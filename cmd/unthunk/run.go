package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/profile"
	"github.com/unthunk/unthunk/internal/program/list"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/tax"
)

// Sizes of a default run: under 40 s with everything around it.
const (
	runRounds   = 11
	runDuration = 31 * time.Second
)

// parts are how a run shares its time: rates first, then prices, then stages.
type parts struct {
	rates, prices, stages time.Duration
	// bulks are those of the ladder, pairs those that are priced.
	bulks []int
	pairs []string
}

// What prices and stages take of a run that has the time for both, and what a shorter run
// takes for the one price that the answer needs.
const (
	pricesTime     = 7 * time.Second
	stagesTime     = 9 * time.Second
	shortestWhole  = 2*(pricesTime+stagesTime) - time.Second
	onePriceTime   = 3 * time.Second
	shortestPriced = 2 * onePriceTime
)

// share divides the duration of a run. A run that is too short for stages and for all prices
// has the rates and the price of a call: the answer, with wider intervals.
func share(whole time.Duration) parts {
	switch {
	case whole >= shortestWhole:
		return parts{whole - pricesTime - stagesTime, pricesTime, stagesTime, []int{1, 4, 16, 64}, tax.CallFamilies()}
	case whole >= shortestPriced:
		return parts{whole - onePriceTime, onePriceTime, 0, []int{1, 16, 64}, tax.EstimatePairs()}
	}
	return parts{rates: whole, bulks: []int{1, 16, 64}}
}

func newRun(s std) *cobra.Command {
	cmd := &cobra.Command{
		Use: "run",
		Short: "What a redirect costs here, what indirect calls take of it, and what to do, " +
			"in under 40 s (the default)",
		Long: `What a redirect costs here, what indirect calls take of it, and what to do: on one
screen. -v adds all that the answer is made of: machine, bulk ladder, prices, stages. A run
shorter than ` + shortestWhole.String() + ` has no stages, and of the prices only that of a call.`,
		Example: `  unthunk run
  unthunk run -v --save before.json
  unthunk run --quick --json`,
		Args: noArgs,
	}
	addRun(s, cmd)
	return cmd
}

// addRun makes cmd do what unthunk does when it is asked for nothing else.
func addRun(s std, cmd *cobra.Command) {
	var (
		o       outputFlags
		l       lengthFlags
		verbose bool
	)
	l.add(cmd, runRounds, runDuration)
	o.add(cmd)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "also show all that the answer is made of")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		l, err := l.resolve(cmd)
		if err != nil {
			return err
		}
		parts := share(l.duration)
		ladder := redirect.Plan{Bulks: parts.bulks, CPU: rounds.OnCPU(l.cpu), Schedule: l.schedule()}
		ladder.Duration = parts.rates
		if err := ladder.Validate(); err != nil {
			return usageError{err}
		}
		if err := o.check(); err != nil {
			return err
		}
		if err := redirect.Probe(cmd.Context()); err != nil {
			return err
		}
		machine, findings, err := host.Check(cmd.Context(), host.Options{})
		if err != nil {
			return err
		}
		doc := record.New[record.BenchRow]("run", machine)
		doc.Settings = settings(cmd, l)
		addPrograms(cmd.Context(), doc)
		show, done := progressOf(s, "rates", parts.prices+parts.stages)
		if err := measureChain(cmd.Context(), doc, ladder, show, done); err != nil {
			return err
		}
		rates := interim{w: s.out}
		if parts.prices > 0 && !doc.Incomplete && !o.json && movesCursor(s.out) {
			rates.lines, err = report.Rates(s.out, textOptions(s.out), doc)
			if err != nil && o.save == "" { // a record is saved also when nobody reads the text
				return err
			}
		}
		addPrices(cmd.Context(), s, doc, l.cpu, parts)
		profiled := addStages(cmd.Context(), s, doc, l.cpu, parts)
		doc.Warnings = append(doc.Warnings, ofSoftware(machine)...)
		doc.Conclusion = conclusion.New(doc, record.Findings(findings))
		rates.erase()
		err = o.publish(s, doc, func() error {
			screen := report.FirstScreen{Doc: doc, Findings: findings, Profiled: profiled, Verbose: verbose}
			return screen.Write(s.out, textOptions(s.out))
		})
		return stopped(doc, benchRefused, err)
	}
}

// addPrograms adds the XDP programs that devices of the machine run. What cannot be seen
// leaves the record without: the run measures programs of its own.
func addPrograms(ctx context.Context, doc *record.Document[record.BenchRow]) {
	found, err := list.Read(ctx, list.Options{})
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		doc.Warn("", fmt.Sprintf("no list of XDP programs: %v", err))
		return
	}
	for _, p := range found.Rows {
		if len(p.Attached) > 0 {
			doc.Programs = append(doc.Programs, p)
		}
	}
}

// addPrices prices what has a price of its own and adds that to doc. A machine
// that cannot do it gets a warning: the ladder stands without prices. What fails for
// another reason leaves the record incomplete, with what was measured before.
func addPrices(ctx context.Context, s std, doc *record.Document[record.BenchRow], cpu int, parts parts) {
	if doc.Incomplete {
		return
	}
	if parts.prices == 0 {
		doc.Warn("", "no prices: they take a run of "+shortestPriced.String())
		return
	}
	plan := tax.Plan{
		Pairs: parts.pairs, CPU: rounds.OnCPU(cpu),
		Schedule: rounds.Schedule{Rounds: quickRounds, Duration: parts.prices},
	}
	show, done := progressOf(s, "prices", parts.stages)
	raw, err := tax.Run(ctx, plan, show)
	done()
	if err != nil {
		leftOut(doc, "prices", err)
		return
	}
	doc.Incomplete = raw.Incomplete
	if ran := raw.Clock(); ran != "" {
		doc.Settings["core-clock"] = ran
	}
	rows, warns := raw.Record()
	doc.Prices = rows
	doc.AddReferences(record.PartPrices, raw.References)
	for _, w := range warns {
		if w.Row == "" { // else the row says whose it is
			w.Text = "prices: " + w.Text
		}
		doc.Warn(w.Row, w.Text)
	}
}

// leftOut says that a part of a run could not be measured, and why.
func leftOut(doc *record.Document[record.BenchRow], part string, err error) {
	doc.Warn("", fmt.Sprintf("no %s: %v", part, err))
	if feature.AsMissing(err) == nil {
		doc.Incomplete = true
	}
}

// addStages profiles the chain at bulk 16 and adds that to doc. It returns what was
// profiled. A machine that cannot do it gets a warning.
func addStages(ctx context.Context, s std, doc *record.Document[record.BenchRow], cpu int, parts parts) (name string) {
	if doc.Incomplete {
		return ""
	}
	if parts.stages == 0 {
		doc.Warn("", "no stages: they take a run of "+shortestWhole.String())
		return ""
	}
	plan := profile.Plan{Chain: redirect.Plan{
		CPU: rounds.OnCPU(cpu), Schedule: rounds.Schedule{Rounds: quickRounds, Duration: parts.stages},
	}}
	show, done := progressOf(s, "stages", 0)
	raw, err := profile.Run(ctx, plan, show)
	done()
	if err != nil {
		leftOut(doc, "stages", err)
		return ""
	}
	price, _ := tax.CallPriceOf(doc.Prices)
	p := raw.Record(price)
	doc.Incomplete = raw.Incomplete
	doc.Settings["profiled"] = raw.Name
	if p.Packet != nil {
		doc.Stages, doc.Profile = p.Rows, &p.ProfileParts
		doc.AddReferences(record.PartStages, raw.References)
	}
	for _, w := range p.Warnings {
		doc.Warn(w.Row, "stages: "+w.Text)
	}
	return raw.Name
}
