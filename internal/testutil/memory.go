package testutil

import (
	"runtime/metrics"
	"testing"
)

// Allocates fails the test when f allocates more than limit bytes of heap. What is freed
// meanwhile counts: the peak of f is no more than that. Nothing else may allocate at the
// same time, as in a fuzz target, whose inputs take turns.
func Allocates(t testing.TB, limit uint64, f func()) {
	t.Helper()
	before := allocated()
	f()
	if n := allocated() - before; n > slack*limit {
		t.Fatalf("%d bytes were allocated: at most %d are wanted", n, limit)
	}
}

// allocated is how many bytes the heap ever gave. Objects of less than 32 KiB count when
// the block of 8 KiB or more that they are in is full.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
