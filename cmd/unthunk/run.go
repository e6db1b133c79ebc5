package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"unthunk/redirect"
	"unthunk/report"
	"unthunk/result"
)

// runPlan takes under 30 s with everything around it.
func runPlan() redirect.Plan {
	return redirect.Plan{Bulks: []int{1, 4, 16, 64}, CPU: -1, Rounds: 11, Duration: 15 * time.Second}
}

func newRun(s std) *cobra.Command {
	var o outputFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "The machine, the bulk ladder and a verdict, in under 30 s (the default)",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runAll(cmd.Context(), s, o) },
	}
	o.add(cmd)
	return cmd
}

// runAll is what unthunk does when it is asked for nothing else.
func runAll(ctx context.Context, s std, o outputFlags) error {
	if err := o.check(); err != nil {
		return err
	}
	doc, err := measureChain(ctx, s, "run", runPlan())
	if err != nil {
		return err
	}
	return publish(s, o, doc, func() error {
		return report.Run(s.out, textOptions(s.out), doc, redirect.Verdict(doc.Rows))
	})
}

// check finds out before a run whether its record can be saved after it.
func (o outputFlags) check() error {
	if o.save == "" {
		return nil
	}
	return result.CheckWritable(o.save)
}

// publish writes a record to where it was asked for; text is how people see
// it. A run that was stopped is an error, once what it measured is written.
func publish(s std, o outputFlags, doc *result.Document[result.BenchRow], text func() error) error {
	if o.save != "" {
		if err := result.Save(o.save, doc); err != nil {
			return err
		}
	}
	if o.json {
		text = func() error { return report.JSON(s.out, doc) }
	}
	if err := text(); err != nil {
		return err
	}
	if doc.Incomplete {
		return errStopped
	}
	return nil
}
