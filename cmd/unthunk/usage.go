package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// usageError is an error in what the user typed.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// unknownVerb refuses a verb that does not exist.
func unknownVerb(parent *cobra.Command, name string) error {
	path := strings.TrimPrefix(parent.CommandPath()+" ", parent.Root().Name()+" ") // "prog ", or nothing
	if near := nearest(name, visible(parent)); near != "" {
		return usagef("there is no verb %q: did you mean %s?", path+name, path+near)
	}
	return usagef("there is no verb %q: see %s --help", path+name, parent.CommandPath())
}

// visible are the names of the verbs below a command that help lists.
func visible(parent *cobra.Command) []string {
	var verbs []string
	for _, cmd := range parent.Commands() {
		if !cmd.Hidden {
			verbs = append(verbs, cmd.Name())
		}
	}
	return verbs
}

// flagError says in plain words which flag or value is wrong.
func flagError(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && unknown.GetSpecifiedShortnames() == "" {
		var flags []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { flags = append(flags, f.Name) })
		if near := nearest(unknown.GetSpecifiedName(), flags); near != "" {
			return usagef("%v: did you mean --%s?", err, near)
		}
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		f := invalid.GetFlag()
		want := map[string]string{
			"int": "a whole number", "intSlice": "a whole number, or several with commas between them",
			"float64": "a number", "bool": "true or false", "duration": "a duration such as 7s or 2m",
		}[f.Value.Type()]
		switch {
		case errors.Is(err, strconv.ErrRange):
			return usagef("--%s %q is out of range", f.Name, invalid.GetValue())
		case want != "":
			return usagef("--%s %q is not %s", f.Name, invalid.GetValue(), want)
		}
	}
	return usageError{err}
}

// unknownValue is an error about the values of a flag, with the known one that the first
// wrong value resembles; nil without an error.
func unknownValue[T ~string](err error, values []string, known []T) error {
	if err == nil {
		return nil
	}
	var words []string
	for _, k := range known {
		words = append(words, string(k))
	}
	for _, v := range values {
		if slices.Contains(words, v) {
			continue
		}
		near := nearest(v, words)
		if plain := spelledPlainly(v); near == "" && slices.Contains(words, plain) {
			near = plain
		} else if near == "" {
			near = nearest(plain, words)
		}
		if near != "" {
			return usagef("%w: did you mean %s?", err, near)
		}
	}
	return usageError{err}
}

// spelledPlainly is a word as values of flags are spelled: tx of the kernel's XDP_TX.
func spelledPlainly(word string) string {
	return strings.TrimPrefix(strings.ReplaceAll(strings.ToLower(word), "_", "-"), "xdp-")
}

// nearest is the known word that takes the fewest changes, two at most and fewer than half
// of its letters, or that begins with word; "" when there is none.
func nearest(word string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := distance(word, k); d < least && 2*d < len(k) {
			best, least = k, d
		}
	}
	if best == "" && len(word) > 2 {
		for _, k := range known {
			if len(k) > len(word) && distance(word, k[:len(word)]) <= 1 {
				return k
			}
		}
	}
	return best
}

// nearFunction adds to an error about a function that a kernel does not have the name of one
// that resembles it: of the redirect path, or of all.
func nearFunction(err error, k *kernel.Kernel, name string) error {
	if _, ok := k.Function(name); ok {
		return err // it is there, and could not be read
	}
	near := nearest(name, functions.Names(functions.Checked))
	if _, ok := k.Function(near); !ok {
		var like []string
		for _, s := range k.Symbols.Module("") {
			if s.Text() && len(s.Name) >= len(name)-2 && len(s.Name) <= len(name)+2 {
				like = append(like, s.Name)
			}
		}
		near = nearest(name, like)
	}
	if near == "" {
		return err
	}
	return fmt.Errorf("%w: did you mean %s?", err, near)
}

// distance is how many letters must be changed, added, taken away, or exchanged with their
// neighbor, to make b of a (Damerau and Levenshtein, each pair exchanged once).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}

// newHelp shows the help of a verb.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [VERB]",
		Short: "Show the help of a verb",
		Args:  cobra.ArbitraryArgs,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			return completer(anyOf(visible(cmd.Root())...), false)(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil {
				return unknownVerb(cmd.Root(), args[0])
			}
			if len(rest) > 0 {
				return unknownVerb(found, rest[0])
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

// checkVerb refuses a command line that names no verb, or flags that the verb does not
// have.
func checkVerb(args []string) error {
	root := newRoot(std{})
	cmd, rest, err := root.Find(args)
	if err != nil {
		return unknownVerb(root, args[0])
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return flagError(cmd, err)
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}
