package capture

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Size of the ring that the kernel fills: 32 blocks of 512 KiB, a hundredth of a second at
// 1 Mpps and 1500 bytes each. A block is handed over when it is full, or after 20 ms.
const (
	blockSize = 512 << 10
	blocks    = 32
	retire    = 20 // ms
	frameSize = 2048
)

// ring is memory that the kernel fills with packets (TPACKET_V3, packet(7)).
type ring struct {
	memory []byte
	next   int // the block that is filled next
}

func newRing(fd int) (*ring, error) {
	req := unix.TpacketReq3{
		Block_size: blockSize, Block_nr: blocks, Frame_size: frameSize, Frame_nr: blockSize / frameSize * blocks,
		Retire_blk_tov: retire,
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return nil, fmt.Errorf("choose version of ring: %w", err)
	}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, fmt.Errorf("make ring: %w", err)
	}
	memory, err := unix.Mmap(fd, 0, blockSize*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map ring: %w", err)
	}
	return &ring{memory: memory}, nil
}

// status is the word by which a block changes hands: the kernel's, or the user's when its
// bit TP_STATUS_USER is set.
func (r *ring) status(block int) *uint32 {
	return (*uint32)(unsafe.Pointer(&r.memory[block*blockSize+offsetStatus]))
}

// take calls f with the next block that the kernel has filled, and returns the block to the
// kernel. It returns false when none is.
func (r *ring) take(f func(block []byte) error) (bool, error) {
	status := r.status(r.next)
	if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
		return false, nil
	}
	at := r.next * blockSize
	err := f(r.memory[at : at+blockSize : at+blockSize])
	atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
	r.next = (r.next + 1) % blocks
	return true, err
}

func (r *ring) close() error {
	if r == nil || r.memory == nil {
		return nil
	}
	err := unix.Munmap(r.memory)
	r.memory = nil
	if err != nil {
		return errors.Join(errors.New("unmap ring"), err)
	}
	return nil
}
