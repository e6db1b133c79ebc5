package datapath

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/unthunk/unthunk/xsk"
)

// Memory is a port without a device, for tests and for measuring the datapath
// itself. Its methods beyond those of [Port] are for the worker's goroutine.
type Memory struct {
	umem   *xsk.UMEM
	filled fifo[uint64]
	rx     fifo[xsk.Desc]
	tx     fifo[xsk.Desc]
	done   int    // how many of tx, from the oldest on, wait for Complete
	length uint32 // of generated frames
	fail   error

	// Sent is called with each frame transmitted, if it is not nil. parts lie in
	// the UMEM.
	Sent func(parts [][]byte)
	// Stall keeps what is transmitted from being completed.
	Stall bool
	// Unsent makes that many of the next frames complete without being sent.
	Unsent int
	// MaxLen is the longest part that can be sent, in bytes; 0 is any.
	MaxLen uint32

	parts  [][]byte
	unsent []uint64
}

// NewMemory makes a port with room for size chunks to receive into and size
// descriptors to transmit, a power of two. A descriptor has its place until Complete
// returned its chunk, sent or not.
func NewMemory(u *xsk.UMEM, size int) (*Memory, error) {
	if size < 1 || bits.OnesCount(uint(size)) != 1 {
		return nil, fmt.Errorf("memory port of %d entries: not a power of two", size)
	}
	return &Memory{
		umem: u, filled: newFIFO[uint64](size), rx: newFIFO[xsk.Desc](size),
		tx: newFIFO[xsk.Desc](size), parts: make([][]byte, 0, MaxParts),
	}, nil
}

// Generate makes the port receive frames without end, as fast as it has chunks.
// The frame is written into all chunks of the UMEM now and never again; nobody
// else may use them yet.
func (p *Memory) Generate(frame []byte) error {
	if len(frame) > p.umem.Capacity() {
		return fmt.Errorf("frame of %d bytes: chunks hold %d", len(frame), p.umem.Capacity())
	}
	mem, size := p.umem.Bytes(), p.umem.Config().FrameSize
	for at := p.headroom(); at+len(frame) <= len(mem); at += size {
		copy(mem[at:], frame)
	}
	p.length = uint32(len(frame))
	return nil
}

func (p *Memory) headroom() int { return xsk.KernelHeadroom + p.umem.Config().Headroom }

// Inject makes the port receive a frame, in as many chunks as it needs. It says
// false when there are fewer.
func (p *Memory) Inject(frame []byte) bool {
	capacity := p.umem.Capacity()
	n := max(1, (len(frame)+capacity-1)/capacity)
	if p.filled.len() < n || p.rx.room() < n {
		return false
	}
	var chunk [1]uint64
	for i := range n {
		p.filled.take(chunk[:])
		d := xsk.Desc{Addr: p.umem.Base(chunk[0]) + uint64(p.headroom())}
		copied := copy(p.umem.Bytes()[d.Addr:d.Addr+uint64(capacity)], frame)
		frame = frame[copied:]
		d.Len = uint32(copied)
		if i < n-1 {
			d.Options = xsk.Continued
		}
		p.rx.put([]xsk.Desc{d})
	}
	return true
}

// InjectDesc makes the port receive a descriptor as it is, without taking one of
// its chunks: what a broken ring would do.
func (p *Memory) InjectDesc(d xsk.Desc) { p.rx.put([]xsk.Desc{d}) }

// Lose makes the port fail from now on.
func (p *Memory) Lose(err error) { p.fail = err }

// FillSize implements [Port].
func (p *Memory) FillSize() int { return len(p.filled.entries) }

// Fill implements [Port].
func (p *Memory) Fill(chunks []uint64) int { return p.filled.put(chunks) }

// Receive implements [Port].
func (p *Memory) Receive(frames []xsk.Desc) (int, error) {
	if p.fail != nil {
		return 0, p.fail
	}
	if p.length == 0 {
		return p.rx.take(frames), nil
	}
	u, head, length := p.umem, uint64(p.headroom()), p.length
	n := min(len(frames), p.filled.len())
	for at := 0; at < n; {
		chunks := p.filled.next(n - at)
		received := frames[at : at+len(chunks)]
		for i := range received {
			received[i] = xsk.Desc{Addr: u.Base(chunks[i]) + head, Len: length}
		}
		p.filled.drop(len(chunks))
		at += len(chunks)
	}
	return n, nil
}

// Transmit implements [Port].
func (p *Memory) Transmit(frames []xsk.Desc) (int, error) {
	n := min(len(frames), p.tx.room())
	longest := p.MaxLen
	if longest == 0 {
		longest = math.MaxUint32
	}
	for i := range frames[:n] {
		if length := frames[i].Len; length == 0 || length > longest {
			n = i
			for n > 0 && frames[n-1].Options&xsk.Continued != 0 {
				n--
			}
			return p.tx.put(frames[:n]), ErrRefused
		}
	}
	for n > 0 && n < len(frames) && frames[n-1].Options&xsk.Continued != 0 {
		n--
	}
	return p.tx.put(frames[:n]), nil
}

// Flush implements [Port].
func (p *Memory) Flush() (unsent []uint64, err error) {
	if p.fail != nil {
		return nil, p.fail
	}
	if p.Stall {
		return nil, nil
	}
	first, n := p.done, p.tx.len()
	p.done = n
	if p.Sent == nil && p.Unsent == 0 {
		return nil, nil
	}
	p.unsent = p.unsent[:0]
	for i := first; i < n; i++ {
		d := p.tx.at(i)
		p.parts = append(p.parts, p.umem.Data(d))
		if d.Options&xsk.Continued != 0 {
			continue
		}
		if p.Unsent > 0 {
			p.Unsent--
			p.unsent = append(p.unsent, d.Addr)
		} else if p.Sent != nil {
			p.Sent(p.parts)
		}
		p.parts = p.parts[:0]
	}
	return p.unsent, nil
}

// Complete implements [Port].
func (p *Memory) Complete(chunks []uint64) int {
	n := min(len(chunks), p.done)
	for at := 0; at < n; {
		sent := p.tx.next(n - at)
		completed := chunks[at : at+len(sent)]
		for i := range completed {
			completed[i] = sent[i].Addr
		}
		p.tx.drop(len(sent))
		at += len(sent)
	}
	p.done -= n
	return n
}

// Check implements [Port].
func (p *Memory) Check() error { return p.fail }

// FD implements [Port].
func (p *Memory) FD() int { return -1 }

// Close implements [Port].
func (p *Memory) Close() error { return nil }

// fifo is a queue of fixed length, a power of two.
type fifo[E any] struct {
	entries    []E
	head, tail uint32
}

func newFIFO[E any](size int) fifo[E] { return fifo[E]{entries: make([]E, size)} }

func (f *fifo[E]) len() int  { return int(f.tail - f.head) }
func (f *fifo[E]) room() int { return len(f.entries) - f.len() }

func (f *fifo[E]) at(i int) E {
	return f.entries[(f.head+uint32(i))&uint32(len(f.entries)-1)]
}

// next is the first of n entries, as many as lie in a row.
func (f *fifo[E]) next(n int) []E {
	at := int(f.head) & (len(f.entries) - 1)
	return f.entries[at:min(at+n, len(f.entries))]
}

func (f *fifo[E]) drop(n int) { f.head += uint32(n) }

func (f *fifo[E]) push(e E) {
	f.entries[f.tail&uint32(len(f.entries)-1)] = e
	f.tail++
}

func (f *fifo[E]) put(entries []E) int {
	n := min(len(entries), f.room())
	at := int(f.tail) & (len(f.entries) - 1)
	if k := copy(f.entries[at:], entries[:n]); k < n {
		copy(f.entries, entries[k:n])
	}
	f.tail += uint32(n)
	return n
}

func (f *fifo[E]) take(entries []E) int {
	n := min(len(entries), f.len())
	if n == 0 {
		return 0
	}
	at := int(f.head) & (len(f.entries) - 1)
	if k := copy(entries[:n], f.entries[at:]); k < n {
		copy(entries[k:n], f.entries)
	}
	f.head += uint32(n)
	return n
}
