package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// refuseEmpty refuses flags of any verb that were given an empty value: it is a shell
// variable that was not set, not the default. A stringArray may have one: lab --append ""
// boots with the kernel's own command line.
func refuseEmpty(cmd *cobra.Command, _ []string) (err error) {
	empty := map[string]string{"string": "", "stringSlice": "[]"} // by type
	cmd.Flags().Visit(func(fl *pflag.Flag) {
		if value, can := empty[fl.Value.Type()]; can && fl.Value.String() == value && err == nil {
			err = usagef("--%s is empty", fl.Name)
		}
	})
	return err
}

// joined lists what a flag may be, for its help.
func joined[T ~string](xs []T) string {
	var out []string
	for _, x := range xs {
		out = append(out, string(x))
	}
	return strings.Join(out, ", ")
}
