package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/clock"
	"github.com/unthunk/unthunk/internal/compare"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/progcode"
	"github.com/unthunk/unthunk/internal/progcost"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/report/page"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/prog"
)

// diffFlags are what the user typed.
type diffFlags struct {
	target    targetFlags
	replay    replayFlags
	threshold float64
	mayChange bool
	format    string
	length    lengthFlags
	output    outputFlags
}

// Length of a run of prog diff: what finds 2 % of a program of 50 ns.
const (
	diffRounds   = 40
	diffDuration = 20 * time.Second
)

func newProgDiff(s std) *cobra.Command {
	f := diffFlags{target: targetFlags{compared: true}}
	cmd := &cobra.Command{
		Use:   "diff OLD NEW --packets FILE",
		Short: "Say what two programs differ in: behavior, then speed, on the same packets",
		Long: `Say what two XDP programs differ in on the same packets. First behavior: which packets
come out with another verdict, length or bytes, or go to another device. Then the calls
that came and went, in their code and in that of all programs that they reach by tail
calls. Then ns a packet: both run in turn, within one system call, on packets that are
restored before each run, so that much smaller differences are seen than between two runs.

OLD and NEW are object files (lb.o, lb.o:balancer), pinned programs, id:N or dev:DEV. Each
object has maps of its own; --set, --map and --maps-from are for both. OLD may also be a
saved record of prog cost: NEW is then measured now, and compared with that run.

The exit code is 3 when packets come out otherwise, unless --behavior-may-change, or when
a row is slower by more than --threshold, with confidence; it is 1 when no row could be
compared.`,
		Example: `  unthunk prog diff old.o new.o --packets p.pcap
  unthunk prog diff old.o new.o --packets udp4,tcp-syn4 --format markdown
  unthunk prog diff cost.json lb.o --packets p.pcap --threshold 5`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("prog diff needs two programs, or a saved record of prog cost and a program: got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return interrupted(cmd.Context(), runProgDiff(cmd.Context(), s, cmd, &f, args))
		},
	}
	fl := cmd.Flags()
	f.target.add(fl, true)
	f.replay.add(cmd)
	fl.Float64Var(&f.threshold, "threshold", compare.DefaultThreshold, "smallest difference that matters, in `percent`")
	fl.BoolVar(&f.mayChange, "behavior-may-change", false, "packets that come out otherwise are shown, and are no regression")
	fl.StringVar(&f.format, "format", "text", "text, markdown for a pull request, junit or ktap for CI, bench for benchstat, json")
	f.length.add(cmd, diffRounds, diffDuration)
	f.output.add(cmd)
	return cmd
}

// diffFormats are what a difference can be written as; json is what --json does.
func diffFormats() map[string]func(io.Writer, *progDifference) error {
	return map[string]func(io.Writer, *progDifference) error{
		"text":     func(w io.Writer, d *progDifference) error { return report.ProgDiff(w, textOptions(w), d.doc) },
		"markdown": func(w io.Writer, d *progDifference) error { return page.ComparisonMarkdown(w, d.doc) },
		"junit":    func(w io.Writer, d *progDifference) error { return report.JUnitComparison(w, d.doc) },
		"ktap":     func(w io.Writer, d *progDifference) error { return report.KTAPComparison(w, d.doc) },
		"bench":    func(w io.Writer, d *progDifference) error { return report.ProgDiffBench(w, d.old, d.new) },
		"json":     nil,
	}
}

// progDifference is what was found, with the two sides that it was made of.
type progDifference struct {
	doc      *record.ProgDiff
	old, new *record.ProgCost
}

// check refuses flags that do not go together, and returns the writer.
func (f *diffFlags) check(args []string) (func(io.Writer, *progDifference) error, error) {
	if !(f.threshold >= 0) || math.IsInf(f.threshold, 0) {
		return nil, usagef("a threshold of %v %% is impossible", f.threshold)
	}
	write, known := diffFormats()[f.format]
	names := slices.Sorted(maps.Keys(diffFormats()))
	switch {
	case !known:
		return nil, unknownValue(fmt.Errorf("format %q is not one of %s", f.format, strings.Join(names, ", ")), []string{f.format}, names)
	case f.output.json && f.format != "text" && f.format != "json":
		return nil, usagef("--json and --format %s are two outputs: choose one", f.format)
	}
	f.output.json = f.output.json || f.format == "json"
	if err := checkFiles(append(f.target.files(args...), f.replay.packets), outFile{"save", f.output.save}); err != nil {
		return nil, err
	}
	return write, f.output.check()
}

func runProgDiff(ctx context.Context, s std, cmd *cobra.Command, f *diffFlags, args []string) error {
	write, err := f.check(args)
	if err != nil {
		return err
	}
	length, err := f.length.resolve(cmd)
	if err != nil {
		return err
	}
	saved, err := f.saved(ctx, cmd, args[0])
	if err != nil {
		return err
	}
	plan := progcost.Plan{By: progcost.By(f.replay.by), CPU: rounds.OnCPU(length.cpu), Schedule: length.schedule(), Cold: f.replay.cold}
	if err := plan.Validate(); err != nil {
		return unknownValue(err, []string{f.replay.by}, progcost.Bys())
	}
	if plan.Replay, plan.Packets, err = f.replay.options(ctx); err != nil {
		return err
	}
	targets := args
	if saved != nil {
		targets = args[1:]
	}
	var opened []*program.Opened
	for _, target := range targets {
		o, err := f.target.load(ctx, s, target, opened...)
		if err != nil {
			return err
		}
		defer o.Close()
		opened = append(opened, o)
		plan.Programs = append(plan.Programs, progcost.Replayable(o))
	}
	if err := f.target.checkUsed(opened); err != nil {
		return err
	}
	tellAll(s, targets, opened)
	if plan.Apart, err = f.replay.apart(ctx, s, targets, opened); err != nil {
		return err
	}
	if plan.Packets, err = plan.Packets.For(plan.Programs...); err != nil {
		return err
	}
	if saved != nil {
		if err := f.same(saved, replaySettings(cmd, length, plan), plan.Packets); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
	}
	twins, err := f.twins(ctx, s, plan, targets, opened)
	if err != nil {
		return err
	}
	d, err := f.measure(ctx, s, cmd, length, plan, saved, args, opened, twins)
	if err != nil {
		return err
	}
	if err := f.output.publish(s, d.doc, func() error { return write(s.out, d) }); err != nil {
		return err
	}
	switch why := d.doc.Nothing(); {
	case d.doc.Incomplete:
		return errStopped
	case why != "":
		return fmt.Errorf("prog diff: %s", why)
	case d.doc.Regressed():
		return errRegression
	}
	if n, row := d.doc.Lost(); n > 0 {
		return fmt.Errorf("prog diff: %s lost its number: %s", row.Name, row.Missing)
	}
	return nil
}

// saved loads the old side when it is a record of prog cost, and takes from it what the user does not say: which packets,
// and how they are replayed. It is nil for a program.
func (f *diffFlags) saved(ctx context.Context, cmd *cobra.Command, old string) (*record.Saved, error) {
	if !strings.HasSuffix(old, ".json") {
		return nil, nil
	}
	saved, err := reading(ctx, func() (*record.Saved, error) { return record.Load(old) })
	if err != nil {
		return nil, err
	}
	if saved.ProgCost() == nil {
		return nil, usagef("%s is a record of %s: prog diff compares a program with one of prog cost", old, saved.Kind)
	}
	if err := f.take(cmd, saved); err != nil {
		return nil, fmt.Errorf("%s: %w", old, err)
	}
	return saved, nil
}

// twins are what another load of each object makes of the packets, with maps of its own: a program that takes a random
// port, or the time, is no other program for that. One is nil where that is no object; both are without two programs.
func (f *diffFlags) twins(
	ctx context.Context, s std, plan progcost.Plan, targets []string, opened []*program.Opened,
) (twins [2]*prog.Clean, err error) {
	if len(opened) < 2 {
		return twins, nil
	}
	for i, o := range opened {
		if o.Spec == nil {
			continue
		}
		if twins[i], err = f.twin(ctx, s, plan, targets[i], opened); err != nil {
			return twins, err
		}
	}
	return twins, nil
}

func (f *diffFlags) twin(
	ctx context.Context, s std, plan progcost.Plan, target string, opened []*program.Opened,
) (clean *prog.Clean, err error) {
	again, err := f.target.load(ctx, s, target, opened...) // without the warnings, which were told the first time
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, again.Close()) }()
	return progcost.Once(ctx, plan, prog.Program{Name: again.Name, Loaded: again.Program})
}

// measure runs the programs and compares them.
func (f *diffFlags) measure(
	ctx context.Context, s std, cmd *cobra.Command, length lengthFlags, plan progcost.Plan, saved *record.Saved, args []string,
	opened []*program.Opened, twins [2]*prog.Clean,
) (*progDifference, error) {
	codes, machine := readWhole(ctx, opened)
	steal := host.StealSince()
	show, done := progress(s)
	raw, err := progcost.Run(ctx, plan, show)
	done()
	if err != nil {
		return nil, err
	}
	docs := make([]*record.ProgCost, len(opened))
	run := record.NewRunID()
	for i, o := range opened {
		doc := &record.ProgCost{Document: *record.New[record.CostRow]("prog-cost", machine)}
		doc.Run, doc.Incomplete, doc.Settings = run, raw.Incomplete, replaySettings(cmd, length, plan)
		doc.Settings["cpu"] = strconv.Itoa(raw.CPU)
		if raw.Cold > 0 {
			doc.Settings["cold"] = fmt.Sprintf("%d MiB", raw.Cold>>20)
		}
		doc.Program = raw.Identity(args[len(args)-len(opened)+i], o, i)
		if codes != nil {
			codes[i].addTo(&doc.Program)
		}
		doc.Packets = f.replay.source(plan.Packets)
		doc.Rows, doc.Warnings = raw.Record(i)
		doc.AddReferences("", raw.References)
		docs[i] = doc
	}
	warnNowhere(docs, opened)
	d := &progDifference{new: docs[len(docs)-1], doc: &record.ProgDiff{}}
	if saved != nil {
		d.old = saved.ProgCost()
	} else {
		d.old = docs[0]
		to, unseen := f.destinations(ctx, plan, raw, args, opened)
		if nowhere := slices.Concat(opened[0].Nowhere, opened[1].Nowhere); !raw.Redirects() && len(nowhere) > 0 {
			slices.Sort(nowhere)
			unseen = fmt.Sprintf("maps that they go by hold nothing (%s)", strings.Join(slices.Compact(nowhere), ", "))
		}
		d.doc.RedirectsUnseen = record.Sentence(unseen)
		for i := range to[0] {
			if progcost.Compared(to, i) {
				d.doc.Redirected++
			}
		}
		seen, err := f.settle(ctx, plan, raw, args, opened, twins, to)
		if err != nil {
			return nil, err
		}
		d.doc.Behaviors, d.doc.Unsteady = raw.Behaviors(twins, to, seen)
		d.doc.BehaviorMayChange = f.mayChange
	}
	c, err := compare.Records(record.NewSaved(d.old), record.NewSaved(d.new), compare.Options{Threshold: f.threshold})
	if err != nil {
		return nil, err
	}
	c.NameFiles(args[0], args[1])
	c.Kind, c.Incomplete = "prog-diff", raw.Incomplete || ctx.Err() != nil
	c.Warnings = append(c.Warnings, stolen(steal)...)
	d.doc.Comparison = *c
	d.doc.OldProgram, d.doc.NewProgram, d.doc.Packets = d.old.Program, d.new.Program, d.new.Packets
	d.doc.Calls = callChanges(codes)
	return d, nil
}

// destinations are where two programs redirect packets to, nil where none is redirected. What cannot be seen is nil too: unseen says why.
func (f *diffFlags) destinations(
	ctx context.Context, plan progcost.Plan, raw *progcost.Raw, args []string, opened []*program.Opened,
) (to [2][]string, unseen string) {
	if !raw.Redirects() {
		return to, ""
	}
	if raw.Incomplete {
		return to, "the run was stopped before it"
	}
	var seen [2][]string
	for i, o := range opened {
		if o.Live {
			return to, fmt.Sprintf("%s is live, and only a copy of an object file can note it", args[i])
		}
		target, options, err := f.target.parse(args[i], opened)
		if err == nil {
			seen[i], err = progcost.NotedTwice(ctx, target, options, func(noted *program.Opened) ([]string, error) {
				return progcost.Destinations(ctx, plan, noted)
			})
		}
		switch {
		case ctx.Err() != nil:
			return to, "the run was stopped before it"
		case err != nil:
			return to, err.Error()
		}
	}
	return seen, ""
}

// settle runs packets more often of which something varies in one of the two programs alone: a new program that makes something else of a
// packet each time is another one, where the old one does not. It is nil when the run was stopped.
func (f *diffFlags) settle(
	ctx context.Context, plan progcost.Plan, raw *progcost.Raw, args []string, opened []*program.Opened, twins [2]*prog.Clean,
	to [2][]string,
) (map[int][2][]progcost.Seen, error) {
	packets := raw.Unsettled(twins, to)
	if raw.Incomplete || len(packets) == 0 {
		return nil, nil
	}
	var seen [2][][]progcost.Seen
	for i, o := range opened {
		seen[i] = make([][]progcost.Seen, len(packets))
		for range progcost.Loads {
			err := f.settleOnce(ctx, plan, args[i], o, opened, to[i] != nil, packets, seen[i])
			switch {
			case ctx.Err() != nil:
				return nil, nil
			case err != nil:
				return nil, err
			}
		}
	}
	of := make(map[int][2][]progcost.Seen, len(packets))
	for n, packet := range packets {
		of[packet] = [2][]progcost.Seen{seen[0][n], seen[1][n]}
	}
	return of, nil
}

// settleOnce adds to what is seen of packets the runs of one load of an object, or of a program that is live.
func (f *diffFlags) settleOnce(
	ctx context.Context, plan progcost.Plan, text string, o *program.Opened, beside []*program.Opened, noted bool, packets []int,
	seen [][]progcost.Seen,
) (err error) {
	if o.Spec == nil {
		return progcost.Runs(ctx, plan, o, false, packets, seen)
	}
	target, options, err := f.target.parse(text, beside)
	if err != nil {
		return err
	}
	if noted {
		o, err = progcost.OpenNoted(ctx, target, options)
	} else {
		o, err = target.Open(ctx, options)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	return progcost.Runs(ctx, plan, o, noted, packets, seen)
}

// warnNowhere adds to the records of programs that no packet was redirected where maps that redirects go by hold nothing, with what came
// of packets. Of two programs that are not alike in it, it says which.
func warnNowhere(docs []*record.ProgCost, opened []*program.Opened) {
	texts := make([]string, len(docs))
	for i, o := range opened {
		if texts[i] = o.NowhereText(); texts[i] == "" {
			continue
		}
		for k := range docs[i].Rows {
			if row := &docs[i].Rows[k]; row.Name == progcost.All && row.Verdicts["redirect"] == 0 {
				texts[i] = fmt.Sprintf("no packet was redirected: %s. Packets came out as %s", texts[i], cells.Verdicts(row))
			}
		}
	}
	for i, text := range texts {
		switch {
		case text == "":
			continue
		case len(texts) == 2 && texts[0] != texts[1]:
			text = []string{"old", "new"}[i] + ": " + text
		}
		docs[i].Warn(progcost.All, record.Sentence(text))
	}
}

// wholeCode is the code of a program and of all that it reaches by tail calls, or as parts of a libxdp dispatcher.
type wholeCode struct {
	// calls is how often each call, lookup and indirect branch stands in it.
	calls                         map[string]int
	programs, bytes, instructions int
}

// readWhole reads the code of each program. It is nil where code cannot be read, or not all of it.
func readWhole(ctx context.Context, opened []*program.Opened) ([]wholeCode, host.Fingerprint) {
	k, err := kernel.OpenLive() // after the programs, which have symbols
	if err != nil {
		return nil, host.Identify(host.Options{})
	}
	defer k.Close()
	machine := host.Identify(host.Options{Kernel: k})
	var all []wholeCode
	for _, o := range opened {
		code, err := reached(ctx, k, o)
		if err != nil {
			return nil, machine
		}
		w := wholeCode{calls: make(map[string]int), programs: code.Programs, bytes: code.Native}
		if clock.X86 {
			for _, f := range code.Functions {
				for range branch.Decode(f.Code, f.Addr) {
					w.instructions++
				}
			}
		}
		for _, row := range code.Record(machine).Rows {
			_, what, _ := strings.Cut(row.Name, "/")
			what, _, _ = strings.Cut(what, "#") // the number of one that repeats
			if row.Indirect {
				what += " (indirect)" // not the same call as the direct one that takes its place
			}
			w.calls[what]++
		}
		all = append(all, w)
	}
	return all, machine
}

// reached reads the code of a program and of what it reaches.
func reached(ctx context.Context, k *kernel.Kernel, o *program.Opened) (*progcode.Code, error) {
	code, err := progcode.Read(k, o.Program)
	if err != nil {
		return nil, err
	}
	for _, p := range o.TailCalls() {
		target, err := progcode.Read(k, p)
		if err != nil {
			return nil, err
		}
		code.Add(target)
	}
	if !o.Live {
		return code, nil
	}
	for _, part := range o.Parts {
		if err := code.AddID(part.ID); err != nil {
			return nil, err
		}
	}
	left, err := code.Follow(ctx)
	if err == nil && left > 0 {
		err = fmt.Errorf("tail calls go to %d programs more", left)
	}
	return code, err
}

// addTo says in an identity how large the whole code is.
func (w *wholeCode) addTo(id *record.ProgramIdentity) {
	id.Programs, id.AllBytes, id.AllInstructions = w.programs, w.bytes, w.instructions
}

// callChanges are the calls that two programs have unlike often, with all that they reach; nil where one is missing, or where
// code cannot be read.
func callChanges(codes []wholeCode) []record.CallChange {
	if len(codes) != 2 {
		return nil
	}
	changes := []record.CallChange{}
	names := maps.Clone(codes[0].calls)
	maps.Copy(names, codes[1].calls)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if old, is := codes[0].calls[name], codes[1].calls[name]; old != is {
			changes = append(changes, record.CallChange{Name: name, Old: old, New: is})
		}
	}
	return changes
}
