package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/fleet"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
)

func newFleetOdd(s std) *cobra.Command {
	var f fleetFlags
	var a answerFlags
	top := 50
	cmd := &cobra.Command{
		Use:   "odd",
		Short: "Find machines that are unlike their twins",
		Long: `Find machines that are unlike their twins: those of the same CPU, microcode, kernel and
hypervisor. A field has another value than with at least four fifths of them (a thunk, a boot
parameter, a mitigation, the IOMMU, the build of the kernel), or a number lies more than
five robust standard deviations, and 3 %, from the median of eight machines or more of its kind,
itself counted; how many have fewer is said. They are sorted by what a packet's redirect loses;
machines that are faster than their twins, as with a forgotten mitigations=off, come last.`,
		Example: `  unthunk fleet odd --store fleet.db
  unthunk fleet odd --store fleet.db --where label:group=edge --json`,
		Args: noRecords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := f.window()
			if err != nil {
				return err
			}
			if top < 1 || top > record.MaxRows {
				return usagef("--top %d: 1 to %d", top, record.MaxRows)
			}
			where, err := parseWhere("where", f.where)
			if err != nil {
				return err
			}
			if err := a.check(f.store); err != nil {
				return err
			}
			ctx := cmd.Context()
			doc, err := asked(ctx, f.store, func(store *fleet.Store) (*record.FleetOdd, error) { return store.Odd(ctx, w, where, top) })
			if err != nil {
				return err
			}
			return a.publish(ctx, s, doc, func(out io.Writer) error { return report.FleetOdd(out, textOptions(out), doc) })
		},
	}
	f.add(cmd)
	f.addWhere(cmd)
	cmd.Flags().IntVar(&top, "top", top, "so many machines at most")
	a.add(cmd)
	return cmd
}
