package xsk

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// TxMetadataSize is how many bytes before a frame its metadata takes: struct
// xsk_tx_metadata with the launch time of Linux 6.15.
const TxMetadataSize = 24

// TxMetadata asks something of the device for one frame to transmit. What it
// can do it says through netlink (netdev genl, xsk-features); what it cannot is
// ignored.
type TxMetadata struct {
	// Checksum asks for the Internet checksum over the frame from ChecksumStart
	// to its end, stored ChecksumOffset bytes after ChecksumStart
	// (XDP_TXMD_FLAGS_CHECKSUM). The field must hold the pseudo header's sum.
	Checksum                      bool
	ChecksumStart, ChecksumOffset uint16
	// Timestamp asks for the time of transmission, see [UMEM.TxTimestamp].
	Timestamp bool
	// LaunchTime is when to transmit, in ns of the device's clock
	// (XDP_TXMD_FLAGS_LAUNCH_TIME, Linux 6.15); 0 is at once. In copy mode it is
	// the skb's, for a qdisc that nothing of AF_XDP passes.
	LaunchTime uint64
}

// Offsets of struct xsk_tx_metadata, linux/if_xdp.h.
const (
	metadataChecksumStart  = 8
	metadataChecksumOffset = 10
	metadataLaunchTime     = 16
	metadataTimestamp      = 8
)

// ErrNoMetadata says that there is no room for metadata before a frame.
var ErrNoMetadata = errors.New("no room for TX metadata before the frame")

// SetTxMetadata writes metadata before a frame and marks the descriptor. The
// UMEM must have been made for it, and the frame begin at least
// [TxMetadataSize] bytes into its chunk.
func (u *UMEM) SetTxMetadata(d *Desc, m TxMetadata) error {
	b := u.metadata(d.Addr)
	if b == nil {
		return ErrNoMetadata
	}
	clear(b)
	var flags uint64
	if m.Checksum {
		flags |= unix.XDP_TXMD_FLAGS_CHECKSUM
		binary.NativeEndian.PutUint16(b[metadataChecksumStart:], m.ChecksumStart)
		binary.NativeEndian.PutUint16(b[metadataChecksumOffset:], m.ChecksumOffset)
	}
	if m.Timestamp {
		flags |= unix.XDP_TXMD_FLAGS_TIMESTAMP
	}
	if m.LaunchTime != 0 {
		flags |= unix.XDP_TXMD_FLAGS_LAUNCH_TIME
		binary.NativeEndian.PutUint64(b[metadataLaunchTime:], m.LaunchTime)
	}
	binary.NativeEndian.PutUint64(b, flags)
	d.Options |= HasMetadata
	return nil
}

// TxTimestamp is when a frame was transmitted, in ns of the device's clock, as
// the kernel wrote it by the time the completion ring had the frame's address.
func (u *UMEM) TxTimestamp(addr uint64) (ns uint64, err error) {
	b := u.metadata(addr)
	if b == nil {
		return 0, ErrNoMetadata
	}
	return binary.NativeEndian.Uint64(b[metadataTimestamp:]), nil
}

func (u *UMEM) metadata(addr uint64) []byte {
	if !u.config.TxMetadata || addr >= u.size || addr-u.Base(addr) < TxMetadataSize {
		return nil
	}
	return u.mem[addr-TxMetadataSize : addr]
}
