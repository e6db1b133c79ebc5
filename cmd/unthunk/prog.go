package main

import (
	"github.com/spf13/cobra"
)

// newProg has the verbs about the user's own program. Each is in a file of its own.
func newProg(s std) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prog",
		Short: "Your own XDP programs: which run here, and what they cost",
		Long:  "Your own XDP programs: which run on this machine, and what they cost.",
		Example: `  unthunk prog list
  unthunk prog cost lb.o --packets p.pcap`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownVerb(cmd, args[0])
			}
			return usagef("prog needs a verb: see unthunk prog --help")
		},
	}
	cmd.AddCommand(
		newProgList(s), newProgXray(s), newProgCost(s), newProgDiff(s), newProgRecord(s), newProgWatch(s),
	)
	return cmd
}
