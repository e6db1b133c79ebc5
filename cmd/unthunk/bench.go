package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/rounds"
)

// benchFlags are what the user typed.
type benchFlags struct {
	scenarios, operations []string
	bulks                 []int
	mode, place           string
	size                  int
	length                lengthFlags
	in, out               string
	tracepoints, live     bool
	chain                 chainFlags
	output                outputFlags
	format                string
}

func newBench(s std) *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure XDP_REDIRECT on one core",
		Long: `Measure XDP_REDIRECT on one core, without a NIC: live frames go through a veth
chain in a private network namespace, up a ladder of bulk sizes. Packets are
counted where they are sent, redirected and received; a row whose counts
disagree says why instead of a number.

With --in and --out the program runs on real devices, under your own traffic, and a
line a second says what comes, by queue and CPU, and what is lost. --in alone is for
the scenarios drop, tx and pass. A device that has an XDP program is refused, and the
program is gone when the process is, however it ends.

With --prog a program of yours is in the driver's poll of the chain. Each frame meets it
as it was first made. What it redirects goes to the next device, where --devmap says so;
what it sends back, drops or passes is counted too. A live program is not moved: it is
attached a second time.`,
		Example: `  unthunk bench --scenario redirect-map,tx,drop --bulk 16,64
  unthunk bench --prog lb.o --devmap tx_ports:0 --bulk 16 --save before.json
  unthunk bench --in eth0 --scenario drop
  unthunk bench --operation none,parse --bulk 64 --save parse.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBench(cmd.Context(), s, cmd, f) },
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.scenarios, "scenario", []string{string(redirect.Map)}, "scenarios: "+joined(redirect.Scenarios()))
	fl.IntSliceVar(&f.bulks, "bulk", redirect.DefaultBulks(), "frames a batch, 1 to 256")
	fl.StringSliceVar(&f.operations, "operation", []string{"none"},
		"what the program does to a frame: none, read, swap-macs, parse, or spin:N, a loop of N turns")
	fl.StringVar(&f.mode, "mode", string(redirect.Native), "native or generic XDP")
	fl.StringVar(&f.place, "place", string(redirect.OneCore),
		"one-core, or two-core: generator on one CPU, redirect on another")
	fl.IntVar(&f.size, "size", redirect.DefaultSize, "frame size in `bytes`, without the frame check sequence")
	fl.StringVar(&f.in, "in", "", "measure on real devices: what `DEV` receives is redirected, or goes the way of --scenario")
	fl.StringVar(&f.out, "out", "", "… redirected to `DEV`")
	fl.BoolVar(&f.tracepoints, "tracepoints", false,
		"with --in and --out also count calls of ndo_xdp_xmit, and why redirects fail: each such call on this machine "+
			"then takes some 50 ns more (tax --pair tracepoint), in half of the time")
	fl.BoolVar(&f.live, "live", false, "with --in a line a second on stderr, also when that is no terminal")
	fl.StringVar(&f.format, "format", "text", "text, or bench: Go benchmark format, for benchstat")
	f.chain.add(cmd)
	f.length.add(cmd, redirect.DefaultRounds, redirect.DefaultDuration)
	f.output.add(cmd)
	return cmd
}

func runBench(ctx context.Context, s std, cmd *cobra.Command, f benchFlags) error {
	if f.format != "text" && f.format != "bench" {
		return usagef("format %q is not text or bench", f.format)
	}
	if f.format == "bench" && f.output.json {
		return usagef("--json and --format bench are two outputs: choose one")
	}
	measure, err := f.plan(cmd)
	if err != nil {
		return err
	}
	if err := checkFiles(f.chain.files(), outFile{"save", f.output.save}); err != nil {
		return err
	}
	if err := f.output.check(); err != nil {
		return err
	}
	doc, err := measure(ctx, s)
	if err != nil {
		return err
	}
	err = f.output.publish(s, doc, func() error {
		if f.format == "bench" {
			return writeGoBench(s, doc)
		}
		return report.Bench(s.out, textOptions(s.out), doc)
	})
	return stopped(doc, benchRefused, err)
}

// writeGoBench writes rows for benchstat, and warnings to standard error.
func writeGoBench(s std, doc *record.Document[record.BenchRow]) error {
	warn := warner(s.err)
	for _, w := range doc.Warnings {
		warn(cells.Join(": ", w.Row, w.Text))
	}
	return report.GoBench(s.out, doc)
}

func benchRefused(row record.BenchRow) bool { return row.Refused != "" }

type measurement func(context.Context, std) (*record.Document[record.BenchRow], error)

// plan turns flags into a measurement, or says what is wrong with them.
func (f benchFlags) plan(cmd *cobra.Command) (measurement, error) {
	length, err := f.length.resolve(cmd)
	if err != nil {
		return nil, err
	}
	f.length = length
	if f.size == 0 { // of a plan it is the default
		return nil, usagef("--size 0 is too small for a frame")
	}
	var operations []redirect.Operation
	for _, o := range f.operations {
		op, err := redirect.ParseOperation(o)
		if err != nil {
			return nil, usageError{err}
		}
		operations = append(operations, op)
	}
	if err := f.chain.check(cmd, "scenario", "operation", "mode", "place", "in", "out"); err != nil {
		return nil, err
	}
	if f.in != "" || f.out != "" {
		return f.devices(cmd, operations)
	}
	for _, name := range []string{"tracepoints", "live"} {
		if cmd.Flags().Changed(name) {
			return nil, usagef("--%s goes with --in: it is about real devices", name)
		}
	}
	plan := redirect.Plan{
		Bulks: f.bulks, Operations: operations, Mode: redirect.Mode(f.mode), Size: f.size,
		Layout: redirect.CoreLayout(f.place), CPU: rounds.OnCPU(f.length.cpu), Schedule: f.length.schedule(),
	}
	for _, sc := range f.scenarios {
		plan.Scenarios = append(plan.Scenarios, redirect.Scenario(sc))
	}
	if err := plan.Validate(); err != nil {
		return nil, unknownValue(err, f.scenarios, redirect.Scenarios())
	}
	return func(ctx context.Context, s std) (doc *record.Document[record.BenchRow], err error) {
		doc = record.New[record.BenchRow]("bench", host.Identify(host.Options{}))
		doc.Settings = settings(cmd, f.length)
		if plan.Target, err = f.chain.open(ctx, s, f.size, f.bulks); err != nil {
			return nil, err
		}
		if plan.Target != nil {
			defer func() { err = errors.Join(err, plan.Target.Close()) }()
		}
		show, done := progress(s)
		return doc, measureChain(ctx, doc, plan, show, done)
	}, nil
}

// devices is the plan of a run on real devices.
func (f benchFlags) devices(cmd *cobra.Command, operations []redirect.Operation) (measurement, error) {
	for _, name := range []string{"bulk", "place", "size", "cpu"} {
		if cmd.Flags().Changed(name) {
			return nil, usagef("--%s does not go with --in and --out: there the traffic is yours", name)
		}
	}
	if len(operations) != 1 || len(f.scenarios) != 1 {
		return nil, usagef("one --operation and one --scenario at a time with --in")
	}
	if f.out == "" && !cmd.Flags().Changed("scenario") {
		return nil, usagef("--in alone needs --scenario drop, tx or pass; a redirect needs both, --in and --out")
	}
	d := redirect.DevicePair{
		In: f.in, Out: f.out, Scenario: redirect.Scenario(f.scenarios[0]), Operation: operations[0],
		Mode: redirect.Mode(f.mode), Tracepoints: f.tracepoints, Schedule: f.length.schedule(),
	}
	if err := d.Validate(); err != nil {
		return nil, usageError{err}
	}
	return func(ctx context.Context, s std) (*record.Document[record.BenchRow], error) {
		doc := record.New[record.BenchRow]("bench", host.Identify(host.Options{}))
		doc.Settings = settings(cmd, f.length)
		found, err := redirect.RunPair(ctx, d, live(s, f.live))
		if err != nil {
			return nil, err
		}
		doc.Host.Drivers = map[string]string{d.In: host.Driver(d.In)}
		if d.Out != "" {
			doc.Host.Drivers[d.Out] = host.Driver(d.Out)
		}
		doc.Rows, doc.Warnings, doc.Incomplete = []record.BenchRow{found.Row}, append(doc.Warnings, found.Warnings...), found.Incomplete
		doc.AddReferences("", found.References)
		return doc, nil
	}, nil
}

// measureChain runs a plan on the veth chain and adds what it found to doc. show and done
// are those of [progress].
func measureChain(
	ctx context.Context, doc *record.Document[record.BenchRow], plan redirect.Plan, show func(rounds.Progress), done func(),
) error {
	steal := host.StealSince()
	raw, err := redirect.Run(ctx, plan, show)
	done()
	if err != nil {
		return err
	}
	doc.Incomplete = raw.Incomplete
	doc.Settings["cpu"] = strconv.Itoa(raw.CPU)
	var warns []record.Warning
	doc.Rows, warns = raw.Record()
	doc.AddReferences("", raw.References)
	doc.Warnings = append(append(doc.Warnings, warns...), append(stolen(steal), ofSoftware(doc.Host)...)...)
	return nil
}
