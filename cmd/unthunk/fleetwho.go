package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/fleet"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
)

func newFleetWho(s std) *cobra.Command {
	var f fleetFlags
	var a answerFlags
	by := []string{"kernel", "cpu", "indirect"}
	cmd := &cobra.Command{
		Use:   "who",
		Short: "Say who pays what: machines by kernel, CPU, thunk and others",
		Long: `Say who pays what: machines by kernel, CPU, thunk and others. The newest record of each machine
counts. Of each group it says how many machines it has, the medians over machines, with an
interval, of an indirect call, of a direct call and of the redirect alone in bulks of 1, 16 and 64,
and how many have no number because the agent refused to measure, and why. An older number
within --since counts where the machine is the same since.

Fields: kernel, kernel-build, cpu, microcode, virtual, indirect, return, call-sites, compiler,
boot-params, mitigations, iommu, driver, xdp-program, jit, smt, governor, and label:NAME; machine
makes a row of each machine.`,
		Example: `  unthunk fleet who --store fleet.db
  unthunk fleet who --store postgres://fleet@db/fleet --by label:rack,microcode`,
		Args: noRecords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := f.window()
			if err != nil {
				return err
			}
			if err := fleet.CheckBy(by); err != nil {
				return usagef("--by: %w", err)
			}
			where, err := parseWhere("where", f.where)
			if err != nil {
				return err
			}
			if err := a.check(f.store); err != nil {
				return err
			}
			ctx := cmd.Context()
			doc, err := asked(ctx, f.store, func(store *fleet.Store) (*record.FleetWho, error) { return store.Who(ctx, w, where, by) })
			if err != nil {
				return err
			}
			return a.publish(ctx, s, doc, func(out io.Writer) error { return report.FleetWho(out, textOptions(out), doc) })
		},
	}
	f.add(cmd)
	f.addWhere(cmd)
	cmd.Flags().StringSliceVar(&by, "by", by, "group by these fields")
	a.add(cmd)
	return cmd
}
