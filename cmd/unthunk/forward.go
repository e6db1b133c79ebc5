package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/forward"
	"github.com/unthunk/unthunk/internal/listen"
	"github.com/unthunk/unthunk/internal/outfile"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/xsk"
)

// forwardFlags are what the user typed.
type forwardFlags struct {
	in, out          []string
	both             bool
	engine           string
	source, dest     string
	filter, object   string
	filterFile       string
	queues, workers  int
	rss              bool
	cpus             string
	busyPoll         time.Duration
	live             bool
	generic          bool
	zeroCopy         string
	batch, frames    int
	pcap             string
	every            int
	metrics          listen.Options
	json             bool
	duration, period time.Duration
}

func newForward(s std) *cobra.Command {
	var f forwardFlags
	cmd := &cobra.Command{
		Use:   "forward --in DEV --out DEV",
		Short: "Forward frames between devices, in bulk, and count them",
		Long: `Forward what one device receives to another: in user space through AF_XDP, with
no indirect call per packet, or in the kernel through a devmap. Each second it
says how many frames passed, how long workers were busy for each, and how many
were dropped and why.
Programs and sockets are gone when the process is, however it ends.

Workers share the queues of the devices, each on a CPU of its own; a queue that a
device gets later is used too. SIGHUP has the files of --filter-file and --bpf
read again, and no frame is lost. systemd is told when it forwards, and its watchdog
while each worker goes on (sd_notify).`,
		Example: `  unthunk forward --in eth0 --out eth1 --both
  unthunk forward --in eth0 --out eth1 --in eth2 --out eth3 --engine xdp
  unthunk forward --in eth0 --out eth1 --filter 'udp port 53'
  unthunk forward --in eth0 --out eth1 --workers 4 --cpus 2-5 --live
  unthunk forward --in eth0 --out eth1 --both --pcap tap.pcap --pcap-every 100`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runForward(cmd.Context(), s, f) },
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&f.in, "in", nil, "forward what `DEV` receives; may be repeated")
	fl.StringArrayVar(&f.out, "out", nil, "… to `DEV`: the first --out goes with the first --in")
	fl.BoolVar(&f.both, "both", false, "forward the other way too")
	fl.StringVar(&f.engine, "engine", string(forward.AFXDP), "where: "+joined(forward.Engines()))
	fl.StringVar(&f.source, "source-mac", "", "write `ADDR` into every frame as its source")
	fl.StringVar(&f.dest, "destination-mac", "", "write `ADDR` into every frame as its destination")
	fl.StringVar(&f.filter, "filter", "",
		"forward only frames that match a pcap `EXPRESSION`, or the output of tcpdump -ddd; all others are the network stack's")
	fl.StringVar(&f.filterFile, "filter-file", "", "… what is in `FILE`, which SIGHUP has read again")
	fl.StringVar(&f.object, "bpf", "",
		"use the XDP program in `FILE`, or FILE:PROGRAM, "+
			"which redirects through the one XSKMAP (engine afxdp) or devmap (engine xdp, key 0) in it")
	fl.BoolVar(&f.generic, "generic", false, "generic XDP, for drivers without native XDP")
	fl.StringVar(&f.zeroCopy, "zero-copy", "auto",
		"AF_XDP without copies (afxdp): auto, where all devices can; require, or fail; never")
	fl.IntVar(&f.batch, "batch", 0, "frames taken at once (afxdp); 0 is 64")
	fl.IntVar(&f.frames, "frames", 0, "chunks of memory for each queue (afxdp); 0 is 8192")
	fl.IntVar(&f.queues, "queues", 0, "use the first `N` queues of each device (afxdp); 0 is all")
	fl.BoolVar(&f.rss, "rss", false, "have the devices give all flows to these queues (RSS), and what they had back at the end (afxdp)")
	fl.IntVar(&f.workers, "workers", 0, "workers that share the queues (afxdp); 0 is one for each queue, and not more than CPUs")
	fl.StringVar(&f.cpus, "cpus", "", "keep the workers on CPUs of this `LIST`, in turn (afxdp): 2-5,8")
	fl.DurationVar(&f.busyPoll, "busy-poll", 0,
		"poll the devices for this `TIME` in place of interrupts (afxdp): a core for each worker, the least latency; as 20us")
	fl.StringVar(&f.pcap, "pcap", "", "write a sample of the frames to `FILE` (afxdp)")
	fl.IntVar(&f.every, "pcap-every", 1000, "… one in `N`")
	fl.StringVar(&f.metrics.Address, "metrics", "",
		"serve Prometheus metrics at http://`[HOST:]PORT`/metrics; on the loopback unless it has a host")
	fl.StringVar(&f.metrics.WebConfig, "metrics-config", "",
		"TLS and users of --metrics: a web configuration `FILE` of Prometheus")
	fl.BoolVar(&f.live, "live", false, "show each queue, on one screen")
	fl.BoolVar(&f.json, "json", false, "print one JSON document a line and nothing else")
	fl.DurationVar(&f.duration, "duration", 0, "time to forward; 0 is until a signal")
	fl.DurationVar(&f.period, "interval", time.Second, "time between lines")
	return cmd
}

// zeroCopies are the values of --zero-copy.
var zeroCopies = map[string]xsk.Mode{"auto": xsk.Auto, "require": xsk.ZeroCopy, "never": xsk.Copy}

// config turns flags into a configuration, or says what is wrong with them.
func (f forwardFlags) config() (c forward.Config, err error) {
	switch in, out := len(f.in), len(f.out); {
	case in > 1 && out == 1:
		return c, usagef("%d --in and 1 --out: repeat --out %s for each --in that is to share it", in, f.out[0])
	case in != out:
		return c, usagef("%d --in and %d --out: each --in needs an --out", in, out)
	}
	c = forward.Config{
		Both: f.both, Engine: forward.Engine(f.engine), Object: f.object,
		Generic: f.generic, Batch: f.batch, Frames: f.frames, Queues: f.queues, RSS: f.rss, Workers: f.workers,
		BusyPoll: f.busyPoll, Guard: rssGuardCommand,
	}
	if c.CPUs, err = cpuList(f.cpus); err != nil {
		return c, err
	}
	mode, ok := zeroCopies[f.zeroCopy]
	if !ok {
		return c, usagef("--zero-copy %q is not %s", f.zeroCopy, joined(slices.Sorted(maps.Keys(zeroCopies))))
	}
	c.Mode = mode
	for i := range f.in {
		c.Pairs = append(c.Pairs, forward.Pair{In: f.in[i], Out: f.out[i]})
	}
	for _, mac := range []struct {
		flag, text string
		to         *net.HardwareAddr
	}{{"source-mac", f.source, &c.Source}, {"destination-mac", f.dest, &c.Destination}} {
		if mac.text == "" {
			continue
		}
		if *mac.to, err = net.ParseMAC(mac.text); err != nil {
			return c, usagef("--%s: %v", mac.flag, err)
		}
	}
	if f.filter != "" && f.filterFile != "" {
		return c, usagef("--filter and --filter-file are two filters: choose one")
	}
	if c.Claim, err = f.claim(); err != nil {
		return c, usageError{err}
	}
	if _, err := listen.Host(f.metrics.Address); f.metrics.Address != "" && err != nil {
		return c, usagef("--metrics %s: %v", f.metrics.Address, err)
	}
	switch {
	case f.filterFile != "" && f.object != "":
		return c, usagef("a filter and a BPF object are two programs: choose one")
	case f.live && f.json:
		return c, usagef("--live is for people, --json for programs: choose one")
	case f.metrics.WebConfig != "" && f.metrics.Address == "":
		return c, usagef("--metrics-config needs --metrics")
	case f.period < 10*time.Millisecond:
		return c, usagef("--interval %v: must be 10ms or more", f.period)
	case f.duration < 0:
		return c, usagef("--duration %v is negative", f.duration)
	case f.every < 1:
		return c, usagef("--pcap-every %d: must be 1 or more", f.every)
	}
	if f.pcap != "" {
		c.Sample = forward.NewSample(f.every)
	}
	if err := c.Validate(); err != nil {
		return c, usageError{err}
	}
	return c, nil
}

func runForward(ctx context.Context, s std, f forwardFlags) (err error) {
	c, err := f.config()
	if err != nil {
		return err
	}
	read := append((&targetFlags{}).files(f.object), f.filterFile)
	if err := checkFiles(append(read, f.metrics.Files()...), outFile{"pcap", f.pcap}); err != nil {
		return err
	}
	shown, told := newLineQueue(s.out), newLineQueue(s.err)
	defer func() {
		shown.Close() // what it failed with is the output's first error
		told.Close()
		fmt.Fprint(s.err, shown.leftOut("standard output"), told.leftOut("standard error"))
	}()
	events := &forwardEvents{text: told}
	if f.json {
		events.documents = shown
	}
	c.Warn, c.Happened = events.warn, events.happened
	if f.pcap != "" {
		if err := outfile.CheckStream(f.pcap); err != nil {
			return err
		}
	}
	forwarder, err := forward.Open(ctx, c)
	if err = (&targetFlags{}).explain(ctx, s, err); err != nil { // of --bpf
		return err
	}
	closed := false
	defer func() {
		if !closed {
			err = errors.Join(err, forwarder.Close())
		}
	}()
	if f.pcap != "" { // now that all else was found: an old file is emptied
		file, errFile := outfile.Stream(f.pcap)
		if errFile != nil {
			return errFile
		}
		// A disk that is full must end the verb with an error: err is the result's.
		defer func() { err = errors.Join(err, file.Close()) }()
		if err := c.Sample.Start(s.unread(file)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Sample.Close()) }()
	}
	if f.metrics.Address != "" {
		f.metrics.Warn = c.Warn
		server, errServe := serveMetrics(ctx, f.metrics, forwarder, events)
		if errServe != nil {
			return errServe
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		fmt.Fprintf(told, "metrics at %s\n", server.URL("/metrics"))
		if server.Open(f.metrics) {
			c.Warn("metrics are served to the network, without TLS and passwords: add --metrics-config")
		}
	}
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.duration > 0 { // from here on: opening the devices takes a while on a busy machine
		var stop context.CancelFunc
		running, stop = context.WithTimeout(running, f.duration)
		defer stop()
	}
	var hangups <-chan os.Signal
	if f.reloads() {
		var stop func()
		hangups, stop = onHangup()
		defer stop()
	}
	done, served := make(chan error, 1), make(chan struct{})
	go func() { done <- forwarder.Run(running) }()
	go func() {
		defer close(served)
		v := service{forwarder: forwarder, flags: f, events: events}
		v.serve(running, hangups)
	}()
	w := forwardWriter{
		out: shown, columns: textOptions(s.out).Width, shown: shown, events: events, json: f.json,
		filter: f.filter != "" || f.filterFile != "",
	}
	if f.live {
		w.screen = newForwardScreen(s.out)
		w.screen.filter = w.filter
	}
	watch := w.watch(running, forwarder, f.period)
	cancel()
	<-served
	runErr := <-done
	// What was in flight is counted when it left or was given up.
	closed = true
	closeErr := forwarder.Close()
	last, totalErr := forwarder.Totals()
	shown.Close() // nothing is forwarded any more: now the sums may wait for who reads
	if w.out = s.out; totalErr == nil {
		totalErr = errors.Join(w.final(last, c.Sample), noneSent(last))
	}
	return errors.Join(watch, runErr, closeErr, totalErr)
}

// noneSent returns an error when frames were lost and none was sent.
func noneSent(t forward.Totals) error {
	var lost, sent uint64
	for _, d := range t.Directions {
		sent += d.Sent
		for _, drop := range d.Drops {
			// What the program drops is not lost, and what nobody saw may not be.
			if drop.Reason != forward.DropVerdict && drop.Reason != forward.DropUncounted {
				lost += drop.Frames
			}
		}
	}
	if sent > 0 || lost == 0 {
		return nil
	}
	return fmt.Errorf("no frame was sent, and %d were lost", lost)
}

// forwardWriter writes a line for each direction and interval.
type forwardWriter struct {
	out     io.Writer
	columns int        // of a line, after which drops go on in another
	shown   *lineQueue // what was left out of that is counted there
	events  *forwardEvents
	json    bool
	filter  bool // frames may be passed to the network stack
	started time.Time
	at      time.Time
	last    forward.Totals
	lines   int
	screen  *forwardScreen // of --live
}

// watch writes until ctx is done.
func (w *forwardWriter) watch(ctx context.Context, f forward.Forwarder, period time.Duration) error {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	w.started, w.at = time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now, err := f.Totals()
		if err != nil {
			return err
		}
		if err := w.interval(now, time.Now()); err != nil {
			return err
		}
	}
}

func (w *forwardWriter) interval(now forward.Totals, at time.Time) error {
	list := rows(w.last, now, at.Sub(w.at))
	if w.json {
		err := w.document(list, w.last, now, at.Sub(w.at), at, false)
		w.last, w.at = now, at
		return err
	}
	if w.screen != nil {
		clearing := "\n"
		if w.screen.moves {
			clearing = homeAndClear
		}
		_, err := fmt.Fprint(w.out, clearing, w.screen.picture(w.last, now, at.Sub(w.at), at.Sub(w.started), w.events.lastTold()))
		w.last, w.at = now, at
		return err
	}
	var text bytes.Buffer
	if w.lines%20 == 0 {
		fmt.Fprintf(&text, "%-8s %-24s %11s %8s %6s%s  %s\n", "time", "in → out", "sent", "ns/pkt", "batch",
			passedCell(w.filter, "passed"), "drops")
	}
	w.lines++
	for _, r := range list {
		line := fmt.Sprintf("%s %-24s %11s %8s %6s%s  ", at.Format("15:04:05"), r.devices(), packetRate(r.Mpps),
			cell(r.NS, "%.1f"), cell(first(r.Batch, r.Bulk), "%.1f"), passedCell(w.filter, strconv.FormatUint(r.Passed, 10)))
		for _, line := range fitted(w.columns, line, drops(r, "-")) {
			fmt.Fprintln(&text, line)
		}
	}
	w.last, w.at = now, at
	_, err := w.out.Write(text.Bytes())
	return err
}

// passedCell is a cell of the column of frames that were passed to the network stack; without a
// filter there is no such column.
func passedCell(filter bool, text string) string {
	if !filter {
		return ""
	}
	return fmt.Sprintf(" %9s", text)
}

// packetRate is a rate with its unit, at most 12 columns below 1000 Mpps.
func packetRate(mpps float64) string {
	switch {
	case mpps >= 1:
		return fmt.Sprintf("%.3f Mpps", mpps)
	case mpps >= 1e-3:
		return fmt.Sprintf("%.1f kpps", mpps*1e3)
	}
	return fmt.Sprintf("%.0f pps", mpps*1e6)
}

func first(a, b *float64) *float64 {
	if a != nil {
		return a
	}
	return b
}

func cell(x *float64, format string) string {
	if x == nil {
		return "-"
	}
	return fmt.Sprintf(format, *x)
}

// drops says of a direction what it dropped and what keeps it from forwarding, and nothing where there is neither.
func drops(r forwardRow, nothing string) (parts []string) {
	for _, d := range r.Drops {
		parts = append(parts, fmt.Sprintf("%s %d", d.Reason, d.Frames))
	}
	if !r.Up {
		parts = append(parts, "device or program gone")
	}
	for _, device := range r.down {
		parts = append(parts, cells.Clean(device)+" down")
	}
	if len(parts) == 0 {
		return []string{nothing}
	}
	return parts
}

// final writes the sums of the run.
func (w *forwardWriter) final(t forward.Totals, sample *forward.Sample) error {
	took := time.Since(w.started)
	list := rows(forward.Totals{}, t, took)
	if w.json {
		return w.document(list, forward.Totals{}, t, took, time.Now(), true)
	}
	fmt.Fprintf(w.out, "\n%.1f s, %s mode\n", took.Seconds(), t.Mode)
	for _, r := range list {
		passed := ""
		if w.filter {
			passed = fmt.Sprintf("%d passed, ", r.Passed)
		}
		line := fmt.Sprintf("%s: %s%d received, %d sent, dropped: ", r.devices(), passed, r.Received, r.Sent)
		for _, line := range fitted(w.columns, line, drops(r, "none")) {
			fmt.Fprintln(w.out, line)
		}
	}
	for _, e := range w.events.since(t) {
		times := "times"
		if e.Times == 1 {
			times = "time"
		}
		fmt.Fprintf(w.out, "%s: %d %s\n", cells.Clean(strings.TrimSpace(e.Device+" "+e.Name)), e.Times, times)
	}
	if sample != nil {
		fmt.Fprintf(w.out, "%d frames sampled, %d missed\n", sample.Written(), sample.Missed())
	}
	return nil
}

func (w *forwardWriter) document(
	list []forwardRow, before, after forward.Totals, took time.Duration, at time.Time, final bool,
) error {
	return report.JSONLine(w.out, forwardDocument{
		Schema: record.Schema, Kind: "forward", Time: at.UTC(), Seconds: took.Seconds(), Final: final, Mode: after.Mode,
		Workers: after.Workers, Rows: list, Queues: queueRows(before, after, took), Links: slices.Concat([]forward.Link{}, after.Links),
		Passage: passageRows(before, after),
		Events:  w.events.since(after), LeftOut: w.shown.missed.Load(),
	})
}
