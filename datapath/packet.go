package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/xsk"
)

// Packet is a port on a packet socket (AF_PACKET), for devices without XDP.
// Frames are copied between the kernel and the UMEM, many a call (recvmmsg,
// sendmmsg), each from and to as many chunks as it has.
//
// The network stack gets what it receives as well. What offloads make of frames
// is the user's: checksums that a sender left to the device are not filled in, so
// turn them off as for XDP.
type Packet struct {
	copied
	fd, ifindex int
	// Truncated is how many frames were larger than the device's MTU said, and
	// dropped. KernelDrops is how many the socket had no room for.
	Truncated, kernelDrops uint64
}

// ethPAll is htons(ETH_P_ALL).
const ethPAll = 0x0300

// NewPacket opens a packet socket on a device, by index, of the calling thread's
// network namespace. Requires at least Linux 4.20.
func NewPacket(u *xsk.UMEM, ifindex int) (p *Packet, err error) {
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return nil, fmt.Errorf("find interface %d: %w", ifindex, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EPERM) {
		return nil, feature.Refused(err, unix.CAP_NET_RAW)
	}
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open packet socket on %s: %w", l.Attrs().Name, err), unix.Close(fd))
			p = nil
		}
	}()
	for _, o := range []struct{ option, value int }{
		{unix.PACKET_IGNORE_OUTGOING, 1}, {unix.PACKET_AUXDATA, 1}, {unix.PACKET_QDISC_BYPASS, 1},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o.option, o.value); err != nil {
			return nil, fmt.Errorf("set option %d: %w", o.option, err)
		}
	}
	// Room for a fill ring's worth; a smaller limit of the host's is no error.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ethPAll, Ifindex: ifindex}); err != nil {
		return nil, err
	}
	return &Packet{copied: newCopied(u, l.Attrs().MTU, true), fd: fd, ifindex: ifindex}, nil
}

// Receive implements [Port].
func (p *Packet) Receive(frames []xsk.Desc) (int, error) {
	offered := p.offer(len(frames) / p.parts)
	if offered == 0 {
		return 0, nil
	}
	got, errno := p.in.receive(p.fd, offered)
	p.giveBack(got, offered)
	if errno != 0 {
		return 0, nil // nothing there, or an error that Check tells about
	}
	n := 0
	for m := range got {
		length := int(p.in.headers[m].len)
		if p.in.headers[m].hdr.Flags&unix.MSG_TRUNC != 0 || length == 0 {
			p.Truncated++
			p.giveBack(m, m+1)
			continue
		}
		first := n
		n += p.accept(frames[n:], m, length)
		if tpid, tci, ok := p.in.vlan(m); ok {
			p.tag(&frames[first], tpid, tci)
		}
	}
	return n, nil
}

// tag puts a VLAN tag back that the kernel took out, into the headroom.
func (p *Packet) tag(d *xsk.Desc, tpid, tci uint16) {
	if d.Len < 12 {
		return
	}
	d.Addr -= 4
	d.Len += 4
	b := p.umem.Data(*d)
	copy(b[:12], b[4:16])
	binary.BigEndian.PutUint16(b[12:], tpid)
	binary.BigEndian.PutUint16(b[14:], tci)
}

// Transmit implements [Port].
func (p *Packet) Transmit(frames []xsk.Desc) (int, error) {
	total := 0
	for total < len(frames) {
		descs, messages := p.gather(frames[total:])
		if messages == 0 {
			return total, nil // no room for completions
		}
		sent, errno := p.out.send(p.fd, messages)
		n := 0
		for range sent {
			n += parts(frames[total+n:])
		}
		for _, d := range frames[total : total+n] {
			p.done.push(d.Addr)
		}
		total += n
		switch errno {
		case 0:
			if n < descs {
				continue // the next call says why
			}
		case unix.EMSGSIZE, unix.EINVAL:
			return total, ErrRefused
		case unix.ENXIO, unix.ENODEV:
			p.err = fmt.Errorf("send on packet socket: %w", xsk.ErrGone)
			return total, nil
		default: // no buffers, link down
			return total, nil
		}
	}
	return total, nil
}

// gather makes messages of the first frames, and returns how many descriptors and
// messages those are.
func (p *Packet) gather(frames []xsk.Desc) (descs, messages int) {
	room := p.done.room()
	for messages < copiedBatch && descs < len(frames) {
		n := parts(frames[descs:])
		if descs+n > room || n > MaxParts {
			break
		}
		for i := range n {
			p.out.part(descs+i, p.umem.Data(frames[descs+i]))
		}
		p.out.message(messages, descs, n)
		descs += n
		messages++
	}
	return descs, messages
}

// Flush implements [Port].
func (p *Packet) Flush() ([]uint64, error) { return nil, p.err }

// Check finds a device that went: the kernel unbinds the socket then.
func (p *Packet) Check() error {
	if p.err != nil {
		return p.err
	}
	sa, err := unix.Getsockname(p.fd)
	if err != nil {
		return fmt.Errorf("read address of packet socket: %w", err)
	}
	if ll, ok := sa.(*unix.SockaddrLinklayer); !ok || ll.Ifindex != p.ifindex {
		return fmt.Errorf("check packet socket: %w", xsk.ErrGone)
	}
	return nil
}

// KernelDrops is how many frames the socket had no room for.
func (p *Packet) KernelDrops() (uint64, error) {
	// Reading it sets it back.
	st, err := unix.GetsockoptTpacketStats(p.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, fmt.Errorf("read statistics of packet socket: %w", err)
	}
	p.kernelDrops += uint64(st.Drops)
	return p.kernelDrops, nil
}

// FD implements [Port].
func (p *Packet) FD() int { return p.fd }

// Close implements [Port].
func (p *Packet) Close() error {
	if p.fd < 0 {
		return nil
	}
	err := unix.Close(p.fd)
	p.fd = -1
	return err
}
