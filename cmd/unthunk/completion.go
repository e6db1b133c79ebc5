package main

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/forward"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/lab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/tax"
	"github.com/unthunk/unthunk/ksym"
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
			return bashCompletion(s.out, root)
		},
	}
}

// bashCompletion writes cobra's script, which puts a backslash before the commas of a value
// (as printf %q does, though bash needs none): a list is typed without.
func bashCompletion(w io.Writer, root *cobra.Command) error {
	var script bytes.Buffer
	if err := root.GenBashCompletionV2(&script, true); err != nil {
		return err
	}
	const quoted = `COMPREPLY[0]=$(printf "%q" "${COMPREPLY[0]}")`
	_, err := io.WriteString(w, strings.ReplaceAll(script.String(), quoted, quoted+`; COMPREPLY[0]=${COMPREPLY[0]//\\,/,}`))
	return err
}

// candidates are what a value may be: args are the arguments before it, typed is its
// beginning. They may have other beginnings; those are left out.
type candidates func(ctx context.Context, args []string, typed string) []string

// flagValues say what the values of flags may be, by name; a flag that is not here takes a
// file, or has no value.
func flagValues() map[string]candidates {
	return map[string]candidates{
		"scenario":        anyOf(names(redirect.Scenarios())...),
		"operation":       anyOf("none", "read", "swap-macs", "parse", "spin:"),
		"mode":            anyOf(string(redirect.Native), string(redirect.Generic)),
		"place":           anyOf(string(redirect.OneCore), string(redirect.TwoCore)),
		"bulk":            anyOf("1", "2", "4", "8", "16", "32", "64", "128", "256"),
		"pair":            anyOf(tax.Families()...),
		"engine":          anyOf(names(forward.Engines())...),
		"zero-copy":       anyOf(slices.Sorted(maps.Keys(zeroCopies))...),
		"ab":              anyOf("spectre_v2", "mitigations"),
		"list":            anyOf("debian", "debian:"),
		"accel":           anyOf("auto", "tcg", "kvm"),
		"nic":             anyOf(lab.NICs()...),
		"dma":             anyOf(names([]lab.DMA{lab.Direct, lab.Swiotlb, lab.IOMMULazy, lab.IOMMUStrict, lab.IOMMUPass})...),
		"arch":            anyOf(guest.Arches()...),
		"in":              deviceNames,
		"out":             deviceNames,
		"dev":             deviceNames,
		"func":            kernelFunctions,
		"asm":             kernelFunctions,
		"annotate":        kernelFunctions,
		"by":              labels,
		"size":            none,
		"rate":            none,
		"hz":              none,
		"top":             none,
		"row":             none,
		"threshold":       none,
		"snaplen":         none,
		"rounds":          none,
		"duration":        none,
		"interval":        none,
		"limit":           none,
		"cpu":             none,
		"batch":           none,
		"frames":          none,
		"pcap-every":      none,
		"metrics":         none,
		"filter":          none,
		"source-mac":      none,
		"destination-mac": none,
		"append":          none,
		"max":             none,
		"unlike":          anyOf(compare.BuildParts()...),
		"driver":          none,
	}
}

// complete names the values of all flags and the arguments of all verbs.
func complete(root *cobra.Command) {
	formats := map[string]candidates{
		"bench": anyOf("text", "bench"), "report": anyOf("html", "markdown", "csv", "svg"), "compare": anyOf(formatNames()...),
		"gate": anyOf(gateFormatNames()...),
	}
	flags := flagValues()
	for _, cmd := range verbs(root) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			values := flags[f.Name]
			switch {
			case f.Name == "format":
				values = formats[verbOf(cmd)]
			case f.Name == "scenario" && (verbOf(cmd) == "lab" || verbOf(cmd) == "gate"):
				values = anyOf(slices.Concat(lab.Scenarios(), lab.WireScenarios(), []string{lab.AllScenarios})...)
			case f.Name == "base", f.Name == "counts", f.Name == "prices":
				_ = cmd.RegisterFlagCompletionFunc(f.Name, onlyRecords)
			case f.Name == "cpu-model":
				_ = cmd.RegisterFlagCompletionFunc(f.Name, completeModels)
			case f.Name == "root":
				// The only error is that the flag has a completion already.
				_ = cmd.RegisterFlagCompletionFunc(f.Name, onlyFolders)
			}
			if values != nil {
				_ = cmd.RegisterFlagCompletionFunc(f.Name, completer(values, strings.HasSuffix(f.Value.Type(), "Slice")))
			}
		})
		switch verbOf(cmd) {
		case "compare", "report":
			cmd.ValidArgsFunction = onlyRecords
		case "history", "man":
			cmd.ValidArgsFunction = onlyFolders
		case "lab", "gate", "drivers":
			cmd.ValidArgsFunction = orFiles(anyOf("debian:6.1-cloud", "debian:6.12-cloud", "debian:6.12"))
		case "prog xray", "prog cost", "prog diff", "prog watch":
			cmd.ValidArgsFunction = orFiles(liveTargets)
		case root.Name(), "completion", "help":
		default:
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
}

// unquoted are values that mean nothing else to a shell. Others, as a device or a label of a record may be called, are not
// offered: the completion of bash puts what several of them begin with on the command line as it is.
var unquoted = regexp.MustCompile(`^[a-zA-Z0-9._:=/,+@%-]+$`)

// completer completes a value, or the last of a list with commas between them: then what
// was typed before stays in front, and what is in it is not offered again.
func completer(values candidates, list bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		before := ""
		if at := strings.LastIndexByte(typed, ','); list && at >= 0 {
			before, typed = typed[:at+1], typed[at+1:]
		}
		var found []string
		for _, value := range values(cmd.Context(), args, typed) {
			if unquoted.MatchString(value) && strings.HasPrefix(value, typed) && !slices.Contains(strings.Split(before, ","), value) {
				found = append(found, before+value)
			}
		}
		directive := cobra.ShellCompDirectiveNoFileComp
		if len(found) == 1 && strings.HasSuffix(found[0], ":") {
			directive |= cobra.ShellCompDirectiveNoSpace // a number follows
		}
		return found, directive
	}
}

// orFiles completes a value, and files where no value begins with what was typed.
func orFiles(values candidates) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if typed != "" {
			if found, directive := completer(values, false)(cmd, args, typed); len(found) > 0 {
				return found, directive
			}
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
}

func onlyFolders(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

func onlyRecords(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"json"}, cobra.ShellCompDirectiveFilterFileExt
}

func names[T ~string](values []T) []string {
	var list []string
	for _, v := range values {
		list = append(list, string(v))
	}
	return list
}

func anyOf(values ...string) candidates {
	return func(context.Context, []string, string) []string { return values }
}

// none keeps the shell from offering files.
func none(context.Context, []string, string) []string { return nil }

// liveTargets are the devices of this namespace, as a target that is not a file is written.
func liveTargets(ctx context.Context, args []string, typed string) (found []string) {
	for _, device := range deviceNames(ctx, args, typed) {
		found = append(found, "dev:"+device)
	}
	return append(found, "id:")
}

// deviceNames are the network devices of this namespace.
func deviceNames(context.Context, []string, string) []string {
	list, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var found []string
	for _, device := range list {
		found = append(found, device.Name)
	}
	return found
}

// kernelFunctions are the functions that begin so: of the redirect path while nothing is
// typed, or where the kernel hides its symbols; else those of the running kernel.
func kernelFunctions(_ context.Context, _ []string, typed string) []string {
	path := functions.Names(functions.Checked)
	if typed == "" {
		return path
	}
	symbols, err := ksym.Select(func(name, _ []byte) bool { return bytes.HasPrefix(name, []byte(typed)) })
	if err != nil {
		return path
	}
	var found []string
	for _, s := range symbols {
		found = append(found, s.Name)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// completeModels completes CPU models that QEMU emulates, of the architecture that --arch or the kernels before say.
func completeModels(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	arch, _ := cmd.Flags().GetString("arch") // every verb with models has it
	f := &matrixFlags{arch: arch}
	models := func(ctx context.Context, kernels []string, _ string) (all []string) {
		arches, _ := f.guestArches(ctx, kernels) // none of a shell that does not wait
		for _, arch := range arches {
			names, err := guest.CPUModels(ctx, arch)
			if err == nil {
				all = append(all, names...)
			}
		}
		return all
	}
	if len(args) == 0 {
		args = []string{""} // a kernel that is not known yet
	}
	return completer(models, true)(cmd, args, typed)
}

// maxCompleted is the size of a record that labels are completed of, in bytes: a shell waits for it.
const maxCompleted = 4 << 20

// labels are those in which rows of the record differ that is an argument already; none of one that is larger than
// [maxCompleted].
func labels(_ context.Context, args []string, _ string) []string {
	if len(args) == 0 {
		return nil
	}
	if info, err := os.Stat(args[0]); err != nil || info.Size() > maxCompleted {
		return nil
	}
	saved, err := record.Load(args[0])
	if err != nil || saved.Bench() == nil {
		return nil
	}
	first, found := map[string]string{}, map[string]bool{}
	for _, row := range saved.Bench().Rows {
		for label, value := range row.Labels {
			if before, ok := first[label]; ok && before != value {
				found[label] = true
			}
			first[label] = value
		}
	}
	return slices.Sorted(maps.Keys(found))
}
