package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// verbOf is what is typed behind "unthunk" for a command: "bench", "prog list"; "unthunk" for
// the command itself.
func verbOf(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// verbs are a command and all below it.
func verbs(cmd *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{cmd}
	for _, below := range cmd.Commands() {
		list = append(list, verbs(below)...)
	}
	return list
}

// grouping tells whether a command only has verbs below it, and does nothing itself.
func grouping(cmd *cobra.Command) bool { return cmd.HasParent() && cmd.HasSubCommands() }
