package redirect

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/bpf/observe"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

// Devices is a run on two real interfaces under the user's own traffic.
type Devices struct {
	In, Out   string
	Operation Operation
	Mode      Mode
	rounds.Schedule
}

// Validate returns an error in one line when the run cannot be meant.
func (d Devices) Validate() error {
	if d.In == "" || d.Out == "" {
		return errors.New("a run on real interfaces needs both, the one frames come in by and the one they go out by")
	}
	if d.In == d.Out {
		return fmt.Errorf("%s is named twice: frames must go out by another interface than they came in by", d.In)
	}
	return Plan{Mode: d.Mode, Schedule: d.Schedule}.Validate()
}

// RunDevices redirects every frame that In receives to Out for the run's
// Duration, and counts; see [Borrow] for what that does to the interfaces. It must
// run on a thread in their network namespace.
//
// A round has two halves. In one the frames that Out took are counted by a
// tracepoint and held against those redirected; in the other nothing but the
// XDP program runs, and the rate is taken. Requires at least Linux 5.9.
func RunDevices(ctx context.Context, d Devices, show func(rounds.Progress)) (row record.BenchRow, warns []record.Warning, incomplete bool, err error) {
	b, err := Borrow(ctx, d)
	if err != nil {
		return row, nil, ctx.Err() != nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	p := Plan{Mode: d.Mode, Schedule: d.Schedule}.withDefaults()
	m := deviceRun{Borrowed: b}
	outcome, err := p.Schedule.Run(ctx, show, func(r rounds.Round) error {
		r.Show(d.In + " to " + d.Out)
		return m.round(ctx, r.Number, r.Duration()/2)
	})
	if err != nil {
		return row, nil, false, err
	}
	row, warns = m.record(d, p)
	if text := outcome.Warning(); text != "" {
		warns = append(warns, record.Warning{Text: text})
	}
	return row, warns, outcome.Incomplete, nil
}

// Borrowed are two interfaces of which one redirects to the other.
type Borrowed struct {
	// In and Out are their indexes.
	In, Out int

	progs *chain.Programs
	links []link.Link
	netns uint32
	// generic redirects pass no tracepoint when they leave: what Out took is
	// its own count of transmitted packets then.
	generic bool
}

// Borrow makes every frame that In receives leave by Out, until closed. It must
// run on a thread in the interfaces' network namespace. In native mode Out is given
// a program that lets everything pass. Nothing else about the interfaces is changed;
// the programs go with this process however that ends. Requires at least Linux 5.9.
func Borrow(ctx context.Context, d Devices) (b *Borrowed, err error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	if err := Probe(ctx); err != nil {
		return nil, err
	}
	b = &Borrowed{generic: d.Mode == Generic}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if b.In, err = borrow(d.In); err != nil {
		return b, err
	}
	if b.Out, err = borrow(d.Out); err != nil {
		return b, err
	}
	if b.In == b.Out {
		return b, fmt.Errorf("%s and %s are one interface: frames must go out by another than they came in by", d.In, d.Out)
	}
	b.progs, err = chain.Load(chain.Config{Program: "redirect_device", Operation: d.Operation.op, Spins: d.Operation.spins})
	if err != nil {
		return b, err
	}
	if err := b.progs.AddPort(0, b.Out, nil); err != nil {
		return b, err
	}
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return b, fmt.Errorf("stat network namespace: %w", err)
	}
	b.netns = uint32(ns.Ino)
	flags := link.XDPDriverMode
	if b.generic {
		flags = link.XDPGenericMode
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: b.progs.Tested, Interface: b.In, Flags: flags})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return b, &feature.Missing{Feature: "native XDP on " + d.In, Help: "try --mode generic", Err: err}
	}
	if err != nil {
		return b, fmt.Errorf("attach XDP program to %s: %w", d.In, err)
	}
	b.links = append(b.links, l)
	if !b.generic {
		// Many drivers have queues for redirected frames only while they run
		// an XDP program themselves. A driver that knows no XDP at all will
		// show in the counts.
		l, err := attachPass(b.Out)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return b, fmt.Errorf("attach XDP program to %s: %w", d.Out, err)
		}
		if err == nil {
			b.links = append(b.links, l)
		}
	}
	return b, awaitUp(ctx, b.In, b.Out)
}

// Handled is how many frames the program has redirected so far, by CPU.
func (b *Borrowed) Handled() ([]uint64, error) { return b.progs.Handled() }

// Close gives the interfaces back.
func (b *Borrowed) Close() error {
	var errs []error
	for _, l := range slices.Backward(b.links) {
		errs = append(errs, l.Close())
	}
	if b.progs != nil {
		errs = append(errs, b.progs.Close())
	}
	return errors.Join(errs...)
}

// borrow finds an interface nobody else runs XDP on.
func borrow(name string) (ifindex int, err error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find interface %s: %w", name, err)
	}
	if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
		return 0, fmt.Errorf("interface %s has an XDP program already (id %d): detach it first", name, xdp.ProgId)
	}
	return l.Attrs().Index, nil
}

// attachPass attaches a program that lets everything pass.
func attachPass(ifindex int) (link.Link, error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		License:      "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load XDP program: %w", err)
	}
	defer prog.Close() // the link holds it
	return link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: link.XDPDriverMode})
}

// awaitUp waits until the interfaces are up: many drivers restart when an XDP
// program is attached. One that says nothing of its state counts as up.
func awaitUp(ctx context.Context, ifindexes ...int) error {
	for _, ifindex := range ifindexes {
		for tries := 0; ; tries++ {
			l, err := netlink.LinkByIndex(ifindex)
			if err != nil {
				return fmt.Errorf("read interface state: %w", err)
			}
			state := l.Attrs().OperState
			if state == netlink.OperUp || state == netlink.OperUnknown {
				break
			}
			if tries == 100 {
				return fmt.Errorf("interface %s is %v 10 s after its XDP program was attached", l.Attrs().Name, state)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

type deviceRun struct {
	*Borrowed

	rounds            []int
	ns, mpps, perXmit []float64
	// arrived is In's own count, redirected the program's, taken Out's, in
	// the watched halves. errors are redirects that failed, and frames that
	// ndo_xdp_xmit refused.
	arrived, redirected, taken, errors uint64
	failure                            string
}

func (m *deviceRun) round(ctx context.Context, n int, half time.Duration) error {
	frames, took, err := m.count(ctx, half)
	if err != nil {
		return err
	}
	o, err := observe.New(observe.Config{Netns: m.netns, From: m.In})
	if err != nil {
		return err
	}
	cameBefore, cameBeforeErr := received(m.In)
	before, beforeErr := m.left(o)
	watched, _, err := m.count(ctx, half)
	after, afterErr := m.left(o)
	came, cameErr := received(m.In)
	seen, seenErr := o.Seen()
	if err := errors.Join(err, cameBeforeErr, cameErr, beforeErr, afterErr, seenErr, o.Close()); err != nil {
		return err
	}
	m.arrived += came - cameBefore
	m.redirected += watched
	m.errors += seen.Errors + seen.Drops
	m.taken += after - before
	if seen.Calls > 0 {
		m.perXmit = append(m.perXmit, float64(seen.Frames)/float64(seen.Calls))
	}
	if seen.Errors > 0 {
		m.failure = fmt.Sprintf("; xdp_do_redirect failed %d times: %v", seen.Errors, seen.Error)
	} else if seen.Drops > 0 {
		m.failure = fmt.Sprintf("; ndo_xdp_xmit refused %d frames", seen.Drops)
	}
	if frames == 0 {
		return nil
	}
	m.rounds = append(m.rounds, n)
	ns := float64(took.Nanoseconds()) / float64(frames)
	m.ns = append(m.ns, ns)
	m.mpps = append(m.mpps, 1e3/ns)
	return nil
}

// received is an interface's own count of received packets.
func received(ifindex int) (uint64, error) {
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return 0, fmt.Errorf("read statistics: %w", err)
	}
	return l.Attrs().Statistics.RxPackets, nil
}

// left is how many frames have left by Out.
func (m *deviceRun) left(o *observe.Observer) (uint64, error) {
	if !m.generic {
		seen, err := o.Seen()
		return seen.Frames, err
	}
	l, err := netlink.LinkByIndex(m.Out)
	if err != nil {
		return 0, fmt.Errorf("read statistics: %w", err)
	}
	return l.Attrs().Statistics.TxPackets, nil
}

func (m *deviceRun) handled() (frames uint64, err error) {
	perCPU, err := m.Handled()
	for _, n := range perCPU {
		frames += n
	}
	return frames, err
}

// count returns the frames redirected in d, and how long that really was.
func (m *deviceRun) count(ctx context.Context, d time.Duration) (frames uint64, took time.Duration, err error) {
	before, err := m.handled()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	select {
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	case <-time.After(d):
	}
	after, err := m.handled()
	return after - before, time.Since(start), err
}

func (m *deviceRun) record(d Devices, p Plan) (row record.BenchRow, warns []record.Warning) {
	row = record.BenchRow{
		Name: fmt.Sprintf("redirect-map/in=%s/out=%s", d.In, d.Out),
		Labels: map[string]string{
			"scenario": string(Map), "in": d.In, "out": d.Out,
			"operation": d.Operation.String(), "mode": string(p.Mode),
		},
		FramesPerXmit: quantity(m.perXmit, "frames"),
		Counts:        record.Counts{Sent: m.arrived, Redirected: m.redirected, Received: m.taken},
		Samples:       []float64{},
		Rounds:        []int{},
	}
	// Between the two readings of a half lie a few frames in bulk queues
	// (16 a device and CPU) and a few that came meanwhile; never more than a
	// hundredth of all.
	slack := min(uint64(16*runtime.NumCPU()*p.Rounds)+m.redirected/1000, m.redirected/100)
	switch {
	case m.redirected == 0:
		row.Refused = "no packets: nothing arrived on " + d.In
	case m.taken == 0, m.errors > m.redirected/1000, m.taken+slack < m.redirected || m.redirected+slack < m.taken:
		row.Refused = fmt.Sprintf("%v: %d redirected, %d taken by %s%s", rounds.ErrDisagree, m.redirected, m.taken, d.Out, m.failure)
	case len(m.ns) == 0:
		row.Refused = noRound
	}
	if row.Refused != "" {
		return row, nil
	}
	row.Samples, row.Rounds = m.ns, m.rounds
	row.Ns, row.Mpps = quantity(m.ns, "ns"), quantity(m.mpps, "Mpps")
	warns = append(warns, record.Warning{Row: row.Name, Text: "this is the rate at which packets came, on all receiving CPUs together: it is the machine's limit only if these were full"})
	for _, text := range stat.Warnings(row.Samples) {
		warns = append(warns, record.Warning{Row: row.Name, Text: text})
	}
	return row, warns
}
