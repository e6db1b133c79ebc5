package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/lab"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/page"
	"github.com/unthunk/unthunk/internal/tax"
)

// gateFlags are what the user typed.
type gateFlags struct {
	matrixFlags
	base, format, prices       string
	max, unlike                []string
	trace, config              bool
	counted                    countedFlags
	behaviorMayChange          bool
	output                     outputFlags
	appendsGiven, cpuModelsSet bool
	traceGiven                 bool
	rows                       map[string][]string // labels of the rows of a base that are compared; empty for all
	top                        int
}

func newGate(s std) *cobra.Command {
	var f gateFlags
	cmd := &cobra.Command{
		Use:   "gate [--base FILE] KERNEL",
		Short: "Say whether a packet takes more on a kernel than a base allows: for CI and git bisect",
		Long: `Say whether a packet takes more on a kernel than a base allows: for CI and git bisect.
What a packet takes is counted in QEMU, exactly, as lab does it: instructions
and indirect branches.

Without --base it counts, and --save makes the base. With --base it counts the same rows
and compares them. --max says how much more is within: instructions=+4, indirect=+0.5%,
or redirect-map/bulk=16:instructions=+4 for one row; what it does not name may take
nothing more. Less than the base is within.

The compiler, the configuration, the command line, the CPU model, QEMU and unthunk itself
must be those of the base: counts of builds that are unlike say nothing of the source.
--unlike names what may differ.

Exit codes are those of git bisect run: 0 within, 1 beyond, 125 cannot tell. 125 is of all else
too: a kernel that does not boot or lacks veth or BTF, wrong usage, a missing QEMU.

A record of gate --save in the kernel's place is compared without a boot.

With --base, --scenario, --bulk, --nic and --dma choose some of its rows.

Where a row is beyond, the kernel boots once more, with a trace: which functions execute
more, to the last instruction. The base has a trace from when it was made; --trace=false leaves both
out. Instruction by instruction, and as a flame graph of the difference, lab shows it:
lab OLD NEW --bulk 1 --annotate FUNCTION --svg FILE.

--prog counts the instructions that an XDP program of yours takes a packet, in place of a redirect;
with --base it must also do the same with each packet, unless --behavior-may-change.

An indirect call is priced by --prices, or by the price in the base: an estimate.`,
		Example: `  unthunk gate --save base.json debian:6.12-cloud
  unthunk gate --base base.json --max instructions=+4 debian:6.12-cloud
  unthunk gate --base base.json --format junit debian:6.12-cloud > gate.xml
  unthunk gate --base base.json new.json
  unthunk gate --base base.json --scenario tx,drop --bulk 16 debian:6.12-cloud
  unthunk gate --prog lb.o --packets p.pcap --save base.json debian:6.12-cloud
  unthunk gate --prog lb.o --packets p.pcap --base base.json debian:6.12-cloud`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case f.config && len(args) > 0:
				return usagef("--config takes no kernel")
			case !f.config && len(args) != 1:
				return usagef("gate needs one kernel: a tree, a folder, a bzImage, a .deb or .rpm, or debian:6.12-cloud")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.config && (f.base != "" || f.output.json || f.output.save != "") {
				return usagef("--config writes text alone: leave --base, --json and --save out")
			}
			if f.config {
				fmt.Fprint(s.out, guest.Config())
				return nil
			}
			if f.base != "" {
				f.rows = f.chosen(cmd)
			}
			if err := recordFlags(cmd, f.base, args[0]); err != nil {
				return err
			}
			f.traceGiven = cmd.Flags().Changed("trace")
			f.appendsGiven, f.cpuModelsSet = cmd.Flags().Changed("append"), cmd.Flags().Changed("cpu-model")
			if _, err := f.counted.given(cmd); err != nil {
				return err
			}
			return runGate(cmd.Context(), s, f, args[0])
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.base, "base", "", "compare with the record in `FILE`, of gate or lab")
	fl.StringSliceVar(&f.max, "max", nil, "what a packet may take more, `[ROW:]COUNT=+N[%]`; COUNT is instructions or indirect")
	fl.StringSliceVar(&f.unlike, "unlike", nil, "what of the builds may differ: "+strings.Join(compare.BuildParts(), ", "))
	fl.StringVar(&f.format, "format", "text", "text, or markdown for a pull request, junit or ktap for CI, json")
	fl.StringVar(&f.prices, "prices", "", "take the price of an indirect call from `FILE` of tax --save or run --save")
	f.matrixFlags.add(fl)
	fl.BoolVar(&f.config, "config", false, "print the options that a small kernel needs, for merge_config.sh of its tree")
	fl.BoolVar(&f.trace, "trace", true, "say in which functions a row is beyond: a base has a trace, and such a kernel boots again")
	fl.IntVar(&f.top, "top", 10, "functions and indirect branches of a row that are shown, those that differ most; 0 shows all, as JSON does")
	f.counted.add(fl)
	fl.BoolVar(&f.behaviorMayChange, "behavior-may-change", false,
		"with --prog: packets may come out otherwise than of the base's program")
	f.output.add(cmd)
	return cmd
}

// chosen are the labels, with their values, by which flags choose rows of a base.
func (f *gateFlags) chosen(cmd *cobra.Command) map[string][]string {
	rows := make(map[string][]string)
	for flag, values := range map[string][]string{"scenario": f.scenarios, "nic": f.nics, "dma": f.dmas} {
		if cmd.Flags().Changed(flag) && !slices.Equal(values, []string{lab.AllScenarios}) {
			rows[flag] = values
		}
	}
	if cmd.Flags().Changed("bulk") {
		for _, bulk := range f.bulks {
			rows["bulk"] = append(rows["bulk"], strconv.Itoa(bulk))
		}
	}
	return rows
}

// recordFlags refuses flags of guests where a record is judged.
func recordFlags(cmd *cobra.Command, base, kernel string) error {
	if !isRecord(kernel) {
		return nil
	}
	if base == "" {
		return usagef("%s is a record: --base names the one to compare it with", kernel)
	}
	for _, flag := range append([]string{"append", "cpu-model", "limit", "arch", "guest-program", "prog", "save"}, countedFlagNames...) {
		if cmd.Flags().Changed(flag) {
			return usagef("%s is a record, and no guest is booted: leave --%s out", kernel, flag)
		}
	}
	return nil
}

// gateFormats are what a verdict can be written as; json is what --json does.
func gateFormats() map[string]func(io.Writer, *record.Gate) error {
	return map[string]func(io.Writer, *record.Gate) error{
		"text":     func(w io.Writer, g *record.Gate) error { return report.Gate(w, textOptions(w), g) },
		"markdown": func(w io.Writer, g *record.Gate) error { return page.ComparisonMarkdown(w, g) },
		"junit":    func(w io.Writer, g *record.Gate) error { return report.JUnitComparison(w, g) },
		"ktap":     func(w io.Writer, g *record.Gate) error { return report.KTAPComparison(w, g) },
		"json":     nil,
	}
}

func gateFormatNames() []string { return slices.Sorted(maps.Keys(gateFormats())) }

// errBeyond is of a verdict that the output says.
var errBeyond = errors.New("a packet takes more than the base allows")

// cannotTell is a verdict that there is none.
type cannotTell struct{ why string }

func (e cannotTell) Error() string { return "cannot tell: " + e.why }

func runGate(ctx context.Context, s std, f gateFlags, kernel string) error {
	_, known := gateFormats()[f.format]
	switch {
	case !known:
		return unknownValue(fmt.Errorf("format %q is not one of %s", f.format, strings.Join(gateFormatNames(), ", ")),
			[]string{f.format}, gateFormatNames())
	case f.top < 0:
		return usagef("--top %d: no list is that short", f.top)
	case f.output.json && f.format != "text" && f.format != "json":
		return usagef("--json and --format %s are two outputs: choose one", f.format)
	}
	f.output.json = f.output.json || f.format == "json"
	if f.base == "" {
		return f.makeBase(ctx, s, kernel)
	}
	opts, err := f.options(kernel)
	if err != nil {
		return err
	}
	if err := checkFiles(append(f.counted.files(), f.base, f.prices, kernel), outFile{"save", f.output.save}); err != nil {
		return err
	}
	var all record.Together // which are in use at the same time
	read := []string{f.base, f.prices}
	if isRecord(kernel) {
		read = append(read, kernel)
	}
	if err := all.Fit(read...); err != nil {
		return err
	}
	base, err := loadCounted(ctx, &all, f.base)
	if err != nil {
		return err
	}
	if len(f.rows) > 0 {
		if base, err = compare.Subset(base, f.rows); err != nil {
			return fmt.Errorf("base %s: %w", f.base, err)
		}
	}
	if err := f.price(ctx, &all, base, &opts); err != nil {
		return err
	}
	if isRecord(kernel) {
		return f.judge(ctx, s, &all, kernel, base, opts)
	}
	plan, err := f.planOf(base, kernel)
	if err != nil {
		return fmt.Errorf("base %s: %w", f.base, err)
	}
	if err := f.program(ctx, s, base, &plan); err != nil {
		return err
	}
	// What is wrong with the options is known before a guest boots.
	if _, err := gate(ctx, base, new(record.Lab), opts); err != nil {
		return fmt.Errorf("base %s: %w", f.base, err)
	}
	l, cells, errRun := f.count(ctx, s, plan)
	if errors.Is(errRun, context.Canceled) {
		errRun = errStopped
	}
	begun := slices.ContainsFunc(cells, func(c lab.CellResult) bool { return c.Release != "" })
	if errRun != nil && !begun && f.format == "text" && !f.output.json { // a table of nothing says nothing
		return cannotTell{lab.OneLine(explain(errRun).Error())}
	}
	g, err := gate(ctx, base, l, opts)
	if err != nil {
		return err
	}
	g.NameFiles(f.base, f.output.save)
	f.tellFailures(g, cells, errRun)
	if f.trace && compare.CanTrace(g, base) {
		traced := l
		if !plan.Trace {
			plan.Trace = true
			traced, _, err = f.count(ctx, s, plan)
		}
		if errAdd := addTraces(ctx, g, base, traced); errAdd != nil {
			return errAdd
		}
		if err != nil {
			g.Warn("", lab.OneLine("not traced: "+explain(err).Error()))
			err = nil
		}
	}
	switch {
	case f.output.save == "":
	case errRun != nil || cellErrors(cells) != nil:
		g.Warn("", "not all guests came to their end: nothing is saved, and a file that was there stays")
	default:
		err = record.Save(f.output.save, l)
	}
	return f.tell(ctx, s, g, err)
}

// tell writes a verdict, and returns it as an error with one that there is already. A signal ends it with nothing written, but
// for one that came while guests were counted: what they counted is told.
func (f gateFlags) tell(ctx context.Context, s std, g *record.Gate, err error) error {
	write := gateFormats()[f.format]
	if f.output.json {
		write = func(w io.Writer, g *record.Gate) error { return report.JSON(w, g) }
	} else {
		g.Shorten(f.top)
	}
	hold := func() (*memory.Buffer, error) { return held(ctx, s, func(s std) error { return write(s.out, g) }) }
	if ctx.Err() != nil {
		ctx = context.WithoutCancel(ctx)
	}
	shown, errShow := reading(ctx, hold)
	if errShow != nil { // g may still be in use
		return errors.Join(err, errShow)
	}
	_, errShow = shown.WriteTo(s.out)
	err = errors.Join(err, errShow)
	switch g.Verdict {
	case record.GateBeyond:
		return errors.Join(errBeyond, err)
	case record.GateCannotTell:
		return errors.Join(cannotTell{g.Why}, err)
	}
	return err
}

// isRecord tells whether what stands in a kernel's place is a record of one that was counted before.
func isRecord(kernel string) bool { return strings.HasSuffix(kernel, ".json") }

// judge compares a record with the base, and boots nothing.
func (f gateFlags) judge(ctx context.Context, s std, all *record.Together, file string, base *record.Lab,
	opts compare.GateOptions) error {
	now, err := loadCounted(ctx, all, file)
	if err != nil {
		return err
	}
	if err := compare.CheckBase(now); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	opts.Kernel = now.Rows[0].Labels["kernel"]
	g, err := gate(ctx, base, now, opts)
	if err != nil {
		return fmt.Errorf("base %s: %w", f.base, err)
	}
	g.NameFiles(f.base, file)
	if f.trace && slices.ContainsFunc(now.Rows, func(r record.LabRow) bool { return r.Trace != nil }) {
		if err := addTraces(ctx, g, base, now); err != nil {
			return err
		}
	}
	return f.tell(ctx, s, g, nil)
}

// gate is [compare.Gate], which a signal ends. What was counted before a signal is compared all the same.
func gate(ctx context.Context, base, now *record.Lab, opts compare.GateOptions) (*record.Gate, error) {
	if ctx.Err() != nil {
		return compare.Gate(base, now, opts)
	}
	return reading(ctx, func() (*record.Gate, error) { return compare.Gate(base, now, opts) })
}

// addTraces is [compare.AddTraces], which a signal ends: g is not to be used then.
func addTraces(ctx context.Context, g *record.Gate, base, traced *record.Lab) error {
	if ctx.Err() != nil {
		compare.AddTraces(g, base, traced)
		return nil
	}
	_, err := reading(ctx, func() (any, error) {
		compare.AddTraces(g, base, traced)
		return nil, nil
	})
	return err
}

// options are those of the comparison.
func (f gateFlags) options(kernel string) (compare.GateOptions, error) {
	opts := compare.GateOptions{Kernel: record.Name(kernel), Unlike: f.unlike, BehaviorMayChange: f.behaviorMayChange}
	for _, text := range f.max {
		a, err := compare.ParseAllowance(text)
		if err != nil {
			return opts, usagef("--max %w", err)
		}
		opts.Max = append(opts.Max, a)
	}
	for _, name := range f.unlike {
		if !slices.Contains(compare.BuildParts(), name) {
			return opts, unknownValue(fmt.Errorf("--unlike %q is not one of %s", name, strings.Join(compare.BuildParts(), ", ")),
				[]string{name}, compare.BuildParts())
		}
	}
	return opts, nil
}

// loadCounted reads a record of counts, into memory with others.
func loadCounted(ctx context.Context, all *record.Together, file string) (*record.Lab, error) {
	saved, err := reading(ctx, func() (*record.Saved, error) { return all.Load(file) })
	if err != nil {
		return nil, err
	}
	l := saved.Lab()
	if l == nil {
		return nil, fmt.Errorf("%s is a record of %s: gate compares those of gate --save and lab --save", file, saved.Kind)
	}
	return l, nil
}

// price is that of one indirect call: of --prices, or that of the base.
func (f gateFlags) price(ctx context.Context, all *record.Together, base *record.Lab, opts *compare.GateOptions) error {
	if f.prices == "" {
		if base.Price != nil {
			opts.Price, opts.PricedOn, opts.PriceOf = base.Price, base.Host, cmp.Or(base.Host.CPU, "the machine of the base")
		}
		return nil
	}
	saved, err := reading(ctx, func() (*record.Saved, error) { return all.Load(f.prices) })
	if err != nil {
		return err
	}
	prices, err := saved.CarriedPrices()
	if err != nil {
		return fmt.Errorf("--prices %s %w", f.prices, err)
	}
	var why string
	if opts.Price, why = tax.CallPriceOf(prices); opts.Price == nil {
		return fmt.Errorf("--prices %s has no price of an indirect call: %s", f.prices, why)
	}
	opts.PricedOn, opts.PriceOf = saved.Host, cmp.Or(saved.Host.CPU, "the machine of "+f.prices)
	return nil
}

// planOf is what is counted beside a base.
func (f gateFlags) planOf(base *record.Lab, kernel string) (lab.Plan, error) {
	arch := lab.ArchOf(base)
	if f.arch != "" && f.arch != arch {
		return lab.Plan{}, fmt.Errorf("it is of guests of %s, and --arch %s was asked for", arch, f.arch)
	}
	plan, err := lab.PlanOf(base, guest.ArchName(kernel, arch))
	if err != nil {
		return plan, err
	}
	plan.Limit, plan.GuestProgram = f.limit, f.guestProgram
	for _, of := range []struct {
		flag  string
		given bool
		value []string
		plan  *[]string
	}{{"append", f.appendsGiven, f.appends, &plan.Appends}, {"cpu-model", f.cpuModelsSet, f.cpus, &plan.CPUs}} {
		switch {
		case !of.given:
		case len(of.value) != 1 || len(plan.Appends) > 1 || len(plan.CPUs) > 1:
			return plan, fmt.Errorf("--%s takes the place of the base's where both are one, of one boot", of.flag)
		default:
			*of.plan = of.value
		}
	}
	return plan, plan.Validate()
}

// program makes the plan one that counts a program, where the base does.
func (f gateFlags) program(ctx context.Context, s std, base *record.Lab, plan *lab.Plan) error {
	named := ""
	for i := range base.Rows {
		named = cmp.Or(named, base.Rows[i].Labels["prog"])
	}
	switch {
	case named == "" && f.counted.prog == "":
		return nil
	case named == "":
		return fmt.Errorf("base %s counts a redirect: leave --prog out", f.base)
	case f.counted.prog == "":
		return fmt.Errorf("base %s counts the program %s: name it by --prog, and --packets", f.base, named)
	}
	// Indirect branches of a program are those of its trace.
	if !f.trace && slices.ContainsFunc(base.Rows, func(r record.LabRow) bool { return r.CallsPerPacket != nil }) {
		return fmt.Errorf("base %s has indirect branches, which are those of a trace: leave --trace=false out", f.base)
	}
	plan.Trace = f.trace && slices.ContainsFunc(base.Rows, func(r record.LabRow) bool { return r.Trace != nil })
	if err := f.counted.into(ctx, s, plan); err != nil {
		return err
	}
	if name := plan.Program.Program.Name; name != named {
		return fmt.Errorf("base %s counts the program %s, and %s is %s", f.base, named, f.counted.prog, name)
	}
	return nil
}

// makeBase counts, and writes what it counted.
func (f gateFlags) makeBase(ctx context.Context, s std, kernel string) error {
	switch {
	case f.format != "text" && f.format != "json":
		return usagef("--format %s writes a verdict: it needs --base", f.format)
	case len(f.max) > 0 || len(f.unlike) > 0 || f.prices != "" || f.behaviorMayChange:
		return usagef("--max, --unlike, --prices and --behavior-may-change compare: they need --base")
	}
	if err := f.checkArch(); err != nil {
		return err
	}
	traces, err := f.traces(ctx, kernel)
	if err != nil {
		return err
	}
	plan := lab.Plan{
		Kernels: f.kernels(kernel), Arch: f.arch, GuestProgram: f.guestProgram, CPUs: f.cpus, Appends: f.appends, NICs: f.nics,
		Bulks: f.bulks, Scenarios: f.scenarios, Limit: f.limit, Trace: traces,
	}
	for _, dma := range f.dmas {
		plan.DMAs = append(plan.DMAs, lab.DMA(dma))
	}
	if err := plan.Validate(); err != nil {
		return unknownScenario(err, f.scenarios)
	}
	if err := checkFiles(append(f.counted.files(), kernel), outFile{"save", f.output.save}); err != nil {
		return err
	}
	if f.counted.prog != "" {
		if err := f.counted.into(ctx, s, &plan); err != nil {
			return err
		}
	}
	l, cells, err := f.count(ctx, s, plan)
	if err != nil && ctx.Err() == nil {
		return err
	}
	failed := cmp.Or(cellErrors(cells), noCounts(l, f.counted.prog != ""))
	switch {
	case l.Incomplete:
		failed = errStopped
	case failed == nil:
		failed = compare.CheckBase(l)
	}
	if failed != nil {
		f.output.save = "" // a base that was there stays
	}
	err = f.output.publish(s, l, func() error {
		if failed != nil {
			return report.Lab(s.out, textOptions(s.out), l)
		}
		return report.GateBase(s.out, textOptions(s.out), l, f.output.save)
	})
	return cmp.Or(err, failed)
}

// traces tells whether a base gets a trace: of guests of arm64, which have none, where it was asked for.
func (f gateFlags) traces(ctx context.Context, kernel string) (bool, error) {
	if !f.trace || f.traceGiven {
		return f.trace, nil
	}
	arches, err := f.guestArches(ctx, []string{kernel})
	return !slices.Contains(arches, guest.ARM64), err
}

// count boots the guests of a plan. The record has what was counted, also when it returns an error.
func (f gateFlags) count(ctx context.Context, s std, plan lab.Plan) (*record.Lab, []lab.CellResult, error) {
	doc := record.New[record.LabRow]("lab", host.Identify(host.Options{}))
	l, cells, err := f.boot(ctx, s, plan)
	doc.Rows, doc.Warnings, doc.Incomplete = l.Rows, l.Warnings, ctx.Err() != nil
	doc.Settings = map[string]string{"version": buildVersion(), "kernels": strings.Join(plan.Kernels, " ")}
	l.Document = *doc
	return l, cells, err
}

func (f gateFlags) boot(ctx context.Context, s std, plan lab.Plan) (*record.Lab, []lab.CellResult, error) {
	none := lab.Record(nil, plan.Rows(), nil)
	models := slices.DeleteFunc(slices.Clone(plan.CPUs), func(model string) bool { return model == "" })
	arches := []string{plan.Arch}
	if plan.Arch == "" {
		var err error
		if arches, err = f.guestArches(ctx, plan.Kernels); err != nil {
			return none, nil, err
		}
	}
	for _, arch := range arches {
		if err := checkModels(ctx, models, arch); err != nil {
			return none, nil, err
		}
	}
	if err := f.output.check(); err != nil {
		return none, nil, err
	}
	self, err := lab.Executable()
	if err != nil {
		return none, nil, err
	}
	show, done := labProgress(s)
	cells, err := lab.Run(ctx, plan, self, show)
	done()
	return lab.Record(cells, plan.Rows(), nil), cells, err
}

// tellFailures adds to a verdict why guests have no number, and the last lines of the first of them.
func (f gateFlags) tellFailures(g *record.Gate, cells []lab.CellResult, err error) {
	for _, c := range cells {
		if c.Err != nil {
			g.Console = c.LastLines(consoleLines)
			break
		}
	}
	if err != nil && g.Verdict == record.GateCannotTell {
		g.Why = lab.OneLine(explain(err).Error())
		for i := range g.Rows { // of CI's formats each row is read by itself
			if r := &g.Rows[i]; r.Verdict == record.GateCannotTell {
				r.Missing = g.Why
			}
		}
	}
}

// consoleLines are how many of a guest's last lines are shown.
const consoleLines = 10
