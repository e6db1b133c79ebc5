package profile

import (
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/perf"
	"github.com/unthunk/unthunk/internal/redirect"
)

// watch knows which tasks the CPU under test runs.
type watch struct {
	switches *perf.Switches
	sender   uint32 // thread id
	process  uint32
}

// watchTasks watches a CPU that the thread of a namespace sends from.
func watchTasks(lab *netlab.Namespace, cpu int) (*watch, error) {
	switches, err := perf.NewSwitches(cpu)
	if err != nil {
		return nil, err
	}
	w := &watch{switches: switches, process: uint32(os.Getpid())}
	err = lab.Do(func() error {
		w.sender = uint32(unix.Gettid())
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *watch) close() error { return w.switches.Close() }

// taskOf is whose task a sample was taken in.
func (w *watch) taskOf(s *perf.Sample) task {
	switch {
	case s.TID == w.sender:
		return sender
	case s.PID == w.process:
		return unthunk
	}
	return another
}

// forget drops what was noted before a slot.
func (w *watch) forget() { w.switches.Read(func(perf.Switch) {}) }

// windows are those of a slot that is over.
func (w *watch) windows(span redirect.Span) *windows {
	out := newWindows(span)
	if !w.switches.Read(func(s perf.Switch) { out.disturb(s.Time) }) {
		for i := range out.disturbed {
			out.disturbed[i] = true
		}
	}
	return out
}

// windows are the windows of a slot, some of which are left out: those in which the CPU
// went to another task. What that task did is no packet's, and the caches and branch
// predictors that it leaves behind are not the chain's.
type windows struct {
	redirect.Span
	ends      []uint64
	disturbed []bool
}

func newWindows(span redirect.Span) *windows {
	w := &windows{Span: span, ends: make([]uint64, len(span.Windows)), disturbed: make([]bool, len(span.Windows))}
	at := span.Start
	for i, ns := range span.Windows {
		at += ns
		w.ends[i] = at
	}
	return w
}

// disturb leaves out the window of a time, if it is one of the slot.
func (w *windows) disturb(t uint64) {
	if t >= w.Start && t < w.End {
		w.disturbed[w.at(t)] = true
	}
}

// at is the window that a time of the slot lies in.
func (w *windows) at(t uint64) int {
	i, _ := slices.BinarySearch(w.ends, t+1)
	return i
}

func (w *windows) disturbedAt(t uint64) bool { return w.disturbed[w.at(t)] }

// leftOut is how many windows are left out.
func (w *windows) leftOut() (n int) {
	for _, d := range w.disturbed {
		if d {
			n++
		}
	}
	return n
}

// each are ns per frame of the windows that are kept.
func (w *windows) each() (ns []float64) {
	for i, d := range w.disturbed {
		if !d {
			ns = append(ns, float64(w.Windows[i])/float64(w.Window))
		}
	}
	return ns
}

// kept are the frames of the windows that are kept, and the time of those.
func (w *windows) kept() (frames uint64, ns float64) {
	for i, d := range w.disturbed {
		if !d {
			frames += uint64(w.Window)
			ns += float64(w.Windows[i])
		}
	}
	return frames, ns
}

// nsPerFrame is the mean of the windows that are kept. It is false when these are less
// than half of the slot: then they say too little of it.
func (w *windows) nsPerFrame() (ns float64, ok bool) {
	frames, ns := w.kept()
	if 2*frames < w.Frames {
		return 0, false
	}
	return ns / float64(frames), true
}
