package forward

import (
	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/xsk"
)

// Reasons for drops.
const (
	// DropVerdict is the reason of frames that the program drops on purpose.
	DropVerdict = "verdict"
	// DropUncounted is that of frames which the kernel redirected and nobody saw leave: they may have left.
	DropUncounted = "uncounted"

	dropNoPort   = "output-gone"
	dropNoRoom   = "no-room"
	dropRefused  = "not-sendable"
	dropLinkDown = "link-down"
	dropLost     = "lost-with-output"
	dropKernel   = "kernel-rx"
	dropRingFull = "rx-ring-full"
	dropFailed   = "redirect-failed"
	dropXmit     = "xmit-refused"
)

func (f *afxdp) Totals() (Totals, error) {
	counters := f.path.Counters(nil)
	t := Totals{Workers: f.path.Len(), Busy: f.path.Busy(), Passage: f.path.Passage(), Mode: f.mode.String()}
	kernel := make([]xsk.Statistics, len(f.ports))
	for port := range f.ports {
		kernel[port] = f.statistics(port)
	}
	for _, names := range f.config.directions() {
		d := Direction{In: names.In, Out: names.Out, Up: f.up(names.In) && f.up(names.Out)}
		var in datapath.Counters
		var lost xsk.Statistics
		for _, port := range f.portsOf(f.numbers[names.In]) {
			in.Add(counters[port])
			add(&lost, kernel[port])
		}
		d.Received, d.Sent, d.Bytes = in.Received, in.Onward.Transmitted, in.ReceivedBytes
		d.InFlight = in.Onward.InFlight + in.HandedOver - in.TakenOver
		var err error
		if d.Passed, err = f.passedBy(names.In); err != nil {
			return t, err
		}
		d.Batches, d.Bulks = in.Batches, in.Onward.Bulks
		d.Handed = in.Onward.Transmitted + in.Onward.Unsent + in.Onward.Lost + in.Onward.InFlight
		d.Drops = userDrops(in, in.Onward, lost)
		t.Directions = append(t.Directions, d)
	}
	t.Queues, t.Links, t.Events = f.byQueue(counters, kernel), f.linkList(), f.events.list(f.deviceNames())
	return t, nil
}

// userDrops are frames that came by an input and were not taken by an output, or by the kernel before, and those that were
// taken and did not leave.
func userDrops(in datapath.Counters, out datapath.Outcome, kernel xsk.Statistics) []Drop {
	return []Drop{
		{dropNoRoom, in.DroppedNoRoom}, {dropNoPort, in.DroppedNoPort}, {dropRefused, in.DroppedRefused},
		{DropVerdict, in.DroppedByProgram}, {dropLinkDown, out.Unsent}, {dropLost, out.Lost},
		{dropKernel, kernel.RXDropped}, {dropRingFull, kernel.RXRingFull},
	}
}

// byQueue are the counts of all queues that are or were open.
func (f *afxdp) byQueue(counters []datapath.Counters, kernel []xsk.Statistics) (list []Queue) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for port, p := range f.ports {
		c, k := counters[port], kernel[port]
		q := Queue{
			Device: f.devices[p.device].Name, Queue: p.queue, Worker: f.worker(port), Received: c.Received, Sent: c.Transmitted,
			Dropped: sum(userDrops(c, c.Outcome, k)), KernelRX: k.RXDropped, RingFull: k.RXRingFull, Batches: c.Batches,
			Up: f.isOpen(port) || f.atEnd[port],
		}
		if f.used[port] {
			list = append(list, q)
		}
	}
	return list
}

// isOpen says whether a port has a socket on a device that is not lost. f.mu is held.
func (f *afxdp) isOpen(port int) bool { return f.sockets[port] != nil && !f.lost[f.ports[port].device] }

// statistics are the kernel's of a port, since the beginning.
func (f *afxdp) statistics(port int) xsk.Statistics {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sockets[port]; s != nil {
		if now, err := s.Statistics(); err == nil {
			f.kernel[port] = now
		}
	}
	sum := f.past[port]
	add(&sum, f.kernel[port])
	return sum
}

// add sums the drops.
func add(sum *xsk.Statistics, s xsk.Statistics) {
	sum.RXDropped += s.RXDropped
	sum.RXRingFull += s.RXRingFull
}

// noteEnd notes which queues were open to the end.
func (f *afxdp) noteEnd() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for port := range f.sockets {
		f.atEnd[port] = f.atEnd[port] || f.isOpen(port)
	}
}
