package reference

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// nearSize is more than the L1 data cache of any x86-64 core (48 KiB) and less than the smallest L2 (256 KiB).
	nearSize = 128 << 10
	// farSize is twice the L3 cache that a core of a server has to itself (32 MiB of a complex of AMD's Zen 2 to 5).
	farSize = 64 << 20
	// farLimit is how much memory the process must be allowed for a walk of that size: in less, the kernel would end
	// the process for it.
	farLimit = 256 << 20
	// line is a cache line's size in bytes.
	line = 64
)

// walk is memory in which each line holds the index of the next one to read, so that no load can begin before the
// one before it is done. One way leads through all lines, without a stride that a prefetcher could follow.
type walk struct {
	lines [][line / 4]uint32
	at    uint32
}

// newWalk maps size bytes, a power of two, and writes the way. It takes 20 ms for 64 MiB in huge pages, where the
// kernel gives some, and 100 ms in small ones.
func newWalk(size int) (*walk, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d KiB: %w", size>>10, err)
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // a kernel without them has small pages
	w := &walk{lines: unsafe.Slice((*[line / 4]uint32)(unsafe.Pointer(unsafe.SliceData(b))), size/line)}
	n := uint32(len(w.lines))
	for i := range w.lines {
		// A linear congruential generator meets every index once: its factor is 1 modulo 4, its summand odd
		// (Hull and Dobell, 1962).
		w.lines[i][0] = (1_664_525*uint32(i) + 1_013_904_223) % n
	}
	return w, nil
}

// bytes are the memory as it was mapped.
func (w *walk) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w.lines))), len(w.lines)*line)
}

// load follows the way for n lines.
func (w *walk) load(n int) {
	at := w.at
	for range n {
		at = w.lines[at][0]
	}
	w.at = at
}

// Close gives the memory back.
func (w *walk) Close() error { return unix.Munmap(w.bytes()) }
