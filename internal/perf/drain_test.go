package perf

import (
	"slices"
	"testing"
)

// A record is read whole wherever in the ring it lies, also where it goes round the end.
func TestDrain(t *testing.T) {
	one := sampleOf(1, 10, contextKernel, 10, 20)
	size := 4 * len(one)
	for tail := uint64(0); tail < uint64(2*size); tail += 8 {
		memory := make([]byte, size)
		for i, b := range slices.Concat(one, one, one) {
			memory[(tail+uint64(i))%uint64(size)] = b
		}
		var r ring
		var p Parser
		n := 0
		good := r.drain(memory, tail, tail+uint64(3*len(one)), func(b []byte) int { return p.Parse(b, func(*Sample) { n++ }) })
		if !good || n != 3 {
			t.Errorf("at %d: %d samples, good %v", tail, n, good)
		}
	}
}

// What is no record ends the reading, whatever the positions are.
func FuzzDrain(f *testing.F) {
	one := sampleOf(1, 10, contextKernel, 10, 20)
	f.Add(append(one, one...), uint64(8), uint64(3))
	f.Add(make([]byte, 64), uint64(61), uint64(3)) // less than a header, around the end
	f.Add(one, ^uint64(0), uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, tail, length uint64) {
		if len(b) == 0 {
			return
		}
		var r ring
		var p Parser
		r.drain(b, tail, tail+length, func(b []byte) int {
			n := p.Parse(b, func(*Sample) {})
			if n < 0 || n > len(b) {
				t.Fatalf("took %d of %d bytes", n, len(b))
			}
			return n
		})
	})
}
