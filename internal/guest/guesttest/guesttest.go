// Package guesttest gives tests the kernels that guests boot.
package guesttest

import (
	"testing"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/testutil"
)

// Kernel is the folder of one of Debian's cloud kernels ("6.1"), unpacked, and
// downloaded once. The test is skipped where it cannot be had: tests of files must
// not need a network.
func Kernel(t testing.TB, series string) (dir string) {
	t.Helper()
	return Guest(t, series).Dir
}

// Guest is the same kernel, to be booted.
func Guest(t testing.TB, series string) guest.Kernel {
	t.Helper()
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := guest.Fetch(t.Context(), cache, series)
	if err != nil {
		t.Log(err)
		testutil.Missing(t, "guest kernel "+series)
	}
	return kernel
}
