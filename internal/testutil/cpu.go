package testutil

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime is how long this process has run on CPUs: what a benchmark of user space
// takes, also while other processes have the CPU now and then.
func CPUTime(t testing.TB) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
