package profile

import (
	"encoding/binary"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/ksym"
)

// Known is what is known of a call chain.
type Known struct {
	// Frames are places, the innermost first.
	Frames []Frame
	// Stage is that of the packet it is in if Outside is [Inside], else Outside says what it
	// is in place of the packet's work.
	Stage   functions.Stage
	Outside Outside
}

// Classifier knows call chains by their addresses, each once. Its symbols are those of when
// it was made.
type Classifier struct {
	table *ksym.Table
	// name names addresses that the table does not know, or not right; it may be nil.
	name  func(addr uint64) (function string, start uint64, ok bool)
	known map[string]*Known
	key   []byte
}

// NewClassifier names addresses by name and then by table. name may be nil.
func NewClassifier(table *ksym.Table, name func(addr uint64) (function string, start uint64, ok bool)) *Classifier {
	return &Classifier{table: table, name: name, known: make(map[string]*Known)}
}

// maxKnown bounds how many call chains are kept: a run without an end meets new ones for ever.
const maxKnown = 100_000

// Find says what a call chain is, of whatever task. The same value is returned for the same
// chain, as long as there are not too many.
func (c *Classifier) Find(chain []uint64) *Known {
	c.key = c.key[:0]
	for _, addr := range chain {
		c.key = binary.LittleEndian.AppendUint64(c.key, addr)
	}
	if known := c.known[string(c.key)]; known != nil {
		return known
	}
	known := &Known{Frames: make([]Frame, len(chain))}
	for i, addr := range chain {
		known.Frames[i] = c.place(addr, i > 0)
	}
	known.Stage, known.Outside = classify(known.Frames, false, anyTask)
	if len(chain) > 1 && known.Frames[0].Function == "" { // a BPF program that was loaded later, as a rule
		if _, outside := classify(known.Frames[1:], false, anyTask); outside == Inside {
			known.Stage, known.Outside = functions.StageUnattributed, Inside
		}
	}
	if len(c.known) >= maxKnown {
		clear(c.known)
	}
	c.known[string(c.key)] = known
	return known
}

// place is [place] by what name says first.
func (c *Classifier) place(addr uint64, returns bool) Frame {
	at := addr
	if returns { // the call may be the last instruction of its function
		at--
	}
	if c.name != nil {
		if function, start, ok := c.name(at); ok {
			return Frame{Function: function, Offset: addr - start, Addr: addr}
		}
	}
	return place(c.table, addr, returns)
}
