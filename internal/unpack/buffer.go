package unpack

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Buffer is an empty slice with room for n bytes, in huge pages where the kernel has
// them: a page fault for each 4 KiB of a kernel took 40 % of the time to read it.
func Buffer(n int) []byte {
	const hugePage = 2 << 20
	b := make([]byte, 0, n)
	if n >= hugePage {
		// The heap begins a slice of this size on a page. A kernel without huge
		// pages refuses, and the slice is then as any other.
		_ = unix.Madvise(b[:n], unix.MADV_HUGEPAGE)
	}
	return b
}

// Read returns the ELF file that r is, or that is packed in r, which has size bytes. The
// packed one, 12 MB of a kernel, is not on the heap: it is gone when Read returns.
func Read(r io.Reader, size int64) ([]byte, error) {
	if size > Max {
		return nil, errTooLarge
	}
	magic := make([]byte, min(size, 4))
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if string(magic) == "\x7fELF" {
		b := Buffer(int(size))[:size]
		copy(b, magic)
		_, err := io.ReadFull(r, b[len(magic):])
		return b, err
	}
	if size < 4 {
		return ELF(magic)
	}
	packed, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map memory: %w", err)
	}
	defer unix.Munmap(packed)
	copy(packed, magic)
	if _, err := io.ReadFull(r, packed[len(magic):]); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return ELF(packed)
}
