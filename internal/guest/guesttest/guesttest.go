// Package guesttest gives tests the kernels that guests boot.
package guesttest

import (
	"testing"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/testutil"
)

// Kernel is the folder of one of Debian's cloud kernels of amd64 ("6.1"), unpacked, and
// downloaded once. The test is skipped where it cannot be had: tests of files must
// not need a network.
func Kernel(t testing.TB, series string) (dir string) {
	t.Helper()
	return Named(t, "debian:"+series+"-cloud-"+guest.AMD64).Dir
}

// Guest is the same kernel, of this machine's architecture, to be booted.
func Guest(t testing.TB, series string) guest.Kernel {
	t.Helper()
	return Named(t, "debian:"+series+"-cloud")
}

// Named is the kernel that [guest.Resolve] finds by a name, as [Kernel] has it.
func Named(t testing.TB, name string) guest.Kernel {
	t.Helper()
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := guest.Resolve(t.Context(), cache, name)
	if err != nil {
		t.Log(err)
		testutil.Missing(t, "guest kernel "+name)
	}
	return kernel
}
