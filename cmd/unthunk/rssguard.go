package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/forward"
)

// rssGuard is the hidden verb that gives the RSS table of a device back when forward was killed.
const rssGuard = "rss-guard"

// rssGuardCommand is what runs it: this program.
var rssGuardCommand = []string{"/proc/self/exe", rssGuard}

// newRSSGuard is the hidden verb that forward --rss starts.
func newRSSGuard(s std) *cobra.Command {
	return &cobra.Command{
		Use:    rssGuard + " INDEX QUEUES",
		Short:  "Give the RSS table of a device back at the end of standard input",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			var numbers [2]int
			for i, arg := range args {
				var err error
				if numbers[i], err = strconv.Atoi(arg); err != nil {
					return usagef("%q is not a number", arg)
				}
			}
			return forward.Guard(numbers[0], numbers[1], s.in, s.out)
		},
	}
}
