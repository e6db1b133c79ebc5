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
		Use:    rssGuard + " INDEX",
		Short:  "Give the RSS table of a device back at the end of standard input",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			ifindex, err := strconv.Atoi(args[0])
			if err != nil {
				return usagef("interface %q is not a number", args[0])
			}
			return forward.Guard(ifindex, s.in, s.out)
		},
	}
}
