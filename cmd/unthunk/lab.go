package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/lab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/tax"
)

// labFlags are what the user typed.
type labFlags struct {
	matrixFlags
	ab, run, list string
	config        bool
	accel         string
	trace, resume bool
	annotate, svg string
	counted       countedFlags
	output        outputFlags
}

func newLab(s std) *cobra.Command {
	var f labFlags
	cmd := &cobra.Command{
		Use:   "lab KERNEL…",
		Short: "Count what a packet goes through on other kernels and boot parameters, in QEMU",
		Long: `Count what a packet goes through on other kernels and boot parameters, in QEMU:
instructions and indirect branches per packet, exact to the digit, before
an update is rolled out, without a reboot and without a NIC.

KERNEL is the tree in which one was built, a bzImage or a vmlinux, the folder of an unpacked
package or of a container image, a .deb or .rpm, several with "+" between them, or
debian:6.12-cloud or debian:unstable, which apt downloads once; --list debian names those, and
debian:all-cloud is the newest of each series.
--config prints what a kernel must have, as merge_config.sh takes it. --ab spectre_v2 is the experiment of
2018: the same kernel with retpolines and without. --run runs another verb in each
guest instead of counting. --prog counts an XDP program of yours on packets of yours.

--arch arm64 takes kernels of arm64, on x86-64 too. unthunk runs in the guests, so it needs one that is
built for arm64: by GOARCH=arm64 go build -o unthunk-arm64 beside this one, or by --guest-program.

--resume goes on with the record of --save, which is then saved after each guest: those that it has, of the same image
of the kernel, CPU model, QEMU and unthunk (its version and BPF programs), do not boot again, and its other rows stay.

Instructions are no time: QEMU predicts no branches. As root the price of an indirect
call is measured on this machine (see tax) and put beside the counts, as an estimate.`,
		Example: `  unthunk lab debian:6.12-cloud --ab spectre_v2
  unthunk lab debian:6.1-cloud debian:6.12-cloud --bulk 1,16,64 --save lab.json
  unthunk lab debian:6.12-cloud --cpu-model EPYC --run 'xray --rare'
  unthunk lab . --append spectre_v2=off
  unthunk lab debian:6.1-cloud debian:6.12-cloud --prog lb.o --packets p.pcap
  unthunk lab debian:6.12-cloud --arch arm64 --guest-program unthunk-arm64
  unthunk lab debian:all-cloud --trace --save history.json --resume
  unthunk lab --list debian:6.12`,
		Args: func(_ *cobra.Command, args []string) error { return f.checkArgs(args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			counts, err := f.counted.given(cmd)
			if err != nil {
				return err
			}
			return interrupted(cmd.Context(), runLab(cmd.Context(), s, f, args, counts))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.ab, "ab", "", "boot each kernel with a mitigation and without: spectre_v2, or mitigations")
	f.matrixFlags.add(fl)
	fl.StringVar(&f.accel, "accel", "auto",
		"tcg only counts; kvm measures time too, in a second boot; auto is kvm where it can be used")
	fl.StringVar(&f.run, "run", "", "run this verb with its flags in each guest")
	fl.BoolVar(&f.trace, "trace", false, "say where the instructions are executed: by stage, function and line of programs")
	fl.StringVar(&f.annotate, "annotate", "", "trace, and list the executed instructions of this function")
	fl.StringVar(&f.svg, "svg", "", "trace, and write a flame graph of the instructions to `FILE`: of one row, or of how two differ")
	fl.StringVar(&f.list, "list", "", "name the kernels that can be had instead: debian, or debian:6.12 for all of a series")
	fl.BoolVar(&f.config, "config", false, "print what a kernel must have instead, as merge_config.sh takes it")
	fl.BoolVar(&f.resume, "resume", false, "go on with the record of --save, and save after each guest")
	f.counted.add(fl)
	f.output.add(cmd)
	return cmd
}

// checkArgs refuses a run that names no kernel, and one that asks for something else and names one.
func (f *labFlags) checkArgs(args []string) error {
	if err := f.checkArch(); err != nil {
		return err
	}
	switch {
	case f.list != "" || f.config:
		flag := "--list"
		if f.config {
			flag = "--config"
		}
		switch {
		case len(args) > 0:
			return usagef("%s takes no kernel", flag)
		case f.list != "" && f.config, f.output.json, f.output.save != "":
			return usagef("%s writes text alone: leave --json, --save and the like out", flag)
		}
		return nil
	case len(args) == 0:
		return usagef("lab needs a kernel: a tree, a folder, a bzImage, a .deb or .rpm, or debian:6.12-cloud")
	}
	return f.checkResume()
}

// addScenarios adds the flag that names scenarios of guests.
func addScenarios(fl *pflag.FlagSet, scenarios *[]string) {
	fl.StringSliceVar(scenarios, "scenario", []string{lab.DefaultScenario},
		"ways of a packet that are counted in each guest, or all: "+strings.Join(lab.Scenarios(), ", ")+
			"; with --nic also "+strings.Join(lab.WireScenarios(), ", "))
}

// unknownScenario is a plan's error as one of wrong usage.
func unknownScenario(err error, scenarios []string) error {
	return unknownValue(err, scenarios, slices.Concat(lab.Scenarios(), lab.WireScenarios(), []string{lab.AllScenarios}))
}

// plan is what the flags say, but for the program.
func (f labFlags) plan(ctx context.Context, kernels []string) (plan lab.Plan, err error) {
	plan = lab.Plan{
		Kernels: f.kernels(kernels...), Arch: f.arch, GuestProgram: f.guestProgram,
		CPUs: f.cpus, Appends: f.appends, NICs: f.nics, Bulks: f.bulks, Scenarios: f.scenarios, Limit: f.limit,
		Trace: f.trace || f.annotate != "" || f.svg != "", Annotate: f.annotate,
	}
	for _, dma := range f.dmas {
		plan.DMAs = append(plan.DMAs, lab.DMA(dma))
	}
	arches, err := f.guestArches(ctx, kernels)
	if err != nil {
		return plan, err
	}
	switch f.accel {
	case "auto":
		plan.Time = slices.ContainsFunc(arches, func(arch string) bool { return guest.KVM(ctx, arch) })
	case "kvm":
		for _, arch := range arches {
			if err := guest.Available(arch); err != nil {
				return plan, err
			}
			if !guest.KVM(ctx, arch) {
				return plan, &feature.Missing{Feature: "KVM for guests of " + arch, Help: "--accel tcg counts without it"}
			}
		}
		plan.Time, plan.TimeAgain = true, true
	case "tcg":
	default:
		return plan, usagef("--accel %q is not auto, tcg or kvm", f.accel)
	}
	if f.ab != "" {
		if len(f.appends) > 0 {
			return plan, usagef("--ab chooses the command lines: leave --append out")
		}
		for _, arch := range arches {
			with, without, err := lab.AB(f.ab, arch)
			if err != nil {
				return plan, usageError{err}
			}
			plan.Appends = []string{with, without}
		}
	}
	if err := plan.Validate(); err != nil {
		return plan, unknownScenario(err, f.scenarios)
	}
	return plan, nil
}

// runLab counts redirects, or, when counts is set, a program of the user's.
func runLab(ctx context.Context, s std, f labFlags, kernels []string, counts bool) error {
	switch {
	case f.config:
		fmt.Fprint(s.out, guest.Config())
		return nil
	case f.list != "":
		return listKernels(ctx, s, f.list, f.guestArch())
	}
	kernels, series, err := f.eachSeries(ctx, kernels)
	if err != nil {
		return err
	}
	plan, err := f.plan(ctx, kernels)
	if err != nil {
		return err
	}
	if f.run != "" && plan.Trace {
		return usagef("--run writes what the guest writes: leave --trace, --annotate and --svg out")
	}
	if f.run != "" && (f.output.json || f.output.save != "") {
		return usagef("--run writes what the guest writes: leave --json and --save out")
	}
	if f.run != "" {
		if err := checkVerb(strings.Fields(f.run)); err != nil {
			return fmt.Errorf("--run: %w", err)
		}
	}
	arches, err := f.guestArches(ctx, kernels)
	if err != nil {
		return err
	}
	for _, arch := range arches {
		if err := checkModels(ctx, f.cpus, arch); err != nil {
			return err
		}
	}
	if err := checkFiles(append(f.counted.files(), kernels...), outFile{"save", f.output.save}, outFile{"svg", f.svg}); err != nil {
		return err
	}
	if err := f.output.check(); err != nil {
		return err
	}
	if err := f.checkTrace(plan); err != nil {
		return err
	}
	if counts {
		if err := f.counted.into(ctx, s, &plan); err != nil {
			return err
		}
	}
	self, err := lab.Executable()
	if err != nil {
		return err
	}
	if plan.Kernels, err = f.leaveOut(ctx, s.err, plan.Kernels, series); err != nil {
		return err
	}
	if f.run != "" {
		return f.runInGuests(ctx, s, plan, self)
	}
	if plan.Earlier, err = f.earlier(ctx); err != nil {
		return err
	}
	if err := f.checkKept(plan); err != nil {
		return err
	}
	show, done := labProgress(s)
	doc := record.New[record.LabRow]("lab", host.Identify(host.Options{}))
	doc.Settings = map[string]string{"version": buildVersion(), "kernels": strings.Join(kernels, " ")}
	if f.resume {
		plan.Done = func(cells []lab.CellResult) { f.saveSoFar(ctx, s, *doc, cells, plan) }
	}
	cells, err := lab.Run(ctx, plan, self, show)
	done()
	if err != nil && ctx.Err() == nil {
		return err
	}
	var price *stat.Quantity
	var warns []record.Warning
	if !counts {
		price, warns = priceFor(ctx, s, doc.Host, cells)
	}
	l := lab.Record(cells, plan.Rows(), price)
	l.Warnings = append(l.Warnings, warns...)
	counted := l.Rows
	plan.Keep(l)
	f.counted.tellRefused(ctx, s, cells)
	doc.Rows, doc.Warnings = l.Rows, l.Warnings
	l.Document = *doc
	compare.LabTraces(ctx, l)
	l.Incomplete = ctx.Err() != nil
	output, errSave := f.output, error(nil)
	if f.resume {
		output.save = ""
		if !l.Incomplete { // else it has what came of each guest already
			errSave = f.replaceRecord(ctx, l)
		}
	}
	err = errors.Join(errSave, output.publish(s, l, func() error { return report.Lab(s.out, textOptions(s.out), l) }))
	if err == nil {
		err = f.drawTrace(ctx, counted)
	}
	switch {
	case err != nil:
		return err
	case l.Incomplete:
		return errStopped
	}
	return cmp.Or(cellErrors(cells), noCounts(l, counts), f.noTime(cells))
}

// noTime is why the times that were asked for are not there. Without --accel kvm they are asked for where they can be had.
func (f labFlags) noTime(cells []lab.CellResult) error {
	for _, c := range cells {
		if c.NoTime != nil && f.accel == "kvm" {
			return fmt.Errorf("%s: %w", c.Name(), c.NoTime)
		}
	}
	return nil
}

// checkModels refuses CPU models that QEMU does not have. A model may have features after a
// comma.
func checkModels(ctx context.Context, models []string, arch string) error {
	if len(models) == 0 {
		return nil
	}
	known, err := guest.CPUModels(ctx, arch)
	if err != nil {
		return err
	}
	for _, model := range models {
		name, _, _ := strings.Cut(model, ",")
		if !slices.Contains(known, name) {
			err := fmt.Errorf("QEMU has no CPU model %q of %s: its -cpu help lists them", name, arch)
			return unknownValue(err, []string{name}, known)
		}
	}
	return nil
}

// cellErrors is the first failure of a cell, or why there is no number at all; that nothing
// was missing on this machine makes it one of the run.
func cellErrors(cells []lab.CellResult) error {
	refused, counted := "", false
	for _, c := range cells {
		counted = counted || c.Taken()
		if c.Err != nil {
			return fmt.Errorf("%s: %w", c.Name(), c.Err)
		}
		if c.Measurement == nil {
			continue
		}
		for _, b := range c.Bulks {
			if b.Failed {
				return fmt.Errorf("%s: %s at bulk %d: %s", c.Name(), cmp.Or(b.Scenario, lab.DefaultScenario), b.Bulk, b.Refused)
			}
			refused, counted = cmp.Or(refused, b.Refused), counted || b.Refused == ""
		}
	}
	if !counted && refused != "" {
		return fmt.Errorf("no guest has a number: %s", refused)
	}
	return nil
}

// priceFor is the price of an indirect call for an estimate, nil where there is none: guests without a number need none, and
// those of another architecture, or of another thunk than this machine's kernel, get none of this machine's.
func priceFor(ctx context.Context, s std, machine host.Fingerprint, cells []lab.CellResult) (*stat.Quantity, []record.Warning) {
	counted := false
	for i := range cells {
		switch arch := cells[i].CountedOn(); arch {
		case "":
		case runtime.GOARCH:
			counted = true
		default:
			return nil, []record.Warning{{Text: "no estimate in ns: a call's price on this machine is none of " + arch}}
		}
	}
	if !counted {
		return nil, nil
	}
	if why := record.NoRetpoline(machine); why != "" {
		return nil, []record.Warning{{Text: "no estimate in ns: " + why + "; " + retpolinesElsewhere(machine)}}
	}
	return labPrice(ctx, s)
}

// retpolinesElsewhere says where a retpoline has a price, on a machine whose kernel makes its indirect calls otherwise.
func retpolinesElsewhere(machine host.Fingerprint) string {
	if machine.Emulated() || runtime.GOARCH != "amd64" {
		return "lab as root on hardware whose kernel has retpolines makes one"
	}
	return "lab as root on a machine whose kernel has retpolines makes one, and `unthunk tax --pair user` prices one of this CPU, " +
		"in user space (user/retpoline)"
}

// labPrice is the price of an indirect call on this machine, nil where it cannot be
// measured.
func labPrice(ctx context.Context, s std) (*stat.Quantity, []record.Warning) {
	if ctx.Err() != nil {
		return nil, []record.Warning{{Text: "no estimate in ns: the run was stopped"}}
	}
	if err := checkFileLimit(callFiles()); err != nil {
		return nil, []record.Warning{{Text: "no estimate in ns: " + oneLine(err)}}
	}
	show, done := progress(s)
	defer done()
	price, why, err := tax.CallPrice(ctx, rounds.CPU{}, priceTime, show)
	if err != nil {
		why = oneLine(err)
	}
	if price == nil {
		return nil, []record.Warning{{Text: "no estimate in ns: " + why}}
	}
	return price, nil
}

// runInGuests runs a verb in each guest and writes what it wrote, each under the
// guest's name where there are several.
func (f labFlags) runInGuests(ctx context.Context, s std, plan lab.Plan, self string) error {
	var failed error
	several := len(plan.Cells()) > 1
	show, done := labProgress(s)
	err := lab.Commands(ctx, plan, self, strings.Fields(f.run), show, func(r lab.CommandResult) {
		if isTerminal(s.err) {
			fmt.Fprint(s.err, "\r\033[K") // the progress, which comes again
		}
		if several {
			fmt.Fprintf(s.out, "== %s\n", cells.Clean(r.Name()))
		}
		if r.Err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", r.Name(), r.Err))
			return
		}
		// A guest is another's kernel: it must not speak to this terminal.
		fmt.Fprint(s.out, cells.CleanLines(string(r.Results[0].Stdout)))
		fmt.Fprint(s.err, cells.CleanLines(string(r.Results[0].Stderr)))
		if code := r.Results[0].Exit; code != 0 {
			failed = errors.Join(failed, fmt.Errorf("%s: exit code %d", r.Name(), code))
		}
	})
	done()
	return cmp.Or(err, failed)
}

// newLabGuest is what lab runs in a guest.
func newLabGuest(s std) *cobra.Command {
	var (
		texts []string
		nic   string
		timed bool
		trace bool
	)
	cmd := &cobra.Command{
		Use:    "lab-guest",
		Short:  "Count what a packet goes through, inside a guest of lab",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !guest.Guest() {
				return &feature.Missing{Feature: "a guest of lab", Help: "unthunk lab boots one and runs this in it"}
			}
			var rows []lab.Row
			for _, text := range texts {
				r, err := lab.ParseRow(text)
				if err != nil {
					return usageError{err}
				}
				rows = append(rows, r)
			}
			m, err := lab.InGuest(cmd.Context(), nic, rows, timed, trace)
			if err != nil {
				return err
			}
			return report.JSON(s.out, m)
		},
	}
	cmd.Flags().StringArrayVar(&texts, "row", []string{lab.DefaultScenario + ":16"}, "a scenario and frames a batch")
	cmd.Flags().BoolVar(&timed, "time", false, "measure time instead")
	cmd.Flags().BoolVar(&trace, "trace", false, "for a host that traces the guest")
	cmd.Flags().StringVar(&nic, "nic", lab.Veth, "what frames go through")
	return cmd
}
