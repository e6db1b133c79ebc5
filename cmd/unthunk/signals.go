package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// onSignal calls cancel on SIGINT, SIGTERM and SIGHUP, so that what was measured until then
// is printed and saved. A second SIGINT or SIGTERM, a second later or more, ends the process
// at once.
func onSignal(ctx context.Context, cancel func()) {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signals = append(signals, syscall.SIGHUP)
	}
	got := make(chan os.Signal, 1)
	signal.Notify(got, signals...)
	go func() {
		<-got
		cancel()
	}()
	context.AfterFunc(ctx, func() {
		// timeout(1) sends its signal twice, to the process and to the group, and a
		// closed terminal sends SIGHUP twice: from the shell and from the kernel.
		time.Sleep(time.Second)
		signal.Reset(os.Interrupt, syscall.SIGTERM)
	})
}

// ignorePipe makes a write to a pipe without a reader return EPIPE: without this, the
// runtime ends the process with SIGPIPE on standard output, before the record is saved.
func ignorePipe() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

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
