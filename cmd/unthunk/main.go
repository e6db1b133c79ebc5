// Command unthunk measures XDP_REDIRECT on this machine, shows the indirect
// branches a packet runs through and what each costs.
package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/privilege"
)

func main() {
	if guest.First() {
		guest.Init()
	}
	limitMemory()
	// Never stopped: what waits for ctx then starts a timer, which takes open files.
	ctx, _ := untilSignal(context.Background())
	os.Exit(runLimited(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, privilege.Limit))
}

// limitMemory has garbage collected before it makes the process larger than 384 MiB: what
// is read from files that others made is bounded while it is in use, and not afterwards.
// A cgroup has half of its memory for what is no heap: the kernel's, and the program's file.
// GOMEMLIMIT chooses another size.
func limitMemory() {
	const limit = 384 << 20
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(int64(min(limit, memory.Limit()/2)))
	}
}
