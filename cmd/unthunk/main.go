// Command unthunk measures XDP_REDIRECT on this machine, shows the indirect
// branches a packet runs through and what each costs.
package main

import (
	"context"
	"os"

	"github.com/unthunk/unthunk/internal/guest"
)

func main() {
	if guest.First() {
		guest.Init()
	}
	ctx, stop := untilSignal(context.Background())
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
