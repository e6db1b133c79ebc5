package main

import (
	"errors"
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"unthunk/report"
	"unthunk/result"
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
	cmd.Flags().Float64Var(&f.threshold, "threshold", result.DefaultThreshold, "smallest difference that matters, in `percent`")
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
	if profiles, err := compareProfiles(f, args); err != nil || profiles != nil {
		if err != nil {
			return err
		}
		err := f.output.publish(s, profiles, func() error {
			return report.ProfileComparison(s.out, textOptions(s.out), profiles)
		})
		if err == nil && profiles.Regressed() {
			err = errRegression
		}
		return err
	}
	if labs, err := compareLabs(args); err != nil || labs != nil {
		if err != nil {
			return err
		}
		return f.output.publish(s, labs, func() error { return report.LabComparison(s.out, textOptions(s.out), labs) })
	}
	if sites, err := compareSites(args); err != nil || sites != nil {
		if err != nil {
			return err
		}
		return f.output.publish(s, sites, func() error {
			return report.SiteComparison(s.out, textOptions(s.out), sites)
		})
	}
	c, err := compare(f, args)
	if err != nil {
		return err
	}
	err = f.output.publish(s, c, func() error {
		return report.Comparison(s.out, textOptions(s.out), c)
	})
	if err != nil {
		return err
	}
	if c.Regressed() {
		return errRegression
	}
	return nil
}

// compareProfiles compares two profiles. It is nil when no file is one.
func compareProfiles(f compareFlags, args []string) (*result.ProfileComparison, error) {
	var profiles []*result.Profile
	for _, path := range args {
		p, err := result.LoadProfile(path)
		switch {
		case err == nil:
			profiles = append(profiles, p)
		case !errors.Is(err, result.ErrKind):
			return nil, err
		}
	}
	switch {
	case len(profiles) == 0:
		return nil, nil
	case f.by != "":
		return nil, usagef("compare --by %s: %s is a profile: its rows are stages, which only those of another profile compare with", f.by, args[0])
	case len(profiles) != len(args):
		return nil, usagef("compare %s with %s: only one of them is a profile", args[0], args[1])
	}
	c := result.CompareProfiles(profiles[0], profiles[1], result.CompareOptions{Threshold: f.threshold})
	c.Old.File, c.New.File = args[0], args[1]
	return c, nil
}

// compareLabs compares two records of lab. It is nil when the first is of another
// kind, or none at all, which compare then says.
func compareLabs(args []string) (*result.LabComparison, error) {
	if len(args) != 2 {
		return nil, nil
	}
	old, err := result.LoadLab(args[0])
	if err != nil {
		return nil, nil
	}
	new, err := result.LoadLab(args[1])
	if err != nil {
		if errors.Is(err, result.ErrKind) {
			return nil, usageError{fmt.Errorf("compare %s with %s: the first is of lab, the second is not", args[0], args[1])}
		}
		return nil, err
	}
	c := result.CompareLabs(old, new)
	c.Old.File, c.New.File = args[0], args[1]
	return c, nil
}

// compareSites compares two records of xray. It is nil when the first is of another
// kind, or none at all, which compare then says.
func compareSites(args []string) (*result.SiteComparison, error) {
	if len(args) != 2 {
		return nil, nil
	}
	old, err := result.LoadSites(args[0])
	if err != nil {
		return nil, nil
	}
	new, err := result.LoadSites(args[1])
	if err != nil {
		if errors.Is(err, result.ErrKind) {
			return nil, usageError{fmt.Errorf("compare %s with %s: the first is of xray, the second is not", args[0], args[1])}
		}
		return nil, err
	}
	c := result.CompareSites(old, new)
	c.Old.File, c.New.File = args[0], args[1]
	return c, nil
}

func compare(f compareFlags, args []string) (*result.Comparison, error) {
	opts := result.CompareOptions{Threshold: f.threshold}
	old, err := result.Load(args[0])
	if err != nil {
		return nil, err
	}
	if f.by != "" {
		c, err := result.CompareBy(old, f.by, opts)
		if err != nil {
			return nil, usageError{err}
		}
		c.Old.File, c.New.File = args[0], args[0]
		return c, nil
	}
	new, err := result.Load(args[1])
	if err != nil {
		return nil, err
	}
	c, err := result.Compare(old, new, opts)
	if err != nil {
		return nil, usageError{fmt.Errorf("compare %s with %s: %w", args[0], args[1], err)}
	}
	c.Old.File, c.New.File = args[0], args[1]
	return c, nil
}
