package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/listen"
	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/watch"
)

// progWatchFlags are what the user typed.
type progWatchFlags struct {
	duration           time.Duration
	cpu, rate, top     int
	stats, tracepoints bool
	pprof              string
	metrics            listen.Options
	output             outputFlags
}

func newProgWatch(s std) *cobra.Command {
	var f progWatchFlags
	cmd := &cobra.Command{
		Use:   "watch TARGET",
		Short: "Watch a program at work: packets by verdict, ns a packet, the core's share",
		Long: `Watch an XDP program at work, a line a second and a summary: packets a second by verdict,
ns a packet of the program and of its device's path by stage, what was lost and why, the
share of the core. TARGET is dev:DEV for what is attached there, id:N, or a pinned path.

Time is that which samples stand for: of the CPUs that poll the device, taken while they
do. Counts are the device's own. Nothing is attached to the program, the device or a
tracepoint, and no statistics are switched on, unless --stats or --tracepoints asks for
it. What watching takes of the CPUs is measured and printed; without --hz it is at most
0.5 %. A program that is replaced on its device is followed.`,
		Example: `  unthunk prog watch dev:eth0
  unthunk prog watch dev:eth0 --duration 60s --save watch.json --pprof cpu.pb.gz
  unthunk prog watch id:42 --metrics :9105`,
		Args: oneTarget,
		RunE: func(cmd *cobra.Command, args []string) error { return runProgWatch(cmd.Context(), s, f, args[0]) },
	}
	fl := cmd.Flags()
	fl.DurationVar(&f.duration, "duration", 0, "time to watch; 0 is until a signal")
	fl.IntVar(&f.cpu, "cpu", -1, "CPU to sample; -1 is those that poll the device")
	fl.IntVar(&f.rate, "hz", 0, "samples a second of each CPU; 0 is what takes 0.4 % of it")
	fl.IntVar(&f.top, "top", 10, "functions to show in the summary")
	fl.BoolVar(&f.stats, "stats", false,
		"switch the kernel's run statistics on for one second in ten, which costs each run of each BPF program of the machine")
	fl.BoolVar(&f.tracepoints, "tracepoints", false,
		"count bulks and errors of redirects by programs at tracepoints, which run for the whole machine")
	fl.StringVar(&f.pprof, "pprof", "", "also write a profile for go tool pprof to `FILE`")
	fl.StringVar(&f.metrics.Address, "metrics", "",
		"serve Prometheus metrics at http://`[HOST:]PORT`/metrics; on the loopback unless it has a host")
	fl.StringVar(&f.metrics.WebConfig, "metrics-config", "",
		"TLS and users of --metrics: a web configuration `FILE` of Prometheus")
	f.output.add(cmd)
	fl.Lookup("json").Usage = "print one JSON document a line and nothing else, the record last"
	return cmd
}

// plan turns flags into a plan, or says what is wrong with them.
func (f *progWatchFlags) plan(text string) (plan watch.Plan, err error) {
	target, err := program.Parse(text)
	if err != nil {
		return plan, usageError{err}
	}
	switch _, errHost := listen.Host(f.metrics.Address); {
	case f.metrics.Address != "" && errHost != nil:
		return plan, usagef("--metrics %s: %v", f.metrics.Address, errHost)
	case f.metrics.WebConfig != "" && f.metrics.Address == "":
		return plan, usagef("--metrics-config needs --metrics")
	case f.cpu < -1:
		return plan, usagef("CPU %d is not a CPU", f.cpu)
	case f.top < 0:
		return plan, usagef("%d functions are too few", f.top)
	}
	plan = watch.Plan{
		Target: target, Duration: f.duration, CPU: rounds.OnCPU(f.cpu), Rate: f.rate, Stats: f.stats, Tracepoints: f.tracepoints,
	}
	if err := plan.Validate(); err != nil {
		return plan, usageError{err}
	}
	if err := checkFiles(f.metrics.Files(), outFile{"save", f.output.save}, outFile{"pprof", f.pprof}); err != nil {
		return plan, err
	}
	if f.pprof != "" {
		if err := outfile.Check(f.pprof); err != nil {
			return plan, err
		}
	}
	return plan, f.output.check()
}

func runProgWatch(ctx context.Context, s std, f progWatchFlags, target string) (err error) {
	plan, err := f.plan(target)
	if err != nil {
		return err
	}
	w, err := watch.Open(ctx, plan)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	warn := warner(s.err)
	for _, text := range slices.Concat(w.Prices(), w.Warnings()) {
		warn(text)
	}
	if f.metrics.Address != "" {
		f.metrics.Warn = warn
		server, errServe := serve(ctx, f.metrics, newWatchCollector(w))
		if errServe != nil {
			return errServe
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		fmt.Fprintf(s.err, "metrics at %s\n", server.URL("/metrics"))
		if server.Open(f.metrics) {
			warn("metrics are served to the network, without TLS and passwords: add --metrics-config")
		}
	}
	lines := watchWriter{s: s, json: f.output.json}
	if !f.output.json {
		fmt.Fprintln(s.out, cells.Clean(w.About())) // names of a device and of a program
	}
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	result, err := w.Run(running, func(second watch.Second) {
		if lines.write(second); lines.err != nil {
			cancel() // nobody reads any more
		}
	})
	if err != nil {
		return err
	}
	if why := result.Nothing(); why != "" {
		return cmp.Or(lines.err, errors.New(why))
	}
	doc := result.Record(target)
	doc.Settings = map[string]string{"version": buildVersion(), "target": target, "hz": strconv.Itoa(doc.Sampling.Rate)}
	for name, on := range map[string]bool{"stats": f.stats, "tracepoints": f.tracepoints} {
		if on {
			doc.Settings[name] = "true"
		}
	}
	switch err := f.publish(s, doc); {
	case err != nil:
		return err
	case doc.Ended != "":
		return errors.New(doc.Ended)
	case doc.Incomplete:
		return errStopped
	}
	return nil
}

// publish writes the files that were asked for, and then the output, which may wait for its reader for ever.
func (f *progWatchFlags) publish(s std, doc *record.ProgWatch) (err error) {
	if f.output.save != "" {
		err = record.Save(f.output.save, doc)
	}
	if f.pprof != "" {
		var b bytes.Buffer
		errPprof := report.Pprof(&b, doc.Profile())
		if errPprof == nil {
			errPprof = outfile.Write(f.pprof, b.Bytes())
		}
		err = errors.Join(err, errPprof)
	}
	if f.output.json {
		return errors.Join(err, report.JSONLine(s.out, doc))
	}
	fmt.Fprintln(s.out)
	return errors.Join(err, report.ProgWatch(s.out, textOptions(s.out), doc, f.top))
}

// watchSecond is a line of --json.
type watchSecond struct {
	Schema        string             `json:"schema"`
	Kind          string             `json:"kind"`
	Time          time.Time          `json:"time"`
	Seconds       float64            `json:"seconds"`
	Packets       uint64             `json:"packets"`
	Verdicts      map[string]uint64  `json:"verdicts"`
	Lost          map[string]uint64  `json:"lost"`
	Errors        map[string]uint64  `json:"errors"`
	Program       *float64           `json:"program"`
	Path          *float64           `json:"path"`
	Stages        map[string]float64 `json:"stages"`
	Core          *float64           `json:"core"`
	FramesPerXmit *float64           `json:"frames-per-xmit"`
	Statistics    *float64           `json:"statistics"`
	Cost          *float64           `json:"cost"`
	Samples       int                `json:"samples"`
	Event         string             `json:"event,omitempty"`
}

// watchWriter writes a line for each second.
type watchWriter struct {
	s     std
	json  bool
	lines int
	err   error
}

func (w *watchWriter) write(second watch.Second) {
	if w.json {
		stages := make(map[string]float64)
		for stage, ns := range second.Stages {
			stages[string(stage)] = ns
		}
		w.err = report.JSONLine(w.s.out, watchSecond{
			Schema: record.Schema, Kind: "prog-watch-second", Time: second.End.UTC(), Seconds: second.Length.Seconds(),
			Packets: second.Packets, Verdicts: second.Verdicts, Lost: second.Lost, Errors: second.Errors, Program: second.Program,
			Path: second.Path, Stages: stages, Core: second.Core, FramesPerXmit: second.FramesPerXmit, Statistics: second.Stats,
			Cost: second.Cost, Samples: second.Samples, Event: second.Event,
		})
		return
	}
	const format = "%-8s %8s %5s %5s %5s %5s %7s %7s %6s %6s %7s\n"
	if w.lines%20 == 0 {
		fmt.Fprintf(w.s.out, format, "time", "Mpps", "pass", "drop", "tx", "redir", "prog ns", "path ns", "core %", "cost %", "lost/s")
	}
	w.lines++
	share := func(verdict string) string {
		n, ok := second.Verdicts[verdict]
		if !ok || second.Packets == 0 {
			return "-"
		}
		return fmt.Sprintf("%.0f %%", 100*float64(n)/float64(second.Packets))
	}
	_, w.err = fmt.Fprintf(w.s.out, format, second.End.Format("15:04:05"),
		fmt.Sprintf("%.4f", float64(second.Packets)/second.Length.Seconds()/1e6),
		share("pass"), share("drop"), share("tx"), share("redirect"),
		cell(second.Program, "%.1f"), cell(second.Path, "%.0f"), cell(second.Core, "%.1f"), cell(second.Cost, "%.2f"), lostRate(second))
	if second.Event != "" && w.err == nil {
		_, w.err = fmt.Fprintf(w.s.out, "%-8s %s\n", "", cells.Clean(second.Event))
	}
}

// lostRate is how many packets were lost a second: by what the device counts, or by tracepoints
// where that is more.
func lostRate(second watch.Second) string {
	sum := func(counts map[string]uint64) (n uint64) {
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			n += counts[name]
		}
		return n
	}
	return fmt.Sprintf("%.0f", float64(max(sum(second.Lost), sum(second.Errors)))/second.Length.Seconds())
}
