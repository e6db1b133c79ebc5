package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/report/cells"
)

func newMan(s std) *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write man pages into a folder",
		Long:  "Write man pages into a folder, one for each verb.",
		Example: `  unthunk man ~/.local/share/man/man1
  unthunk man build/man`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("man needs one folder: got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := outfile.MkdirAll(args[0]); err != nil {
				return fmt.Errorf("write man pages: %w", err)
			}
			pages := 0
			for _, verb := range verbs(cmd.Root()) {
				if verb.Hidden {
					continue
				}
				file := filepath.Join(args[0], pageName(verb)+".1")
				if err := outfile.Replace(file, manPage(verb, buildTime())); err != nil {
					return fmt.Errorf("write man pages: %w", err)
				}
				pages++
			}
			fmt.Fprintf(s.out, "%d pages in %s\n", pages, cells.Clean(args[0]))
			return nil
		},
	}
}

// pageName is the name of a verb's page: unthunk-bench.
func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manPage is the page of a verb, in the macros of man(7): what its help says.
func manPage(cmd *cobra.Command, date time.Time) []byte {
	initHelpFlag(cmd)
	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH %q 1 %q unthunk unthunk\n", strings.ToUpper(pageName(cmd)), date.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", troff(pageName(cmd)), troff(cmd.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", troff(cmd.UseLine()))
	if cmd.HasSubCommands() {
		fmt.Fprintf(&b, ".br\n.B %s VERB [flags]\n", troff(cmd.CommandPath()))
	}
	b.WriteString(".SH DESCRIPTION\n")
	for i, paragraph := range aboutVerb(cmd) {
		switch {
		case strings.HasPrefix(paragraph, " "):
			fmt.Fprintf(&b, ".PP\n.nf\n%s\n.fi\n", troff(paragraph))
		case i > 0:
			fmt.Fprintf(&b, ".PP\n%s\n", troff(paragraph))
		default:
			fmt.Fprintf(&b, "%s\n", troff(paragraph))
		}
	}
	if verbs := verbsOf(cmd); len(verbs) > 0 {
		b.WriteString(".SH VERBS\n")
		for _, s := range verbs {
			fmt.Fprintf(&b, ".SS %s\n", troff(s.title))
			for _, verb := range s.verbs {
				fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", troff(pageName(verb)), troff(verb.Short))
			}
		}
	}
	b.WriteString(".SH OPTIONS\n")
	for _, s := range flagsOf(cmd) {
		fmt.Fprintf(&b, ".SS %s\n", troff(s.title))
		for _, f := range s.flags {
			name, value, about := describeFlag(f)
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fR \\fI%s\\fR\n%s\n", troff(name), troff(value), troff(strings.Join(about, " ")))
		}
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", troff(cmd.Example))
	}
	if cmd.HasParent() {
		fmt.Fprintf(&b, ".SH SEE ALSO\n.BR %s (1)\n", troff(cmd.Root().Name()))
	}
	return b.Bytes()
}

// troff is text in which nothing is a request or an escape, and a hyphen is the one that
// is typed. It is ASCII: which encoding a man program expects is a matter of its settings.
func troff(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			b.WriteString(`\&`)
		}
		for _, r := range line {
			switch {
			case r == '\\':
				b.WriteString(`\e`)
			case r == '-':
				b.WriteString(`\-`)
			case r > unicode.MaxASCII:
				fmt.Fprintf(&b, `\[u%04X]`, r)
			default:
				b.WriteRune(r)
			}
		}
	}
	return b.String()
}

// buildTime is that of the commit, so that pages of one commit are the same; without
// one it is now.
func buildTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, s := range info.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				return t
			}
		}
	}
	return time.Now()
}
