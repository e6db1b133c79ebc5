package testutil

import (
	"runtime"
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

// allocated is how many bytes the heap ever gave. [runtime.ReadMemStats] counts also the
// objects in blocks that are not full yet, which other samples count when the next
// collection comes: those of an earlier test would be f's.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
