package experiment

import (
	"fmt"
	"slices"
)

// Poll is how many frames a ring gives at a time (NAPI_POLL_WEIGHT).
const Poll = 64

// Way is one way to write the redirect.
type Way struct {
	// Name is "interfaces", "type-switch", "bulk-16" or "bulk-64".
	Name string
	// Stages is how many calls the work is cut into: 1, 4 or 12.
	Stages int
}

func (w Way) String() string { return fmt.Sprintf("%s/%d", w.Name, w.Stages) }

// Ways lists them all.
func Ways() []Way {
	var ways []Way
	for _, name := range []string{"interfaces", "type-switch", "bulk-16", "bulk-64"} {
		for _, n := range []int{1, 4, 12} {
			ways = append(ways, Way{name, n})
		}
	}
	return ways
}

// Redirect redirects all frames of rx, Poll at a time, and returns how many were not
// dropped. It allocates nothing.
func (w *Worker) Redirect(rx []Desc) uint64 {
	before := w.core.dropped
	for poll := range slices.Chunk(rx, Poll) {
		switch w.way.Name {
		case "interfaces":
			w.interfaces(poll)
		case "type-switch":
			w.typeSwitch(poll)
		default:
			w.bulks(poll)
		}
	}
	return uint64(len(rx)) - (w.core.dropped - before)
}

// interfaces makes an indirect call per packet and stage.
func (w *Worker) interfaces(rx []Desc) {
	p := &w.packets[0]
next:
	for i := range rx {
		*p = packet{desc: rx[i]}
		for _, s := range w.stages {
			if !s.one(p) {
				w.core.dropped++
				w.core.give(p)
				continue next
			}
		}
	}
}

// typeSwitch tells stages apart per packet and calls them directly.
func (w *Worker) typeSwitch(rx []Desc) {
	p := &w.packets[0]
next:
	for i := range rx {
		*p = packet{desc: rx[i]}
		for _, s := range w.stages {
			if !direct(s, p) {
				w.core.dropped++
				w.core.give(p)
				continue next
			}
		}
	}
}

func direct(s stage, p *packet) bool {
	switch s := s.(type) {
	case *all:
		return s.one(p)
	case *parse:
		return s.one(p)
	case *find:
		return s.one(p)
	case *rewrite:
		return s.one(p)
	case *send:
		return s.one(p)
	case *take:
		return s.one(p)
	case *ether:
		return s.one(p)
	case *header:
		return s.one(p)
	case *length:
		return s.one(p)
	case *checksum:
		return s.one(p)
	case *lookup:
		return s.one(p)
	case *device:
		return s.one(p)
	case *mark:
		return s.one(p)
	case *swap:
		return s.one(p)
	case *count:
		return s.one(p)
	case *transmit:
		return s.one(p)
	case *give:
		return s.one(p)
	}
	return false
}

// bulks makes an indirect call per bulk and stage.
func (w *Worker) bulks(rx []Desc) {
	for len(rx) > 0 {
		n := min(w.size, len(rx))
		ps := w.packets[:n]
		for i := range ps {
			ps[i] = packet{desc: rx[i]}
		}
		for _, s := range w.stages {
			s.bulk(ps)
		}
		rx = rx[n:]
	}
}
