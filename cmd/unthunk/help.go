package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is the most columns of a line of help.
const helpWidth = 80

// section is a part of help: a title, and the names of verbs or of flags in it.
type section struct {
	title string
	names []string
}

// verbSections are the verbs by what they are for. A verb of none of them is in the last.
func verbSections() []section {
	return []section{
		{"Your own program", []string{"prog"}},
		{"Measure this machine", []string{"run", "check", "bench", "tax", "profile"}},
		{"Read and count code", []string{"xray", "drivers", "lab", "gate"}},
		{"Forward frames", []string{"forward"}},
		{"Many machines", []string{"agent", "fleet"}},
		{"Work with saved records", []string{"compare", "history", "report"}},
		{"unthunk itself", []string{"help", "version", "completion", "man"}},
	}
}

// flagSections are the flags of all verbs, in the order of help. A flag of none of them is
// in the last.
func flagSections() []section {
	return []section{
		{"Devices", []string{"in", "out", "both", "tracepoints", "dev", "root", "driver", "promiscuous"}},
		{"Your program", append([]string{"prog", "devmap"}, targetFlagNames...)},
		{"What to measure", []string{"pair", "scenario", "bulk", "size", "operation", "mode", "place", "rate", "hz", "stats",
			"what-if"}},
		{"What to show", []string{
			"all", "func", "asm", "annotate", "rare", "counts", "lines", "follow", "price", "prices", "row", "top", "verbose",
		}},
		{"Which records", []string{"store", "since", "at", "where"}},
		{"Guests", []string{
			"ab", "append", "arch", "cpu-model", "guest-program", "nic", "dma", "accel", "run", "limit", "trace", "resume", "list", "config",
		}},
		{"What to compare", []string{"base", "canary", "max", "unlike", "by", "threshold", "behavior-may-change"}},
		{"How frames are forwarded", []string{
			"engine", "zero-copy", "generic", "filter", "filter-file", "source-mac", "destination-mac", "bpf", "queues", "workers", "cpus",
			"rss", "busy-poll", "batch", "frames",
		}},
		{"When", []string{"once", "every", "splay", "check-every"}},
		{"How long, and on which CPU", []string{"quick", "duration", "rounds", "cpu", "interval", "max-load", "max-steal", "emulated"}},
		{"Which machine", []string{"label", "anonymous"}},
		{"Output", []string{
			"live", "format", "section", "output", "json", "save", "dot", "pprof", "folded", "svg", "pcap", "pcap-every", "metrics",
			"records", "post", "token-file", "ca-file", "textfile", "listen", "metrics-config", "web-config", "state",
		}},
		{"Packets", []string{
			"packets", "max-packets", "working-set", "cold", "ifindex", "rx-queue", "metadata", "first-buffer", "snaplen",
		}},
		{"Other", []string{"help", "version"}},
	}
}

// writeHelp writes the help of a verb, or of all.
func writeHelp(w io.Writer, cmd *cobra.Command) {
	initHelpFlag(cmd)
	for _, paragraph := range aboutVerb(cmd) {
		fmt.Fprintf(w, "%s\n\n", paragraph)
	}
	fmt.Fprintf(w, "Usage:\n  %s\n", cmd.UseLine())
	if cmd.HasSubCommands() {
		fmt.Fprintf(w, "  %s VERB [flags]\n", cmd.CommandPath())
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	for _, s := range verbsOf(cmd) {
		fmt.Fprintf(w, "\n%s:\n", s.title)
		for _, verb := range s.verbs {
			writeEntry(w, verb.Name(), strings.Fields(verb.Short))
		}
	}
	for _, s := range flagsOf(cmd) {
		fmt.Fprintf(w, "\n%s:\n", s.title)
		for _, f := range s.flags {
			name, value, about := describeFlag(f)
			writeEntry(w, strings.TrimSpace(name+" "+value), about)
		}
	}
}

// initHelpFlag gives a verb the flag --help, with a text that is right for each.
func initHelpFlag(cmd *cobra.Command) {
	cmd.InitDefaultHelpFlag()
	cmd.Flags().Lookup("help").Usage = "show this help"
}

// aboutVerb is what a verb does, by paragraph. Lines of a paragraph that is indented stay
// as they are.
func aboutVerb(cmd *cobra.Command) []string {
	paragraphs := strings.Split(cmp.Or(cmd.Long, cmd.Short+"."), "\n\n")
	for i, p := range paragraphs {
		if !strings.HasPrefix(p, " ") {
			paragraphs[i] = strings.Join(wrapped(strings.Fields(p), helpWidth), "\n")
		}
	}
	return paragraphs
}

type verbSection struct {
	title string
	verbs []*cobra.Command
}

// verbsOf are the verbs of root that people see, by section; those below another command
// are one section.
func verbsOf(root *cobra.Command) []verbSection {
	sections := verbSections()
	if root.HasParent() {
		sections = []section{{"Verbs", nil}}
	}
	list := make([]verbSection, len(sections))
	for i, s := range sections {
		list[i].title = s.title
	}
	for _, verb := range root.Commands() {
		if verb.Hidden {
			continue
		}
		i := sectionOf(sections, verb.Name())
		list[i].verbs = append(list[i].verbs, verb)
	}
	for i, s := range list {
		slices.SortStableFunc(s.verbs, func(a, b *cobra.Command) int {
			return slices.Index(sections[i].names, a.Name()) - slices.Index(sections[i].names, b.Name())
		})
	}
	return slices.DeleteFunc(list, func(s verbSection) bool { return len(s.verbs) == 0 })
}

type flagSection struct {
	title string
	flags []*pflag.Flag
}

// flagsOf are the flags of a verb, by section.
func flagsOf(cmd *cobra.Command) []flagSection {
	sections := flagSections()
	list := make([]flagSection, len(sections))
	for i, s := range sections {
		list[i].title = s.title
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		i := sectionOf(sections, f.Name)
		list[i].flags = append(list[i].flags, f)
	})
	for i, s := range list {
		slices.SortStableFunc(s.flags, func(a, b *pflag.Flag) int {
			return slices.Index(sections[i].names, a.Name) - slices.Index(sections[i].names, b.Name)
		})
	}
	return slices.DeleteFunc(list, func(s flagSection) bool { return len(s.flags) == 0 })
}

// sectionOf is the index of the section that has name, of the last one when none has it.
func sectionOf(sections []section, name string) int {
	i := slices.IndexFunc(sections, func(s section) bool { return slices.Contains(s.names, name) })
	if i < 0 {
		return len(sections) - 1
	}
	return i
}

// describeFlag is a flag as it is typed, the name of its value, and the words that say what
// it does; its default is one word.
func describeFlag(f *pflag.Flag) (name, value string, about []string) {
	value, usage := pflag.UnquoteUsage(f)
	switch value { // the names of types say little
	case "string":
		value = "NAME"
	case "strings", "stringArray":
		value = "NAME,…"
	case "int", "float":
		value = "N"
	case "ints":
		value = "N,…"
	case "duration":
		value = "TIME"
	}
	name = "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	about = strings.Fields(usage)
	if of := strings.Trim(f.DefValue, "[]"); !slices.Contains([]string{"", "0", "0s", "false", "-1"}, of) {
		about = append(about, "(default "+of+")")
	}
	return name, strings.ToUpper(value), about
}

// writeEntry writes a name and what it is, beside it or, for a long name, beneath it.
func writeEntry(w io.Writer, name string, about []string) {
	const column = 20 // where the text begins
	first := "  " + name
	if utf8.RuneCountInString(first) > column-2 {
		fmt.Fprintln(w, first)
		first = ""
	}
	for _, line := range wrapped(about, helpWidth-column) {
		fmt.Fprintf(w, "%s%s%s\n", first, strings.Repeat(" ", column-utf8.RuneCountInString(first)), line)
		first = ""
	}
}

// wrapped are lines of words, of at most width columns where no word is longer.
func wrapped(words []string, width int) []string {
	var lines []string
	line := ""
	for _, word := range words {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	return append(lines, line)
}
