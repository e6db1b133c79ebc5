package xsk

import (
	"errors"
	"fmt"
	"math/bits"
	"time"
)

// Mode is whether frames are copied between the UMEM and the driver's memory.
type Mode int

const (
	// Auto is zero-copy where device and driver can, copy elsewhere. See
	// [Socket.WhyCopy], and [OpenAll] for devices that differ.
	Auto Mode = iota
	// Copy has the kernel copy each frame between an skb or an XDP buffer and the
	// UMEM. Every driver can.
	Copy
	// ZeroCopy has the device read and write the UMEM, whose pages are mapped for
	// it once, when the socket is bound. Its driver must support it: igb since
	// Linux 6.14, virtio-net only with iommu_platform=on and queue_reset=on, on 6.16
	// and not on 6.12.
	ZeroCopy
)

// String returns "auto", "copy" or "zero-copy".
func (m Mode) String() string {
	switch m {
	case Copy:
		return "copy"
	case ZeroCopy:
		return "zero-copy"
	}
	return "auto"
}

// DefaultRing is the length of a ring in entries, where none is given.
const DefaultRing = 2048

// DefaultBindWait is how long [Open] waits for a queue to become free.
const DefaultBindWait = time.Second

// Options say what a socket is bound to and how. The zero value of all but
// Interface works.
type Options struct {
	// Interface is the device's index, in the network namespace of the calling
	// thread, and Queue one of its queues.
	Interface, Queue int
	// Lengths of the rings in entries, powers of two; 0 is [DefaultRing].
	Fill, Completion, RX, TX int
	// Mode is what to ask for. The second socket on a UMEM gets what the first
	// has, or an error: the kernel has one mode for a UMEM (xp_assign_dev_shared
	// in net/xdp/xsk_buff_pool.c).
	Mode Mode
	// AlwaysPolling turns need-wakeup off (XDP_USE_NEED_WAKEUP): the driver then
	// runs on without being called. The second socket on a UMEM gets what the
	// first has.
	AlwaysPolling bool
	// MultiBuffer lets a frame be several descriptors (XDP_USE_SG, Linux 6.6).
	// The XDP program must be loaded for it, see [ProgramOptions]. The second
	// socket on a UMEM gets what the first has.
	MultiBuffer bool
	// TXBudget is how many frames one Kick transmits in copy mode: 32 to the TX
	// ring's length; 0 is all of the ring where the kernel can
	// (XDP_MAX_TX_SKB_BUDGET, Linux 6.18) and 32 elsewhere.
	TXBudget int
	// BusyPoll turns busy polling on (SO_PREFER_BUSY_POLL, Linux 5.11), in which
	// [Socket.Kick] and [Socket.WakeFill] poll the driver in place of its
	// interrupt, BusyPollBudget packets at most; 0 is 64. It must be 1 µs or more,
	// and is how long poll(2) polls on where the kernel lets it. The device's
	// napi_defer_hard_irqs and gro_flush_timeout must be set for it; a veth takes
	// the option and does nothing with it.
	BusyPoll       time.Duration
	BusyPollBudget int
	// BindWait is how long to wait for a queue that is bound: the kernel holds
	// it for a while after its socket was closed. 0 is [DefaultBindWait], less
	// than 0 no wait.
	BindWait time.Duration
}

func (o Options) withDefaults() Options {
	for _, n := range []*int{&o.Fill, &o.Completion, &o.RX, &o.TX} {
		if *n == 0 {
			*n = DefaultRing
		}
	}
	if o.BindWait == 0 {
		o.BindWait = DefaultBindWait
	}
	if o.BusyPollBudget == 0 {
		o.BusyPollBudget = 64
	}
	return o
}

// maxRing keeps the size of a ring within what the kernel takes.
const maxRing = 1 << 20

func (o Options) validate() error {
	for name, n := range map[string]int{"fill": o.Fill, "completion": o.Completion, "RX": o.RX, "TX": o.TX} {
		if n < 2 || n > maxRing || bits.OnesCount(uint(n)) != 1 {
			return fmt.Errorf("%s ring of %d entries: must be a power of two of 2 to %d", name, n, maxRing)
		}
	}
	switch {
	case o.Interface <= 0:
		return fmt.Errorf("interface index %d: must be positive", o.Interface)
	case o.Queue < 0 || o.Queue > 1<<16:
		return fmt.Errorf("queue %d: no device has it", o.Queue)
	case o.TXBudget != 0 && (o.TXBudget < minTXBudget || o.TXBudget > o.TX):
		return fmt.Errorf("TX budget %d: must be %d to the TX ring's %d", o.TXBudget, minTXBudget, o.TX)
	case o.BusyPoll != 0 && o.BusyPoll < time.Microsecond || o.BusyPollBudget < 0 || o.BusyPollBudget > 1<<16:
		return errors.New("busy polling: time or budget out of range")
	}
	return nil
}

// minTXBudget is TX_BATCH_SIZE of net/xdp/xsk.c.
const minTXBudget = 32
