package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/unthunk/unthunk/internal/memory"
)

// output is a stream of which nobody knows whether it is read: standard output and
// standard error, which may be a pipe to a pager, and a capture into a named pipe. A write
// waits for a reader until the verb is to end, and then no longer than patience allows.
// Goroutines may share it.
type output struct {
	w io.Writer
	// patience is that of all outputs of a verb; without one all writes wait.
	patience *patience

	mu sync.Mutex
	// err is the first error, which not every writer returns.
	err error
	// stuck is set when a write is given up; it may still go on, so nothing follows it.
	stuck bool
}

// patience is how long the outputs of a verb wait for their readers, in all, once its context
// has ended.
type patience struct {
	ctx context.Context

	mu   sync.Mutex
	left time.Duration
}

const (
	// allPatience leaves half of the second in which a signal ends each verb.
	allPatience = 500 * time.Millisecond
	// leastPatience is enough for a stream that is read.
	leastPatience = 50 * time.Millisecond
)

var errUnread = errors.New("nobody reads it")

// newOutputs are outputs that share their patience.
func newOutputs(ctx context.Context, a, b io.Writer) (*output, *output) {
	p := &patience{ctx: ctx, left: allPatience}
	return &output{w: a, patience: p}, &output{w: b, patience: p}
}

// unread is one more output of the verb whose standard output is s.out.
func (s std) unread(w io.Writer) io.Writer {
	o, ok := s.out.(*output)
	if !ok {
		return w
	}
	return &output{w: w, patience: o.patience}
}

func (o *output) Write(b []byte) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer func() {
		if o.err == nil {
			o.err = err
		}
	}()
	switch {
	case o.stuck:
		return 0, errUnread
	case o.patience == nil:
		return o.w.Write(b)
	}
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	own := bytes.Clone(b) // a write that is given up goes on
	go func() {
		n, err := o.w.Write(own)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-o.patience.ctx.Done():
	}
	late := time.NewTimer(o.patience.rest())
	defer late.Stop()
	defer o.patience.spend(time.Now())
	select {
	case r := <-done:
		return r.n, r.err
	case <-late.C:
		o.stuck = true
		return 0, errUnread
	}
}

// first is the first error of all writes.
func (o *output) first() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// rest is how long a write may take that the end of the verb waits for.
func (p *patience) rest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.left, leastPatience)
}

func (p *patience) spend(since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left -= time.Since(since)
}

// held is what write writes to standard output, kept: at most [memory.MaxOutput] bytes, and
// until ctx ends. It looks to write as standard output does, a terminal or not.
func held(ctx context.Context, s std, write func(s std) error) (*memory.Buffer, error) {
	b := memory.NewBuffer(ctx, memory.MaxOutput)
	err := write(std{s.in, &heldOutput{b, s.out}, s.err})
	if b.Err() != nil {
		err = b.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("write output: %w", err)
	}
	return b, nil
}

// heldOutput is a buffer in place of an output.
type heldOutput struct {
	*memory.Buffer
	of io.Writer
}
