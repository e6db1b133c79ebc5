package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
)

type compareFlags struct {
	by        string
	threshold float64
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
exactly.

With --by, rows of one file of bench or run that differ in one label only
(operation, scenario, mode, …) are compared with the row of the label's first
value. They were measured in the same rounds, so this sees far smaller
differences than two files do.

The exit code is 3 when a row is slower by more than the threshold, with
confidence.`,
		Example: `  unthunk bench --save before.json
  unthunk compare before.json after.json --threshold 5
  unthunk compare parse.json --by operation`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case f.by == "" && len(args) != 2:
				return usagef("compare needs two files, or one and --by: got %d", len(args))
			case f.by != "" && len(args) != 1:
				return usagef("compare --by needs one file: got %d", len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return runCompare(s, f, args) },
	}
	cmd.Flags().StringVar(&f.by, "by", "", "compare rows of one file that differ in `LABEL` only")
	cmd.Flags().Float64Var(&f.threshold, "threshold", compare.DefaultThreshold, "smallest difference that matters, in `percent`")
	f.output.add(cmd)
	return cmd
}

func runCompare(s std, f compareFlags, args []string) error {
	if !(f.threshold >= 0) || math.IsInf(f.threshold, 0) {
		return usagef("a threshold of %v %% is impossible", f.threshold)
	}
	if err := f.output.check(); err != nil {
		return err
	}
	kind, err := kindOf(args)
	if err != nil {
		return err
	}
	if f.by != "" && (kind == "profile" || kind == "xray" || kind == "lab") {
		return usagef("compare --by %s: %s is of %s: only rows of bench or run have labels to compare by", f.by, args[0], kind)
	}
	switch kind {
	case "profile":
		return compareProfiles(s, f, args)
	case "xray":
		return compareSites(s, f, args)
	case "lab":
		return compareLabs(s, f, args)
	}
	c, err := compareRows(f, args)
	if err != nil {
		return err
	}
	err = f.output.publish(s, c, func() error {
		return report.Comparison(s.out, textOptions(s.out), c)
	})
	return regressed(c.Regressed(), err)
}

// kindOf is the kind of the first record. Records of profile, xray and lab compare
// with their own kind only.
func kindOf(args []string) (string, error) {
	kinds := make([]string, len(args))
	for i, path := range args {
		var err error
		if kinds[i], err = record.KindOf(path); err != nil {
			return "", err
		}
	}
	for _, alone := range []string{"profile", "xray", "lab"} {
		if slices.Contains(kinds, alone) && kinds[0] != kinds[len(kinds)-1] {
			return "", usagef("compare %s with %s: the first is of %s, the second of %s", args[0], args[1], kinds[0], kinds[1])
		}
	}
	return kinds[0], nil
}

// regressed makes a finding an error, once it is written.
func regressed(found bool, err error) error {
	if err == nil && found {
		return errRegression
	}
	return err
}

// two loads two records.
func two[T any](args []string, load func(string) (*T, error)) (old, new *T, err error) {
	if old, err = load(args[0]); err != nil {
		return nil, nil, err
	}
	new, err = load(args[1])
	return old, new, err
}

func compareProfiles(s std, f compareFlags, args []string) error {
	old, new, err := two(args, record.LoadProfile)
	if err != nil {
		return err
	}
	c := compare.Profiles(old, new, compare.Options{Threshold: f.threshold})
	c.Old.File, c.New.File = args[0], args[1]
	err = f.output.publish(s, c, func() error { return report.ProfileComparison(s.out, textOptions(s.out), c) })
	return regressed(c.Regressed(), err)
}

func compareSites(s std, f compareFlags, args []string) error {
	old, new, err := two(args, record.LoadSites)
	if err != nil {
		return err
	}
	c := compare.Sites(old, new)
	c.Old.File, c.New.File = args[0], args[1]
	return f.output.publish(s, c, func() error { return report.SiteComparison(s.out, textOptions(s.out), c) })
}

func compareLabs(s std, f compareFlags, args []string) error {
	old, new, err := two(args, record.LoadLab)
	if err != nil {
		return err
	}
	c := compare.Labs(old, new)
	c.Old.File, c.New.File = args[0], args[1]
	return f.output.publish(s, c, func() error { return report.LabComparison(s.out, textOptions(s.out), c) })
}

func compareRows(f compareFlags, args []string) (*record.Comparison, error) {
	opts := compare.Options{Threshold: f.threshold}
	old, err := record.Load(args[0])
	if err != nil {
		return nil, err
	}
	if f.by != "" {
		c, err := compare.By(old, f.by, opts)
		if err != nil {
			return nil, usageError{err}
		}
		c.Old.File, c.New.File = args[0], args[0]
		return c, nil
	}
	new, err := record.Load(args[1])
	if err != nil {
		return nil, err
	}
	c, err := compare.Records(old, new, opts)
	if err != nil {
		return nil, usageError{fmt.Errorf("compare %s with %s: %w", args[0], args[1], err)}
	}
	c.Old.File, c.New.File = args[0], args[1]
	return c, nil
}
