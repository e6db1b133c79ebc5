package redirect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/bpf/observe"
	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

// DevicePair is a run on two real devices under the user's own traffic.
type DevicePair struct {
	In, Out   string
	Operation Operation
	Mode      Mode
	rounds.Schedule
}

// Validate returns an error in one line when the run cannot be meant.
func (d DevicePair) Validate() error {
	if d.In == "" || d.Out == "" {
		return errors.New("a run on real interfaces needs both, the one frames come in by and the one they go out by")
	}
	if d.In == d.Out {
		return fmt.Errorf("%s is named twice: frames must go out by another interface than they came in by", d.In)
	}
	return Plan{Mode: d.Mode, Schedule: d.Schedule}.Validate()
}

// Name is the name of the pair's row.
func (d DevicePair) Name() string { return fmt.Sprintf("%s/in=%s/out=%s", Map, d.In, d.Out) }

// AttachedPair are two devices of which one redirects to the other.
type AttachedPair struct {
	// In and Out are their indexes.
	In, Out int

	devices  [2]device.Device
	programs *chain.Programs
	links    []link.Link
	netns    uint32
	// generic redirects pass no tracepoint when they leave: what Out took is its own count of transmitted packets then.
	generic bool
}

// Attach makes every frame that In receives leave by Out, until closed. It must run on a thread in the devices' network
// namespace. In native mode Out is given a program that lets everything pass. Nothing else about the devices is changed;
// the programs end with this process however that ends.
//
// It returns a [feature.Missing] without root, BTF or live frames, or when the driver has no native XDP. Requires at
// least Linux 5.18.
func (d DevicePair) Attach(ctx context.Context) (p *AttachedPair, err error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	if err := Probe(ctx); err != nil {
		return nil, err
	}
	in, err := device.Find(d.In)
	if err != nil {
		return nil, err
	}
	out, err := device.Find(d.Out)
	if err != nil {
		return nil, err
	}
	if in.Index == out.Index {
		return nil, fmt.Errorf("%s and %s are one interface: frames must go out by another than they came in by", d.In, d.Out)
	}
	for _, end := range []device.Device{in, out} {
		if err := end.CheckUp(); err != nil {
			return nil, err
		}
	}
	p = &AttachedPair{In: in.Index, Out: out.Index, devices: [2]device.Device{in, out}, generic: d.Mode == Generic}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	p.programs, err = chain.Load(chain.Config{
		Program: "redirect_device", Operation: d.Operation.op, Spins: d.Operation.spins,
	})
	if err != nil {
		return p, err
	}
	if err := p.programs.AddPort(0, p.Out, nil); err != nil {
		return p, err
	}
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return p, fmt.Errorf("stat network namespace: %w", err)
	}
	p.netns = uint32(ns.Ino)
	if err := p.attach(in, out); err != nil {
		return p, err
	}
	return p, device.AwaitUp(ctx, p.In, p.Out)
}

func (p *AttachedPair) attach(in, out device.Device) error {
	if p.generic {
		l, err := in.AttachGeneric(p.programs.Tested)
		if err == nil {
			p.links = append(p.links, l)
		}
		return err
	}
	l, err := in.AttachNative(p.programs.Tested, "--mode generic")
	if err != nil {
		return err
	}
	p.links = append(p.links, l)
	if l, err = out.AttachPass(); l != nil {
		p.links = append(p.links, l)
	}
	return err
}

// CheckPresent returns an error when one of the devices went away. What is counted and timed
// from then on is not theirs. It must run on a thread in their network namespace.
func (p *AttachedPair) CheckPresent() error {
	for _, d := range p.devices {
		if err := d.CheckPresent(&netlink.Handle{}); err != nil {
			return err
		}
	}
	return nil
}

// Handled is how many frames the program has redirected so far, by CPU.
func (p *AttachedPair) Handled() ([]uint64, error) { return p.programs.Handled() }

// CallsPerPacket counts calls for d, by tracepoint programs: polls are those of In. All are 0 when nothing arrived. It
// fails when frames do not leave by Out.
func (p *AttachedPair) CallsPerPacket(ctx context.Context, d time.Duration) (CallsPerPacket, error) {
	o, err := observe.New(observe.Config{Netns: p.netns, From: p.In, Polled: p.In})
	if err != nil {
		return CallsPerPacket{}, err
	}
	stopped := pause(ctx, d)
	seen, err := o.Seen()
	if err = errors.Join(err, o.Close(), stopped); err != nil {
		return CallsPerPacket{}, err
	}
	if tried := seen.Redirects + seen.Errors; tried > 0 && seen.Errors+seen.Drops > tried/1000 {
		return CallsPerPacket{}, fmt.Errorf(
			"%w: of %d frames that came, %d could not be redirected and %d were refused by the device they were to leave by",
			rounds.ErrDisagree, tried, seen.Errors, seen.Drops)
	}
	if seen.Redirects == 0 {
		return CallsPerPacket{}, nil
	}
	return perPacket(seen, seen.Redirects), nil
}

// Close detaches the programs.
func (p *AttachedPair) Close() error {
	var errs []error
	for _, l := range slices.Backward(p.links) {
		errs = append(errs, l.Close())
	}
	if p.programs != nil {
		errs = append(errs, p.programs.Close())
	}
	return errors.Join(errs...)
}

// PairResult is what a run on a device pair found.
type PairResult struct {
	Row        record.BenchRow
	Warnings   []record.Warning
	Incomplete bool // ctx ended the run
}

// RunPair redirects every frame that In receives to Out for the run's duration, and counts; see [DevicePair.Attach] for
// what that does to the devices. It must run on a thread in their network namespace. When ctx ends it returns what it
// has.
//
// A round has two halves. In one the frames that Out took are counted by a tracepoint and compared with those
// redirected; in the other nothing but the XDP program runs, and the rate is taken. Requires at least Linux 5.18.
func RunPair(ctx context.Context, d DevicePair, show func(rounds.Progress)) (result PairResult, err error) {
	attached, err := d.Attach(ctx)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, attached.Close()) }()
	schedule := Plan{Schedule: d.Schedule}.withDefaults().Schedule
	r := pairRun{AttachedPair: attached}
	outcome, err := schedule.Run(ctx, show, func(round rounds.Round) error {
		round.Show(d.In + " to " + d.Out)
		err := r.round(ctx, round.Number, round.Duration()/2)
		// In place of the error, which has it in other words.
		return cmp.Or(attached.CheckPresent(), err)
	})
	if err != nil {
		return result, err
	}
	result.Row, result.Warnings = r.record(d, schedule.Rounds)
	if text := outcome.Warning(); text != "" {
		result.Warnings = append(result.Warnings, record.Warning{Text: text})
	}
	result.Incomplete = outcome.Incomplete
	return result, nil
}

// pairRun is a run under way.
type pairRun struct {
	*AttachedPair

	rounds            []int
	ns, mpps, perXmit []float64
	// arrived is In's own count, redirected the program's, taken Out's, in the watched halves. errors are redirects that
	// failed, and frames that ndo_xdp_xmit refused.
	arrived, redirected, taken, errors uint64
	failure                            string
}

func (r *pairRun) round(ctx context.Context, n int, half time.Duration) error {
	frames, took, err := r.count(ctx, half)
	if err != nil {
		return err
	}
	o, err := observe.New(observe.Config{Netns: r.netns, From: r.In})
	if err != nil {
		return err
	}
	cameBefore, cameBeforeErr := receivedBy(r.In)
	before, beforeErr := r.left(o)
	watched, _, err := r.count(ctx, half)
	after, afterErr := r.left(o)
	came, cameErr := receivedBy(r.In)
	seen, seenErr := o.Seen()
	if err := errors.Join(err, cameBeforeErr, cameErr, beforeErr, afterErr, seenErr, o.Close()); err != nil {
		return err
	}
	r.arrived += came - cameBefore
	r.redirected += watched
	r.errors += seen.Errors + seen.Drops
	r.taken += after - before
	if seen.Calls > 0 {
		r.perXmit = append(r.perXmit, float64(seen.Frames)/float64(seen.Calls))
	}
	if text := seen.Failure(); text != "" {
		r.failure = "; " + text
	}
	if frames == 0 {
		return nil
	}
	r.rounds = append(r.rounds, n)
	ns := float64(took.Nanoseconds()) / float64(frames)
	r.ns = append(r.ns, ns)
	r.mpps = append(r.mpps, 1e3/ns)
	return nil
}

// receivedBy is a device's own count of received packets.
func receivedBy(ifindex int) (uint64, error) {
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return 0, fmt.Errorf("read statistics: %w", err)
	}
	return l.Attrs().Statistics.RxPackets, nil
}

// left is how many frames have left by Out.
func (r *pairRun) left(o *observe.Observer) (uint64, error) {
	if !r.generic {
		seen, err := o.Seen()
		return seen.Frames, err
	}
	l, err := netlink.LinkByIndex(r.Out)
	if err != nil {
		return 0, fmt.Errorf("read statistics: %w", err)
	}
	return l.Attrs().Statistics.TxPackets, nil
}

func (r *pairRun) handled() (frames uint64, err error) {
	perCPU, err := r.Handled()
	for _, n := range perCPU {
		frames += n
	}
	return frames, err
}

// count returns the frames redirected in d, and how long that really was.
func (r *pairRun) count(ctx context.Context, d time.Duration) (frames uint64, took time.Duration, err error) {
	before, err := r.handled()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := pause(ctx, d); err != nil {
		return 0, 0, err
	}
	after, err := r.handled()
	return after - before, time.Since(start), err
}

// record makes a row of what a run of planned rounds measured.
func (r *pairRun) record(d DevicePair, planned int) (row record.BenchRow, warns []record.Warning) {
	row = record.BenchRow{
		Name: d.Name(),
		Labels: map[string]string{
			"scenario": string(Map), "in": d.In, "out": d.Out,
			"operation": d.Operation.String(), "mode": string(cmp.Or(d.Mode, Native)),
		},
		FramesPerXmit: quantity(r.perXmit, "frames"),
		Counts:        record.Counts{Sent: r.arrived, Redirected: r.redirected, Received: r.taken},
		Samples:       []float64{},
		Rounds:        []int{},
	}
	// Between the two readings of a half there are a few frames in bulk queues (16 for each device and CPU) and a few
	// that came while they were read; never more than a hundredth of all.
	slack := min(uint64(16*runtime.NumCPU()*planned)+r.redirected/1000, r.redirected/100)
	switch {
	case r.redirected == 0:
		row.Refused = "no packets: nothing arrived on " + d.In
	case r.taken == 0, r.errors > r.redirected/1000, r.taken+slack < r.redirected || r.redirected+slack < r.taken:
		row.Refused = fmt.Sprintf("%v: %d redirected, %d taken by %s%s",
			rounds.ErrDisagree, r.redirected, r.taken, d.Out, r.failure)
	case len(r.ns) == 0:
		row.Refused = noRound
	}
	if row.Refused != "" {
		return row, nil
	}
	row.Samples, row.Rounds = r.ns, r.rounds
	row.Ns, row.Mpps = quantity(r.ns, "ns"), quantity(r.mpps, "Mpps")
	warns = append(warns, record.Warning{Row: row.Name, Text: "this is the rate at which packets came, " +
		"on all receiving CPUs together: it is the machine's limit only if these were full"})
	for _, text := range stat.Warnings(row.Samples) {
		warns = append(warns, record.Warning{Row: row.Name, Text: text})
	}
	return row, warns
}
