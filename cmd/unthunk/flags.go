package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// refuseEmpty refuses an empty value of the named flags: it is a shell variable that was
// not set, not the default.
func refuseEmpty(cmd *cobra.Command, names ...string) error {
	empty := map[string]string{"intSlice": "[]", "stringSlice": "[]"} // by type
	for _, name := range names {
		if fl := cmd.Flags().Lookup(name); fl.Changed && fl.Value.String() == empty[fl.Value.Type()] {
			return usagef("--%s is empty", name)
		}
	}
	return nil
}

// joined lists what a flag may be, for its help.
func joined[T ~string](xs []T) string {
	var out []string
	for _, x := range xs {
		out = append(out, string(x))
	}
	return strings.Join(out, ", ")
}
