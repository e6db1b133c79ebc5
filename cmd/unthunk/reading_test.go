package main

import (
	"context"
	"errors"
	"testing"
)

func TestReading(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	if n, err := reading(t.Context(), func() (int, error) { return 7, broken }); n != 7 || err != broken {
		t.Errorf("%d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stuck := make(chan struct{})
	defer close(stuck)
	n, err := reading(ctx, func() (int, error) {
		cancel()
		<-stuck
		return 7, nil
	})
	if n != 0 || err != errInterrupted {
		t.Errorf("%d, %v: want errInterrupted while a file is read", n, err)
	}
}
