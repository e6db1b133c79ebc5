package profile

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/redirect"
)

// Windows in which the CPU went to another task are left out.
func TestWindows(t *testing.T) {
	t.Parallel()
	w := newWindows(redirect.Span{
		Start: 100, End: 180, Frames: 40, Windows: []uint64{10, 40, 10, 20}, Window: 10,
	})
	for _, at := range []uint64{99, 110, 149, 180} { // the first and the last are outside
		w.disturb(at)
	}
	if diff := cmp.Diff([]bool{false, true, false, false}, w.disturbed); diff != "" {
		t.Errorf("disturbed (-want +got):\n%s", diff)
	}
	for at, want := range map[uint64]bool{100: false, 109: false, 110: true, 149: true, 150: false, 179: false} {
		if got := w.disturbedAt(at); got != want {
			t.Errorf("at %d disturbed %v, want %v", at, got, want)
		}
	}
	if frames, ns := w.kept(); frames != 30 || ns != 40 || w.leftOut() != 1 {
		t.Errorf("%d frames in %v ns, %d left out", frames, ns, w.leftOut())
	}
	if diff := cmp.Diff([]float64{1, 1, 2}, w.each()); diff != "" {
		t.Errorf("each (-want +got):\n%s", diff)
	}
	if ns, ok := w.nsPerFrame(); ns != 40.0/30 || !ok {
		t.Errorf("%v ns, %v", ns, ok)
	}
	w.disturb(160)
	w.disturb(155)
	if _, ok := w.nsPerFrame(); ok {
		t.Error("a quarter of a slot stands for it")
	}
}
