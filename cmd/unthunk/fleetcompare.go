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

func newFleetCompare(s std) *cobra.Command {
	var f fleetFlags
	var a answerFlags
	var base, canary []string
	threshold := float64(compare.DefaultThreshold)
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
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := f.window()
			if err != nil {
				return err
			}
			c := fleet.Comparison{Window: w, Threshold: threshold}
			if !(threshold >= 0) || math.IsInf(threshold, 0) {
				return usagef("a threshold of %v %% is impossible", threshold)
			}
			for _, side := range []struct {
				flag  string
				texts []string
				into  *fleet.Where
			}{{"base", base, &c.Base}, {"canary", canary, &c.Canary}} {
				if len(side.texts) == 0 || side.texts[0] == "" {
					return usagef("--%s is missing: the condition of a side, as kernel=6.12.57", side.flag)
				}
				if *side.into, err = parseWhere(side.flag, side.texts); err != nil {
					return err
				}
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
	cmd.Flags().StringArrayVar(&base, "base", nil,
		"the machines that have not changed: a `CONDITION`, as kernel=6.12*; may be repeated")
	cmd.Flags().StringArrayVar(&canary, "canary", nil, "the machines that have: a `CONDITION`; may be repeated")
	cmd.Flags().Float64Var(&threshold, "threshold", threshold, "smallest difference that matters, in `percent`")
	a.add(cmd)
	return cmd
}
