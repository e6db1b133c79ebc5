package main

import (
	"fmt"
	"io"
	"math"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/fleet"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
)

// sideFlags say what is compared.
type sideFlags struct {
	base, canary []string
	threshold    float64
}

func (f *sideFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.base, "base", nil,
		"the machines that have not changed: a `CONDITION`, as kernel=6.12*; may be repeated")
	cmd.Flags().StringArrayVar(&f.canary, "canary", nil, "the machines that have: a `CONDITION`; may be repeated")
	cmd.Flags().Float64Var(&f.threshold, "threshold", compare.DefaultThreshold, "smallest difference that matters, in `percent`")
}

// comparison is what the flags ask for, in a time.
func (f *sideFlags) comparison(w fleet.Window) (fleet.Comparison, error) {
	c := fleet.Comparison{Window: w, Threshold: f.threshold}
	if !(f.threshold >= 0) || math.IsInf(f.threshold, 0) {
		return c, usagef("a threshold of %v %% is impossible", f.threshold)
	}
	for _, side := range []struct {
		flag  string
		texts []string
		into  *fleet.Where
	}{{"base", f.base, &c.Base}, {"canary", f.canary, &c.Canary}} {
		if len(side.texts) == 0 || side.texts[0] == "" {
			return c, usagef("--%s is missing: the condition of a side, as kernel=6.12.57", side.flag)
		}
		var err error
		if *side.into, err = parseWhere(side.flag, side.texts); err != nil {
			return c, err
		}
	}
	return c, nil
}

func newFleetCompare(s std) *cobra.Command {
	var f fleetFlags
	var a answerFlags
	var sides sideFlags
	cmd := &cobra.Command{
		Use:   "compare --base CONDITION --canary CONDITION",
		Short: "Say what canaries pay more than the base: machines are the sample",
		Long: `Say what canaries pay more than the base. Machines are the sample, not rounds: one machine is
one number, its newest record on that side. Where six machines or more were on both sides, each is
compared with itself; else canaries with six or more machines of the base of the same CPU and
hypervisor. Verdicts are those of unthunk compare. Each row says how many canaries would show 1 %.

The exit code is 3 when a call or a redirect of the canaries is slower by more than the threshold,
with confidence, and 1 when that cannot be told of each redirect, or a canary is compared with
nothing. A direct call counts where the two sides return otherwise.`,
		Example: `  unthunk fleet compare --store f.db --base 'kernel=6.1*' --canary 'kernel=7*'
  unthunk fleet compare --store fleet.db --base label:on=a --canary label:on=b`,
		Args: noRecords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := f.window()
			if err != nil {
				return err
			}
			c, err := sides.comparison(w)
			if err != nil {
				return err
			}
			if err := a.check(f.store); err != nil {
				return err
			}
			ctx := cmd.Context()
			doc, err := asked(ctx, f.store, func(store *fleet.Store) (*record.FleetCompare, error) { return store.Compare(ctx, c) })
			if err != nil {
				return err
			}
			if err := a.publish(ctx, s, doc, func(out io.Writer) error { return report.FleetCompare(out, textOptions(out), doc) }); err != nil {
				return err
			}
			if doc.Regressed() {
				return errRegression
			}
			if why := conclusion.FleetUntold(doc); why != "" {
				return fmt.Errorf("compare: %s", why)
			}
			return nil
		},
	}
	f.add(cmd)
	sides.add(cmd)
	a.add(cmd)
	return cmd
}
