package datapath

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// How long Run polls on with nothing to do before it waits, and how long it
// waits at most. While frames are in flight it polls on for longer: without copies a driver takes
// a part of the TX ring at a time, and no poll(2) tells when it could be asked for the next.
const (
	idlePolls     = 256
	inFlightPolls = 16 * idlePolls
	idleWait      = 10 * time.Millisecond
)

// Run polls until ctx is done, and waits for the ports while there is nothing to
// do. It returns nil when ctx is done, and an error when a port is lost and
// Config.Lost is nil.
func (d *Datapath) Run(ctx context.Context) error {
	var done atomic.Bool
	defer context.AfterFunc(ctx, func() { done.Store(true) })()
	watch := newStopwatch()
	idle := 0
	for !done.Load() {
		n, err := d.poll(watch)
		if err != nil {
			return err
		}
		if n > 0 {
			idle = 0
			took := watch.end()
			d.busy.Add(int64(took))
			d.passage.count(n, took)
			continue
		}
		watch.forget()
		if idle++; idle >= idlePolls && !d.config.BusyPoll {
			d.wait(idle)
		}
	}
	return nil
}

// wait waits until a port has frames, or another worker hands some over, after polls with nothing to do. Frames in
// flight, and chunks that others have, are looked after each ms.
func (d *Datapath) wait(polls int) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return
	}
	timeout := idleWait
	d.pollfds = d.pollfds[:0]
	for _, i := range d.mine {
		s := &d.slots[i]
		if !s.here() {
			continue
		}
		if s.counters.InFlight > 0 {
			if polls < inFlightPolls {
				d.mu.Unlock()
				return
			}
			timeout = time.Millisecond
		}
		if fd := s.port.FD(); fd >= 0 {
			d.pollfds = append(d.pollfds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	if d.others != nil {
		if d.others.lent(d.self) {
			timeout = time.Millisecond
		}
		b := &d.others.bells[d.self]
		d.pollfds = append(d.pollfds, unix.PollFd{Fd: int32(b.fd), Events: unix.POLLIN})
		b.polled = true
		b.waiting.Store(true)
		// What was handed over before that rang no bell.
		if d.others.waiting(d.self) {
			timeout = 0
		}
		defer d.woken(b)
	}
	d.check()
	d.mu.Unlock()
	// Any error means that Poll will see it.
	unix.Poll(d.pollfds, int(timeout.Milliseconds()))
}

// woken ends a wait for the bell, whose descriptor is the last of pollfds.
func (d *Datapath) woken(b *bell) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b.waiting.Store(false)
	b.polled = false
	if d.closed {
		b.close() // an eventfd's never fails
		return
	}
	// Also what was rung after the wait before had ended.
	if d.pollfds[len(d.pollfds)-1].Revents&unix.POLLIN != 0 {
		b.hush()
	}
}

// stopwatch says how long polls take that receive frames. In a row of these a poll begins when the one before ended: the
// clock is read once for each. A nil one does nothing.
type stopwatch struct {
	zero  time.Time
	began time.Duration // since zero; 0 when it is not known
}

func newStopwatch() *stopwatch { return &stopwatch{zero: time.Now()} }

// begin notes the beginning of a poll, unless it is the end of the last.
func (w *stopwatch) begin() {
	if w != nil && w.began == 0 {
		w.began = time.Since(w.zero)
	}
}

// end returns how long the poll took.
func (w *stopwatch) end() time.Duration {
	now := time.Since(w.zero)
	took := now - w.began
	w.began = now
	return took
}

// forget has the next poll begin when it does.
func (w *stopwatch) forget() {
	if w != nil {
		w.began = 0
	}
}
