package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/driver"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
)

func newDrivers(s std) *cobra.Command {
	var o outputFlags
	cmd := &cobra.Command{
		Use:   "drivers [DIR|FILE…]",
		Short: "What each NIC driver does for a redirected packet: memory, bulks, indirect calls",
		Long: `Read the modules of network drivers and say what each does for a redirected
packet: whether it has ndo_xdp_xmit, keeps memory mapped, maps and syncs for DMA,
returns frames in bulk, and how many indirect branches its polls and its
ndo_xdp_xmit reach. Those with most left to do come first.

DIR is a kernel package unpacked in a folder, or a folder of modules; FILE a
module. Without either it is the running kernel's modules. It needs no root.`,
		Example: `  unthunk drivers
  unthunk drivers ~/linux-image-6.12 --save drivers.json`,
		RunE: func(cmd *cobra.Command, args []string) error { return runDrivers(cmd.Context(), s, o, args) },
	}
	o.add(cmd)
	return cmd
}

func runDrivers(ctx context.Context, s std, o outputFlags, args []string) error {
	if err := checkFiles(args, outFile{"save", o.save}); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	files, err := driver.Find(args)
	if err != nil {
		return err
	}
	doc := record.New[record.DriverRow]("drivers", host.Identify(host.Options{}))
	doc.Settings = map[string]string{"version": buildVersion()}
	rows, warns, err := driver.InspectAll(ctx, files)
	switch {
	case ctx.Err() != nil:
		return errStopped
	case err != nil:
		return err
	}
	doc.Rows, doc.Warnings = rows, append(doc.Warnings, warns...)
	return o.publish(s, doc, func() error { return report.Drivers(s.out, textOptions(s.out), doc) })
}
