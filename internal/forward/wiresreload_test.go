package forward

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/nics"
	"github.com/unthunk/unthunk/internal/testutil/veth"
	"github.com/unthunk/unthunk/xsk"
)

// sendUntilGone sends frames out of the far end of the first wire until that has gone. It returns when frames pass; wait
// waits for the end.
func sendUntilGone(t *testing.T, w *nics.Wires) (wait func()) {
	t.Helper()
	fd := -1
	err := w.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	to, frame, gone := unix.SockaddrLinklayer{Ifindex: w.Gen.Index}, veth.Frame(t, 100), make(chan error)
	go func() {
		for {
			// A send that waits for room holds the device, and the driver gives none back before the device may go.
			switch err := unix.Sendto(fd, frame, unix.MSG_DONTWAIT, &to); err {
			case nil, unix.EINTR:
			case unix.EAGAIN, unix.ENOBUFS:
				time.Sleep(100 * time.Microsecond)
			default:
				gone <- err
				return
			}
		}
	}()
	time.Sleep(10 * time.Millisecond)
	return func() {
		t.Helper()
		if err := <-gone; err != unix.ENXIO && err != unix.ENODEV && err != unix.ENETDOWN {
			t.Errorf("send to a device that went: %v", err)
		}
		unix.Close(fd)
	}
}

// The driver of all NICs is unloaded while frames pass, and loaded again: each device is counted as lost and as back, frames
// pass again without copies, and what was received and not sent is in the drops.
func TestWiresDriverReload(t *testing.T) {
	w := nics.Take(t)
	f := forwardOnWires(t, w, Config{Pairs: []Pair{{w.In.Name, w.Out.Name}}, Both: true, Mode: xsk.ZeroCopy})
	w.Exchange(t, w.Gen, w.Sink, 500)
	const reloads = 2
	for i := range uint64(reloads) {
		wait := sendUntilGone(t, w)
		w.ReloadDriver(t)
		wait()
		want := []Event{
			{w.In.Name, eventLost, i + 1}, {w.In.Name, eventBack, i + 1}, {w.Out.Name, eventLost, i + 1}, {w.Out.Name, eventBack, i + 1},
		}
		testutil.Eventually(t, "counted as lost and as back", func() bool {
			got, err := f.Totals()
			if err != nil {
				t.Fatal(err)
			}
			return !slices.ContainsFunc(want, func(e Event) bool { return !slices.Contains(got.Events, e) })
		})
		w.AwaitUp(t)
		w.Exchange(t, w.Gen, w.Sink, 500)
		w.Exchange(t, w.Sink, w.Gen, 500)
	}
	testutil.Eventually(t, "the account balances", func() bool {
		got, err := f.Totals()
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(got.Directions, func(d Direction) bool {
			return !d.Up || d.InFlight > 0 || d.Received != d.Sent+own(d)
		})
	})
	got, err := f.Totals()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range got.Events {
		if e.Name == eventLinkDown && e.Times > reloads {
			t.Errorf("the link of %s went down %d times in %d reloads", e.Device, e.Times, reloads)
		}
	}
	t.Logf("%+v", got)
	if got.Mode != "zero-copy" {
		t.Errorf("%s mode after the driver was loaded again", got.Mode)
	}
}
