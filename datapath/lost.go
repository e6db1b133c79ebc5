package datapath

import (
	"errors"
	"fmt"
	"slices"
)

// check finds ports that were lost while they had nothing to do.
func (d *Datapath) check() {
	for _, i := range d.mine {
		s := &d.slots[i]
		if !s.here() {
			continue
		}
		err := s.port.Check()
		s.noteDowns()
		if err != nil {
			d.lose(i, err)
		}
	}
}

// noteDowns counts how often the link of an AF_XDP port went down.
func (s *slot) noteDowns() {
	if s.kind == kindXSK {
		s.counters.LinkDowns += s.xsk.takeDowns()
	}
}

// lose closes a port and takes all its chunks back. Frames it was to transmit
// and has not are lost, except for those that a completion says were.
func (d *Datapath) lose(port int, err error) {
	s := &d.slots[port]
	s.noteDowns()
	s.counters.Losses++
	d.reclaim(port)
	d.lost = append(d.lost, lostPort{port, errors.Join(err, s.port.Close())})
	d.seize(port)
}

// seize takes all chunks of a closed port back.
func (d *Datapath) seize(port int) {
	s := &d.slots[port]
	for _, part := range s.carry {
		d.release(part.Addr)
	}
	s.carry, s.skipping = s.carry[:0], false
	for i, o := range d.owner {
		if !with(o, port) {
			continue
		}
		if stateOf(o) == toSend {
			in := &d.slots[inputOf(o)].counters.Onward
			in.Lost++
			in.InFlight--
		}
		d.release(uint64(i) * d.size)
	}
	s.counters.Lost += s.counters.InFlight
	s.counters.InFlight = 0
	s.set(nil)
	// A new one, as a poll may go through the old one.
	d.mine = slices.DeleteFunc(slices.Clone(d.mine), func(i int) bool { return i == port })
}

// lostPort is a port that was lost, and why.
type lostPort struct {
	port int
	err  error
}

// report tells of the ports that were lost.
func (d *Datapath) report(lost []lostPort) error {
	var errs []error
	for _, l := range lost {
		if d.config.Lost != nil {
			d.config.Lost(l.port, l.err)
		} else {
			errs = append(errs, fmt.Errorf("port %d: %w", l.port, l.err))
		}
	}
	return errors.Join(errs...)
}
