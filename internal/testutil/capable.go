package testutil

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Capable runs f on a thread that has no other capabilities than those of caps (of the
// unix.CAP_ constants), and whose children can get no other. It needs root. The thread
// ends with f.
func Capable(t testing.TB, f func() error, caps ...int) error {
	t.Helper()
	Root(t)
	return onThread(func() error {
		if err := limit(caps); err != nil {
			return err
		}
		return f()
	})
}

func limit(caps []int) error {
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if slices.Contains(caps, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	var data [2]unix.CapUserData
	for _, c := range caps {
		data[c/32].Permitted |= 1 << (c % 32)
		data[c/32].Effective |= 1 << (c % 32)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}
