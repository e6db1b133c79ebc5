package xsk

import (
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// entry is what a ring holds: chunks, or frames.
type entry interface{ uint64 | Desc }

// ring is one of the four, in memory shared with the kernel. Indices run freely
// and wrap at 2^32. The producer's is written by one side and the consumer's by
// the other; cached copies keep the other side's cache line from being asked for
// until there is nothing left.
type ring[E entry] struct {
	mem     []byte // what is mapped
	entries []E    // a power of two of them
	mask    uint32

	producer, consumer, flags *atomic.Uint32

	// Own index and what was last seen of the kernel's.
	own, peer uint32
}

// newRing lays a ring of n entries over memory of the kernel's layout. Offsets
// outside of the memory are an error.
func newRing[E entry](mem []byte, off unix.XDPRingOffset, n int) (r ring[E], err error) {
	var e E
	if n < 1 || bits.OnesCount(uint(n)) != 1 {
		return r, fmt.Errorf("ring of %d entries: not a power of two", n)
	}
	size := uint64(n) * uint64(unsafe.Sizeof(e))
	length := uint64(len(mem))
	if off.Desc%8 != 0 || off.Desc > length || size > length-off.Desc {
		return r, fmt.Errorf("ring of %d entries at %#x: mapped are %#x bytes", n, off.Desc, length)
	}
	for _, o := range []uint64{off.Producer, off.Consumer, off.Flags} {
		if o%4 != 0 || length < 4 || o > length-4 {
			return r, fmt.Errorf("ring index at %#x: mapped are %#x bytes", o, length)
		}
	}
	r.mem = mem
	r.entries = unsafe.Slice((*E)(unsafe.Pointer(&mem[off.Desc])), n)
	r.mask = uint32(n - 1)
	r.producer = (*atomic.Uint32)(unsafe.Pointer(&mem[off.Producer]))
	r.consumer = (*atomic.Uint32)(unsafe.Pointer(&mem[off.Consumer]))
	r.flags = (*atomic.Uint32)(unsafe.Pointer(&mem[off.Flags]))
	return r, nil
}

// mapRing maps a ring of a socket.
func mapRing[E entry](fd int, page int64, off unix.XDPRingOffset, n int) (ring[E], error) {
	var e E
	mem, err := unix.Mmap(fd, page, int(off.Desc)+n*int(unsafe.Sizeof(e)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return ring[E]{}, err
	}
	r, err := newRing[E](mem, off, n)
	if err != nil {
		unix.Munmap(mem)
		return ring[E]{}, err
	}
	return r, nil
}

func (r *ring[E]) unmap() error {
	if r.mem == nil {
		return nil
	}
	mem := r.mem
	*r = ring[E]{}
	return unix.Munmap(mem)
}
