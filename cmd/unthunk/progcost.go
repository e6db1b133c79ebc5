package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/progcost"
	"github.com/unthunk/unthunk/internal/progcount"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/prog"
)

// replayFlags say on which packets, and how, programs are replayed.
type replayFlags struct {
	packets    string
	most       int
	by         string
	workingSet int
	cold       bool
	rxQueue    int
	ifindex    int
	metadata   string
	first      int
}

func (f *replayFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.packets, "packets", "", "`FILE` of pcap or pcapng with Ethernet frames, or packets to make: "+
		strings.Join(prog.MadeNames(), ", ")+", with :SIZE, vlan- before, commas between")
	fl.IntVar(&f.most, "max-packets", prog.DefaultPackets, "packets to keep of a file: a uniform sample when it has more")
	fl.StringVar(&f.by, "by", string(progcost.ByVerdict), "rows by "+joined(progcost.Bys()))
	fl.IntVar(&f.workingSet, "working-set", prog.DefaultWorkingSet, "packets that take turns: more need more of the caches")
	fl.BoolVar(&f.cold, "cold", false, "walk through memory before each run, so that caches hold nothing of the program or its maps")
	fl.IntVar(&f.ifindex, "ifindex", 0, "ingress_ifindex of the packets: a device of this network namespace that does XDP; 0 is loopback")
	fl.IntVar(&f.rxQueue, "rx-queue", 0, "rx_queue_index of the packets, of the device of --ifindex")
	fl.StringVar(&f.metadata, "metadata", "", "metadata before each packet, in `HEX`")
	fl.IntVar(&f.first, "first-buffer", prog.MaxBuffer, "`BYTES` of a packet in its first buffer, of a program for fragments (xdp.frags): "+
		"what is behind is in fragments of 4096; needs Linux 6.18")
}

// options are those of a replay, and the packets.
func (f *replayFlags) options(ctx context.Context) (o prog.Options, packets *prog.Packets, err error) {
	o.WorkingSet = f.workingSet
	switch {
	case f.packets == "":
		return o, nil, usagef("which packets? --packets FILE reads a capture, --packets udp4,tcp-syn6 makes some")
	case f.workingSet < 1 || f.workingSet > prog.MaxPackets:
		return o, nil, usagef("a working set of %d is not within 1 … %d", f.workingSet, prog.MaxPackets)
	case f.most < 1 || f.most > prog.MaxPackets:
		return o, nil, usagef("%d packets are not within 1 … %d", f.most, prog.MaxPackets)
	case f.ifindex < 0 || f.rxQueue < 0 || f.ifindex > 1<<31-1 || f.rxQueue > 1<<16:
		return o, nil, usagef("device %d, queue %d: not possible", f.ifindex, f.rxQueue)
	case f.rxQueue > 0 && f.ifindex == 0:
		return o, nil, usagef("--rx-queue %d needs --ifindex: a queue is one of a device", f.rxQueue)
	}
	if f.first < minFirstBuffer || f.first > prog.MaxBuffer {
		return o, nil, usagef("a first buffer of %d bytes is not within %d … %d", f.first, minFirstBuffer, prog.MaxBuffer)
	}
	if f.first != prog.MaxBuffer {
		o.FirstBuffer = f.first
	}
	o.Device, o.Queue = uint32(f.ifindex), uint32(f.rxQueue)
	if o.Metadata, err = hex.DecodeString(f.metadata); err != nil {
		return o, nil, usagef("--metadata %.40q is not hex", f.metadata)
	}
	if n := len(o.Metadata); n%4 != 0 || n > prog.MaxMetadata {
		return o, nil, usagef("--metadata of %d bytes: up to %d, in steps of 4", n, prog.MaxMetadata)
	}
	packets, err = reading(ctx, f.read)
	return o, packets, err
}

// apart says whether the programs are replayed in a network namespace of their own, as they may change what stays in that of
// the user, and tells which is why.
func (f *replayFlags) apart(ctx context.Context, s std, targets []string, opened []*program.Opened) (bool, error) {
	var why []string
	for i, o := range opened {
		stays, err := staying(ctx, targets[i], o)
		if err != nil {
			return false, err
		}
		if len(stays) > 0 {
			why = append(why, fmt.Sprintf("%s calls %s", targets[i], strings.Join(stays, ", ")))
		}
	}
	if len(why) == 0 {
		return false, nil
	}
	what := strings.Join(why, "; ") + ": that can change what stays"
	if f.ifindex > 0 {
		return false, usagef("%s, so it is replayed in a network namespace of its own, which has no device for --ifindex", what)
	}
	if m := feature.AsMissing(feature.Need(unix.CAP_SYS_ADMIN)); m != nil {
		m.Feature = fmt.Sprintf("%s, so it is replayed in a network namespace of its own, for which %s", what, m.Feature)
		m.Help += ", or in a guest (lab --prog)"
		return false, m
	}
	warner(s.err)(what + ", so it is replayed in a network namespace of its own, without devices, routes, sockets and connections: " +
		"lookups find none there")
	return true, nil
}

// staying are the functions that a program calls which can change what stays in a network namespace. It also refuses, as each
// caller must: a program that calls what reaches beyond any namespace is an error, and a [feature.Missing] says that it cannot be
// told what a live program calls.
func staying(ctx context.Context, target string, o *program.Opened) ([]string, error) {
	e, err := o.Effects(ctx)
	if err != nil {
		return nil, fmt.Errorf("tell what %s may change: %w", target, err)
	}
	if len(e.Beyond) > 0 {
		return nil, fmt.Errorf("%s calls %s, which reaches beyond its packets and any network namespace: run it in a guest (lab --prog)",
			target, strings.Join(e.Beyond, ", "))
	}
	return e.Stays, nil
}

// replaySettings are those of a run, with where its programs run.
func replaySettings(cmd *cobra.Command, length lengthFlags, plan progcost.Plan) map[string]string {
	s := settings(cmd, length)
	if plan.Apart {
		s[ownNamespace] = "own"
	}
	return s
}

// ownNamespace is the setting of a program that ran in a network namespace of its own.
const ownNamespace = "network-namespace"

// source is what a record says of the packets. A folder may have the name of a user.
func (f *replayFlags) source(packets *prog.Packets) record.PacketSource {
	src := record.PacketSource{
		Source: record.Name(filepath.Base(f.packets)), Seen: packets.Seen, Kept: len(packets.Frames), LeftOut: packets.LeftOut(),
		Hash: progcount.Hash(packets),
	}
	first := cmp.Or(f.first, prog.MaxBuffer)
	for _, frame := range packets.Frames {
		if len(frame) > first {
			src.Fragmented++
			src.FirstBuffer = first
		}
	}
	return src
}

// minFirstBuffer is what the kernel reads of a packet in a test run at least: an Ethernet header.
const minFirstBuffer = 14

// read reads or makes the packets.
func (f *replayFlags) read() (*prog.Packets, error) {
	_, err := os.Stat(f.packets)
	if prog.IsMade(f.packets) && err != nil {
		packets, err := prog.MakePackets(f.packets)
		if err != nil {
			return nil, usageError{err}
		}
		return packets, nil
	}
	file, err := os.Open(f.packets)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("--packets %.200s: there is no such file, and it is none of %s", f.packets, strings.Join(prog.MadeNames(), ", "))
	}
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, fmt.Errorf("open %s: %w", f.packets, failed.Err)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	packets, err := prog.ReadPackets(file, f.most)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.packets, err)
	}
	return packets, nil
}

// costFlags are what the user typed.
type costFlags struct {
	target targetFlags
	replay replayFlags
	length lengthFlags
	output outputFlags
	lines  bool
}

func newProgCost(s std) *cobra.Command {
	var f costFlags
	cmd := &cobra.Command{
		Use:   "cost TARGET --packets FILE",
		Short: "Measure what an XDP program costs a packet, on your packets",
		Long: `Measure what an XDP program costs a packet, in ns, on your packets. Each run gets its
packet back before it, byte for byte, which a test run of the kernel with a repeat does
not do: what is timed is the way that a packet takes, also in programs that push headers
or rewrite packets. What comes out of each run is compared with a single run; a row whose
runs differ has no number. The same packets run through a program that only passes, in
turn with yours: the cost is the difference.

TARGET is an object file (lb.o, lb.o:balancer), a pinned program, id:N or dev:DEV. An
object is loaded with maps of its own and is gone after the run; nothing is attached.`,
		Example: `  unthunk prog cost lb.o --packets p.pcap
  unthunk prog cost lb.o:balancer --packets udp4,tcp-syn6:74 --by packet
  unthunk prog cost lb.o --packets p.pcap --maps-from dev:eth0 --save cost.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("prog cost needs one program: an object file, a pinned program, id:N or dev:DEV; got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return interrupted(cmd.Context(), runProgCost(cmd.Context(), s, cmd, f, args[0]))
		},
	}
	f.target.add(cmd.Flags(), true)
	f.replay.add(cmd)
	cmd.Flags().BoolVar(&f.lines, "lines", false,
		"also say of each source line how often it runs a packet, and what it takes: of an object file, compiled with -g")
	f.length.add(cmd, progcost.DefaultRounds, progcost.DefaultDuration)
	f.output.add(cmd)
	return cmd
}

func runProgCost(ctx context.Context, s std, cmd *cobra.Command, f costFlags, target string) error {
	length, err := f.length.resolve(cmd)
	if err != nil {
		return err
	}
	plan := progcost.Plan{By: progcost.By(f.replay.by), CPU: rounds.OnCPU(length.cpu), Schedule: length.schedule()}
	if err := plan.Validate(); err != nil {
		return unknownValue(err, []string{f.replay.by}, progcost.Bys())
	}
	if err := checkFiles(append(f.target.files(target), f.replay.packets), outFile{"save", f.output.save}); err != nil {
		return err
	}
	if err := f.output.check(); err != nil {
		return err
	}
	plan.Cold = f.replay.cold
	if plan.Replay, plan.Packets, err = f.replay.options(ctx); err != nil {
		return err
	}
	opened, err := f.target.open(ctx, s, target)
	if err != nil {
		return err
	}
	defer opened.Close()
	if f.lines && opened.Live {
		return usagef("--lines is for an object file: counters are put into a copy of the program, and %s is loaded already", target)
	}
	if plan.Apart, err = f.replay.apart(ctx, s, []string{target}, []*program.Opened{opened}); err != nil {
		return err
	}
	plan.Programs = []prog.Program{progcost.Replayable(opened)}
	if plan.Packets, err = plan.Packets.For(plan.Programs...); err != nil {
		return err
	}
	doc := &record.ProgCost{Document: *record.New[record.CostRow]("prog-cost", host.Identify(host.Options{}))}
	doc.Settings = replaySettings(cmd, length, plan)
	steal := host.StealSince()
	show, done := progress(s)
	raw, err := progcost.Run(ctx, plan, show)
	done()
	if err != nil {
		return err
	}
	doc.Incomplete = raw.Incomplete
	doc.Settings["cpu"] = strconv.Itoa(raw.CPU)
	if raw.Cold > 0 {
		doc.Settings["cold"] = fmt.Sprintf("%d MiB", raw.Cold>>20)
	}
	doc.Program = raw.Identity(target, opened, 0)
	doc.Packets = f.replay.source(plan.Packets)
	rows, warns := raw.Record(0)
	doc.Rows = rows
	doc.AddReferences("", raw.References)
	doc.Warnings = append(append(doc.Warnings, warns...), append(stolen(steal), ofSoftware(doc.Host)...)...)
	warnNowhere([]*record.ProgCost{doc}, []*program.Opened{opened})
	if f.lines && !doc.Incomplete {
		if err := f.measureLines(ctx, s, doc, opened, plan, raw); err != nil {
			return err
		}
	}
	err = f.output.publish(s, doc, func() error { return report.ProgCost(s.out, textOptions(s.out), doc) })
	return stopped(&doc.Document, func(row record.CostRow) bool { return row.Refused != "" }, err)
}

// measureLines adds to a record how often each source line runs a packet, and what it takes.
func (f *costFlags) measureLines(
	ctx context.Context, s std, doc *record.ProgCost, opened *program.Opened, plan progcost.Plan, raw *progcost.Raw,
) error {
	counted, counters, err := f.target.openCounted(ctx, s, doc.Program.Target, opened)
	if ctx.Err() != nil {
		doc.Incomplete = true
		return nil
	}
	if err != nil {
		return err
	}
	defer counted.Close()
	l := progcost.Lines{Timed: opened, Counted: counted, Counters: counters, CPU: raw.CPU, Apart: plan.Apart,
		Length: progcost.LinesLength(plan.Schedule)}
	for _, row := range doc.Rows {
		if row.Name == "all" && row.Ns != nil {
			l.Ns = row.Ns.Median
		}
	}
	replayed := plan.Replay
	replayed.Cold = raw.Cold // samples are of runs as those that were timed
	found, warns, err := l.Measure(ctx, plan.Packets, replayed)
	if ctx.Err() != nil {
		doc.Incomplete = true // the rows are whole
		return nil
	}
	if err != nil {
		return err
	}
	doc.Lines = found
	for _, text := range warns {
		doc.Warnings = append(doc.Warnings, record.Warning{Text: text})
	}
	return nil
}

// interrupted is err, or that the user ended the verb before anything was written, when err is for that.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return errInterrupted
	}
	return err
}
