package main

import "context"

// reading returns what read does, or errInterrupted as soon as ctx ends. read goes on
// behind it until the process ends, so it must hold nothing of the machine and write no
// file: it loads records, of which a large one takes seconds.
func reading[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() { done <- r }()
		defer tellFlaw(&r.err)
		r.value, r.err = read()
	}()
	select {
	case r := <-done:
		if r.err != nil && ctx.Err() != nil { // because of that
			r.err = errInterrupted
		}
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, errInterrupted
	}
}
