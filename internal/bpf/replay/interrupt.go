package replay

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// TooLong is a call of the harness that was cut because it took longer than it may.
type TooLong struct {
	// Took is how long it ran, Runs how many runs it had made by then.
	Took time.Duration
	Runs int
}

func (e *TooLong) Error() string {
	return fmt.Sprintf("replay harness: cut after %v and %d runs", e.Took.Round(time.Millisecond), e.Runs)
}

// wakeEvery is how often a thread in a test run is sent a signal until it is back: a signal that comes before the first
// run, or that the Go runtime's own handler takes before the call is entered, ends nothing.
const wakeEvery = 5 * time.Millisecond

// interruptible makes what the calling thread does next, a test run, end with EINTR when ctx ends, or when it takes
// longer than limit; 0 is for no limit. The kernel's loop of test runs asks between two runs whether a signal is pending
// on the thread that runs it. A signal of the process, such as SIGTERM, is pending on any thread, so the thread is sent
// one of its own: SIGURG, which the Go runtime sends its threads to preempt them, so that it always has a handler and
// means nothing more. The goroutine stays on its thread until done is called, which must be called, and tells whether
// the limit was reached; no signal is sent after it.
func interruptible(ctx context.Context, limit time.Duration) (done func() (tooLong bool)) {
	runtime.LockOSThread()
	process, thread := os.Getpid(), unix.Gettid()
	var mu sync.Mutex
	var over, reached bool
	ended := make(chan struct{})
	wake := func(late bool) {
		for {
			mu.Lock()
			if !over {
				reached = reached || late
				_ = unix.Tgkill(process, thread, unix.SIGURG) // the thread is there, and it is ours
			}
			stop := over
			mu.Unlock()
			if stop {
				return
			}
			select {
			case <-ended:
				return
			case <-time.After(wakeEvery):
			}
		}
	}
	// Neither takes a goroutine before it has something to do: none comes between the runs.
	forget := context.AfterFunc(ctx, func() { wake(false) })
	var timer *time.Timer
	if limit > 0 {
		timer = time.AfterFunc(limit, func() { wake(true) })
	}
	return func() bool {
		forget()
		if timer != nil {
			timer.Stop()
		}
		mu.Lock()
		over = true
		mu.Unlock()
		close(ended)
		runtime.UnlockOSThread()
		return reached
	}
}
