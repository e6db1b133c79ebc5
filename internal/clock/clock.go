// Package clock finds the rate of the x86 time stamp counter, and the clock that
// this core runs at.
package clock

import (
	"bytes"
	"os"
	"time"
)

// Moment is a moment by two clocks.
type Moment struct {
	count uint64
	at    time.Time
}

// Start takes the moment from which [Moment.Rate] counts.
func Start() Moment { return now() }

// now reads both clocks at one moment, as near as a few tries get: the thread
// may lose its CPU between the two.
func now() (best Moment) {
	nearest := time.Hour
	for range 8 {
		before := time.Now()
		count := read()
		if apart := time.Since(before); apart < nearest {
			nearest, best = apart, Moment{count, before.Add(apart / 2)}
		}
	}
	return best
}

// Rate is how many times the counter ticked in a second since Start, in Hz: good
// to some 100 ns of the time since then. It is 0 when that time is too short, and where
// the counter does not tick at one rate on all cores (CPU flags constant_tsc and
// nonstop_tsc).
//
// A tick is not a cycle of the core's clock, which boost and power saving change:
// see [Core].
func (m Moment) Rate() float64 {
	end := now()
	gone := end.at.Sub(m.at)
	if !X86 || gone < time.Millisecond || !steady() {
		return 0
	}
	return float64(end.count-m.count) / gone.Seconds()
}

func steady() bool {
	b, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && bytes.Contains(b, []byte(" constant_tsc")) && bytes.Contains(b, []byte(" nonstop_tsc"))
}

// Sizes of [Core]: some 8 µs.
const (
	multiplies      = 10_000
	multiplyLatency = 3
)

// Core is the clock of the core that this thread runs on, now, in Hz; 0 on
// another architecture than x86-64. It times a chain of multiplications, each of
// which waits 3 cycles for the one before: so it is for 64-bit IMUL on Intel since
// Nehalem and on AMD since Zen (https://uops.info). What interrupts the thread
// makes the clock look slower.
func Core() float64 {
	if !X86 {
		return 0
	}
	begin := time.Now()
	multiply(multiplies)
	return multiplies * multiplyLatency / time.Since(begin).Seconds()
}
