// Package tsc finds the rate of the x86 time stamp counter.
package tsc

import (
	"bytes"
	"os"
	"time"
)

// Clock is a moment by two clocks.
type Clock struct {
	count uint64
	at    time.Time
}

// Start takes the moment from which [Clock.Rate] counts.
func Start() Clock { return now() }

// now reads both clocks at one moment, as near as a few tries get: the thread
// may lose its CPU between the two.
func now() (best Clock) {
	nearest := time.Hour
	for range 8 {
		before := time.Now()
		count := read()
		if apart := time.Since(before); apart < nearest {
			nearest, best = apart, Clock{count, before.Add(apart / 2)}
		}
	}
	return best
}

// Rate is how many times the counter ticked in a second since Start, in Hz: good
// to some 100 ns of the time gone by. It is 0 when that is too short, and where
// the counter does not tick at one rate on all cores (CPU flags constant_tsc and
// nonstop_tsc).
//
// A tick is not a cycle of the core's clock: boost and power saving change that
// and leave the counter as it is.
func (c Clock) Rate() float64 {
	end := now()
	gone := end.at.Sub(c.at)
	if !X86 || gone < time.Millisecond || !steady() {
		return 0
	}
	return float64(end.count-c.count) / gone.Seconds()
}

func steady() bool {
	b, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && bytes.Contains(b, []byte(" constant_tsc")) && bytes.Contains(b, []byte(" nonstop_tsc"))
}
