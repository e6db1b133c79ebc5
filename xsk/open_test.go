package xsk

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestRebindAtOnce(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 16})
	for range 20 {
		s := w.open(t, u, Options{Interface: w.near.Index})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatalf("second close: %v", err)
		}
	}
}

// While a queue is another socket's, Open waits without keeping others from the
// UMEM, and ends when its context does.
func TestOpenWaits(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 16})
	w.open(t, u, Options{Interface: w.near.Index})
	other := fakeUMEM(t, Config{Frames: 16})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- w.Do(func() error {
			_, err := Open(ctx, other, Options{Interface: w.near.Index, BindWait: time.Hour})
			return err
		})
	}()
	// With the lock held over the wait, of an hour, this would not come to its end.
	for range 100 {
		other.Available()
		select {
		case err := <-done:
			t.Fatalf("Open did not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}

func TestOpenRefuses(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 16})
	w.open(t, u, Options{Interface: w.near.Index})
	other := fakeUMEM(t, Config{Frames: 16})
	for name, tt := range map[string]struct {
		o    Options
		want error
	}{
		"bound":        {Options{Interface: w.near.Index, BindWait: -1}, unix.EBUSY},
		"no device":    {Options{Interface: 1 << 20}, unix.ENODEV},
		"no queue":     {Options{Interface: w.far.Index, Queue: 7}, unix.EINVAL},
		"no index":     {Options{}, nil},
		"ring":         {Options{Interface: w.far.Index, RX: 100}, nil},
		"budget":       {Options{Interface: w.far.Index, TXBudget: 1}, nil},
		"zero-copy":    {Options{Interface: w.far.Index, Mode: ZeroCopy}, unix.EOPNOTSUPP},
		"huge ring":    {Options{Interface: w.far.Index, RX: 1 << 30}, nil},
		"queue absurd": {Options{Interface: w.far.Index, Queue: -1}, nil},
	} {
		err := w.Do(func() error {
			s, err := Open(t.Context(), other, tt.o)
			if err == nil {
				s.Close()
			}
			return err
		})
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if name == "bound" && err.Error() != "open AF_XDP socket on near queue 0: bind: another socket has it: device or resource busy" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
