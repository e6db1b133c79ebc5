package datapath

import (
	"errors"

	"github.com/unthunk/unthunk/xsk"
)

// Port is where frames come from and go to. Its methods are called by one
// worker, for a batch at a time. Chunks and frames are addresses in the worker's
// UMEM.
//
// [XSK] and [Memory] are called directly. All others, the user's too, are called
// through the interface, about five times a batch.
type Port interface {
	// FillSize is how many chunks the port holds to receive into.
	FillSize() int
	// Fill gives the port chunks to receive into and returns how many it took.
	// Addresses lie anywhere within their chunks.
	Fill(chunks []uint64) int
	// Receive returns received frames, in chunks that Fill gave. Of a frame in
	// several chunks all descriptors but the last have xsk.Continued set. An
	// error means that the port is lost, and comes with no frames.
	Receive(frames []xsk.Desc) (int, error)
	// Transmit takes as many whole frames as there is room for and returns how
	// many descriptors it took. ErrRefused says that the next frame can never
	// be sent.
	Transmit(frames []xsk.Desc) (int, error)
	// Flush starts what Transmit took, and makes what was started before go on.
	// It returns, until the next call, the addresses of frames that were taken and not
	// sent, of each its last part, though Complete returns their chunks. The address of
	// any other chunk says that a frame was not sent, and not which. An error means
	// that the port is lost.
	Flush() (unsent []uint64, err error)
	// Complete returns chunks whose frames are not needed any more, as
	// addresses within them.
	Complete(chunks []uint64) int
	// Check is called now and then, and often while nothing happens. An error
	// means that the port is lost.
	Check() error
	// FD is a file descriptor that becomes readable when there are frames, or
	// less than 0.
	FD() int
	// Close gives up what the port holds. Its chunks may be used again after.
	Close() error
}

// ErrRefused says that a port cannot send a frame, ever.
var ErrRefused = errors.New("port cannot send such a frame")

// MaxParts is how many chunks a frame may have: what an skb holds
// (MAX_SKB_FRAGS + 1 in linux/skbuff.h, with its default of 17).
const MaxParts = 18

// kind tells ports that are called directly apart.
type kind uint8

const (
	kindNone   kind = iota
	kindRemote      // another worker has it
	kindXSK
	kindMemory
	kindOther
)

// slot is a port's place in a datapath.
type slot struct {
	kind   kind
	xsk    *XSK
	memory *Memory
	other  Port
	port   Port // the same, nil when the port is lost

	counters Counters
	device   int    // that it is a queue of: the slot that notes the bulk which had frames of the device last
	bulk     uint64 // that, by its number
	filled   int    // chunks it has to receive into
	target   int

	queue queue
	// hold is how many frames the port may have that it was not flushed for: they may wait for the next batches where a
	// flush costs as much for one as for many; 0 is none. accepted is counters.Accepted at the end of the last poll, flushed
	// that at the last flush; full says that it got a full batch in the last poll.
	hold              uint64
	accepted, flushed uint64
	full              bool
	input             int    // that frames went from to it from ring to ring last
	owed              uint64 // frames that it said were not sent, and not which

	carry    []xsk.Desc // the beginning of a frame whose end has not come
	skipping bool       // until the end of a chain that is too long
}

// here says whether the port is there, and this worker's.
func (s *slot) here() bool { return s.kind > kindRemote }

// wants says whether the port would take chunks to receive into.
func (s *slot) wants() bool { return s.here() && s.filled < s.target }

func (s *slot) set(p Port) {
	s.kind, s.xsk, s.memory, s.other, s.port, s.hold = kindOther, nil, nil, p, p, 0
	switch p := p.(type) {
	case nil:
		s.kind, s.target = kindNone, 0
		return
	case *XSK:
		s.kind, s.xsk, s.hold = kindXSK, p, p.holds()
	case *Memory:
		s.kind, s.memory = kindMemory, p
	}
	s.filled, s.target = 0, p.FillSize()
}

func (s *slot) fill(chunks []uint64) int {
	switch s.kind {
	case kindXSK:
		return s.xsk.Fill(chunks)
	case kindMemory:
		return s.memory.Fill(chunks)
	}
	return s.other.Fill(chunks)
}

func (s *slot) receive(frames []xsk.Desc) (int, error) {
	switch s.kind {
	case kindXSK:
		return s.xsk.Receive(frames)
	case kindMemory:
		return s.memory.Receive(frames)
	}
	return s.other.Receive(frames)
}

func (s *slot) transmit(frames []xsk.Desc) (int, error) {
	switch s.kind {
	case kindXSK:
		return s.xsk.Transmit(frames)
	case kindMemory:
		return s.memory.Transmit(frames)
	}
	return s.other.Transmit(frames)
}

func (s *slot) flush() (unsent []uint64, err error) {
	switch s.kind {
	case kindXSK:
		return s.xsk.Flush()
	case kindMemory:
		return s.memory.Flush()
	}
	return s.other.Flush()
}

func (s *slot) complete(chunks []uint64) int {
	switch s.kind {
	case kindXSK:
		return s.xsk.Complete(chunks)
	case kindMemory:
		return s.memory.Complete(chunks)
	}
	return s.other.Complete(chunks)
}
