package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
)

func newHistory(s std) *cobra.Command {
	var o outputFlags
	cmd := &cobra.Command{
		Use:   "history DIR",
		Short: "Show how the rows of many saved runs moved over time, and where they changed",
		Long: `Show how the rows of many saved runs moved over time, and where they changed. DIR
has records of run, bench, tax and profile, as --save writes them, named *.json; at
most 1000. They are grouped by CPU, kernel, compiler, boot parameters and mitigations,
and each row's trend is shown in each group.

A change is a run from which on a row has another level. What is noise is known
from the spread of the runs, at 5 % for all rows of a group together; this takes 8
runs. unthunk report DIR draws the same.`,
		Example: `  unthunk bench --save runs/$(uname -r).json
  unthunk history runs
  unthunk history runs --json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("history needs one folder: got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFiles(args, outFile{"save", o.save}); err != nil {
				return err
			}
			if err := o.check(); err != nil {
				return err
			}
			if info, err := os.Stat(args[0]); err == nil && !info.IsDir() {
				return usagef("history takes a folder of records, and %s is a file: compare OLD NEW takes files, report one or more", args[0])
			}
			h, err := reading(cmd.Context(), func() (*record.History, error) { return compare.LoadHistory(new(record.Together), args[0]) })
			if err != nil {
				return err
			}
			return o.publishRead(cmd.Context(), s, h, func(s std) error { return report.History(s.out, textOptions(s.out), h) })
		},
	}
	o.add(cmd)
	return cmd
}
