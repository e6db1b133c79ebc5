package datapath

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/xsk"
)

// TAP is a port on a TAP device: what the network stack sends out by it is
// received, and what is transmitted the stack receives. Each frame is one call
// with a gather list, as TAP has none for several.
type TAP struct {
	copied
	fd int
	// Name is the device's.
	Name string
}

// maxTAP is the MTU that receiving allows for; a TAP's can be changed later.
const maxTAP = 9000

// NewTAP makes a TAP device, or attaches to one that is there and free. With ""
// the kernel chooses the name. The device goes with the port, unless it was made
// to stay.
func NewTAP(u *xsk.UMEM, name string) (*TAP, error) {
	if len(name) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("name %q of TAP device: must be shorter than %d bytes", name, unix.IFNAMSIZ)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EACCES) {
		return nil, &feature.Missing{Feature: "/dev/net/tun", Help: "modprobe tun", Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	name, errno := setInterface(fd, name, unix.IFF_TAP|unix.IFF_NO_PI)
	if errno == unix.EPERM {
		return nil, errors.Join(feature.Refused(errno, unix.CAP_NET_ADMIN), unix.Close(fd))
	}
	if errno != 0 {
		return nil, errors.Join(fmt.Errorf("make TAP device: %w", errno), unix.Close(fd))
	}
	return &TAP{copied: newCopied(u, maxTAP, false), fd: fd, Name: name}, nil
}

// Receive implements [Port].
func (p *TAP) Receive(frames []xsk.Desc) (int, error) {
	n := 0
	for len(frames)-n >= p.parts && p.offer(1) == 1 {
		length, errno := p.in.read(p.fd, p.parts)
		if errno != 0 || length == 0 {
			p.giveBack(0, 1)
			p.fail(errno)
			break
		}
		n += p.accept(frames[n:], 0, length)
	}
	return n, nil
}

// Transmit implements [Port].
func (p *TAP) Transmit(frames []xsk.Desc) (int, error) {
	total := 0
	for total < len(frames) {
		frame := frames[total:]
		frame = frame[:parts(frame)]
		if len(frame) > p.done.room() {
			break
		}
		for i, d := range frame {
			p.out.part(i, p.umem.Data(d))
		}
		_, errno := p.out.write(p.fd, len(frame))
		if errno == unix.EINVAL {
			return total, ErrRefused // shorter than an Ethernet header
		}
		if errno != 0 { // no room, or the device is not up
			p.fail(errno)
			break
		}
		for _, d := range frame {
			p.done.push(d.Addr)
		}
		total += len(frame)
	}
	return total, nil
}

// fail notes an error that means that the device went: EBADFD.
func (p *TAP) fail(errno unix.Errno) {
	if errno == unix.EBADFD || errno == unix.ENODEV {
		p.err = fmt.Errorf("use TAP device %s: %w", p.Name, xsk.ErrGone)
	}
}

// Flush implements [Port].
func (p *TAP) Flush() ([]uint64, error) { return nil, p.err }

// Check implements [Port].
func (p *TAP) Check() error { return p.err }

// FD implements [Port].
func (p *TAP) FD() int { return p.fd }

// Close implements [Port].
func (p *TAP) Close() error {
	if p.fd < 0 {
		return nil
	}
	err := unix.Close(p.fd)
	p.fd = -1
	return err
}
