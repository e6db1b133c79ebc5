package redirect

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// xskRing is the length of the fill and RX rings in frames. A slot's frames
// all fit, so nobody need empty the ring while time is taken.
const xskRing = 1 << 15

const (
	xskChunk  = 4096
	xskChunks = 64
)

// xskSink is an AF_XDP socket in copy mode that receives and forgets. The
// kernel copies each frame into a chunk of the fill ring; the same few chunks
// stand in it over and over, since nobody reads them.
type xskSink struct {
	fd             int
	umem, fill, rx []byte
	fillProducer   *atomic.Uint32
	rxProducer     *atomic.Uint32
	rxConsumer     *atomic.Uint32
	start          uint32 // rxProducer at the last drain
}

// newXSKSink binds to a queue of a device in the calling thread's network
// namespace. Requires at least Linux 5.4.
func newXSKSink(ifindex, queue int) (s *xskSink, err error) {
	s = &xskSink{fd: -1}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open AF_XDP socket: %w", err), s.Close())
		}
	}()
	if s.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); errors.Is(err, unix.EAFNOSUPPORT) {
		return s, &feature.Missing{Feature: "AF_XDP", Config: "CONFIG_XDP_SOCKETS", Err: err}
	} else if err != nil {
		return s, err
	}
	if s.umem, err = unix.Mmap(-1, 0, xskChunk*xskChunks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE); err != nil {
		return s, err
	}
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&s.umem[0]))), Len: uint64(len(s.umem)), Size: xskChunk}
	if err := setsockopt(s.fd, unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg)); err != nil {
		return s, err
	}
	ring := uint32(xskRing)
	completions := uint32(xskChunks)
	for opt, n := range map[int]*uint32{unix.XDP_UMEM_FILL_RING: &ring, unix.XDP_UMEM_COMPLETION_RING: &completions, unix.XDP_RX_RING: &ring} {
		if err := setsockopt(s.fd, opt, unsafe.Pointer(n), unsafe.Sizeof(*n)); err != nil {
			return s, err
		}
	}
	var off unix.XDPMmapOffsets
	size := uint32(unsafe.Sizeof(off))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS, uintptr(unsafe.Pointer(&off)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return s, errno
	}
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if s.fill, err = unix.Mmap(s.fd, unix.XDP_UMEM_PGOFF_FILL_RING, int(off.Fr.Desc)+xskRing*8, prot, flags); err != nil {
		return s, err
	}
	if s.rx, err = unix.Mmap(s.fd, unix.XDP_PGOFF_RX_RING, int(off.Rx.Desc)+xskRing*int(unsafe.Sizeof(unix.XDPDesc{})), prot, flags); err != nil {
		return s, err
	}
	for i := range xskRing {
		*(*uint64)(unsafe.Pointer(&s.fill[int(off.Fr.Desc)+8*i])) = uint64(i%xskChunks) * xskChunk
	}
	s.fillProducer = (*atomic.Uint32)(unsafe.Pointer(&s.fill[off.Fr.Producer]))
	s.rxProducer = (*atomic.Uint32)(unsafe.Pointer(&s.rx[off.Rx.Producer]))
	s.rxConsumer = (*atomic.Uint32)(unsafe.Pointer(&s.rx[off.Rx.Consumer]))
	s.fillProducer.Store(xskRing)
	if err := unix.Bind(s.fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(ifindex), QueueID: uint32(queue)}); err != nil {
		return s, fmt.Errorf("bind: %w", err)
	}
	return s, nil
}

func setsockopt(fd, opt int, p unsafe.Pointer, size uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(opt), uintptr(p), size, 0); errno != 0 {
		return fmt.Errorf("set AF_XDP option %d: %w", opt, errno)
	}
	return nil
}

// received is how many frames have come since the last drain.
func (s *xskSink) received() uint64 { return uint64(s.rxProducer.Load() - s.start) }

// drain gives all received frames' chunks back.
func (s *xskSink) drain() {
	n := s.rxProducer.Load()
	s.fillProducer.Add(n - s.start)
	s.rxConsumer.Store(n)
	s.start = n
}

// Close unmaps the rings and closes the socket.
func (s *xskSink) Close() error {
	var errs []error
	for _, m := range [][]byte{s.fill, s.rx} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	if s.fd >= 0 {
		errs = append(errs, unix.Close(s.fd))
	}
	if s.umem != nil {
		errs = append(errs, unix.Munmap(s.umem))
	}
	return errors.Join(errs...)
}
