package forward

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

// noted notes what is done to a table.
type noted struct{ did string }

func (n *noted) Spread() error { n.did += "spread "; return nil }
func (n *noted) Close() error  { n.did += "close "; return nil }
func (n *noted) Forget() error { n.did += "forget "; return nil }

// A table is given back when the other process ended without a word, and only then.
func TestGuardWatches(t *testing.T) {
	for name, tt := range map[string]struct {
		in   io.Reader
		want string
	}{
		"killed":     {strings.NewReader(""), "close "},
		"told":       {strings.NewReader("\x00"), "forget "},
		"unreadable": {iotest.ErrReader(errors.New("input/output error")), "forget "},
	} {
		n := &noted{}
		if err := watch(tt.in, n); n.did != tt.want || (err != nil) != (name == "unreadable") {
			t.Errorf("%s: %s, %v, want %s", name, n.did, err, tt.want)
		}
	}
}

// A guard that cannot read the table, or cannot be started, is an error that says why; one that ends is known.
func TestGuardStarts(t *testing.T) {
	died := make(chan error, 1)
	start := func(command ...string) (*guard, error) {
		return startGuard(t.Context(), command, 7, 1, func(err error) { died <- err })
	}
	for want, command := range map[string][]string{
		"no table of 7":             {"/bin/sh", "-c", "echo no table of $0; exit 4"},
		"it ended: exit status 4":   {"/bin/sh", "-c", "exit 4"},
		"it ended: signal: killed":  {"/bin/sh", "-c", "kill -KILL $$"},
		"it ended: EOF":             {"/bin/sh", "-c", "exit 0"},
		"no such file or directory": {"/nowhere/guard"},
	} {
		if _, err := start(command...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", command, err, want)
		}
	}
	ends, err := start("/bin/sh", "-c", "echo ready; cat")
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{table: &noted{}, guard: ends}
	if err := errors.Join(g.Close(), g.Close()); err != nil {
		t.Error(err)
	}
	if _, err := start("/bin/sh", "-c", "echo ready; exit 9"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-died:
		if err.Error() != "exit status 9" {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("nobody was told")
	}
}

// The end is heard while a guard is started, and leaves none.
func TestGuardStartEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(10*time.Millisecond, cancel).Stop()
	_, err := startGuard(ctx, []string{"/bin/sh", "-c", "exec sleep 600"}, 7, 1, func(err error) { t.Error(err) })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	if left := testutil.Children(t, os.Getpid()); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

// A guard that stands still is not waited for once the table was given back.
func TestGuardStopped(t *testing.T) {
	g, err := startGuard(t.Context(), []string{"/bin/sh", "-c", "echo ready; kill -STOP $$; cat"}, 7, 1, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	g.end()
}

// A guard has no file that this process was started with.
func TestGuardFiles(t *testing.T) {
	// As a shell leaves it: exec 177</etc/shadow.
	const left = 177
	if err := unix.Dup3(int(os.Stderr.Fd()), left, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(left)
	ready := "if test -e /proc/self/fd/" + strconv.Itoa(left) + "; then echo it has the file; else echo ready; fi; cat"
	command := []string{"/bin/sh", "-c", ready}
	g, err := startGuard(t.Context(), command, 7, 1, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	g.end()
}

// Who is told that a guard has ended, while the table is given back, may ask for the totals.
func TestGuardDiedTotals(t *testing.T) {
	w := newQueues(t, 2)
	warned := false
	f := w.openIdle(t, Config{Pairs: pair, Engine: AFXDP, Do: w.Do})
	f.config.RSS = true
	f.config.Warn = func(string) {
		_, err := f.Totals()
		warned = err == nil
	}
	in := f.numbers["in"]
	g, err := startGuard(t.Context(), []string{"/bin/sh", "-c", "echo ready; read byte; exit 9"}, 7, 1, f.guardDied(in))
	if err != nil {
		t.Fatal(err)
	}
	f.rssMu.Lock()
	f.rss[in] = spreading{&guarded{table: &noted{}, guard: g}, f.devices[in].Index, 2}
	f.rssMu.Unlock()
	if err := f.closeDevice(in); err != nil || !warned {
		t.Errorf("%v, warned %v", err, warned)
	}
}

// A guard goes on while the table could not be given back.
func TestGuardGoesOn(t *testing.T) {
	g, err := startGuard(t.Context(), []string{"/bin/sh", "-c", "echo ready; cat"}, 7, 1, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	again := &guarded{table: &refuses{}, guard: g}
	if err := again.Close(); err == nil {
		t.Error("no error")
	}
	select {
	case <-g.ended:
		t.Error("it ended")
	default:
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	<-g.ended
}

// refuses is a table that cannot be given back at first.
type refuses struct {
	noted
	closed bool
}

func (r *refuses) Close() error {
	if !r.closed {
		r.closed = true
		return errors.New("not now")
	}
	return nil
}
