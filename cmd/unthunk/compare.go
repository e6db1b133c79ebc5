package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/page"
)

type compareFlags struct {
	by        string
	threshold float64
	format    string
	output    outputFlags
}

func newCompare(s std) *cobra.Command {
	var f compareFlags
	cmd := &cobra.Command{
		Use:   "compare OLD NEW | compare FILE --by LABEL",
		Short: "Say whether two saved runs differ, and what may be why",
		Long: `Say whether two saved runs differ, and what may be why.

Rows of the same name are compared. A change is in percent of the old ns per
packet, or of the old price of a call in records of tax, + is slower, with an
interval; intervals and verdicts hold at 95 % for all rows together. A verdict
is one of

  faster, slower        no difference is ruled out
  no difference seen    one of --threshold would have been found, and was not
  cannot tell           one of --threshold could have gone unseen

Two records of xray are compared branch by branch: which are new, gone, or made
otherwise. Two of profile are compared stage by stage, in ns per packet;
--threshold is then in percent of the whole old packet. Two of lab are compared
exactly: what differs, without a verdict, which gate gives. Two of check are
compared finding by finding: what changed on a machine.

With --by, rows of one file of bench or run that differ in one label only
(operation, scenario, mode, …) are compared with the row of the label's first
value. They were measured in the same rounds, so this sees far smaller
differences than two files do.

The exit code is 3 when a row is slower by more than the threshold, with
confidence. It is 1 when nothing could be compared: no row of the new record has a
number, or the records have no row in common; and when a row of the new record lost
the number that the old one has. A row that only one of them has is told, and
changes no exit code. Of two profiles only the redirect path, and the softirq,
locks and stack that it shares, count as slower.`,
		Example: `  unthunk bench --save before.json
  unthunk compare before.json after.json --threshold 5
  unthunk compare parse.json --by operation
  unthunk compare before.json after.json --format junit > compare.xml`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case f.by == "" && len(args) != 2:
				return usagef("compare needs two files, or one and --by: got %d", len(args))
			case f.by != "" && len(args) != 1:
				return usagef("compare --by needs one file: got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runCompare(cmd.Context(), s, f, args) },
	}
	cmd.Flags().StringVar(&f.by, "by", "", "compare rows of one file that differ in `LABEL` only")
	cmd.Flags().Float64Var(&f.threshold, "threshold", compare.DefaultThreshold, "smallest difference that matters, in `percent`")
	cmd.Flags().StringVar(&f.format, "format", "text", "text, or markdown for a pull request, junit or ktap for CI, json")
	f.output.add(cmd)
	return cmd
}

func runCompare(ctx context.Context, s std, f compareFlags, args []string) error {
	if !(f.threshold >= 0) || math.IsInf(f.threshold, 0) {
		return usagef("a threshold of %v %% is impossible", f.threshold)
	}
	write, known := changesFormats()[f.format]
	switch {
	case !known:
		return unknownValue(fmt.Errorf("format %q is not one of %s", f.format, strings.Join(formatNames(), ", ")),
			[]string{f.format}, formatNames())
	case f.output.json && f.format != "text" && f.format != "json":
		return usagef("--json and --format %s are two outputs: choose one", f.format)
	}
	f.output.json = f.output.json || f.format == "json"
	if err := checkFiles(args, outFile{"save", f.output.save}); err != nil {
		return err
	}
	if err := f.output.check(); err != nil {
		return err
	}
	c, err := reading(ctx, func() (record.Changes, error) {
		opts := compare.Options{Threshold: f.threshold}
		if f.by != "" {
			return compare.FileBy(args[0], f.by, opts)
		}
		return compare.Files(args[0], args[1], opts)
	})
	switch {
	case errors.Is(err, compare.ErrKind), errors.Is(err, compare.ErrLabel):
		return usageError{err}
	case err != nil:
		return err
	}
	if err := f.output.publishRead(ctx, s, c, func(s std) error { return write(s.out, c) }); err != nil {
		return err
	}
	if why := c.Nothing(); why != "" {
		return fmt.Errorf("compare: %s", why)
	}
	if c.Regressed() {
		return errRegression
	}
	switch c := c.(type) {
	case *record.Comparison:
		if n, row := c.Lost(); n > 0 {
			return lostNumber(row.Name, row.Missing)
		}
	case *record.LabComparison:
		if n, row := c.Lost(); n > 0 {
			return lostNumber(row.Name, row.Missing)
		}
	}
	return nil
}

func lostNumber(row, why string) error {
	return fmt.Errorf("compare: %s lost its number: %s", row, why)
}

// changesFormats are what a comparison can be written as; json is what --json does.
func changesFormats() map[string]func(io.Writer, record.Changes) error {
	return map[string]func(io.Writer, record.Changes) error{
		"text": writeChanges, "markdown": page.ComparisonMarkdown, "junit": report.JUnitComparison,
		"ktap": report.KTAPComparison, "json": nil,
	}
}

func formatNames() []string { return slices.Sorted(maps.Keys(changesFormats())) }

// writeChanges writes a comparison for people, by what was compared.
func writeChanges(w io.Writer, c record.Changes) error {
	opts := textOptions(w)
	switch c := c.(type) {
	case *record.ProfileComparison:
		return report.ProfileComparison(w, opts, c)
	case *record.SiteComparison:
		return report.SiteComparison(w, opts, c)
	case *record.FindingComparison:
		return report.FindingComparison(w, opts, c)
	case *record.LabComparison:
		return report.LabComparison(w, opts, c)
	case *record.Comparison:
		return report.Comparison(w, opts, c)
	}
	return fmt.Errorf("a comparison of type %T has no text", c)
}
