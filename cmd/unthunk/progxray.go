package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/progcode"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/program/list"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/tax"
)

// progXrayFlags are what the user typed.
type progXrayFlags struct {
	target     targetFlags
	asm, price bool
	follow     bool
	prices     string
	cpu        int
	output     outputFlags
}

func newProgXray(s std) *cobra.Command {
	var f progXrayFlags
	cmd := &cobra.Command{
		Use:   "xray TARGET",
		Short: "What is in the machine code of a program, by source line, and what to change",
		Long: `Read the machine code of an XDP program: each indirect branch, each call of a helper, a
kfunc or a subprogram, each lookup and of which map, callbacks, tail calls and where they
go, redirects; each with its source line and, where it is known, its price. Then what to
change: a tail call by a constant index, a lookup of a known map, a place in the BPF
dispatcher, fewer observers.

TARGET is an object file (lb.o, or lb.o:NAME when it has several programs), a pinned path,
id:N, or dev:DEV for what is attached there. A program of an object file is loaded, read,
and gone; one that runs is only read. No program runs, unless --price is given.

Prices are those of a record of tax or run (--prices), or are measured now (--price). That
takes some ten seconds, and runs programs of unthunk's own; for the price of an attached
program that is not in the BPF dispatcher it fills the dispatcher for a moment: a program
that others attach then stays outside for as long as it is attached.`,
		Example: `  unthunk prog xray lb.o
  unthunk prog xray dev:eth0 --prices tax.json
  unthunk prog xray id:42 --asm`,
		Args: oneTarget,
		RunE: func(cmd *cobra.Command, args []string) error { return runProgXray(cmd.Context(), s, cmd, f, args[0]) },
	}
	fl := cmd.Flags()
	f.target.add(fl, false)
	fl.BoolVar(&f.asm, "asm", false, "the code, annotated, with the lines of the source")
	fl.BoolVar(&f.follow, "follow", false, "also read the programs that tail calls go to now")
	fl.BoolVar(&f.price, "price", false, "measure what is in the code on this machine")
	fl.StringVar(&f.prices, "prices", "", "take prices from `FILE` of tax --save or run --save")
	fl.IntVar(&f.cpu, "cpu", -1, "with --price: CPU under test; -1 is the last one")
	f.output.add(cmd)
	return cmd
}

// oneTarget refuses a command line without a target, or with more than one.
func oneTarget(cmd *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return usagef("%s needs a target: an object file, a pinned path, id:N or dev:DEV", verbOf(cmd))
	case 1:
		return nil
	}
	return usagef("unexpected argument %q: %s takes one target", args[1], verbOf(cmd))
}

// check refuses flags that do not go together.
func (f *progXrayFlags) check(cmd *cobra.Command, target string) error {
	switch {
	case f.price && f.prices != "":
		return usagef("--price and --prices are two sources of prices: choose one")
	case f.asm && (f.price || f.prices != ""):
		return usagef("--asm shows no prices")
	case f.asm && f.output.save != "":
		return usagef("--save does not go with --asm: no verb reads what it shows")
	case cmd.Flags().Changed("cpu") && !f.price:
		return usagef("--cpu goes with --price")
	}
	if _, err := rounds.OnCPU(f.cpu).Pick(); f.cpu < -1 || f.price && err != nil {
		return usagef("CPU %d is not a CPU", f.cpu)
	}
	if err := checkFiles(append(f.target.files(target), f.prices), outFile{"save", f.output.save}); err != nil {
		return err
	}
	return f.output.check()
}

func runProgXray(ctx context.Context, s std, cmd *cobra.Command, f progXrayFlags, target string) error {
	if err := f.check(cmd, target); err != nil {
		return err
	}
	var prices []record.TaxRow
	var from *record.Saved
	if f.prices != "" {
		saved, err := reading(ctx, func() (*record.Saved, error) { return record.Load(f.prices) })
		if err != nil {
			return err
		}
		if prices, err = saved.CarriedPrices(); err != nil {
			return usagef("--prices %s %v", f.prices, err)
		}
		from = saved
	}
	var code *progcode.Code
	var machine host.Fingerprint
	// To load and to decode a program of a million instructions takes many seconds: it is left behind when a signal comes.
	opened, err := reading(ctx, func() (opened *program.Opened, err error) {
		code, machine, opened, err = f.read(ctx, s, target)
		return opened, err
	})
	if err != nil {
		return err
	}
	if f.asm {
		listing := code.Listing(machine)
		listing.Program.Loaded = !opened.Live
		if f.output.json {
			err = report.ProgCodeJSON(ctx, s.out, listing, code.Lines)
		} else {
			err = report.ProgAsm(ctx, s.out, textOptions(s.out), listing, code.Lines)
		}
		if err != nil && ctx.Err() != nil {
			return errStopped
		}
		return err
	}
	doc, err := reading(ctx, func() (*record.ProgXray, error) { return code.Record(machine), nil })
	if err != nil {
		return err
	}
	doc.Settings = map[string]string{"version": buildVersion(), "target": target}
	doc.Program.Loaded = !opened.Live
	for _, part := range opened.Parts {
		doc.Program.Parts = append(doc.Program.Parts, fmt.Sprintf("%s (id:%d)", record.Name(part.Name), part.ID))
	}
	observers, err := surroundings(ctx, doc)
	if err != nil {
		return err
	}
	source := ""
	switch {
	case from != nil:
		source = fmt.Sprintf("%s, of %s", f.prices, from.Time.UTC().Format("2006-01-02 15:04"))
		doc.Warnings = append(doc.Warnings, pricedElsewhere(f.prices, from.Host, machine)...)
	case f.price:
		if prices, err = f.measure(ctx, s, doc, len(observers) > 0); err != nil {
			return err
		}
		source = "a run of tax on this machine, just now"
	}
	if len(prices) > 0 {
		progcode.Price(doc, prices, source)
	}
	progcode.Advise(doc, prices, observers)
	err = f.output.publish(s, doc, func() error { return report.ProgXray(s.out, textOptions(s.out), doc) })
	if doc.Incomplete && err == nil {
		return errStopped
	}
	return err
}

// read opens the program, reads its code, and closes it: one that was loaded for that is gone.
func (f *progXrayFlags) read(ctx context.Context, s std, target string) (
	code *progcode.Code, machine host.Fingerprint, opened *program.Opened, err error,
) {
	if opened, err = f.target.open(ctx, s, target); err != nil {
		return nil, machine, nil, err
	}
	p := opened // what is returned is nil after an error
	defer func() { err = errors.Join(err, p.Close()) }()
	k, err := kernel.OpenLive() // after the program, which has symbols
	if err != nil {
		return nil, machine, nil, err
	}
	defer k.Close()
	if code, err = progcode.Read(k, opened.Program); err != nil {
		return nil, machine, nil, err
	}
	for _, part := range opened.Parts {
		if err := code.AddID(part.ID); errors.Is(err, fs.ErrNotExist) {
			continue // it has just been detached
		} else if err != nil {
			return nil, machine, nil, err
		}
	}
	if f.follow {
		left, err := code.Follow(ctx)
		if err != nil {
			return nil, machine, nil, err
		}
		if left > 0 {
			warner(s.err)(fmt.Sprintf("%d more programs that tail calls go to are left out", left))
		}
	}
	return code, host.Identify(host.Options{Kernel: k}), opened, nil
}

// surroundings adds where the program is attached. It returns who observes redirects.
func surroundings(ctx context.Context, doc *record.ProgXray) (observers []string, err error) {
	found, err := list.Read(ctx, list.Options{})
	if err != nil {
		return nil, err
	}
	for _, row := range found.Rows {
		if row.ID != doc.Program.ID || doc.Program.Loaded {
			continue
		}
		for _, a := range row.Attached {
			at := cmp.Or(a.Device, fmt.Sprintf("device %d of another namespace", a.Index))
			if a.Mode != "" {
				at += " (" + a.Mode + ")"
			}
			doc.Program.Attached = append(doc.Program.Attached, at)
		}
		for _, e := range row.Entries {
			name := fmt.Sprintf("map %d", e.Map)
			if m := found.Map(e.Map); m != nil {
				name = m.Type + " " + m.Name
			}
			doc.Program.Entries = append(doc.Program.Entries, fmt.Sprintf("%s[%d]", name, e.Key))
		}
		if row.PartOf != 0 {
			doc.Program.Entries = append(doc.Program.Entries, fmt.Sprintf("id:%d (%s)", row.PartOf, row.Slot))
		}
	}
	for _, o := range found.Observers {
		if slices.Contains([]string{"xdp_redirect", "xdp_redirect_map", "xdp_devmap_xmit"}, o.Tracepoint) {
			observers = append(observers, fmt.Sprintf("%s at %s", o.Name, o.Tracepoint))
		}
	}
	return observers, nil
}

// measure prices what the code has.
func (f *progXrayFlags) measure(ctx context.Context, s std, doc *record.ProgXray, observed bool) ([]record.TaxRow, error) {
	pairs := progcode.Pairs(doc, observed)
	if len(pairs) == 0 {
		doc.Warn("", "nothing was measured: no pair of tax prices what is in it")
		return nil, nil
	}
	show, done := progress(s)
	raw, err := tax.Run(ctx, tax.Plan{
		Pairs: pairs, CPU: rounds.OnCPU(f.cpu), Schedule: rounds.Schedule{Rounds: 15, Duration: 10 * time.Second},
	}, show)
	done()
	if err != nil {
		return nil, err
	}
	if raw.Incomplete {
		doc.Incomplete = true
	}
	rows, warnings := raw.Record()
	for _, w := range warnings {
		switch {
		case w.Row == "":
			doc.Warn("", "prices: "+w.Text)
		case slices.Contains(pairs, w.Row):
			doc.Warn("", fmt.Sprintf("price of %s: %s", w.Row, w.Text))
		}
	}
	for _, row := range rows {
		if row.Refused != "" && slices.Contains(pairs, row.Name) {
			doc.Warn("", fmt.Sprintf("no price of %s: %s", row.Name, row.Refused))
		}
	}
	return rows, nil
}
