package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/driver"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/whatif"
)

func newDrivers(s std) *cobra.Command {
	var o outputFlags
	var f whatIfFlags
	var only []string
	cmd := &cobra.Command{
		Use:   "drivers [DIR|FILE…]",
		Short: "What each NIC driver does for a redirected packet, and what a change to it would save",
		Long: `Read the modules of network drivers and say what each does for a redirected
packet: whether it has ndo_xdp_xmit, keeps memory mapped, maps and syncs for DMA,
returns frames in bulk, and how many indirect branches its polls and its
ndo_xdp_xmit reach. Those with most left to do come first.

DIR is a kernel package unpacked in a folder, or a folder of modules; FILE a
module, or a kernel package (.deb or .rpm). debian:6.12-cloud is a kernel that apt
downloads once, as for lab. Without them it is the running kernel's modules. It
needs no root.

--what-if estimates what changes to each driver would save of a packet, by how its memory is mapped for DMA:
frames that return in bulk, memory that stays mapped, a bulk that is mapped as a list, and, before Linux
6.10, no call of a sync that does nothing. What to do first comes first: --driver igb says it of one driver.
What guests counted (--counts) is taken before places in the code.
An indirect and a direct call are priced on this machine, in some 12 s and as root, or by a record of tax that
has both (--prices). What was not counted, or has no price, has no number.`,
		Example: `  unthunk drivers
  unthunk drivers debian:6.12-cloud --save drivers.json
  unthunk lab debian:6.12 --nic igb --dma iommu-strict --trace --save igb.json
  unthunk tax --pair bpf-prog,direct-call --save tax.json
  unthunk drivers debian:6.12 --what-if --counts igb.json --prices tax.json`,
		RunE: func(cmd *cobra.Command, args []string) error { return runDrivers(cmd.Context(), s, o, f, only, args) },
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&only, "driver", nil, "only drivers of these `NAMES`, as modules are called: igb, virtio_net")
	fl.BoolVar(&f.wanted, "what-if", false, "estimate what changes to the drivers would save of a packet")
	fl.StringSliceVar(&f.counts, "counts", nil, "with --what-if, take what was counted in guests from `FILE` of lab --nic --save")
	fl.StringVar(&f.prices, "prices", "", "with --what-if, take prices from `FILE` of tax --save with "+strings.Join(whatif.Pairs(), " and "))
	fl.StringSliceVar(&f.dmas, "dma", nil,
		"with --what-if, only these ways in which memory is mapped for DMA: "+strings.Join(whatif.DMAs(), ", "))
	o.add(cmd)
	return cmd
}

func runDrivers(ctx context.Context, s std, o outputFlags, f whatIfFlags, only, args []string) error {
	if err := f.check(); err != nil {
		return err
	}
	if err := checkFiles(slices.Concat(args, f.counts, []string{f.prices}), outFile{"save", o.save}); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	folders, err := unpacked(ctx, args)
	if err != nil {
		return err
	}
	doc, err := reading(ctx, func() (*record.Document[record.DriverRow], error) { return inspect(ctx, folders) })
	if err != nil {
		return err
	}
	if doc.Rows, err = ofDrivers(doc.Rows, only); err != nil {
		return err
	}
	if f.wanted {
		return f.run(ctx, s, o, doc)
	}
	return o.publishRead(ctx, s, doc, func(s std) error { return report.Drivers(s.out, textOptions(s.out), doc) })
}

// inspect is the record of the modules in folders and files.
func inspect(ctx context.Context, folders []string) (*record.Document[record.DriverRow], error) {
	modules, err := driver.Find(ctx, folders)
	if err != nil {
		return nil, err
	}
	doc := record.New[record.DriverRow]("drivers", host.Identify(host.Options{}))
	doc.Settings = map[string]string{"version": buildVersion()}
	rows, warns, err := driver.InspectAll(ctx, modules)
	if err != nil {
		return nil, err
	}
	doc.Rows, doc.Warnings = rows, append(doc.Warnings, warns...)
	return doc, nil
}

// ofDrivers are the rows of drivers that are asked for, of which each must have one; without any, all.
func ofDrivers(rows []record.DriverRow, only []string) ([]record.DriverRow, error) {
	if len(only) == 0 {
		return rows, nil
	}
	for i, name := range only {
		only[i] = strings.ReplaceAll(name, "-", "_") // as modprobe takes it
		if !slices.ContainsFunc(rows, func(r record.DriverRow) bool { return r.Name == only[i] }) {
			var names []string
			for _, r := range rows {
				names = append(names, r.Name)
			}
			slices.Sort(names)
			return nil, usagef("--driver %s is not one of %s", name, strings.Join(slices.Compact(names), ", "))
		}
	}
	return slices.DeleteFunc(rows, func(r record.DriverRow) bool { return !slices.Contains(only, r.Name) }), nil
}

// unpacked are paths with the folders of kernel packages in place of the packages.
func unpacked(ctx context.Context, paths []string) ([]string, error) {
	var folders []string
	for _, path := range paths {
		if !strings.HasPrefix(path, "debian:") && !slices.Contains([]string{".deb", ".rpm"}, filepath.Ext(path)) {
			folders = append(folders, path)
			continue
		}
		cache, err := guest.CacheDir()
		if err != nil {
			return nil, err
		}
		kernel, err := guest.Resolve(ctx, cache, path)
		if err != nil {
			return nil, err
		}
		folders = append(folders, kernel.Dir)
	}
	return folders, nil
}
