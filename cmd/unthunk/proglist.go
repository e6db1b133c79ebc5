package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/program/list"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
)

func newProgList(s std) *cobra.Command {
	var (
		o      outputFlags
		prices string
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Which XDP programs this machine has, where, and what is around them",
		Long: `Say which XDP programs this machine has: on which devices, in every network namespace
that can be reached, in which mode, attached by whom; in the BPF dispatcher or not; the
parts of a libxdp dispatcher; the programs in maps (tail calls, devmap, cpumap); who
observes the tracepoints of XDP, and whether runs are timed. And what each of these
makes packets pay beside the programs' own instructions.

It attaches nothing, changes nothing, and runs no program of others. To read the BPF
dispatcher it loads a program of its own that reads kernel memory and goes with it, as
check does. Without root it lists the programs of this namespace's devices by number, and
says what it could not see.

Prices are those of a record of tax or run (--prices). Without one they are those of
docs/tax.md, of another machine.`,
		Example: `  unthunk prog list
  unthunk tax --save tax.json && unthunk prog list --prices tax.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runProgList(cmd.Context(), s, o, prices) },
	}
	cmd.Flags().StringVar(&prices, "prices", "", "take prices from `FILE` of tax --save or run --save")
	o.add(cmd)
	return cmd
}

func runProgList(ctx context.Context, s std, o outputFlags, file string) error {
	if err := checkFiles([]string{file}, outFile{"save", o.save}); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	machine := host.Identify(host.Options{})
	doc := &record.ProgramList{Document: *record.New[record.ProgramRow]("prog-list", machine)}
	doc.Settings = map[string]string{"version": buildVersion()}
	prices, err := pricesFrom(ctx, file, &doc.Document.Warnings, machine)
	if err != nil {
		return err
	}
	found, err := list.Read(ctx, list.Options{Processes: true})
	if err != nil && ctx.Err() != nil { // because of that
		return errInterrupted
	}
	if err != nil {
		return err
	}
	doc.Rows, doc.ProgramListParts = found.Rows, found.ProgramListParts
	doc.Settings["prices"] = prices.Source
	doc.Costs = conclusion.ProgramCosts(doc.Rows, &doc.ProgramListParts, prices)
	return o.publish(s, doc, func() error { return report.ProgramList(s.out, textOptions(s.out), doc) })
}

// pricesFrom are the prices in a record, or those of the documentation where file is "". It
// warns when they are of a machine of another kind.
func pricesFrom(ctx context.Context, file string, warn *[]record.Warning, here host.Fingerprint) (conclusion.Prices, error) {
	if file == "" {
		return conclusion.DocumentedPrices(), nil
	}
	saved, err := reading(ctx, func() (*record.Saved, error) { return record.Load(file) })
	if err != nil {
		return conclusion.Prices{}, err
	}
	prices, err := conclusion.PricesOf(file, saved)
	if err != nil {
		return prices, usagef("--prices %v", err)
	}
	*warn = append(*warn, pricedElsewhere(file, saved.Host, here)...)
	return prices, nil
}

// pricedElsewhere warns of prices that are of a machine of another kind.
func pricedElsewhere(file string, there, here host.Fingerprint) []record.Warning {
	if there.CPU == here.CPU && there.Kernel == here.Kernel && there.IndirectThunk == here.IndirectThunk {
		return nil
	}
	return []record.Warning{{Text: "the prices are of another CPU, kernel or kind of thunk: " + file}}
}
