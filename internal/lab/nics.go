package lab

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

// DMA is how an interface's memory is mapped for it.
type DMA string

// The DMA setups.
const (
	Direct      DMA = record.DMADirect
	Swiotlb     DMA = record.DMASwiotlb
	IOMMULazy   DMA = record.DMAIOMMULazy
	IOMMUStrict DMA = record.DMAIOMMUStrict
	IOMMUPass   DMA = record.DMAIOMMUPass
)

// dmaLines are the command lines that bring each setup
// (Documentation/admin-guide/kernel-parameters.txt of Linux).
var dmaLines = map[DMA]string{
	Direct:      "",
	Swiotlb:     "swiotlb=force",
	IOMMULazy:   "intel_iommu=on iommu.passthrough=0 iommu.strict=0",
	IOMMUStrict: "intel_iommu=on iommu.passthrough=0 iommu.strict=1",
	IOMMUPass:   "intel_iommu=on iommu=pt",
}

// groupTypes are what /sys says of a device behind an IOMMU
// (Documentation/ABI/testing/sysfs-kernel-iommu_groups).
var groupTypes = map[string]DMA{"identity": IOMMUPass, "DMA": IOMMUStrict, "DMA-FQ": IOMMULazy}

// Veth is the chain without hardware; the other NICs are models of QEMU's.
const Veth = "veth"

var nicModels = []string{Veth, "virtio", "virtio-no-indirect", "vmxnet3", "igb"}

// NICs are the names of what frames can go through.
func NICs() []string { return slices.Clone(nicModels) }

// The interfaces of a chain over wires, by their addresses: the generator's, the one
// that redirects, the one it redirects to, the sink's.
var addresses = [4]string{"02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:04"}

// wires are the interfaces of a guest: two wires with two ends each.
func wires(model string) (nics []guest.NIC) {
	for i, mac := range addresses {
		nics = append(nics, guest.NIC{Model: model, MAC: mac, Wire: i / 2})
	}
	return nics
}

// poll is what NAPI polls take at once (NAPI_POLL_WEIGHT in include/linux/netdevice.h).
// Bursts of whole polls have four windows of 16 packets in each: the first has no call of
// ndo_xdp_xmit, as the bulk queue is only filling, the last reaches into the next poll, and
// the two between them have all that a packet in a stream goes through.
const poll = 64

// inMiddle tells whether the i-th window of a slot of whole polls is in the middle of one.
func inMiddle(i int) bool {
	at := i % (poll / redirect.WireWindow)
	return at == 1 || at == 2
}

// packets is how many are counted.
func packets(bulk int) int { return wholeBursts(4096, bulk) }

// wholeBursts is as many frames, or as many more as fill bursts.
func wholeBursts(frames, bulk int) int { return (frames + bulk - 1) / bulk * bulk }

// overWires counts, in a guest whose interfaces are wired as [Run] does it, what a packet
// goes through for each row, whose bulk is the length of bursts here, or takes the time of
// a packet between others of a poll.
func overWires(ctx context.Context, rows []Row, timed bool, mark *marker) (m *Measurement, err error) {
	m = &Measurement{Host: host.Identify(host.Options{}), Bulks: counts(rows)}
	all, err := ways(rows, m.Bulks)
	if err != nil {
		return nil, err
	}
	cpu, err := rounds.CPU{}.Pick()
	if err != nil {
		return nil, err
	}
	names, err := interfaces()
	if err != nil {
		return nil, err
	}
	if m.Mapped, err = dmaOf(names[1]); err != nil { // /sys shows this namespace's
		return nil, err
	}
	lab, err := netlab.New(cpu)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	wires, err := redirect.TakeWires(lab, redirect.WireDevices{Generator: names[0], In: names[1], Out: names[2], Sink: names[3]})
	if err != nil {
		return nil, err
	}
	w := wired{wires: wires}
	p := newWireProbes(wires, all)
	defer func() { err = errors.Join(err, p.Close()) }()
	err = w.each(ctx, all, func(c *redirect.WireChain, b *BulkCount) error {
		if err := wireWindows(ctx, c, b, timed); err != nil || mark == nil {
			return err
		}
		if byWorker(redirect.Scenario(b.Scenario)) {
			b.Untraced = "a worker forwards, outside of what is traced"
			return nil
		}
		if err := mark.traceWires(ctx, c, b); err != nil {
			return err
		}
		if err := p.read(); err != nil {
			return err
		}
		return mark.describe(m, p.kernel.Symbols)
	})
	if timed || err != nil {
		return m, err
	}
	err = w.each(ctx, all, func(c *redirect.WireChain, b *BulkCount) error {
		err := p.follow(ctx, lab, wires.In, byWorker(redirect.Scenario(b.Scenario)), func() (uint64, error) {
			span, err := c.Send(ctx, b.Bulk, packets(b.Bulk))
			return span.Sent, err
		})
		if err != nil {
			return err
		}
		return p.countWires(ctx, c, b)
	})
	if err != nil {
		return nil, err
	}
	m.Uncounted, m.Stamp = p.uncounted, p.stamp
	for i := range m.Bulks {
		if m.Mapped == Direct && m.Bulks[i].calls("swiotlb_tbl_map_single")+m.Bulks[i].calls("swiotlb_bounce") > 0 {
			m.Mapped = Swiotlb
		}
	}
	return m, nil
}

// newWireProbes are the probes of ways over wires, by the parts of those.
func newWireProbes(wires *redirect.Wires, all []way) *probes {
	p := newProbes(map[work]string{
		{ifindex: wires.In}: InPoll, {wires.Out, true, false}: OutXmit, {ifindex: wires.Out}: OutPoll, {called: true}: Worker,
	})
	if slices.ContainsFunc(all, func(w way) bool { return byWorker(w.chain) }) {
		p.calls = functions.Names(functions.WorkerCalls)
	}
	return p
}

// wired are the wires of a guest.
type wired struct {
	wires *redirect.Wires
	built int // chains so far
}

// each builds the chain of each way, one after the other, and calls f for each of its
// rows. A way that wires do not have, or that cannot be built, is refused; where it is the
// only one, that is an error.
func (w *wired) each(ctx context.Context, all []way, f func(c *redirect.WireChain, b *BulkCount) error) error {
	for i := range all {
		a := &all[i]
		if !onWires(a.scenario) {
			a.refuse(errVethOnly)
		}
		if a.refused() {
			continue
		}
		err := w.on(ctx, a, f)
		if err != nil && len(all) == 1 {
			return err
		}
		if err != nil {
			a.refuse(err)
		}
	}
	return nil
}

func (w *wired) on(ctx context.Context, a *way, f func(c *redirect.WireChain, b *BulkCount) error) (err error) {
	w.built++
	chain, err := w.wires.Build(ctx, w.built, a.chain)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chain.Close()) }()
	for i := range a.counts {
		if err := f(chain, &a.counts[i]); err != nil {
			return err
		}
	}
	return nil
}

// onWires tells whether packets can go a scenario's way on wires.
func onWires(s scenario) bool {
	return s.mode == redirect.Native && slices.Contains(redirect.WireScenarios(), s.chain)
}

// errVethOnly says why a scenario has no counts on wires.
var errVethOnly = &feature.Missing{Feature: "this scenario on wires", Help: "it is counted on veth"}

// wireWindows sends bursts of a bulk and takes from the chain's time stamps the ns of a
// packet, or its instructions where the clock counts those. A bulk that does not fill
// polls has neither.
func wireWindows(ctx context.Context, chain *redirect.WireChain, b *BulkCount, timed bool) error {
	burst := wholeBursts(wireFrames, b.Bulk)
	var ns []float64      // per packet
	var sends [][]float64 // those of windows in the middle of a poll
	for i := range wireSends {
		span, err := chain.Send(ctx, b.Bulk, burst)
		if err != nil {
			return fmt.Errorf("bursts of %d: %w", b.Bulk, err)
		}
		b.add(span)
		if i == 0 {
			continue // it fills rings and page pools
		}
		var middle []float64
		for j, n := range span.Windows {
			per := float64(n) / float64(span.Window)
			ns = append(ns, per)
			if inMiddle(j) {
				middle = append(middle, per)
			}
		}
		sends = append(sends, middle)
	}
	b.Windows, b.Instructions = len(ns), nil
	switch {
	case b.Bulk%poll != 0, byWorker(redirect.Scenario(b.Scenario)): // windows lie within polls, and most of the work elsewhere
	case timed:
		q := stat.Summarize(ns, "ns")
		b.Ns = &q
	default:
		often, spread := mostOften(sends)
		b.Instructions, b.Spread = &often, &spread
	}
	return nil
}

// Of each bulk wireFrames packets, or a few more, are sent wireSends times: as many as there
// are time stamps for.
const wireFrames, wireSends = 1024, 9

// leastSpread is how far two boots are from each other on wires, in instructions a packet,
// also where all windows of both agree: those of five boots were within half of it.
const leastSpread = 1

// mostOften is the number that most windows have, and how far those of single sends are from
// it. It repeats better than the median: what an interrupt, a refilled ring or a wire's late
// thread adds is different each time.
func mostOften(sends [][]float64) (often, spread float64) {
	often = mode(slices.Concat(sends...))
	spread = leastSpread
	for _, windows := range sends {
		if len(windows) > 0 {
			spread = max(spread, math.Abs(mode(windows)-often))
		}
	}
	return often, spread
}

// mode is the most frequent of numbers, the least of those that are as frequent.
func mode(numbers []float64) (most float64) {
	times := make(map[float64]int)
	for _, n := range numbers {
		times[n]++
	}
	for n, k := range times {
		if k > times[most] || k == times[most] && n < most {
			most = n
		}
	}
	return most
}

// countWires adds to b what the probes count of bursts of its bulk.
func (p *probes) countWires(ctx context.Context, chain *redirect.WireChain, b *BulkCount) error {
	hits, sent, err := p.during(func() (uint64, error) {
		span, err := chain.Send(ctx, b.Bulk, packets(b.Bulk))
		b.Sent, b.Redirected, b.Received = b.Sent+span.Sent, b.Redirected+span.Redirected, b.Received+span.Received
		return span.Sent, err
	})
	if err != nil {
		return fmt.Errorf("count bursts of %d: %w", b.Bulk, err)
	}
	executed := make(map[int]bool)
	for t, n := range hits {
		executed[t.probe] = true
		p.count(b, t, float64(n)/float64(sent))
	}
	p.leftOut(b, executed)
	b.sort()
	if maps, unmaps := b.mapped(); math.Abs(maps-unmaps)*float64(sent) > maxRing {
		return fmt.Errorf("bursts of %d: DMA maps and unmaps disagree: %.4f and %.4f a packet", b.Bulk, maps, unmaps)
	}
	return nil
}

// maxRing is how many descriptors a ring has here at most, which may be mapped before they
// are needed, and unmapped after.
const maxRing = 512

// mapped are the maps and unmaps of a packet.
func (b *BulkCount) mapped() (maps, unmaps float64) {
	for _, part := range b.parts() {
		d := b.dma(part)
		maps, unmaps = maps+d.Map, unmaps+d.Unmap
	}
	return maps, unmaps
}

// calls are the entries of a function per packet, by all parts.
func (b *BulkCount) calls(function string) (n float64) {
	for _, f := range b.Functions {
		if f.Function == function {
			n += f.PerPacket
		}
	}
	return n
}

// interfaces are the names of those that [wires] made.
func interfaces() (names [4]string, err error) {
	all, err := net.Interfaces()
	if err != nil {
		return names, fmt.Errorf("list interfaces: %w", err)
	}
	for i, mac := range addresses {
		for _, nic := range all {
			if nic.HardwareAddr.String() == mac {
				names[i] = nic.Name
			}
		}
		if names[i] == "" {
			return names, fmt.Errorf("the interface %s is not there: its driver did not take it", mac)
		}
	}
	return names, nil
}

// dmaOf reads from /sys whether an interface is behind an IOMMU, and how that is used.
// That it is not does not tell whether pages are bounced.
func dmaOf(name string) (DMA, error) {
	dir, err := filepath.EvalSymlinks(filepath.Join("/sys/class/net", name, "device"))
	if err != nil {
		return "", fmt.Errorf("find device of %s: %w", name, err)
	}
	// The device of virtio_net is virtio's, whose parent does the DMA.
	for ; dir != "/sys/devices" && dir != "/"; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "iommu_group", "type"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("read how %s is mapped: %w", name, err)
		}
		kind := strings.TrimSpace(string(text))
		if dma, ok := groupTypes[kind]; ok {
			return dma, nil
		}
		return "", fmt.Errorf("read how %s is mapped: type %q of IOMMU group", name, kind)
	}
	return Direct, nil
}
