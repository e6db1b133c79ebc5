package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"sync"

	"golang.org/x/sync/semaphore"
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

// Open opens a regular file of at most limit bytes, and says how many it has. Of a pipe or
// a device it returns an error at once, where opening the one would wait and reading the
// other may have no end.
func Open(path string, limit int64) (*os.File, int64, error) { return open(path, 0, limit) }

// OpenNoFollow is [Open] that refuses a symbolic link.
func OpenNoFollow(path string, limit int64) (*os.File, int64, error) {
	f, size, err := open(path, unix.O_NOFOLLOW, limit)
	if errors.Is(err, unix.ELOOP) {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("it is a symbolic link")}
	}
	return f, size, err
}

func open(path string, flags int, limit int64) (*os.File, int64, error) {
	f, info, err := openRegular(path, flags)
	if err != nil {
		return nil, 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if info.Size > limit {
		f.Close()
		return nil, 0, &fs.PathError{Op: "open", Path: path, Err: tooLarge(int(limit))}
	}
	return f, info.Size, nil
}

// openRegular looks at a file without opening it (O_PATH), and opens what it looked at: to open a device does
// something, whatever is read of it, and a path may lead elsewhere meanwhile.
func openRegular(path string, flags int) (f *os.File, info unix.Stat_t, err error) {
	at, err := openRetried(path, unix.O_PATH|flags)
	if err != nil {
		return nil, info, err
	}
	defer unix.Close(at)
	if err := unix.Fstat(at, &info); err != nil {
		return nil, info, err
	}
	switch info.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFLNK: // with O_NOFOLLOW
		return nil, info, unix.ELOOP
	default:
		return nil, info, errors.New("it is not a regular file")
	}
	fd, err := openRetried("/proc/self/fd/"+strconv.Itoa(at), unix.O_RDONLY|unix.O_NONBLOCK) // a lease would hold it
	if err != nil {
		return nil, info, err
	}
	return os.NewFile(uintptr(fd), path), info, nil
}

func openRetried(path string, flags int) (fd int, err error) {
	for {
		if fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0); err != unix.EINTR {
			return fd, err
		}
	}
}

// ReadFile reads a regular file of at most limit bytes, as [Open] opens it.
func ReadFile(path string, limit int64) ([]byte, error) {
	return readOpened(Open(path, limit))
}

// ReadFileNoFollow is [ReadFile] that refuses a symbolic link.
func ReadFileNoFollow(path string, limit int64) ([]byte, error) {
	return readOpened(OpenNoFollow(path, limit))
}

func readOpened(f *os.File, size int64, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return b, nil
}

// File reads the ELF file or the Image of arm64 at path, or the one that is packed in it. When ctx ends it
// returns the error of ctx.
func File(ctx context.Context, path string) ([]byte, error) {
	return file(ctx, path, Max, func(f *os.File, size int64) ([]byte, error) { return nil, nil })
}

// Loaded is [File] of which only what is in memory is needed, with symbols and types: of an ELF file that is not packed other
// sections are not read, and have no bytes. It takes at most that many bytes of memory, the packed file included; for more
// it returns an error that [IsTooLarge] knows.
func Loaded(ctx context.Context, path string, most int) ([]byte, error) {
	return file(ctx, path, max(most, 0), func(f *os.File, size int64) ([]byte, error) { return slim(ctx, f, size, max(most, 0)) })
}

// IsTooLarge tells the error of what is larger, or unpacks to more, than is possible.
func IsTooLarge(err error) bool {
	_, ok := errors.AsType[tooLarge](err)
	return ok
}

// file reads a file that takes at most that many bytes of memory. One that is not packed is read by direct where that
// returns something.
func file(ctx context.Context, path string, most int, direct func(*os.File, int64) ([]byte, error)) ([]byte, error) {
	f, size, err := Open(path, Max)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, min(size, imageHeader))
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if size > MaxPacked && !bytes.HasPrefix(head, []byte(elfMagic)) {
		return nil, tooLarge(MaxPacked)
	}
	if isCode(head) {
		if b, err := direct(f, size); b != nil || err != nil {
			return b, err
		}
		if size > int64(most) {
			return nil, tooLarge(most)
		}
		b := append(Buffer(int(size)), head...)[:size]
		return b, fill(ctx, f, b[len(head):])
	}
	if size > int64(most) {
		return nil, tooLarge(most)
	}
	if size == 0 {
		return Code(ctx, nil)
	}
	// The packed file, 12 MB of a kernel, is not on the heap: it is gone at once.
	packed, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map memory: %w", err)
	}
	unmap := func() { _ = unix.Munmap(packed) }
	if err := fill(ctx, f, packed[copy(packed, head):]); err != nil {
		unmap()
		return nil, err
	}
	// Not every decoder hears a context: one that does not is left to finish, which takes a
	// second at most.
	type result struct {
		b   []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		defer unmap()
		b, err := CodeWithin(ctx, packed, min(MaxPacked, most-int(size)))
		done <- result{b, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		return r.b, r.err
	}
}

// Budget bounds what is read at one time from files that others made, in bytes, however
// many goroutines read: modules are read on all CPUs, and one of 0.5 MB may unpack to
// [MaxPacked].
type Budget struct {
	left *semaphore.Weighted
	size int64
}

const (
	maxAtOnce = 256 << 20
	// MaxHeld is the most memory that what is in use at a time may take, in bytes, as it is estimated: a kernel, a module
	// on it, their symbols and types. A distribution's kernel takes 100 to 150 MiB.
	MaxHeld = 320 << 20
)

var budget = NewBudget(0)

// NewBudget is a budget of its own, beside so many bytes that stay in use.
func NewBudget(held int) *Budget {
	size := max(1, min(maxAtOnce, MaxHeld-int64(held)))
	return &Budget{semaphore.NewWeighted(size), size}
}

// Reserve is [Budget.Reserve] of the budget of all that has none of its own.
func Reserve(ctx context.Context, path string) (release func(), err error) {
	return budget.Reserve(ctx, path)
}

// Reserve waits until there is memory to read the kernel or the module at path and what is
// in it. The memory is reserved until release is called. A file that needs more than there
// is waits until nothing else is read. What was read must not be in use any more when release
// is called: it is given back to the system where it was large, as the next may be as large.
func (b *Budget) Reserve(ctx context.Context, path string) (release func(), err error) {
	n, err := need(path)
	if err != nil {
		return nil, err
	}
	n = min(n, b.size)
	if err := b.left.Acquire(ctx, n); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() {
		// It takes 20 ms and more. What a file needs is no sign of what it took: an empty
		// one may need most of the budget.
		if n >= b.size/2 && onHeap() >= uint64(b.size/2) {
			debug.FreeOSMemory()
		}
		b.left.Release(n)
	}), nil
}

// onHeap is how many bytes of the heap are in use, or were and are not collected yet.
func onHeap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// need is the memory that reading a file takes: the packed file, what it unpacks to, and
// three times as much again for symbols and relocations, which take most where they are all of it.
func need(path string) (int64, error) {
	f, size, err := Open(path, Max)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	head, tail := make([]byte, 4096), make([]byte, 4096)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	head = head[:n]
	if n, err = f.ReadAt(tail, max(0, size-int64(len(tail)))); err != nil && err != io.EOF {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	if isCode(head) {
		return min(4*size, maxAtOnce), nil
	}
	room, most := sizes(head, tail[:n], int(size), MaxPacked)
	if said(head, tail[:n]) == 0 {
		room = most
	}
	return min(size+4*int64(room), maxAtOnce), nil
}

// fill fills b from r.
func fill(ctx context.Context, r io.Reader, b []byte) error {
	for len(b) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(r, b[:min(piece, len(b))])
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		b = b[n:]
	}
	return nil
}
