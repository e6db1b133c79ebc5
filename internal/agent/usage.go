package agent

import (
	"time"

	"golang.org/x/sys/unix"
)

// own is what this process took so far.
func own() unix.Rusage {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r) // it fails for a wrong argument only
	return r
}

// cpuTime is the CPU time of all threads of this process.
func cpuTime() time.Duration {
	r := own()
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// peak is the most memory of this process that was resident, in bytes.
func peak() uint64 { return uint64(own().Maxrss) << 10 }
