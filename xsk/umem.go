package xsk

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// KernelHeadroom is what the kernel leaves free before each received frame, in
// bytes, on top of the UMEM's own headroom (XDP_PACKET_HEADROOM).
const KernelHeadroom = unix.XDP_PACKET_HEADROOM

// Defaults and limits of a [Config].
const (
	DefaultFrames = 4096
	// DefaultFrameSize is what each driver receives a frame of MTU 1500 into
	// without copies: into chunks of 2048 bytes igb and igc receive 1024. It is a
	// page of x86. Copy mode needs 2048 and is kinder to caches with it.
	DefaultFrameSize = 4096
	MinFrameSize     = 2048 // XDP_UMEM_MIN_CHUNK_SIZE
	maxFrames        = 1 << 24
)

var (
	// ErrInUse is returned when a UMEM is closed before its sockets.
	ErrInUse = errors.New("UMEM is in use by a socket")
	// ErrClosed is returned by what was closed.
	ErrClosed = errors.New("closed")
)

// Config is a UMEM's shape. The zero value is 4096 chunks of 4096 bytes.
type Config struct {
	// Frames is the number of chunks; 0 is [DefaultFrames].
	Frames int
	// FrameSize is a chunk's size in bytes: 2048 or 4096, anything between with
	// Unaligned; 0 is [DefaultFrameSize]. [Open] binds no queue without copies
	// whose driver would cut frames that do not fit.
	FrameSize int
	// Headroom is kept free before each received frame, in bytes, on top of
	// [KernelHeadroom].
	Headroom int
	// HugePages asks for 2 MiB pages. Where there are none the memory is made
	// of small ones, see [UMEM.HugePages].
	HugePages bool
	// Unaligned lets frames begin and end anywhere (XDP_UMEM_UNALIGNED_CHUNK_FLAG,
	// Linux 5.4), and FrameSize be no power of two.
	Unaligned bool
	// RxMetadata is for programs that leave [RxMetadata] in front of received
	// frames, within [KernelHeadroom].
	RxMetadata bool
	// TxMetadata leaves room for [TxMetadata] before each frame to transmit
	// (Linux 6.8).
	TxMetadata bool
	// SoftwareChecksum lets the kernel compute the checksums that TxMetadata
	// asks for (XDP_UMEM_TX_SW_CSUM); only in copy mode.
	SoftwareChecksum bool
}

func (c Config) withDefaults() Config {
	if c.Frames == 0 {
		c.Frames = DefaultFrames
	}
	if c.FrameSize == 0 {
		c.FrameSize = DefaultFrameSize
	}
	return c
}

// capacity is what a chunk has room for on receipt, in bytes.
func (c Config) capacity() int { return c.FrameSize - KernelHeadroom - c.Headroom }

func (c Config) validate() error {
	switch page := os.Getpagesize(); {
	case c.Frames < 1 || c.Frames > maxFrames:
		return fmt.Errorf("UMEM of %d frames: must be 1 to %d", c.Frames, maxFrames)
	case c.FrameSize < MinFrameSize || c.FrameSize > page:
		return fmt.Errorf("frame size %d: must be %d to %d bytes", c.FrameSize, MinFrameSize, page)
	case !c.Unaligned && bits.OnesCount(uint(c.FrameSize)) != 1:
		return fmt.Errorf("frame size %d: must be a power of two, unless chunks are unaligned", c.FrameSize)
	case c.Headroom < 0 || c.Headroom >= c.FrameSize-KernelHeadroom:
		return fmt.Errorf("headroom %d: no room is left in frames of %d bytes", c.Headroom, c.FrameSize)
	case c.SoftwareChecksum && !c.TxMetadata:
		return errors.New("checksums by the kernel need room for TX metadata")
	}
	return nil
}

// UMEM is memory for frames that sockets share. Methods that hand out chunks
// may be called from several goroutines.
type UMEM struct {
	config Config
	mem    []byte
	size   uint64 // of all chunks, in bytes: len(mem) may be rounded up
	mask   uint64 // FrameSize-1, aligned chunks only
	huge   bool

	mu      sync.Mutex
	free    []uint64 // chunks nobody has, a stack
	sockets []*Socket
	closed  bool
}

// NewUMEM maps memory for frames. It is registered with the kernel by the first
// socket that is opened on it.
func NewUMEM(c Config) (*UMEM, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	u := &UMEM{config: c, size: uint64(c.Frames) * uint64(c.FrameSize)}
	if !c.Unaligned {
		u.mask = uint64(c.FrameSize) - 1
	}
	if err := u.mmap(); err != nil {
		return nil, fmt.Errorf("map %d bytes for frames: %w", u.size, err)
	}
	u.free = make([]uint64, c.Frames)
	for i := range u.free {
		// From the top, so that the first chunks come out first.
		u.free[i] = uint64(c.Frames-1-i) * uint64(c.FrameSize)
	}
	return u, nil
}

const hugePage = 2 << 20

func (u *UMEM) mmap() (err error) {
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_POPULATE
	if u.config.HugePages {
		rounded := (int(u.size) + hugePage - 1) &^ (hugePage - 1)
		u.mem, err = unix.Mmap(-1, 0, rounded, prot, flags|unix.MAP_HUGETLB|21<<unix.MAP_HUGE_SHIFT)
		if err == nil {
			u.huge = true
			return nil
		}
	}
	page := os.Getpagesize()
	u.mem, err = unix.Mmap(-1, 0, (int(u.size)+page-1)&^(page-1), prot, flags)
	return err
}

// Config is what the UMEM was made with, defaults filled in.
func (u *UMEM) Config() Config { return u.config }

// HugePages says whether the memory is made of huge pages.
func (u *UMEM) HugePages() bool { return u.huge }

// Bytes is all the memory. It must not be touched after Close.
func (u *UMEM) Bytes() []byte { return u.mem[:u.size:u.size] }

// Capacity is how many bytes of a frame fit into a chunk on receipt.
func (u *UMEM) Capacity() int { return u.config.capacity() }

// Alloc takes chunks that nobody has and returns how many it got.
func (u *UMEM) Alloc(chunks []uint64) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := min(len(chunks), len(u.free))
	left := len(u.free) - n
	for i := range n {
		chunks[i] = u.free[len(u.free)-1-i]
	}
	u.free = u.free[:left]
	return n
}

// Free gives chunks back. Addresses may lie anywhere within a chunk. One that
// is not of this UMEM, or one more than it has, is a bug and an error.
func (u *UMEM) Free(chunks []uint64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.free)+len(chunks) > u.config.Frames {
		return fmt.Errorf("free %d chunks: %d of %d are free already", len(chunks), len(u.free), u.config.Frames)
	}
	for _, a := range chunks {
		if a >= u.size {
			return fmt.Errorf("free chunk at %#x: the UMEM has %#x bytes", a, u.size)
		}
	}
	for _, a := range chunks {
		u.free = append(u.free, u.Base(a))
	}
	return nil
}

// Available is how many chunks nobody has.
func (u *UMEM) Available() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.free)
}

// Base is the address of the chunk that an address lies in.
func (u *UMEM) Base(addr uint64) uint64 {
	if u.mask != 0 {
		return addr &^ u.mask
	}
	return addr - addr%uint64(u.config.FrameSize)
}

// Index is the number of the chunk that an address lies in, from 0.
func (u *UMEM) Index(addr uint64) int {
	if u.mask != 0 {
		return int(addr >> bits.TrailingZeros(uint(u.config.FrameSize)))
	}
	return int(addr / uint64(u.config.FrameSize))
}

// Valid says whether a descriptor's data lies within one chunk.
func (u *UMEM) Valid(d Desc) bool {
	return d.Addr < u.size && d.Addr-u.Base(d.Addr)+uint64(d.Len) <= uint64(u.config.FrameSize)
}

// Data is what a descriptor describes, or nil when that is not within one chunk.
// It may be extended up to the end of the chunk.
func (u *UMEM) Data(d Desc) []byte {
	if !u.Valid(d) {
		return nil
	}
	return u.mem[d.Addr : d.Addr+uint64(d.Len) : u.Base(d.Addr)+uint64(u.config.FrameSize)]
}

// Close unmaps the memory. It returns [ErrInUse] while sockets are open.
func (u *UMEM) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil
	}
	if len(u.sockets) > 0 {
		return fmt.Errorf("close UMEM: %w", ErrInUse)
	}
	u.closed = true
	u.free = nil
	mem := u.mem
	u.mem, u.size = nil, 0
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap frames: %w", err)
	}
	return nil
}

// RaiseMemlock lifts the limit of locked memory, which a UMEM counts against
// where the process lacks CAP_IPC_LOCK. Without the right to lift it, it returns
// an error that may be shown and ignored: small UMEMs fit.
func RaiseMemlock() error {
	var caps [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if unix.Capget(&header, &caps[0]) == nil && caps[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0 {
		return nil
	}
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited)
	if err == nil {
		return nil
	}
	// What the hard limit allows needs no right.
	var now unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &now) == nil && now.Cur < now.Max {
		now.Cur = now.Max
		unix.Setrlimit(unix.RLIMIT_MEMLOCK, &now)
	}
	return &feature.Missing{Feature: "the right to lock memory", Help: "raise RLIMIT_MEMLOCK (ulimit -l)", Err: err}
}
