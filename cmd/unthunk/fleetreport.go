package main

import (
	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/fleet"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/page"
)

func newFleetReport() *cobra.Command {
	var f fleetFlags
	var sides sideFlags
	var output string
	by := []string{"kernel", "cpu", "indirect"}
	cmd := &cobra.Command{
		Use:   "report -o FILE",
		Short: "Make one page of a fleet: who pays what, and the odd ones",
		Long: `Make one page of a fleet: who pays what (fleet who), which machines are unlike their twins (fleet
odd), and with --base and --canary what a rollout costs (fleet compare). It is one file that loads nothing.`,
		Example: `  unthunk fleet report --store fleet.db -o fleet.html
  unthunk fleet report --store f.db --base kernel=A --canary kernel=B -o f.html
  unthunk fleet report --store fleet.db --by kernel,microcode -o fleet.html`,
		Args: noRecords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := f.window()
			if err != nil {
				return err
			}
			if output == "" {
				return usagef("a page goes to a file: add -o fleet.html")
			}
			if err := fleet.CheckBy(by); err != nil {
				return usagef("--by: %w", err)
			}
			where, err := parseWhere("where", f.where)
			if err != nil {
				return err
			}
			var c fleet.Comparison
			if len(sides.base)+len(sides.canary) > 0 {
				if c, err = sides.comparison(w); err != nil {
					return err
				}
			} else if cmd.Flags().Changed("threshold") {
				return usagef("--threshold goes with --base and --canary")
			}
			if err := checkFiles(storeFiles(f.store), outFile{"output", output}); err != nil {
				return err
			}
			if err := outfile.Check(output); err != nil {
				return err
			}
			ctx := cmd.Context()
			made, err := asked(ctx, f.store, func(store *fleet.Store) (*memory.Buffer, error) {
				who, err := store.Who(ctx, w, where, by)
				if err != nil {
					return nil, err
				}
				odd, err := store.Odd(ctx, w, where, record.MaxRows)
				if err != nil {
					return nil, err
				}
				records := []*record.Saved{record.NewSaved(who), record.NewSaved(odd)}
				if len(c.Canary) > 0 {
					canaries, err := store.Compare(ctx, c)
					if err != nil {
						return nil, err
					}
					records = append([]*record.Saved{record.NewSaved(canaries)}, records...)
				}
				b := memory.NewBuffer(ctx, memory.MaxOutput)
				return b, page.HTML(ctx, b, page.Source{Records: records, Version: buildVersion()})
			})
			if err != nil {
				return err
			}
			return outfile.WriteFrom(output, made)
		},
	}
	f.add(cmd)
	f.addWhere(cmd)
	sides.add(cmd)
	cmd.Flags().StringSliceVar(&by, "by", by, "group by these fields")
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to `FILE`")
	return cmd
}
