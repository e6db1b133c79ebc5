package datapath

import (
	"errors"
	"sync/atomic"

	"github.com/unthunk/unthunk/xsk"
)

// XSK is a port on an AF_XDP socket.
type XSK struct {
	socket *xsk.Socket
	// Down says that the link was down when the port was last asked. It is the
	// worker's to read.
	Down  bool
	up    bool   // it was found up once
	downs uint64 // how often it went down since the worker took note of it

	noProgram atomic.Bool

	unsent []uint64 // of the last Flush

	copies bool // the socket is in copy mode
}

// NewXSK makes a port of a socket, which must be on the datapath's UMEM. The port
// closes it. What reaches it is up to an XDP program, see xsk.Program.
func NewXSK(s *xsk.Socket) *XSK {
	return &XSK{socket: s, unsent: make([]uint64, 0, kicks), copies: s.Mode() == xsk.Copy}
}

// holds is how many frames may wait for a flush, which without copies is a system call that costs as much for one as for many:
// it wakes the driver, which takes them in polls and interrupts of its own. They are half of the TX ring, so that there is room
// while the driver takes them, or of the fill ring where that is shorter: what waits is not received into. With busy polling a
// flush also receives, and none wait.
func (p *XSK) holds() uint64 {
	if p.socket.Mode() != xsk.ZeroCopy || p.socket.BusyPolls() {
		return 0
	}
	return uint64(min(p.socket.TX.Size(), p.socket.Fill.Size()) / 2)
}

// Socket is the port's.
func (p *XSK) Socket() *xsk.Socket { return p.socket }

// NoProgram says that the device was without the XDP program that its driver wants
// (xsk.ErrNoProgram) when the port was last flushed: what it has to transmit waits
// for one. Any goroutine may call it.
func (p *XSK) NoProgram() bool { return p.noProgram.Load() }

// FillSize implements [Port].
func (p *XSK) FillSize() int { return p.socket.Fill.Size() }

// Fill implements [Port].
func (p *XSK) Fill(chunks []uint64) int { return p.socket.Fill.Put(chunks) }

// Receive implements [Port].
func (p *XSK) Receive(frames []xsk.Desc) (int, error) {
	p.touch(len(frames))
	n := p.socket.RX.Take(frames)
	if n == 0 && p.wakes() {
		return 0, p.woken(p.socket.WakeFill())
	}
	return n, nil
}

// relay moves received frames to another port from ring to ring, see [xsk.RX.Move].
func (p *XSK) relay(to *XSK, most int, owners []owner, from, sends owner) (frames int, bytes uint64) {
	p.touch(most)
	return p.socket.RX.Move(&to.socket.TX, most, owners, from, sends)
}

// touch reads from the next frames in copy mode. The core that received them wrote them, and the kernel will copy them, one
// after the other: so their cache lines come at the same time.
func (p *XSK) touch(most int) {
	if p.copies {
		p.socket.RX.Touch(most)
	}
}

// wakes says whether the driver is to be called when nothing was received.
func (p *XSK) wakes() bool { return p.socket.Fill.NeedsWakeup() || p.socket.BusyPolls() }

// Transmit implements [Port].
func (p *XSK) Transmit(frames []xsk.Desc) (int, error) {
	tx := &p.socket.TX
	bad := tx.Bad
	n := tx.Put(frames)
	if tx.Bad != bad {
		return n, ErrRefused
	}
	return n, nil
}

// kicks is how many frames a Flush lets the kernel drop, which needs a call
// each.
const kicks = 64

// Flush implements [Port].
func (p *XSK) Flush() (unsent []uint64, err error) {
	p.unsent = p.unsent[:0]
	for range kicks {
		if p.socket.TX.Pending() == 0 {
			break
		}
		err = p.socket.Kick()
		if !errors.Is(err, xsk.ErrDropped) {
			break
		}
		p.unsent = append(p.unsent, p.socket.Dropped().Addr)
		err = nil
	}
	return p.unsent, p.flushed(err)
}

// flushed notes what a flush ended with, and keeps the errors that mean the end of the port.
func (p *XSK) flushed(err error) error {
	if no := errors.Is(err, xsk.ErrNoProgram); no != p.noProgram.Load() {
		p.noProgram.Store(no)
	}
	return p.woken(err)
}

// woken keeps the errors of a wakeup that mean the end of the port. A driver says also while it is reset that the device is
// down: a check, which does not call it, knows.
func (p *XSK) woken(err error) error {
	switch {
	case errors.Is(err, xsk.ErrDown):
		return p.Check()
	case errors.Is(err, xsk.ErrNoProgram):
		return nil
	}
	return err
}

// takeDowns returns how often the link went down since the last time.
func (p *XSK) takeDowns() (n uint64) {
	n, p.downs = p.downs, 0
	return n
}

// Complete implements [Port].
func (p *XSK) Complete(chunks []uint64) int { return p.socket.Completion.Take(chunks) }

// complete gives chunks of frames that were transmitted to another port to receive into, see [xsk.Completion.Move].
func (p *XSK) complete(to *XSK, most int, owners []owner, from, fills owner) int {
	return p.socket.Completion.Move(&to.socket.Fill, most, owners, from, fills)
}

// keeps says whether at most half of the completion ring is full.
func (p *XSK) keeps() bool {
	c := &p.socket.Completion
	return c.Ready() <= c.Size()/2
}

// Check implements [Port].
func (p *XSK) Check() error { return p.checked(p.socket.Check()) }

// checked notes what a check found, and keeps the errors that mean the end of the port.
func (p *XSK) checked(err error) error {
	if errors.Is(err, xsk.ErrDown) {
		if p.up && !p.Down {
			p.downs++
		}
		p.Down = true
		return nil
	}
	if err == nil {
		p.up, p.Down = true, false
	}
	return err
}

// FD implements [Port].
func (p *XSK) FD() int { return p.socket.FD() }

// Close implements [Port].
func (p *XSK) Close() error { return p.socket.Close() }
