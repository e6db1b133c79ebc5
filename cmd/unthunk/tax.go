package main

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/conclusion"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/tax"
)

// taxFlags are what the user typed.
type taxFlags struct {
	pairs   []string
	verbose bool
	chain   chainFlags
	length  lengthFlags
	output  outputFlags
}

func newTax(s std) *cobra.Command {
	var f taxFlags
	cmd := &cobra.Command{
		Use:   "tax",
		Short: "Price each indirect call of the redirect path, by taking it away",
		Long: `Price each indirect call of the redirect path, by taking it away: pairs of
programs and chains that differ in one indirect branch run in turn, in the live
kernel. The code of both is read first; where this kernel makes both alike, the
row says so instead of a price.

With --prog a program of yours is in the chains, as with bench: pairs that are priced on
chains, and how often a packet makes each call around it, are then of its packets. Calls
that the program makes itself are not counted: prog xray and prog cost --lines do that.`,
		Example: `  unthunk tax --quick
  unthunk tax --pair bpf-prog,map-lookup --verbose --save tax.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runTax(cmd.Context(), s, cmd, f) },
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.pairs, "pair", nil, "pairs to price, all without it: "+strings.Join(tax.Families(), ", "))
	fl.BoolVar(&f.verbose, "verbose", false, "also show what was found in the code of each pair")
	f.chain.add(cmd)
	f.length.add(cmd, tax.DefaultRounds, tax.DefaultDuration)
	f.output.add(cmd)
	return cmd
}

func runTax(ctx context.Context, s std, cmd *cobra.Command, f taxFlags) (err error) {
	length, err := f.length.resolve(cmd)
	if err != nil {
		return err
	}
	plan := tax.Plan{Pairs: f.pairs, CPU: rounds.OnCPU(length.cpu), Schedule: length.schedule()}
	if err := plan.Validate(); err != nil {
		return unknownValue(err, f.pairs, tax.Families())
	}
	if err := f.chain.check(cmd); err != nil {
		return err
	}
	if err := f.output.check(); err != nil {
		return err
	}
	if plan.Target, err = f.chain.open(ctx, s, redirect.DefaultSize, tax.Bulks()); err != nil {
		return err
	}
	if plan.Target != nil {
		defer func() { err = errors.Join(err, plan.Target.Close()) }()
	}
	doc := record.New[record.TaxRow]("tax", host.Identify(host.Options{}))
	doc.Settings = settings(cmd, length)
	steal := host.StealSince()
	show, done := progress(s)
	raw, err := tax.Run(ctx, plan, show)
	done()
	if err != nil {
		return err
	}
	doc.Incomplete = raw.Incomplete
	doc.Settings["cpu"] = strconv.Itoa(raw.CPU)
	if ran := raw.Clock(); ran != "" {
		doc.Settings["core-clock"] = ran
	}
	rows, warns := raw.Record()
	doc.Rows = rows
	doc.AddReferences("", raw.References)
	doc.Warnings = append(append(doc.Warnings, warns...), append(stolen(steal), ofSoftware(doc.Host)...)...)
	err = f.output.publish(s, doc, func() error {
		return report.Tax(s.out, textOptions(s.out), doc, conclusion.Calls(doc.Rows, nil), f.verbose)
	})
	return stopped(doc, func(row record.TaxRow) bool { return row.Refused != "" }, err)
}
