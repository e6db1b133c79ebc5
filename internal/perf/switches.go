package perf

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Switch is a moment at which a CPU went from one task to another.
type Switch struct {
	// Time is CLOCK_MONOTONIC in ns.
	Time uint64
	// Out is set when the task that the record is of stops, and Other is the task
	// that comes. Else that task goes on, and Other is the one that stopped.
	Out   bool
	Other uint32 // thread id, 0 for the idle task
}

// Switches notes each switch of tasks on one CPU. Nothing is noted while the CPU
// stays with one task.
type Switches struct {
	*ring
	parser switchParser
}

// switchRing is the length of the ring in bytes: a record has 40 and the scheduler
// writes two for each switch, so that it holds 800 switches.
const switchRing = 1 << 16

// NewSwitches begins to note the switches of a CPU. It needs 64 KiB of locked memory.
// Requires at least Linux 4.3 (45ac1403f564).
func NewSwitches(cpu int) (*Switches, error) {
	dummy := Event{Name: "switches", Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY}
	attr := dummy.attr()
	attr.Sample_type = sampleTID | sampleTime
	attr.Bits = unix.PerfBitContextSwitch | unix.PerfBitSampleIDAll | unix.PerfBitUseClockID
	attr.Clockid = unix.CLOCK_MONOTONIC
	r, err := openRing(attr, dummy, cpu, switchRing)
	if err != nil {
		return nil, err
	}
	return &Switches{ring: r}, nil
}

// Read empties the ring and calls each for every switch in it, in order. It is false
// when the ring was full in between: then switches are missing.
func (s *Switches) Read(each func(Switch)) bool {
	s.parser.complete = true
	return s.read(func(b []byte) int { return s.parser.parse(b, each) }) && s.parser.complete
}

// switchParser reads records of switches.
type switchParser struct{ complete bool }

// parse reads whole records from b and returns how many bytes it took.
func (p *switchParser) parse(b []byte, each func(Switch)) int {
	return records(b, func(kind uint32, misc uint16, b []byte) {
		switch {
		case kind == recordLost:
			p.complete = false
		case kind == recordSwitch && len(b) < 24:
			p.complete = false
		case kind == recordSwitch: // next or previous pid, tid; then pid, tid, time of the sample id
			each(Switch{
				Time: binary.LittleEndian.Uint64(b[16:]), Out: misc&miscSwitchOut != 0,
				Other: binary.LittleEndian.Uint32(b[4:]),
			})
		}
	})
}
