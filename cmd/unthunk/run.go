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

// What prices and stages take, of a run that has twice as much.
const (
	taxTime     = 7 * time.Second
	profileTime = 9 * time.Second
)

func newRun(s std) *cobra.Command {
	cmd := &cobra.Command{
		Use: "run",
		Short: "The machine, the bulk ladder, a verdict, the largest prices and where the time goes, " +
			"in under 40 s (the default)",
		Example: `  unthunk run
  unthunk run --save before.json
  unthunk run --quick --json`,
		Args: noArgs,
	}
	addRun(s, cmd)
	return cmd
}

// addRun makes cmd do what unthunk does when it is asked for nothing else.
func addRun(s std, cmd *cobra.Command) {
	var (
		o outputFlags
		l lengthFlags
	)
	l.add(cmd, runRounds, runDuration)
	o.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		l, err := l.resolve(cmd)
		if err != nil {
			return err
		}
		ladder := redirect.Plan{Bulks: []int{1, 4, 16, 64}, CPU: rounds.OnCPU(l.cpu), Schedule: l.schedule()}
		whole := l.duration >= 2*(taxTime+profileTime)-time.Second
		if whole {
			ladder.Duration -= taxTime + profileTime
		}
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
		if !o.json {
			err := report.Machine(s.out, textOptions(s.out), doc.Host, findings)
			if err != nil && o.save == "" { // a record is saved also when nobody reads the text
				return err
			}
		}
		if err := measureChain(cmd.Context(), s, doc, ladder); err != nil {
			return err
		}
		var profiled string
		if whole {
			addPrices(cmd.Context(), s, doc, l.cpu)
			profiled = addStages(cmd.Context(), s, doc, l.cpu)
		}
		doc.Conclusion = conclusion.New(doc, findings)
		err = o.publish(s, doc, func() error {
			screen := report.FirstScreen{
				Doc: doc, Ladder: conclusion.Ladder(doc.Rows), Tax: conclusion.Calls(doc.Prices), Profiled: profiled,
			}
			return screen.Write(s.out, textOptions(s.out))
		})
		return stopped(doc, benchRefused, err)
	}
}

// addPrices prices what has a price of its own and adds that to doc. A machine
// that cannot do it gets a warning: the ladder stands without prices. What fails for
// another reason leaves the record incomplete, with what was measured before.
func addPrices(ctx context.Context, s std, doc *record.Document[record.BenchRow], cpu int) {
	if doc.Incomplete {
		return
	}
	plan := tax.Plan{
		Pairs: tax.CallFamilies(), CPU: rounds.OnCPU(cpu),
		Schedule: rounds.Schedule{Rounds: quickRounds, Duration: taxTime},
	}
	show, done := progress(s)
	raw, err := tax.Run(ctx, plan, show)
	done()
	if err != nil {
		leftOut(doc, "prices", err)
		return
	}
	doc.Incomplete = raw.Incomplete
	rows, warns := raw.Record()
	doc.Prices = rows
	doc.Warnings = append(doc.Warnings, warns...)
}

// leftOut says that a part of a run could not be measured, and why.
func leftOut(doc *record.Document[record.BenchRow], part string, err error) {
	doc.Warnings = append(doc.Warnings, record.Warning{Text: fmt.Sprintf("no %s: %v", part, err)})
	if feature.AsMissing(err) == nil {
		doc.Incomplete = true
	}
}

// addStages profiles the chain at bulk 16 and adds that to doc. It returns what was
// profiled. A machine that cannot do it gets a warning.
func addStages(ctx context.Context, s std, doc *record.Document[record.BenchRow], cpu int) (name string) {
	if doc.Incomplete {
		return ""
	}
	plan := profile.Plan{Chain: redirect.Plan{
		CPU: rounds.OnCPU(cpu), Schedule: rounds.Schedule{Rounds: quickRounds, Duration: profileTime},
	}}
	show, done := progress(s)
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
	}
	for _, w := range p.Warnings {
		doc.Warnings = append(doc.Warnings, record.Warning{Row: w.Row, Text: "stages: " + w.Text})
	}
	return raw.Name
}
