package main

import (
	"time"

	"github.com/spf13/cobra"

	"unthunk/host"
	"unthunk/redirect"
	"unthunk/report"
	"unthunk/result"
)

// Sizes of a default run: under 30 s with everything around it.
const (
	runRounds   = 11
	runDuration = 15 * time.Second
)

func newRun(s std) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "The machine, the bulk ladder and a verdict, in under 30 s (the default)",
		Args:  noArgs,
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
		plan := redirect.Plan{Bulks: []int{1, 4, 16, 64}, CPU: l.cpu, Rounds: l.rounds, Duration: l.duration}
		if err := plan.Validate(); err != nil {
			return usageError{err}
		}
		if err := o.check(); err != nil {
			return err
		}
		if err := redirect.Probe(); err != nil {
			return err
		}
		doc := newDocument[result.BenchRow]("run", host.Identify(cmd.Context()))
		doc.Settings = settings(cmd, l)
		if !o.json {
			if err := report.Machine(s.out, textOptions(s.out), doc.Host); err != nil {
				return err
			}
		}
		if err := measureChain(cmd.Context(), s, doc, plan); err != nil {
			return err
		}
		err = o.publish(s, doc, func() error {
			return report.Ladder(s.out, textOptions(s.out), doc, redirect.Verdict(doc.Rows))
		})
		return stopped(doc, err)
	}
}
