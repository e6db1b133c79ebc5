package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// untilSignal returns a context that ends with SIGINT, SIGTERM and SIGHUP, so that what
// was measured until then is printed and saved. A second SIGINT or SIGTERM, a second later
// or more, ends the process at once.
//
// A write to a pipe without a reader returns EPIPE from now on: without this, the runtime
// ends the process with SIGPIPE on standard output, before the record is saved.
func untilSignal(parent context.Context) (ctx context.Context, stop func()) {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop = signal.NotifyContext(parent, signals...)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	context.AfterFunc(ctx, func() {
		// timeout(1) sends its signal twice, to the process and to the group, and a
		// closed terminal sends SIGHUP twice: from the shell and from the kernel.
		time.Sleep(time.Second)
		signal.Reset(os.Interrupt, syscall.SIGTERM)
	})
	return ctx, stop
}

// onlyBrokenPipe tells whether all that failed is writing to a pipe without a reader.
func onlyBrokenPipe(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if !onlyBrokenPipe(e) {
				return false
			}
		}
		return true
	}
	if inner := errors.Unwrap(err); inner != nil {
		return onlyBrokenPipe(inner)
	}
	return err == syscall.EPIPE
}
