package xsk

import (
	"errors"
	"fmt"
	"net"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// ErrNoZeroCopy is in the error of a queue that cannot be bound in zero-copy mode, and could
// be in copy mode.
var ErrNoZeroCopy = errors.New("no zero copy")

// noZeroCopy is a cause of [ErrNoZeroCopy].
type noZeroCopy struct {
	error
	shared bool // the UMEM has sockets in zero-copy mode
}

func (e noZeroCopy) Is(target error) bool { return target == ErrNoZeroCopy }
func (e noZeroCopy) Unwrap() error        { return e.error }

// busyZeroCopy is EBUSY for a queue that would join zero-copy sockets: it is another socket's, or
// the device's memory is somebody else's, and in copy mode it could be bound.
type busyZeroCopy struct{ error }

func (e busyZeroCopy) Unwrap() error { return e.error }

// headers is what a device receives of a frame on top of its MTU, in bytes: an Ethernet header
// and two VLAN tags.
const headers = 14 + 2*4

// inKiB are drivers that tell their device the size of buffers in KiB, rounded down, and take
// each buffer of a longer frame for a frame of its own: SRRCTL.BSIZEPKT, which
// igb_setup_srrctl (drivers/net/ethernet/intel/igb/igb_main.c) and igc_configure_rx_ring
// (…/igc/igc_main.c) write, and igb_clean_rx_irq_zc and igc_clean_rx_irq_zc, which do not look
// for the end of a frame. Seen with QEMU's igb on Linux 6.18 and 7.3; igc by its source.
var inKiB = map[string]bool{"igb": true, "igc": true}

// receives is how many bytes of a frame a driver's device receives into one chunk that has
// room for capacity, where what is beyond would silently become the next frame. It is
// capacity for drivers that are not known to do so.
func receives(driver string, capacity int) int {
	if inKiB[driver] {
		return capacity &^ 1023
	}
	return capacity
}

// checkCut returns an error when a driver would cut frames that a device of this MTU receives.
func checkCut(driver string, mtu int, c Config) error {
	room := receives(driver, c.capacity())
	if !inKiB[driver] || mtu+headers <= room {
		return nil
	}
	return fmt.Errorf("%s receives %d bytes into a chunk of %d and would silently cut the longer frames of MTU %d in two: "+
		"use chunks of 4096 bytes and an MTU of at most %d",
		driver, room, c.FrameSize, mtu, receives(driver, 4096-KernelHeadroom-c.Headroom)-headers)
}

// nic is what is known of a device where zero copy depends on it; fields are zero where
// nobody says.
type nic struct {
	name, driver string
	mtu, queues  int
}

// nicOf asks for a device of the calling thread's network namespace.
func nicOf(ifindex int) (n nic) {
	n.name = deviceName(ifindex)
	i, err := net.InterfaceByIndex(ifindex)
	if err != nil {
		return n
	}
	n.mtu = i.MTU
	e, err := ethtool.NewEthtool()
	if err != nil {
		return n
	}
	defer e.Close()
	if info, err := e.DriverInfo(i.Name); err == nil {
		n.driver = info.Driver
	}
	if c, err := e.GetChannels(i.Name); err == nil {
		n.queues = int(max(c.RxCount, c.TxCount) + c.CombinedCount)
	}
	return n
}

// refusal says why the kernel did not bind a queue in zero-copy mode that it would bind in
// copy mode. What it said is err.
func (n nic) refusal(err error, o Options, c Config, shared bool) error {
	// bufferUnit is what xp_assign_dev rounds the room of a chunk down to, frameCheck the last
	// four bytes of a frame, which it counts (net/xdp/xsk_buff_pool.c, Linux 7.3).
	const bufferUnit, frameCheck = 128, 4
	help := "use copy mode"
	switch {
	case errors.Is(err, unix.EOPNOTSUPP) && o.MultiBuffer:
		help = "its driver has none, or none with frames of several buffers; use a smaller MTU or copy mode"
	case errors.Is(err, unix.EOPNOTSUPP):
		help = "its driver lacks it; use copy mode"
	case !errors.Is(err, unix.EINVAL):
	case n.driver == "virtio_net":
		help = "virtio-net has it only with iommu_platform=on and queue_reset=on (VIRTIO_F_ACCESS_PLATFORM, " +
			"VIRTIO_F_RING_RESET), which the host sets; use copy mode"
	case n.mtu+headers+frameCheck > c.capacity()&^(bufferUnit-1):
		help = fmt.Sprintf("its MTU of %d does not fit into chunks of %d bytes; use a smaller MTU or copy mode", n.mtu, c.FrameSize)
	}
	if n.driver != "" {
		help = "its driver is " + n.driver + "; " + help
	}
	if shared {
		help += " for all that share the UMEM"
	}
	return &feature.Missing{Feature: "zero-copy AF_XDP on " + n.name, Help: help, Err: noZeroCopy{err, shared}}
}
