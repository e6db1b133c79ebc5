package program

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// errNotSupported is the kernel's ENOTSUPP: the type of map has no batches.
const errNotSupported = unix.Errno(524)

// mapIDAttr is the member of union bpf_attr for BPF_MAP_GET_FD_BY_ID.
type mapIDAttr struct{ id, next, flags uint32 }

// mapByID opens a map for reading only, which the library's NewMapFromID does not.
// Requires CAP_SYS_ADMIN.
func mapByID(id ebpf.MapID) (*ebpf.Map, error) {
	attr := mapIDAttr{id: uint32(id), flags: unix.BPF_F_RDONLY}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_GET_FD_BY_ID, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return nil, errno
	}
	return ebpf.NewMapFromFD(int(fd))
}

// batchAttr is the member "batch" of union bpf_attr.
type batchAttr struct {
	in, out, keys, values uint64
	count, fd             uint32
	elementFlags, flags   uint64
}

// batch is room for entries of a map, as the kernel writes and reads them: a value for each
// possible CPU where the map has that.
type batch struct {
	keys, values       []byte
	keySize, valueSize int
	cursor             []byte
	started            bool
}

// batchBytes is about how many bytes of entries go through one system call: larger ones are
// no faster, and are longer until ctx is looked at.
const batchBytes = 1 << 20

// maxBatch is the most bytes of entries in one system call, and so the largest entry that is read.
const maxBatch = 64 << 20

// checkValue refuses values, in bytes, that are larger than what is read or written at once.
func checkValue(size int) error {
	if size > maxBatch {
		return fmt.Errorf("its values have %d MiB each: at most %d are copied", size>>20, maxBatch>>20)
	}
	return nil
}

func newBatch(m *ebpf.Map) *batch {
	b := &batch{keySize: int(m.KeySize()), valueSize: valueBytes(m)}
	b.grow(min(max(batchBytes/(b.keySize+b.valueSize), 1), 1<<14))
	b.cursor = make([]byte, max(b.keySize, 4))
	return b
}

func (b *batch) grow(entries int) {
	b.keys, b.values = make([]byte, entries*b.keySize), make([]byte, entries*b.valueSize)
}

func (b *batch) room() int { return len(b.keys) / b.keySize }

// valueBytes is how many bytes the kernel writes for a value (bpf_map_value_size in
// kernel/bpf/syscall.c).
func valueBytes(m *ebpf.Map) int {
	switch m.Type() {
	case ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.PerCPUArray:
		return (int(m.ValueSize()) + 7) &^ 7 * ebpf.MustPossibleCPU()
	}
	return int(m.ValueSize())
}

// pointer is the address of the first byte for the kernel, which gets it in a structure.
func pointer(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// call does one batch of at most count entries; it returns how many were done.
func (b *batch) call(command uintptr, m *ebpf.Map, count int) (int, unix.Errno) {
	attr := batchAttr{keys: pointer(b.keys), values: pointer(b.values), count: uint32(count), fd: uint32(m.FD())}
	if command == unix.BPF_MAP_LOOKUP_BATCH {
		attr.out = pointer(b.cursor)
		if b.started {
			attr.in = attr.out
		}
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(b)
	runtime.KeepAlive(m)
	return int(attr.count), errno
}

// copyEntries copies all entries of a map to another of the same type and sizes, in batches, as far as there is room for them.
// Entries that come or go meanwhile are copied or not. Requires at least Linux 5.6 to be fast,
// 5.13 for arrays of a value for each CPU.
func copyEntries(ctx context.Context, from, to *ebpf.Map, growing *growing) (entries int, err error) {
	entries, err = scan(ctx, from, func(b *batch, n int) error {
		if err := growing.add(n); err != nil {
			return err
		}
		return b.put(to, n)
	})
	if errors.Is(err, errNoBatches) {
		return copySlowly(ctx, from, to, growing)
	}
	return entries, err
}

// errNoBatches says that a map is to be read entry by entry.
var errNoBatches = errors.New("the kernel has no batches for this type of map")

// scan reads all entries of a map, and calls f for each batch with its number of entries.
func scan(ctx context.Context, from *ebpf.Map, f func(b *batch, n int) error) (entries int, err error) {
	if err := checkValue(valueBytes(from)); err != nil {
		return 0, err
	}
	b := newBatch(from)
	for {
		if err := ctx.Err(); err != nil {
			return entries, err
		}
		n, errno := b.call(unix.BPF_MAP_LOOKUP_BATCH, from, b.room())
		switch {
		case errno == unix.ENOSPC && b.room() < 1<<22 && 4*(len(b.keys)+len(b.values)) <= maxBatch: // one bucket of the hash has more
			b.grow(4 * b.room())
			continue
		case errno == errNotSupported || errno == unix.EINVAL && !b.started:
			return 0, errNoBatches
		case errno == unix.EINTR && n > 0: // keys went while they were read: those before them are whole
		case errno == unix.EINTR:
			return 0, errNoBatches
		case errno != 0 && errno != unix.ENOENT:
			return entries, fmt.Errorf("read entries: %w", errno)
		}
		b.started = true
		if err := f(b, n); err != nil {
			return entries, err
		}
		entries += n
		if errno == unix.ENOENT {
			return entries, nil
		}
	}
}

// put writes the first n entries to a map.
func (b *batch) put(to *ebpf.Map, n int) error {
	if n == 0 {
		return nil
	}
	done, errno := b.call(unix.BPF_MAP_UPDATE_BATCH, to, n)
	switch {
	case errno == 0:
		return nil
	case errno != errNotSupported && errno != unix.EINVAL:
		return fmt.Errorf("write entry %d of %d: %w", done+1, n, errno)
	}
	for i := range n {
		if err := b.putOne(to, i); err != nil {
			return fmt.Errorf("write entry: %w", err)
		}
	}
	return nil
}

// elementAttr is the member of union bpf_attr for single entries.
type elementAttr struct {
	fd, _             uint32
	key, value, flags uint64
}

// putOne writes an entry where a map has no batches.
func (b *batch) putOne(to *ebpf.Map, i int) error {
	attr := elementAttr{
		fd: uint32(to.FD()), key: pointer(b.keys[i*b.keySize:]), value: pointer(b.values[i*b.valueSize:]),
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_UPDATE_ELEM, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(b)
	runtime.KeepAlive(to)
	if errno != 0 {
		return errno
	}
	return nil
}

// copySlowly copies entry by entry, where the kernel has no batches for the map.
func copySlowly(ctx context.Context, from, to *ebpf.Map, growing *growing) (entries int, err error) {
	err = each(ctx, from, func(key, value []byte) error {
		if err := growing.add(1); err != nil {
			return err
		}
		one := &batch{keys: key, values: value}
		if err := one.putOne(to, 0); err != nil {
			return fmt.Errorf("write entry: %w", err)
		}
		entries++
		return nil
	})
	return entries, err
}
