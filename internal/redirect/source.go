package redirect

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/xsk"
)

// source sends packets in place of live frames. All of a packet's way is done when the call returns that sends it.
type source interface {
	// send sends at least frames packets, bulk of them with each system call, and returns how many. It must run on the
	// thread of the source's namespace.
	send(frames, bulk int) (sent int, err error)
	// capacity is the largest number of frames of a call.
	capacity() int
	Close() error
}

// openSource opens what sends the packets of a scenario.
func (c *Chain) openSource(ctx context.Context) error {
	from := ways[c.spec.Scenario].origin
	if from == liveFrames {
		return nil
	}
	frame, err := c.spec.frame()
	if err != nil {
		return err
	}
	return c.namespace.Do(func() (err error) {
		if from == xdpSocket {
			c.source, err = newXSKSource(ctx, c.generator.Index, frame)
		} else {
			c.source, err = newPacketSource(c.generator.Index, frame)
		}
		return err
	})
}

// xskSource sends by an AF_XDP socket in copy mode: the kernel copies each frame into an skb.
type xskSource struct {
	umem   *xsk.UMEM
	socket *xsk.Socket
	frames []xsk.Desc // of a bulk: all the same chunk, which the kernel only reads
	done   []uint64
}

// xskSourceRing is the length of the TX and completion rings: as many frames as the longest slot has.
const xskSourceRing = 1 << 13

func newXSKSource(ctx context.Context, ifindex int, frame []byte) (s source, err error) {
	x := &xskSource{done: make([]uint64, xskSourceRing)}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.Close())
		}
	}()
	const chunks = 64
	if x.umem, err = xsk.NewUMEM(xsk.Config{Frames: chunks, FrameSize: 4096}); err != nil {
		return nil, err
	}
	x.socket, err = xsk.Open(ctx, x.umem, xsk.Options{
		Interface: ifindex, Mode: xsk.Copy,
		Fill: chunks, RX: chunks, TX: xskSourceRing, Completion: xskSourceRing,
	})
	if err != nil {
		return nil, err
	}
	var chunk [1]uint64
	x.umem.Alloc(chunk[:])
	d := xsk.Desc{Addr: chunk[0], Len: uint32(len(frame))}
	copy(x.umem.Data(d), frame)
	for range maxBulk {
		x.frames = append(x.frames, d)
	}
	return x, nil
}

func (x *xskSource) send(frames, bulk int) (sent int, err error) {
	for x.socket.Completion.Take(x.done) > 0 {
	}
	for sent < frames {
		n := x.socket.TX.Put(x.frames[:bulk])
		if n == 0 {
			return sent, errors.New("send by AF_XDP: the TX ring is full")
		}
		for sent += n; x.socket.TX.Pending() > 0; {
			if err := x.socket.Kick(); err != nil {
				return sent, err
			}
		}
	}
	return sent, nil
}

func (x *xskSource) capacity() int { return xskSourceRing }

func (x *xskSource) Close() error {
	var errs []error
	if x.socket != nil {
		errs = append(errs, x.socket.Close())
	}
	if x.umem != nil {
		errs = append(errs, x.umem.Close())
	}
	return errors.Join(errs...)
}

// packetSource sends by a packet socket, as programs do that make frames of their own: by way of the network stack's
// __dev_queue_xmit.
type packetSource struct {
	fd       int
	messages []message
}

func newPacketSource(ifindex int, frame []byte) (source, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // 0: it receives nothing
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifindex}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind packet socket: %w", err), unix.Close(fd))
	}
	return &packetSource{fd, messagesOf(frame, maxBulk)}, nil
}

func (p *packetSource) send(frames, bulk int) (sent int, err error) {
	for sent < frames {
		n, errno := sendMessages(p.fd, p.messages[:bulk])
		if errno != 0 {
			return sent, fmt.Errorf("send by packet socket: %w", errno)
		}
		sent += n
	}
	return sent, nil
}

func (p *packetSource) capacity() int { return maxFrames }

func (p *packetSource) Close() error { return unix.Close(p.fd) }
