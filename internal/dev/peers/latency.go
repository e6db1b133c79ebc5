package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/traffic"
	"github.com/unthunk/unthunk/xsk"
)

// loads are what is offered to a forwarder in parts of what it forwards when it is offered more.
var loads = []float64{0.1, 0.5, 0.9}

// Frames carry the time at which they were sent behind their UDP header, in ns of the monotonic clock. Latencies are
// counted in buckets of 1<<bucketShift ns, the last of which has all that are longer.
const (
	stampAt     = 14 + 20 + 8
	bucketShift = 7
	buckets     = 1 << 16
)

// latencies are how many frames arrived with each latency, and how many were sent, at one load.
type latencies struct {
	arrived []uint64 // by bucket
	sent    uint64
	took    time.Duration // the time of sending
}

func (l *latencies) add(o latencies) {
	if l.arrived == nil {
		l.arrived = make([]uint64, buckets)
	}
	for i, n := range o.arrived {
		l.arrived[i] += n
	}
	l.sent, l.took = l.sent+o.sent, l.took+o.took
}

func (l *latencies) received() (n uint64) {
	for _, k := range l.arrived {
		n += k
	}
	return n
}

// below is a latency that a part of the frames had at most: the end of its bucket.
func (l *latencies) below(part float64) time.Duration {
	want := uint64(math.Ceil(part * float64(l.received())))
	sum := uint64(0)
	for i, n := range l.arrived {
		if sum += n; n > 0 && sum >= want {
			return time.Duration(i+1) << bucketShift
		}
	}
	return 0
}

// probe is the XDP program of a sink: it counts what arrives, and its latencies, and drops it.
type probe struct {
	program          *ebpf.Program
	count, histogram *ebpf.Map
}

func newProbe() (p *probe, err error) {
	p = &probe{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	p.count, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make counter: %w", err)
	}
	p.histogram, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: buckets})
	if err != nil {
		return nil, fmt.Errorf("make histogram: %w", err)
	}
	// increment adds one to the entry of a map whose number is on the stack.
	increment := func(m *ebpf.Map, otherwise string) asm.Instructions {
		return asm.Instructions{
			asm.LoadMapPtr(asm.R1, m.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4), asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, otherwise), asm.Mov.Imm(asm.R1, 1), asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		}
	}
	ins := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // xdp_md.data
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // xdp_md.data_end
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, stampAt+8),
		asm.JGT.Reg(asm.R4, asm.R3, "drop"),
		asm.LoadMem(asm.R6, asm.R2, stampAt, asm.DWord),
		asm.FnKtimeGetNs.Call(),
		asm.Sub.Reg(asm.R0, asm.R6),
		asm.RSh.Imm(asm.R0, bucketShift),
		asm.JLT.Imm(asm.R0, buckets, "bucket"),
		asm.Mov.Imm(asm.R0, buckets-1),
		asm.StoreMem(asm.RFP, -4, asm.R0, asm.Word).WithSymbol("bucket"),
	}
	ins = append(ins, increment(p.histogram, "drop")...)
	ins = append(ins, asm.StoreImm(asm.RFP, -4, 0, asm.Word))
	ins = append(ins, increment(p.count, "drop")...)
	ins = append(ins, asm.Mov.Imm(asm.R0, 1).WithSymbol("drop"), asm.Return()) // XDP_DROP
	p.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: ins})
	if err != nil {
		return nil, fmt.Errorf("load sink: %w", err)
	}
	return p, nil
}

func (p *probe) close() {
	p.program.Close()
	p.count.Close()
	p.histogram.Close()
}

// keys are those of all buckets.
func keys() []uint32 {
	k := make([]uint32, buckets)
	for i := range k {
		k[i] = uint32(i)
	}
	return k
}

// reset forgets latencies.
func (p *probe) reset() error {
	if _, err := p.histogram.BatchUpdate(keys(), make([]uint64, buckets), nil); err != nil {
		return fmt.Errorf("reset histogram: %w", err)
	}
	return nil
}

// read are the latencies since.
func (p *probe) read() ([]uint64, error) {
	var cursor ebpf.MapBatchCursor
	arrived := make([]uint64, buckets)
	n, err := p.histogram.BatchLookup(&cursor, make([]uint32, buckets), arrived, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("read histogram: %w", err)
	}
	return arrived[:n], nil
}

// pacer sends frames with their time by a device, at a rate.
type pacer struct {
	umem   *xsk.UMEM
	socket *xsk.Socket
	free   []uint64
	frame  []byte
}

// pacerRing is how many frames a pacer has, and burst how many it sends at once when it is late.
const (
	pacerRing = 1024
	burst     = 64
)

func newPacer(ctx context.Context, lab *netlab.Namespace, ifindex, size int) (p *pacer, err error) {
	p = &pacer{free: make([]uint64, pacerRing)}
	if p.frame, err = traffic.UDPFrame(size); err != nil {
		return nil, err
	}
	if p.umem, err = xsk.NewUMEM(xsk.Config{Frames: pacerRing, FrameSize: 2048}); err != nil {
		return nil, err
	}
	err = lab.Do(func() (err error) {
		p.socket, err = xsk.Open(ctx, p.umem, xsk.Options{Interface: ifindex, Mode: xsk.Copy, TX: pacerRing, Completion: pacerRing})
		return err
	})
	if err != nil {
		return nil, errors.Join(err, p.umem.Close())
	}
	p.free = p.free[:p.umem.Alloc(p.free)]
	for _, a := range p.free {
		copy(p.umem.Bytes()[a:], p.frame)
	}
	return p, nil
}

func (p *pacer) close() error { return errors.Join(p.socket.Close(), p.umem.Close()) }

// monotonic is the clock of bpf_ktime_get_ns, in ns.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // it has no other cause than a wrong clock
	}
	return t.Nano()
}

// send sends at a rate in frames a second, for a time, and returns how many frames it sent. The calling thread's CPU is its own
// in that time. When it was kept from sending it catches up, in bursts.
func (p *pacer) send(rate float64, d time.Duration) (sent uint64, err error) {
	memory, descs := p.umem.Bytes(), make([]xsk.Desc, 0, burst)
	begin := monotonic()
	for {
		now := monotonic()
		if now-begin >= int64(d) {
			return sent, nil
		}
		p.free = p.free[:len(p.free)+p.socket.Completion.Take(p.free[len(p.free):cap(p.free)])]
		due := min(uint64(float64(now-begin)*rate/1e9)-sent, burst, uint64(len(p.free)))
		if due == 0 {
			continue
		}
		descs = descs[:0]
		for range due {
			a := p.free[len(p.free)-1]
			p.free = p.free[:len(p.free)-1]
			binary.NativeEndian.PutUint64(memory[a+stampAt:], uint64(now))
			descs = append(descs, xsk.Desc{Addr: a, Len: uint32(len(p.frame))})
		}
		if n := p.socket.TX.Put(descs); n != len(descs) {
			return sent, fmt.Errorf("send %d frames: %d were taken", len(descs), n)
		}
		sent += due
		for p.socket.TX.Pending() > 0 {
			if err := p.socket.Kick(); err != nil && !errors.Is(err, xsk.ErrDropped) {
				return sent, err
			}
		}
	}
}

// capacity floods a forwarder and returns how many frames it forwards in a second of its core.
func (f *forwarding) capacity(ctx context.Context, lab *netlab.Namespace, ifindex, size int) (rate float64, err error) {
	end := flood(ctx, lab, ifindex, size)
	defer func() { err = errors.Join(err, end()) }()
	if err := f.begin(); err != nil {
		return 0, err
	}
	r, why, err := f.window(time.Second, math.Inf(1)) // it is a guide to loads, whatever else runs
	if err = errors.Join(err, why); err != nil {
		return 0, err
	}
	return 1e6 * r.mpps(), nil
}

// latency runs a forwarder between veths, finds what it can do, and measures the latencies of frames at each load.
func latency(ctx context.Context, command []string, size int, d time.Duration, cpus [2]int) (at []latencies, err error) {
	lab, err := netlab.New(cpus[0])
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	gen, _, err := lab.VethPair("gen", "fwdin")
	if err != nil {
		return nil, err
	}
	_, sink, err := lab.VethPair("fwdout", "sink")
	if err != nil {
		return nil, err
	}
	p, err := newProbe()
	if err != nil {
		return nil, err
	}
	defer p.close()
	if err := sink.Attach(p.program, 0); err != nil {
		return nil, err
	}
	f, end, err := launch(ctx, lab, command, cpus, func(int) (uint64, error) { return read(p.count) })
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	capacity, err := f.capacity(ctx, lab, gen.Index, size)
	if err != nil {
		return nil, err
	}
	source, err := newPacer(ctx, lab, gen.Index, size)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, source.close()) }()
	for _, load := range loads {
		if err := f.alive(settleTime); err != nil {
			return nil, err
		}
		if err := p.reset(); err != nil {
			return nil, err
		}
		l := latencies{took: d}
		err := lab.Do(func() (err error) { l.sent, err = source.send(load*capacity, d); return err })
		if err != nil {
			return nil, err
		}
		if err := f.alive(settleTime); err != nil { // until the last frame has left
			return nil, err
		}
		if l.arrived, err = p.read(); err != nil {
			return nil, err
		}
		at = append(at, l)
	}
	return at, nil
}

// writeLatency writes the latencies of each forwarder at each load.
func writeLatency(w io.Writer, peers []*peer, rounds int, d time.Duration, size int) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "latency, µs\tload\tMpps\tp50\tp99\tp99.9\tlost")
	var notes []string
	for _, p := range peers {
		if err := p.failed[latencyKind]; err != nil {
			notes = append(notes, fmt.Sprintf("%s failed: %v", p.name, err))
		}
		for i := range p.latencies {
			l := &p.latencies[i]
			received := l.received()
			if received == 0 {
				fmt.Fprintf(t, "%s\t%.0f %%\t-\n", p.name, 100*loads[i])
				continue
			}
			fmt.Fprintf(t, "%s\t%.0f %%\t%.3f", p.name, 100*loads[i], float64(l.sent)/float64(l.took.Microseconds()))
			for _, part := range []float64{0.5, 0.99, 0.999} {
				fmt.Fprintf(t, "\t%s", microseconds(l.below(part)))
			}
			fmt.Fprintf(t, "\t%.2f %%\n", 100*(1-float64(received)/float64(l.sent)))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, note := range notes {
		fmt.Fprintln(w, "!", note)
	}
	_, err := fmt.Fprintf(w, `
%s
Frames of %d bytes, %d rounds of %v at each load, in a new order each time. Load:
of what each forwards when it is offered more, by the time that it had its core;
Mpps: what was sent, by the clock. Latency: from just before the generator's
system call until the sink's XDP program, to 128 ns.
`, machine(), size, rounds, d)
	return err
}

// microseconds is a latency in three digits.
func microseconds(d time.Duration) string {
	if d >= buckets<<bucketShift {
		return fmt.Sprintf(">%d", (buckets<<bucketShift)/1000)
	}
	return fmt.Sprintf("%.3g", float64(d.Nanoseconds())/1000)
}

// latencyKind is the name of the output in failures of [latency].
const latencyKind = "veth"
