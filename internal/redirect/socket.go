package redirect

import (
	"context"
	"errors"
	"fmt"

	"github.com/unthunk/unthunk/xsk"
)

// xskRing is the length of the fill and RX rings in frames. All frames of a slot fit, so that nobody has to empty the
// ring while time is taken.
const xskRing = 1 << 15

// socketChunks is how many chunks the socket's memory has. The kernel copies each frame into a chunk of the fill ring;
// the same few are in it over and over, since nobody reads them.
const socketChunks = 64

// socketSink counts frames that arrive in an AF_XDP socket in copy mode, and forgets them.
type socketSink struct {
	umem   *xsk.UMEM
	socket *xsk.Socket
	chunks []uint64   // for all of the fill ring
	frames []xsk.Desc // as many as the RX ring holds
	taken  int        // since the last reset
}

// newSocketSink binds to a queue of a device in the calling thread's network namespace.
func newSocketSink(ctx context.Context, ifindex, queue int) (s *socketSink, err error) {
	s = &socketSink{frames: make([]xsk.Desc, xskRing)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.umem, err = xsk.NewUMEM(xsk.Config{Frames: socketChunks, FrameSize: 4096}); err != nil {
		return s, err
	}
	s.socket, err = xsk.Open(ctx, s.umem, xsk.Options{
		Interface: ifindex, Queue: queue, Mode: xsk.Copy, AlwaysPolling: true,
		Fill: xskRing, RX: xskRing, TX: socketChunks, Completion: socketChunks,
	})
	if err != nil {
		return s, err
	}
	chunks := make([]uint64, socketChunks)
	s.umem.Alloc(chunks)
	for range xskRing / socketChunks {
		s.chunks = append(s.chunks, chunks...)
	}
	s.socket.Fill.Put(s.chunks)
	return s, nil
}

// take empties the RX ring.
func (s *socketSink) take() { s.taken += s.socket.RX.Take(s.frames) }

func (s *socketSink) received() (uint64, error) {
	s.take()
	return uint64(s.taken), nil
}

func (s *socketSink) reset() error {
	s.take()
	if n := s.socket.Fill.Put(s.chunks[:s.taken]); n != s.taken {
		return fmt.Errorf("refill AF_XDP socket: the ring took %d of %d chunks", n, s.taken)
	}
	s.taken = 0
	return nil
}

func (s *socketSink) capacity() int { return xskRing }

// Close closes the socket and frees its memory.
func (s *socketSink) Close() error {
	var errs []error
	if s.socket != nil {
		errs = append(errs, s.socket.Close())
	}
	if s.umem != nil {
		errs = append(errs, s.umem.Close())
	}
	return errors.Join(errs...)
}
