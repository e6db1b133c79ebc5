package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/profile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/page"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/tax"
)

// profileFlags are what the user typed.
type profileFlags struct {
	scenario, operation, mode string
	bulk, size                int
	in, out                   string
	rate, top                 int
	annotate                  string
	pprof, folded, svg        string
	chain                     chainFlags
	length                    lengthFlags
	output                    outputFlags
}

func newProfile(s std) *cobra.Command {
	var f profileFlags
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Show where the nanoseconds of a redirected packet go",
		Long: `Show where the nanoseconds of a redirected packet go: a CPU is sampled while live
frames go through a veth chain, and samples become ns per packet, by stage, by
function, by instruction. Time in indirect thunks, and on the first instructions
of functions that are entered through one, has a line of its own, beside what tax
makes of it.

With --in and --out what DEV receives is redirected to another interface, and all
CPUs are sampled, or one with --cpu. With --prog a program of yours is in the chain,
as with bench.`,
		Example: `  unthunk profile
  unthunk profile --bulk 64 --annotate xdp_do_redirect
  unthunk profile --quick --pprof cpu.pb.gz --svg flame.svg --save before.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runProfile(cmd.Context(), s, cmd, f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.scenario, "scenario", string(redirect.Map), "one of "+joined(redirect.Scenarios()))
	fl.IntVar(&f.bulk, "bulk", profile.DefaultBulk, "frames a batch, 1 to 256")
	fl.StringVar(&f.operation, "operation", "none",
		"what the program does to a frame: none, read, swap-macs, parse, or spin:N")
	fl.StringVar(&f.mode, "mode", string(redirect.Native), "native or generic XDP")
	fl.IntVar(&f.size, "size", redirect.DefaultSize, "frame size in `bytes`, without the frame check sequence")
	fl.StringVar(&f.in, "in", "", "profile real interfaces: redirect what `DEV` receives")
	fl.StringVar(&f.out, "out", "", "… to `DEV`")
	fl.IntVar(&f.rate, "rate", 0, "samples a second, in `Hz`; 0 is what takes about 1 % of the CPU")
	fl.IntVar(&f.top, "top", 15, "functions to show")
	fl.StringVar(&f.annotate, "annotate", "", "also show the instructions of `FUNC`, each with its ns per packet")
	fl.StringVar(&f.pprof, "pprof", "", "also write a profile for go tool pprof to `FILE`")
	fl.StringVar(&f.folded, "folded", "", "also write folded stacks to `FILE`")
	fl.StringVar(&f.svg, "svg", "", "also write a flame graph to `FILE`")
	f.chain.add(cmd)
	f.length.add(cmd, profile.DefaultRounds, profile.DefaultDuration)
	f.output.add(cmd)
	return cmd
}

// priceTime is what the price of an indirect call takes, of the run's duration.
const priceTime = 2 * time.Second

func runProfile(ctx context.Context, s std, cmd *cobra.Command, f profileFlags) error {
	measure, err := f.plan(cmd)
	if err != nil {
		return err
	}
	files := []outFile{{"pprof", f.pprof}, {"folded", f.folded}, {"svg", f.svg}}
	if err := checkFiles(f.chain.files(), append(files, outFile{"save", f.output.save})...); err != nil {
		return err
	}
	if err := f.output.check(); err != nil {
		return err
	}
	for _, file := range files {
		if file.path == "" {
			continue
		}
		if err := outfile.Check(file.path); err != nil {
			return err
		}
	}
	var k *kernel.Kernel
	if f.annotate != "" {
		if k, err = kernel.OpenLive(); err != nil {
			return err
		}
		defer k.Close()
		if err := profile.CheckFunction(k, f.annotate); err != nil {
			return usageError{nearFunction(err, k, f.annotate)}
		}
	}
	doc := record.New[record.ProfileRow]("profile", host.Identify(host.Options{}))
	raw, warns, err := measure(ctx, s)
	if err != nil {
		return err
	}
	price, err := callPrice(ctx, s, raw)
	if err != nil { // the profile stands without the comparison
		warns = append(warns, record.Warning{Text: fmt.Sprintf("no price of an indirect call: %v", err)})
	}
	p := f.record(cmd, doc, raw, price)
	p.Warnings = append(append(p.Warnings, warns...), ofSoftware(doc.Host)...)
	unwritten := ""
	if p.Packet == nil { // without a number it is no record that can be read, and nothing to draw
		if f.output.save != "" || slices.ContainsFunc(files, func(file outFile) bool { return file.path != "" }) {
			unwritten = "; no file is written"
		}
		f.output.save, f.pprof, f.folded, f.svg = "", "", "", ""
	}
	err = f.output.publish(s, p, func() error {
		if err := report.Profile(s.out, textOptions(s.out), p, raw.Name, f.top); err != nil || k == nil {
			return err
		}
		return f.showInstructions(s, k, raw)
	})
	for _, file := range []struct {
		path  string
		write func(*bytes.Buffer) error
	}{
		{f.pprof, func(b *bytes.Buffer) error { return report.Pprof(b, p) }},
		{f.folded, func(b *bytes.Buffer) error { return report.Folded(b, p) }},
		{f.svg, func(b *bytes.Buffer) error { // also of a run that was stopped
			return page.Flame(context.WithoutCancel(ctx), b, p, raw.Name)
		}},
	} {
		if file.path == "" || err != nil {
			continue
		}
		var b bytes.Buffer
		if err = file.write(&b); err == nil {
			err = outfile.Write(file.path, b.Bytes())
		}
	}
	if err == nil && p.CannotTell != "" && !p.Incomplete {
		return fmt.Errorf("no answer: %s%s", p.CannotTell, unwritten)
	}
	return stopped(&p.Document, func(record.ProfileRow) bool { return false }, err)
}

type profiling func(context.Context, std) (*profile.Raw, []record.Warning, error)

// plan turns flags into a measurement, or says what is wrong with them.
func (f *profileFlags) plan(cmd *cobra.Command) (profiling, error) {
	var err error
	if f.length, err = f.length.resolve(cmd); err != nil {
		return nil, err
	}
	if f.annotate != "" && f.output.json {
		return nil, usagef("--annotate and --json are two outputs: choose one")
	}
	if f.top < 0 {
		return nil, usagef("%d functions are too few", f.top)
	}
	if f.size == 0 { // of a plan it is the default
		return nil, usagef("--size 0 is too small for a frame")
	}
	operation, err := redirect.ParseOperation(f.operation)
	if err != nil {
		return nil, usageError{err}
	}
	if err := f.chain.check(cmd, "scenario", "operation", "mode", "in", "out"); err != nil {
		return nil, err
	}
	schedule := f.length.schedule()
	schedule.Duration = max(schedule.Duration-priceTime, time.Second)
	if f.in != "" || f.out != "" {
		for _, name := range []string{"scenario", "bulk", "size"} {
			if cmd.Flags().Changed(name) {
				return nil, usagef("--%s does not go with --in and --out: there the traffic is yours", name)
			}
		}
		d := profile.PairPlan{
			DevicePair: redirect.DevicePair{
				In: f.in, Out: f.out, Operation: operation, Mode: redirect.Mode(f.mode),
				Schedule: schedule,
			},
			CPU: rounds.OnCPU(f.length.cpu), Rate: f.rate,
		}
		if err := d.Validate(); err != nil {
			return nil, usageError{err}
		}
		return func(ctx context.Context, s std) (*profile.Raw, []record.Warning, error) {
			show, done := progress(s)
			defer done()
			raw, err := profile.RunPair(ctx, d, show)
			return raw, nil, err
		}, nil
	}
	plan := profile.Plan{
		Chain: redirect.Plan{
			Scenarios: []redirect.Scenario{redirect.Scenario(f.scenario)}, Bulks: []int{f.bulk},
			Operations: []redirect.Operation{operation}, Mode: redirect.Mode(f.mode), Size: f.size,
			CPU: rounds.OnCPU(f.length.cpu), Schedule: schedule,
		},
		Rate: f.rate,
	}
	if err := plan.Validate(); err != nil {
		return nil, unknownValue(err, []string{f.scenario}, redirect.Scenarios())
	}
	return func(ctx context.Context, s std) (raw *profile.Raw, warns []record.Warning, err error) {
		if plan.Chain.Target, err = f.chain.open(ctx, s, f.size, plan.Chain.Bulks); err != nil {
			return nil, nil, err
		}
		if plan.Chain.Target != nil {
			defer func() { err = errors.Join(err, plan.Chain.Target.Close()) }()
		}
		steal := host.StealSince()
		show, done := progress(s)
		defer done()
		raw, err = profile.Run(ctx, plan, show)
		return raw, stolen(steal), err
	}, nil
}

// record is the whole record of a run.
func (f profileFlags) record(
	cmd *cobra.Command, doc *record.Document[record.ProfileRow], raw *profile.Raw, price *stat.Quantity,
) *record.Profile {
	p := raw.Record(price)
	doc.Rows, doc.Warnings, doc.Incomplete = p.Rows, p.Warnings, p.Incomplete
	doc.AddReferences("", raw.References)
	doc.Settings = settings(cmd, f.length)
	doc.Settings["event"] = raw.Event.Name
	if !raw.DevicePair {
		doc.Settings["cpu"] = strconv.Itoa(raw.CPUs[0])
	} else {
		doc.Host.Drivers = map[string]string{f.in: host.Driver(f.in), f.out: host.Driver(f.out)}
		delete(doc.Settings, "scenario")
		delete(doc.Settings, "bulk")
		delete(doc.Settings, "size")
	}
	p.Document = *doc
	return p
}

// callPrice is the price of an indirect call in ns, nil where it has none or the run was
// stopped.
func callPrice(ctx context.Context, s std, raw *profile.Raw) (*stat.Quantity, error) {
	if raw.Incomplete {
		return nil, nil
	}
	cpu := rounds.OnCPU(raw.CPUs[len(raw.CPUs)-1])
	if raw.DevicePair {
		cpu = rounds.CPU{}
	}
	show, done := progress(s)
	defer done()
	price, _, err := tax.CallPrice(ctx, cpu, priceTime, show)
	return price, err
}

// showInstructions writes the code of the function that was asked for.
func (f profileFlags) showInstructions(s std, k *kernel.Kernel, raw *profile.Raw) error {
	code, err := raw.Annotate(k, f.annotate)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out)
	return report.ProfileAsm(s.out, textOptions(s.out), code.Name, code.Lines, code.Ns, code.Total)
}
