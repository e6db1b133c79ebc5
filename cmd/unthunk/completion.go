package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/tax"
)

// newCompletion prints what a shell needs to complete verbs, flags and their values.
func newCompletion(s std) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion " + strings.Join(shells, "|"),
		Short: "Print what a shell needs to complete verbs, flags and their values",
		Long: `Print what a shell needs to complete verbs, flags and their values. bash needs the
package bash-completion.`,
		Example: `  unthunk completion bash > /etc/bash_completion.d/unthunk
  unthunk completion zsh > "${fpath[1]}/_unthunk"
  unthunk completion fish > ~/.config/fish/completions/unthunk.fish`,
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(shells, args[0]) {
				return usagef("completion needs one of %s", strings.Join(shells, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "zsh":
				return root.GenZshCompletion(s.out)
			case "fish":
				return root.GenFishCompletion(s.out, true)
			}
			return root.GenBashCompletionV2(s.out, true)
		},
	}
}

// completeFlags names the values that flags of verbs may have. Flags that take a list
// complete its first value.
func completeFlags(root *cobra.Command) {
	values := map[string][]string{
		"scenario":  strings.Split(joined(redirect.Scenarios()), ", "),
		"operation": {"none", "read", "swap-macs", "parse"},
		"mode":      {string(redirect.Native), "generic"},
		"place":     {string(redirect.OneCore), "two-core"},
		"pair":      tax.Families(),
		"ab":        {"spectre_v2", "mitigations"},
	}
	for _, cmd := range root.Commands() {
		for name, of := range values {
			complete(cmd, name, of)
		}
	}
	formats := map[string][]string{"bench": {"text", "bench"}, "report": {"html", "markdown", "csv"}}
	for _, cmd := range root.Commands() {
		complete(cmd, "format", formats[cmd.Name()])
		if cmd.Name() == "history" {
			cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
		}
	}
}

func complete(cmd *cobra.Command, flag string, values []string) {
	if len(values) == 0 || cmd.Flags().Lookup(flag) == nil {
		return
	}
	// It fails for a flag that is completed already, or is not there.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}
