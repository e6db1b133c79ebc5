package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// lineQueue is an output that no writer waits for: lines wait for their reader, at most [waitingLines], and what comes
// then is left out and counted, as is what comes once it is closed. Any goroutine may write, a whole line or several at once.
type lineQueue struct {
	to     io.Writer
	queue  chan []byte
	ended  chan struct{}
	missed atomic.Uint64
	failed atomic.Pointer[error] // the first error of to

	mu     sync.Mutex // held while a line is queued, which waits for nobody
	closed bool
}

// waitingLines are those of a minute, where one is written each second.
const waitingLines = 64

func newLineQueue(to io.Writer) *lineQueue {
	l := &lineQueue{to: to, queue: make(chan []byte, waitingLines), ended: make(chan struct{})}
	go l.write()
	return l
}

// Write returns the error of an earlier one.
func (l *lineQueue) Write(b []byte) (int, error) {
	if err := l.failed.Load(); err != nil {
		return 0, *err
	}
	if !l.put(bytes.Clone(b)) {
		l.missed.Add(1)
	}
	return len(b), nil
}

// put queues lines, where there is room.
func (l *lineQueue) put(b []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	select {
	case l.queue <- b:
		return true
	default:
		return false
	}
}

// end has write end when it has written what waits.
func (l *lineQueue) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
}

func (l *lineQueue) write() {
	defer close(l.ended)
	for b := range l.queue {
		if l.failed.Load() != nil {
			continue
		}
		if _, err := l.to.Write(b); err != nil {
			l.failed.Store(&err)
		}
	}
}

// Close waits until what waits is written, or cannot be, and returns the first error. It may be called twice.
func (l *lineQueue) Close() error {
	l.end()
	<-l.ended
	if err := l.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// leftOut says in a line how many were left out of an output, and nothing where none were.
func (l *lineQueue) leftOut(output string) string {
	n := l.missed.Load()
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("warning: %d times what was to be written to %s was left out: nobody had read what came before\n", n, output)
}
