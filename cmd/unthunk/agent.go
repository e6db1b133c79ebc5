package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/agent"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/listen"
	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/rounds"
)

// agentPart is the hidden verb that does a part of a run in a child of agent.
const agentPart = "agent-part"

// agentCommand is what does a part of a run: this program.
var agentCommand = []string{"/proc/self/exe", agentPart}

// agentFlags are what the user typed.
type agentFlags struct {
	once              bool
	every, splay      time.Duration
	checkEvery        time.Duration
	cpu               int
	maxLoad, maxSteal float64
	labels            []string
	emulated          bool
	anonymous         bool
	state, records    string
	textfile          string
	post              agent.Post
	listen            listen.Options
	output            outputFlags
}

func newAgent(s std) *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "What a machine at work pays, measured with limits",
		Long: `Look at a machine at work, and measure what indirect calls cost it: what check, prog
list, xray and prog xray read; then, unless the machine is busy, the price of an indirect
and a direct call, and the redirect alone at bulk 1, 16 and 64. It runs once, or with
--every again and again: at boot, when kernel, microcode, boot parameters or XDP programs
on devices changed, and each period.

It has limits: it measures for at most 3 s, on one housekeeping CPU (not of isolcpus=, nohz_full=),
when no other task wants it; in network namespaces of its own; with nothing
at a tracepoint, run statistics as they are, and at most 4 of the BPF dispatcher's 48
entries. Above a load or a steal time it only reads, and says so. It changes no setting.
When it is killed, what is left is the files that it has written.

A run is a record (--json, --save, --records, --post) and Prometheus metrics (--textfile,
--listen). A record that a server does not take waits in the folder of --state.`,
		Example: `  unthunk agent
  unthunk agent --anonymous --json
  unthunk agent --records DIR --textfile /var/lib/prometheus/node-exporter
  unthunk agent --every 168h --splay 1h --post https://fleet.example/records`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runAgent(cmd.Context(), s, cmd, f) },
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.once, "once", false, "one run, now; that is what it does without --every")
	fl.DurationVar(&f.every, "every", 0, "run until a signal, and measure each `TIME`")
	fl.DurationVar(&f.splay, "splay", 0, "wait a random part of `TIME` before a run, so that machines do not run at once")
	fl.DurationVar(&f.checkEvery, "check-every", time.Minute, "with --every: look each `TIME` whether something changed")
	fl.IntVar(&f.cpu, "cpu", -1, "CPU to work on; -1 is the last housekeeping one")
	fl.Float64Var(&f.maxLoad, "max-load", agent.DefaultMaxLoad, "measure up to a load average of `N` a CPU, and that share of the CPU's time")
	fl.Float64Var(&f.maxSteal, "max-steal", agent.DefaultMaxSteal, "measure up to `N` percent of time that the hypervisor takes of the CPU")
	fl.StringSliceVar(&f.labels, "label", nil, "say of the machine `NAME=VALUE`: rack=r12,group=canary")
	fl.BoolVar(&f.emulated, "emulated", false, "measure also where the CPU is emulated, by time that is none of hardware: to try a fleet")
	fl.BoolVar(&f.anonymous, "anonymous", false, "leave out host name, device names, paths and processes")
	fl.StringVar(&f.state, "state", "/var/lib/unthunk", "keep what runs before found, and records that wait, in `DIR`")
	fl.StringVar(&f.records, "records", "", "save each record in `DIR`, which is made, named by time and run")
	fl.StringVar(&f.textfile, "textfile", "", "write metrics to unthunk.prom in `DIR`, for node_exporter")
	fl.StringVar(&f.post.URL, "post", "", "send each record to `URL`; it waits in the state while the server is away")
	fl.StringVar(&f.post.TokenFile, "token-file", "", "with --post: a bearer token is in `FILE`")
	fl.StringVar(&f.post.CAFile, "ca-file", "", "with --post: trust the certificates in `FILE`")
	fl.StringVar(&f.listen.Address, "listen", "",
		"with --every: serve Prometheus metrics at http://`[HOST:]PORT`/metrics; on the loopback unless it has a host")
	fl.StringVar(&f.listen.WebConfig, "metrics-config", "", "TLS and users of --listen: a web configuration `FILE` of Prometheus")
	f.output.add(cmd)
	return cmd
}

// newAgentPart is the hidden verb that agent runs in a child.
func newAgentPart(s std) *cobra.Command {
	return &cobra.Command{
		Use:    agentPart + " PART CPU",
		Short:  "Do a part of what agent does",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cpu, err := strconv.Atoi(args[1])
			if err != nil {
				return usagef("CPU %q is not a number", args[1])
			}
			return agent.Answer(cmd.Context(), agent.Part(args[0]), cpu, s.out)
		},
	}
}

// check refuses flags that cannot be meant or do not go together.
func (f *agentFlags) check(cmd *cobra.Command) error {
	given := func(name string) bool { return cmd.Flags().Changed(name) }
	switch {
	case f.once && given("every"):
		return usagef("--once and --every are two ways to run: choose one")
	case given("every") && f.every < time.Minute:
		return usagef("--every %v: must be 1m or more", f.every)
	case f.splay < 0 || f.splay > 7*24*time.Hour:
		return usagef("--splay %v: must be 0 to 168h", f.splay)
	case given("check-every") && f.every == 0:
		return usagef("--check-every goes with --every")
	case f.checkEvery < time.Second:
		return usagef("--check-every %v: must be 1s or more", f.checkEvery)
	case f.listen.Address != "" && f.every == 0:
		return usagef("--listen goes with --every: one run writes its metrics with --textfile")
	case f.listen.WebConfig != "" && f.listen.Address == "":
		return usagef("--metrics-config needs --listen")
	case f.output.save != "" && f.every > 0:
		return usagef("--save is of one record: with --every give a folder, --records")
	case f.post.URL == "" && (f.post.TokenFile != "" || f.post.CAFile != ""):
		return usagef("--token-file and --ca-file go with --post")
	case !(f.maxLoad > 0) || !(f.maxSteal >= 0):
		return usagef("--max-load must be more than 0, --max-steal not less")
	}
	if _, err := rounds.OnCPU(f.cpu).Pick(); f.cpu < -1 || err != nil {
		return usagef("CPU %d is not one that this process may run on", f.cpu)
	}
	if f.post.URL != "" {
		f.post.Spool = filepath.Join(f.state, "spool")
		if err := f.post.Check(); err != nil {
			return usagef("--post: %v", err)
		}
	}
	inputs := append(f.listen.Files(), f.post.TokenFile, f.post.CAFile)
	if err := checkFiles(inputs, outFile{"save", f.output.save}, outFile{"textfile", f.metricsFile()}); err != nil {
		return err
	}
	if info, err := os.Stat(f.records); f.records != "" && err == nil && !info.IsDir() {
		return usagef("--records %s: it is no folder", f.records)
	}
	if info, err := os.Stat(f.textfile); f.textfile != "" && (err != nil || !info.IsDir()) {
		return usagef("--textfile %s: there is no such folder: node_exporter reads that of its --collector.textfile.directory", f.textfile)
	}
	return f.output.check()
}

// labelMap reads labels.
func labelMap(labels []string) (map[string]string, error) {
	out := make(map[string]string)
	for _, label := range labels {
		name, value, ok := strings.Cut(label, "=")
		if !ok || name == "" || value == "" {
			return nil, usagef("--label %s: give NAME=VALUE", label)
		}
		out[name] = value
	}
	if len(out) == 0 {
		return nil, nil
	}
	if err := record.CheckMachineLabels(out); err != nil { // no run could be saved
		return nil, usagef("--label: %v", err)
	}
	return out, nil
}

// agentRun is an agent at work.
type agentRun struct {
	s       std
	flags   agentFlags
	options agent.Options
	state   agent.State
	warn    func(string)
	served  *agentMetrics // nil without --listen
	// facts reads what a run depends on, measure makes one.
	facts   func() (agent.Facts, error)
	measure func(context.Context, agent.Options, agent.Why) (*record.Agent, error)
	// sendAt is when to try again to reach a server that is away, backoff how long that is after the last attempt.
	sendAt  time.Time
	backoff time.Duration
}

func runAgent(ctx context.Context, s std, cmd *cobra.Command, f agentFlags) (err error) {
	if err := f.check(cmd); err != nil {
		return err
	}
	labels, err := labelMap(f.labels)
	if err != nil {
		return err
	}
	if err := feature.Need(unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SYSLOG); err != nil {
		return err
	}
	if err := agent.Check(f.emulated); err != nil {
		return err
	}
	if f.records != "" {
		if err := outfile.MkdirAll(f.records); err != nil {
			return fmt.Errorf("--records: %w", err)
		}
	}
	a := &agentRun{s: s, flags: f, warn: warner(s.err), facts: new(agent.Watcher).Facts, measure: agent.Run, options: agent.Options{
		Command: agentCommand, CPU: rounds.OnCPU(f.cpu), Limits: agent.Limits{Load: f.maxLoad, Steal: f.maxSteal},
		Labels: labels, Emulated: f.emulated, Anonymous: f.anonymous, Version: buildVersion(),
	}}
	if a.state, err = agent.LoadState(f.state); err != nil {
		a.warn(fmt.Sprintf("%v: it is made anew", err))
	}
	if f.every == 0 {
		return a.once(ctx)
	}
	if f.listen.Address != "" {
		a.served = &agentMetrics{}
		a.resume()
		f.listen.Warn = a.warn
		server, err := serve(ctx, f.listen, a.served)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		fmt.Fprintf(s.err, "metrics at %s\n", server.URL("/metrics"))
		if server.Open(f.listen) {
			a.warn("metrics are served to the network, without TLS and passwords: add --metrics-config")
		}
	}
	return a.forever(ctx)
}

// once waits for a random part of the splay, and runs.
func (a *agentRun) once(ctx context.Context) error {
	if !sleep(ctx, a.delay()) {
		return errInterrupted
	}
	facts, err := a.facts()
	if err != nil {
		return err
	}
	why, _ := a.state.Due(facts, facts, time.Now(), 0)
	return a.run(ctx, facts, why)
}

// delay is a random part of the splay.
func (a *agentRun) delay() time.Duration {
	if a.flags.splay == 0 {
		return 0
	}
	return rand.N(a.flags.splay)
}

// sleep waits, and says whether ctx still holds.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return ctx.Err() == nil
	}
}

// resume serves the metrics of the last run before this process. Where there is no record of it, or one with names while there
// are to be none, a run is due, and until it is over the metrics say what the machine is.
func (a *agentRun) resume() {
	last := agent.LoadLast(a.flags.state)
	if last == nil || a.flags.anonymous && last.Machine.Name != "" {
		a.state.Run = time.Time{}
		machine := host.Identify(host.Options{})
		a.served.host = &machine
		return
	}
	a.served.take(a.newMetrics(last))
}

// forever looks again and again whether a run is due, until ctx ends. The first look must succeed; later ones may fail.
func (a *agentRun) forever(ctx context.Context) error {
	var before agent.Facts
	for first := true; ; first = false {
		now, err := a.facts()
		switch {
		case err != nil && first:
			return err
		case err != nil:
			a.warn(oneLine(err))
		default:
			a.look(ctx, now, before)
			before = now
		}
		if !sleep(ctx, a.flags.checkEvery) {
			return nil
		}
	}
}

// look makes a run if one is due, and sends what waits if none is. Before is what the look before saw.
func (a *agentRun) look(ctx context.Context, now, before agent.Facts) {
	if _, due := a.state.Due(now, before, time.Now(), a.flags.every); !due {
		a.send(ctx)
		return
	}
	if !sleep(ctx, a.delay()) {
		return
	}
	later, err := a.facts() // by days
	if err == nil {
		why, due := a.state.Due(later, now, time.Now(), a.flags.every)
		if !due { // what changed is as it was, or changed again
			return
		}
		err = a.run(ctx, later, why)
	}
	if err != nil && ctx.Err() == nil {
		a.warn(oneLine(err)) // a full disk is no reason to end
	}
}

// run makes one run, and hands the record and the metrics to where they were asked for.
func (a *agentRun) run(ctx context.Context, facts agent.Facts, why agent.Why) error {
	if a.state.Identity == "" {
		a.state.Identity = agent.NewIdentity()
	}
	a.options.Identity = a.state.Identity
	a.state.Facts, a.state.Run = facts, time.Now().UTC().Truncate(time.Second) // also of a run that fails: it is not repeated at once
	if why.Reason == record.AgentChanged {
		a.state.Change = a.state.Run
	}
	doc, err := a.measure(ctx, a.options, why)
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		return err
	}
	doc.Warnings = append(doc.Warnings, ofSoftware(doc.Host)...)
	a.noteUnmeasured(doc)
	var errs []error
	if f := a.flags; f.records != "" {
		errs = append(errs, record.SaveNamed(filepath.Join(f.records, recordName(doc)), doc))
	}
	if a.flags.post.URL != "" {
		errs = append(errs, a.spool(ctx, doc))
	}
	a.keep(doc)
	a.send(ctx)
	if err := a.metrics(doc); err != nil {
		errs = append(errs, err)
	}
	if a.flags.every == 0 || a.flags.output.json {
		errs = append(errs, a.flags.output.publish(a.s, doc, func() error { return report.Agent(a.s.out, textOptions(a.s.out), doc) }))
	}
	return errors.Join(append(errs, unanswered(doc))...)
}

// unanswered is an error when a run neither read nor measured anything. Its record says why for each part.
func unanswered(doc *record.Agent) error {
	if doc.Measured != nil || len(doc.Findings) > 0 || len(doc.Paths) > 0 || len(doc.Programs) > 0 || len(doc.Refused) == 0 {
		return nil
	}
	return fmt.Errorf("no answer: nothing was read, and nothing measured: %s", doc.Refused[0].Text)
}

// spool puts a record where it waits for the server. Where no folder takes it, on a full disk, it is sent at once, and the error
// says whether the server has it.
func (a *agentRun) spool(ctx context.Context, doc *record.Agent) error {
	b, err := record.Encode(doc)
	if err != nil {
		return err
	}
	dropped, err := a.flags.post.Add(recordName(doc), b)
	a.state.Dropped += dropped
	if dropped > 0 {
		a.warn(fmt.Sprintf("%s dropped, the oldest: more than %d, or %d MiB, waited for the server", cells.Plural(dropped, "record"),
			agent.MaxSpooled, agent.MaxSpooledBytes>>20))
	}
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	if failed := a.flags.post.SendAlone(ctx, recordName(doc), b); failed != nil {
		a.state.Dropped++
		return errors.Join(err, failed)
	}
	return fmt.Errorf("%w: the record was sent without", err)
}

// noteUnmeasured notes whether a run found no numbers, and says why where no text of the run does.
func (a *agentRun) noteUnmeasured(doc *record.Agent) {
	if doc.Measured != nil {
		a.state.Unmeasured = 0
		return
	}
	a.state.Unmeasured++
	if a.flags.every == 0 {
		return
	}
	for _, r := range doc.Refused {
		if r.Part == record.PartMeasure {
			a.warn(fmt.Sprintf("not measured (%s): %s; again in %v", r.Reason, r.Text, a.state.Wait(a.flags.every)))
		}
	}
}

// recordName is the name of a record's file: by time, so that a folder is in order.
func recordName(doc *record.Agent) string {
	return doc.Time.UTC().Format("20060102T150405Z") + "-" + doc.Run + ".json"
}

// keep saves the state. Without it the next run does not know of this one, and that is all.
func (a *agentRun) keep(doc *record.Agent) {
	err := a.state.Save(a.flags.state)
	if err == nil && doc.Measured != nil {
		err = agent.SaveMeasured(a.flags.state, doc)
	}
	if err == nil && a.served != nil {
		err = agent.SaveLast(a.flags.state, doc)
	}
	if err != nil {
		a.warn(err.Error())
	}
}

// sendTime is how long a run sends what waits.
const sendTime = 30 * time.Second

// maxBackoff is the longest time from one attempt to reach a server to the next.
const maxBackoff = time.Hour

// send sends what waits for the server, if there is one. While it is away, each attempt comes after twice the time.
func (a *agentRun) send(ctx context.Context) {
	if a.flags.post.URL == "" || time.Now().Before(a.sendAt) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	aside, err := a.flags.post.Send(ctx)
	waiting := a.flags.post.Waiting()
	if aside > 0 {
		a.state.Dropped += aside
		if err := a.state.Save(a.flags.state); err != nil {
			a.warn(err.Error())
		}
	}
	if a.served != nil {
		a.served.wait(waiting, a.state.Dropped)
	}
	if err == nil {
		a.sendAt, a.backoff = time.Time{}, 0
		return
	}
	a.backoff = min(max(2*a.backoff, a.flags.checkEvery), maxBackoff)
	a.sendAt = time.Now().Add(a.backoff)
	put := ""
	if aside > 0 {
		put = fmt.Sprintf("; put aside: %d", aside)
	}
	why := strings.ReplaceAll(err.Error(), "\n", "; ")
	a.warn(fmt.Sprintf("%s%s; records that wait in %s: %d", why, put, a.flags.post.Spool, waiting))
}

// newMetrics are the metrics of a run.
func (a *agentRun) newMetrics(doc *record.Agent) *agentMetrics {
	return &agentMetrics{
		doc: doc, measured: agent.LoadMeasured(a.flags.state, doc), waiting: a.flags.post.Waiting(), dropped: a.state.Dropped,
	}
}

// metricsFile is what node_exporter reads; empty for none.
func (f *agentFlags) metricsFile() string {
	if f.textfile == "" {
		return ""
	}
	return filepath.Join(f.textfile, "unthunk.prom")
}

// metrics hands the metrics of a run to where they were asked for.
func (a *agentRun) metrics(doc *record.Agent) error {
	m := a.newMetrics(doc)
	if a.served != nil {
		a.served.take(m)
	}
	file := a.flags.metricsFile()
	if file == "" {
		return nil
	}
	text, err := m.text()
	if err != nil {
		return err
	}
	return outfile.Replace(file, text)
}

// sortedKeys are the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
