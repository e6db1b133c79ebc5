package datapath

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/xsk"
)

// mmsghdr is struct mmsghdr, recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// auxdata is struct tpacket_auxdata, linux/if_packet.h.
type auxdata struct {
	status, len, snapLen        uint32
	mac, net, vlanTCI, vlanTPID uint16
}

// controlSize holds one auxdata with its header (CMSG_SPACE).
const controlSize = unix.SizeofCmsghdr + int(unsafe.Sizeof(auxdata{})) + 4

// vector is messages of several parts for one call: gather lists.
type vector struct {
	headers []mmsghdr
	iovs    []unix.Iovec
	control []byte // controlSize for each message, or none
}

func newVector(messages, parts int, control bool) *vector {
	v := &vector{headers: make([]mmsghdr, messages), iovs: make([]unix.Iovec, messages*parts)}
	if control {
		v.control = make([]byte, messages*controlSize)
	}
	return v
}

// part makes a part of the UMEM the i-th of all parts. The UMEM is not moved by
// the collector: it is mapped.
func (v *vector) part(i int, b []byte) {
	v.iovs[i].Base = unsafe.SliceData(b)
	v.iovs[i].SetLen(len(b))
}

// message makes n parts from the i-th on the m-th message.
func (v *vector) message(m, i, n int) {
	h := &v.headers[m].hdr
	h.Iov = &v.iovs[i]
	h.SetIovlen(n)
	h.Flags = 0
	if v.control != nil {
		h.Control = &v.control[m*controlSize]
		h.SetControllen(controlSize)
	}
}

// receive and send move the first n messages and return how many were moved.
func (v *vector) receive(fd, n int) (int, unix.Errno) {
	got, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.headers[0])),
		uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), 0
}

func (v *vector) send(fd, n int) (int, unix.Errno) {
	got, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.headers[0])),
		uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), 0
}

// read and write move one message's parts, for descriptors that are no sockets.
func (v *vector) read(fd, parts int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(&v.iovs[0])), uintptr(parts))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func (v *vector) write(fd, parts int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&v.iovs[0])), uintptr(parts))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// vlan is the tag that the kernel took out of the m-th message, if it did.
func (v *vector) vlan(m int) (tpid, tci uint16, ok bool) {
	h := &v.headers[m].hdr
	if int(h.Controllen) < unix.SizeofCmsghdr+int(unsafe.Sizeof(auxdata{})) {
		return 0, 0, false
	}
	c := (*unix.Cmsghdr)(unsafe.Pointer(&v.control[m*controlSize]))
	if c.Level != unix.SOL_PACKET || c.Type != unix.PACKET_AUXDATA {
		return 0, 0, false
	}
	a := (*auxdata)(unsafe.Pointer(&v.control[m*controlSize+unix.SizeofCmsghdr]))
	if a.status&unix.TP_STATUS_VLAN_VALID == 0 {
		return 0, 0, false
	}
	tpid = unix.ETH_P_8021Q
	if a.status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = a.vlanTPID
	}
	return tpid, a.vlanTCI, true
}

// setInterface names a TAP device (TUNSETIFF) and returns the name it got.
func setInterface(fd int, name string, flags uint16) (string, unix.Errno) {
	var req struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	req.flags = flags
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req)))
	return unix.ByteSliceToString(req.name[:]), errno
}

// copied is a port whose frames the kernel copies from and to chunks: chunks come
// back as soon as a call returns.
type copied struct {
	umem   *xsk.UMEM
	filled fifo[uint64]
	done   fifo[uint64]
	parts  int // chunks that the largest frame needs
	chunks []uint64
	in     *vector
	out    *vector
	err    error
}

// copiedBatch is how many messages one call moves at most.
const copiedBatch = 64

// copiedRing is how many chunks a port holds each way.
const copiedRing = 1024

func newCopied(u *xsk.UMEM, mtu int, control bool) copied {
	// The Ethernet header and a VLAN tag.
	parts := (mtu + 18 + u.Capacity() - 1) / u.Capacity()
	parts = min(max(parts, 1), MaxParts)
	return copied{
		umem: u, filled: newFIFO[uint64](copiedRing), done: newFIFO[uint64](copiedRing), parts: parts,
		chunks: make([]uint64, copiedBatch*parts),
		in:     newVector(copiedBatch, parts, control), out: newVector(copiedBatch, MaxParts, false),
	}
}

// FillSize implements [Port].
func (p *copied) FillSize() int { return copiedRing }

// Fill implements [Port].
func (p *copied) Fill(chunks []uint64) int { return p.filled.put(chunks) }

// Complete implements [Port].
func (p *copied) Complete(chunks []uint64) int { return p.done.take(chunks) }

// offer takes the chunks of up to n messages out of the fill queue and points the
// vector at them.
func (p *copied) offer(n int) int {
	n = min(n, p.filled.len()/p.parts, copiedBatch)
	p.filled.take(p.chunks[:n*p.parts])
	head, capacity := uint64(xsk.KernelHeadroom+p.umem.Config().Headroom), p.umem.Capacity()
	for i := range n * p.parts {
		a := p.umem.Base(p.chunks[i]) + head
		p.chunks[i] = a
		p.in.part(i, p.umem.Bytes()[a:a+uint64(capacity)])
	}
	for m := range n {
		p.in.message(m, m*p.parts, p.parts)
	}
	return n
}

// accept makes descriptors of the m-th message, which has length bytes, and
// returns how many. Chunks it does not need go back.
func (p *copied) accept(frames []xsk.Desc, m, length int) int {
	capacity := p.umem.Capacity()
	chunks := p.chunks[m*p.parts : (m+1)*p.parts]
	n := 0
	for left := length; left > 0; left -= capacity {
		d := xsk.Desc{Addr: chunks[n], Len: uint32(min(left, capacity))}
		if left > capacity {
			d.Options = xsk.Continued
		}
		frames[n] = d
		n++
	}
	p.filled.put(chunks[n:])
	return n
}

// giveBack returns the chunks of messages from the m-th to the n-th unused.
func (p *copied) giveBack(m, n int) { p.filled.put(p.chunks[m*p.parts : n*p.parts]) }
