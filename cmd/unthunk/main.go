// Command unthunk measures XDP_REDIRECT on this machine, shows the indirect
// branches a packet runs through and what each costs.
package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/privilege"
)

func main() {
	if guest.First() {
		guest.Init()
	}
	limitMemory()
	ctx, cancel := context.WithCancel(context.Background())
	limit := func(keep []feature.Capability) error {
		err := privilege.Limit(keep)
		// Only now: a signal that was taken before would be lost when Limit executes the
		// program anew.
		onSignal(ctx, cancel)
		return err
	}
	ignorePipe()
	os.Exit(runLimited(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, limit))
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
