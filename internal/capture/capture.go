package capture

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/device"
)

// Options of [Open].
type Options struct {
	Device device.Device
	// Filter says which packets to keep, as package filter compiles it; all when it is empty.
	Filter []bpf.Instruction
	// Duration is how long to look, Packets how many to keep at most.
	Duration time.Duration
	Packets  int
	// Snaplen is how many bytes of each packet are kept; 0 is all.
	Snaplen int
	// Promiscuous asks the device for packets of other addresses too, until Close.
	Promiscuous bool
}

// Result counts what a capture saw.
type Result struct {
	// Packets are those in the file, Bytes their bytes there, Cut those that Snaplen cut.
	Packets, Bytes, Cut int
	// Unmatched are packets that the filter did not match. Merged are packets that the
	// kernel merged of several (GRO, LRO): no XDP program gets such, and they are left out.
	Unmatched, Merged int
	// Dropped are packets that the ring had no room for.
	Dropped int
	// Took is from the first look to the last; Full says that it ended because Packets were
	// there.
	Took time.Duration
	Full bool
}

// Capture is a packet socket on a device, which receives from Open on.
type Capture struct {
	opts   Options
	fd     int
	ring   *ring
	filter *bpf.VM
}

// Open opens the socket. It returns a [feature.Missing] without CAP_NET_RAW. Requires at
// least Linux 4.20.
func Open(opts Options) (c *Capture, err error) {
	c = &Capture{opts: opts}
	if len(opts.Filter) > 0 {
		if c.filter, err = bpf.NewVM(opts.Filter); err != nil {
			return nil, fmt.Errorf("use filter: %w", err)
		}
	}
	c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EPERM) {
		return nil, feature.Refused(err, unix.CAP_NET_RAW)
	}
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if err := c.setUp(); err != nil {
		return nil, errors.Join(fmt.Errorf("open packet socket on %s: %w", opts.Device.Name, err), c.Close())
	}
	return c, nil
}

// setUp makes the ring, and then lets the socket receive: what came before would be of
// every device.
func (c *Capture) setUp() (err error) {
	if err := unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fmt.Errorf("leave out what is sent: %w", err)
	}
	if c.ring, err = newRing(c.fd); err != nil {
		return err
	}
	if c.opts.Promiscuous {
		m := unix.PacketMreq{Ifindex: int32(c.opts.Device.Index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(c.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
			return fmt.Errorf("set promiscuous: %w", err)
		}
	}
	return unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: ethPAll, Ifindex: c.opts.Device.Index})
}

// ethPAll is htons(ETH_P_ALL).
const ethPAll = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8

// Close closes the socket, and with it ends what it asked of the device.
func (c *Capture) Close() error {
	err := c.ring.close()
	if c.fd >= 0 {
		err = errors.Join(err, unix.Close(c.fd))
		c.fd = -1
	}
	return err
}

// errFull ends a capture that has as many packets as it was asked for.
var errFull = errors.New("enough packets")

// Run writes packets to w as a pcap file with times in ns, until there are enough, the time
// is over or ctx ends. It returns an error, with what it has, when the device goes away.
func (c *Capture) Run(ctx context.Context, w io.Writer) (Result, error) {
	r := runner{c: c, w: bufio.NewWriterSize(w, 1<<20)}
	began := time.Now()
	_, err := r.w.Write(datapath.PcapHeader())
	if err == nil {
		err = r.until(ctx, began.Add(c.opts.Duration))
	}
	r.Took = time.Since(began)
	if errors.Is(err, errFull) {
		r.Full, err = true, nil
	}
	if errFlush := r.w.Flush(); errFlush != nil && err == nil {
		err = fmt.Errorf("write pcap file: %w", errFlush)
	}
	// Reading them sets them back.
	stats, errStats := unix.GetsockoptTpacketStatsV3(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if errStats != nil {
		return r.Result, errors.Join(err, fmt.Errorf("read statistics of packet socket: %w", errStats))
	}
	r.Dropped = int(stats.Drops)
	return r.Result, err
}

// runner is a capture under way.
type runner struct {
	Result
	c   *Capture
	w   *bufio.Writer
	buf []byte
}

// until takes blocks until the end. After it a block that is being filled is waited for: the
// kernel hands it over within its time.
func (r *runner) until(ctx context.Context, end time.Time) error {
	const step = 100 * time.Millisecond
	for {
		for {
			got, err := r.c.ring.take(func(block []byte) error { return packets(block, r.packet) })
			if err != nil {
				return err
			}
			if !got {
				break
			}
			if ctx.Err() != nil || time.Now().After(end.Add(step)) { // more than the file can take
				return nil
			}
		}
		left := time.Until(end.Add(2 * retire * time.Millisecond))
		if left <= 0 || ctx.Err() != nil {
			return nil
		}
		if err := r.wait(min(left, step)); err != nil {
			return err
		}
	}
}

// wait waits for a block.
func (r *runner) wait(most time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(r.c.fd), Events: unix.POLLIN | unix.POLLERR}}
	_, err := unix.Poll(fds, max(int(most.Milliseconds()), 1))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for packets: %w", err)
	}
	if fds[0].Revents&unix.POLLERR == 0 {
		return nil
	}
	code, err := unix.GetsockoptInt(r.c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return fmt.Errorf("wait for packets: %w", err)
	case unix.Errno(code) == unix.ENETDOWN:
		return fmt.Errorf("%s went down or away", r.c.opts.Device.Name)
	case code != 0:
		return fmt.Errorf("wait for packets: %w", unix.Errno(code))
	}
	return nil
}

// packet writes a packet that is wanted.
func (r *runner) packet(p packet) error {
	const tags = 14 + 2*4 // the Ethernet header and two VLAN tags
	if p.length > r.c.opts.Device.MTU+tags {
		r.Merged++
		return nil
	}
	frame, length := p.frame(r.buf)
	if p.tagged {
		r.buf = frame
	}
	if f := r.c.filter; f != nil {
		n, err := f.Run(frame)
		if err != nil {
			return fmt.Errorf("use filter: %w", err)
		}
		if n == 0 {
			r.Unmatched++
			return nil
		}
	}
	if most := r.c.opts.Snaplen; most > 0 && len(frame) > most {
		frame = frame[:most]
	}
	if len(frame) < length {
		r.Cut++
	}
	var h [16]byte
	datapath.PutPcapRecord(h[:], p.at, len(frame), length)
	_, err1 := r.w.Write(h[:])
	_, err2 := r.w.Write(frame)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("write pcap file: %w", err)
	}
	r.Packets++
	r.Bytes += len(frame)
	if most := r.c.opts.Packets; most > 0 && r.Packets >= most {
		return errFull
	}
	return nil
}
