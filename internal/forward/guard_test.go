package forward

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// noted notes what is done to a table.
type noted struct{ did string }

func (n *noted) Spread(int) error { n.did += "spread "; return nil }
func (n *noted) Close() error     { n.did += "close "; return nil }
func (n *noted) Forget() error    { n.did += "forget "; return nil }

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
		return startGuard(command, 7, func(err error) { died <- err })
	}
	for want, command := range map[string][]string{
		"no table of 7":             {"/bin/sh", "-c", "echo no table of $0; exit 4"},
		"EOF":                       {"/bin/sh", "-c", "exit 4"},
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

// A guard goes on while the table could not be given back.
func TestGuardGoesOn(t *testing.T) {
	g, err := startGuard([]string{"/bin/sh", "-c", "echo ready; cat"}, 7, func(err error) { t.Error(err) })
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
