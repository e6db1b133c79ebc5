package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/record"
)

// Exit codes. Scripts rely on them.
const (
	exitDone       = 0
	exitFailed     = 1
	exitUsage      = 2
	exitRegression = 3 // compare, fleet compare, prog diff: done, and something got slower, or behaves otherwise
	exitMissing    = 4 // this machine cannot do it

	// Those of gate alone, as git bisect run reads them.
	exitBeyond     = 1
	exitCannotTell = 125 // of all that is neither within nor beyond, wrong usage too
)

var (
	errRegression  = errors.New("something got slower, or behaves otherwise")
	errNoNumber    = errors.New("no row has a number: the rows say why")
	errInterrupted = errors.New("interrupted before anything was written")
	errStopped     = errors.New("stopped before the end: the record is incomplete")
)

// std are the streams of one command.
type std struct {
	in       io.Reader
	out, err io.Writer
}

// run runs a command line with all rights that the process has.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runLimited(ctx, args, stdin, stdout, stderr, func([]feature.Capability) error { return nil })
}

// runLimited runs a command line; limit takes from the process the rights that the verb
// does not need.
func runLimited(
	ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, limit func(keep []feature.Capability) error,
) int {
	out, errs := newOutputs(ctx, stdout, stderr)
	s := std{stdin, out, errs}
	root := newRoot(s)
	dropRights(s, stdout, root, limit)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(errs)
	cmd, err := execute(ctx, root, args)
	if failed := out.first(); failed != nil && !errors.Is(err, failed) {
		err = errors.Join(err, fmt.Errorf("write output: %w", failed))
	}
	if err == nil {
		return exitDone
	}
	if cmd == root && len(args) > 0 && !strings.HasPrefix(args[0], "-") { // its flags are of no verb either
		err = unknownVerb(root, args[0])
	}
	return tellError(errs, cmd, err)
}

// tellError writes what a verb failed with, and returns its exit code.
func tellError(errs io.Writer, cmd *cobra.Command, err error) int {
	if errors.Is(err, errRegression) {
		return exitRegression
	}
	if errors.Is(err, errBeyond) {
		if rest := without(err, errBeyond); rest != nil && !onlyBrokenPipe(rest) {
			fmt.Fprintf(errs, "unthunk: %s\n", oneLine(rest))
		}
		return exitBeyond
	}
	err = explain(err)
	gate := cmd != nil && verbOf(cmd) == "gate"
	if onlyBrokenPipe(err) && !gate { // as with head: the reader has what it wants
		return exitFailed
	}
	fmt.Fprintf(errs, "unthunk: %s\n", oneLine(err))
	var usage usageError
	switch {
	case gate:
		return exitCannotTell
	case errors.As(err, &usage):
		return exitUsage
	case feature.AsMissing(err) != nil:
		return exitMissing
	}
	return exitFailed
}

// execute runs the verb that args name.
func execute(ctx context.Context, root *cobra.Command, args []string) (cmd *cobra.Command, err error) {
	defer func() {
		if cmd == nil { // it panicked
			cmd, _, _ = root.Find(args)
		}
	}()
	defer tellFlaw(&err)
	return root.ExecuteContextC(ctx)
}

// without is what is joined in an error besides another; nil when that is all.
func without(err, other error) error {
	if err == other {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var rest []error
	for _, e := range joined.Unwrap() {
		rest = append(rest, without(e, other))
	}
	return errors.Join(rest...)
}

// maxLine is the length of an error or a warning, in characters.
const maxLine = 4096

// oneLine is an error for a terminal: what a guest or a file says may be in it.
func oneLine(err error) string { return line(err.Error()) }

// line is a text that others may have written, for a terminal.
func line(text string) string {
	return record.Text(strings.Join(strings.Fields(text), " "), maxLine, unicode.ReplacementChar)
}

func newRoot(s std) *cobra.Command {
	root := &cobra.Command{
		Use:   "unthunk",
		Short: "Where the packets per second of XDP_REDIRECT went",
		Long: `unthunk says where the packets per second of XDP_REDIRECT went: it measures on one
core, shows the indirect branches that a packet runs through, and prices them.
Without a verb it does what unthunk run does.

Exit codes: 0 done; 1 failed, or no row got a number; 2 wrong usage; 3 compare, fleet
compare or prog diff found something slower, or prog diff another behavior; 4 this machine
cannot do it. Those of gate are 0 within, 1 beyond, 125 cannot tell.`,
		Example: `  unthunk
  unthunk --save run.json && unthunk report run.json -o report.html`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownVerb(cmd, args[0])
			}
			return nil
		},
		PersistentPreRunE: refuseEmpty,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(newHelp())
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(s.out, cmd) })
	addRun(s, root)
	addVersionFlag(s, root)
	root.AddCommand(
		newRun(s), newProg(s), newBench(s), newTax(s), newProfile(s), newXray(s), newDrivers(s), newLab(s), newGate(s),
		newForward(s), newRSSGuard(s), newCheck(s), newAgent(s), newAgentPart(s),
		newCompare(s), newReport(s), newHistory(s), newFleet(s),
		newCompletion(s), newVersion(s), newLabGuest(s), newProgGuest(s), newMan(s),
	)
	tellRights(root)
	complete(root)
	return root
}
