package traffic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// MaxBatch is the largest batch the kernel takes (TEST_XDP_MAX_BATCH in
// net/bpf/test_run.c).
const MaxBatch = 256

// Live is a source of live frames. Every frame first meets Program, whose
// verdict decides where it goes.
type Live struct {
	Program *ebpf.Program
	// Frame is the content of every frame when it is first made.
	Frame []byte
	// Batch is how many frames are made before the kernel flushes its
	// redirect queues and lets softirqs run: 1 … MaxBatch.
	Batch int
}

// Send makes frames frames and returns the kernel's own figure of the time
// each took, in ns, rounded down. It must run on the thread whose network
// namespace the frames are to live in, and the frames are processed on that
// thread's CPU. A signal that arrives before it is done ends it with ctx's error, or
// unix.EINTR when ctx is not done: some frames have been sent then.
func (l *Live) Send(ctx context.Context, frames int) (perFrame time.Duration, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	ns, errno := testRunLive(l.Program.FD(), l.Frame, uint32(frames), uint32(l.Batch))
	switch {
	case errno == 0:
		return time.Duration(ns), nil
	case errno == unix.EINTR && ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.Is(errno, unix.EPERM):
		return 0, feature.Refused(errno, unix.CAP_NET_ADMIN, unix.CAP_BPF)
	default:
		return 0, fmt.Errorf("send live frames: %w", errno)
	}
}
