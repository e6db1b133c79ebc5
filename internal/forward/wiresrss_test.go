package forward

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/nics"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// rssTable is the RSS table of the input.
func rssTable(t *testing.T, w *nics.Wires) (table []uint32) {
	t.Helper()
	err := w.Do(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		i, err := e.GetIndir(w.In.Name)
		table = slices.Clone(i.RingIndex[:i.Size])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// unthunk is the command in a guest: its init.
const unthunk = "/init"

// rssForwarder is the command that forwards, with all flows on the first queue, and what gives RSS back when it is killed.
type rssForwarder struct {
	*exec.Cmd
	said  bytes.Buffer // when it has ended
	guard int          // process
}

// forwardRSS starts it, and waits until the device has the table.
func forwardRSS(t *testing.T, w *nics.Wires) *rssForwarder {
	t.Helper()
	f := &rssForwarder{Cmd: exec.Command(unthunk, "forward", "--in", w.In.Name, "--out", w.Out.Name, "--queues", "1", "--rss")}
	f.Stderr = &f.said
	if err := w.Do(f.Start); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "all flows on one queue", func() bool { return slices.Max(rssTable(t, w)) == 0 })
	testutil.Eventually(t, "one process for one device", func() bool {
		children := testutil.Children(t, f.Process.Pid)
		if len(children) == 1 {
			f.guard = children[0]
		}
		return len(children) == 1
	})
	return f
}

// status is a line of a process's status.
func status(t *testing.T, pid int, name string) string {
	t.Helper()
	all, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in %s", name, all)
	return ""
}

// A device has the table back that it had, whichever way the forwarder ends, SIGKILL too; and no process is left.
func TestTwoQueuesRSSGivenBack(t *testing.T) {
	w := nics.Take(t)
	own := rssTable(t, w)
	for name, end := range map[string]func(*rssForwarder) error{
		"ended":  func(f *rssForwarder) error { return f.Process.Signal(unix.SIGTERM) },
		"killed": func(f *rssForwarder) error { return f.Process.Kill() },
		// As systemd does it for its watchdog, and for a service that does not end.
		"all ended, then killed": func(f *rssForwarder) error {
			for _, s := range []unix.Signal{unix.SIGABRT, unix.SIGTERM, unix.SIGHUP, unix.SIGINT} {
				if err := unix.Kill(f.guard, s); err != nil {
					return err
				}
			}
			return f.Process.Kill()
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := forwardRSS(t, w)
			if has := status(t, f.guard, "CapEff"); has != fmt.Sprintf("%016x", 1<<unix.CAP_NET_ADMIN) {
				t.Errorf("the guard has the capabilities %s", has)
			}
			t.Logf("the guard has %s in memory", status(t, f.guard, "VmRSS"))
			if err := end(f); err != nil {
				t.Fatal(err)
			}
			f.Wait()
			testutil.Eventually(t, "the table that it had", func() bool { return slices.Equal(rssTable(t, w), own) })
			testutil.Eventually(t, "no guard", func() bool { return unix.Kill(f.guard, 0) == unix.ESRCH || status(t, f.guard, "State")[0] == 'Z' })
		})
	}
}

// A guard that is killed is told of, and the forwarder gives back itself.
func TestTwoQueuesGuardKilled(t *testing.T) {
	w := nics.Take(t)
	own := rssTable(t, w)
	f := forwardRSS(t, w)
	if err := unix.Kill(f.guard, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "the guard is gone", func() bool { return unix.Kill(f.guard, 0) == unix.ESRCH })
	if err := f.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := f.Wait(); err != nil || !strings.Contains(f.said.String(), "keeps its RSS table as it is now after SIGKILL") {
		t.Errorf("%v, said %q", err, f.said.String())
	}
	if got := rssTable(t, w); !slices.Equal(got, own) {
		t.Errorf("table %v, want %v", got, own)
	}
}

// A device that was in another network namespace has the table back that it had before it went.
func TestTwoQueuesRSSAway(t *testing.T) {
	w := nics.Take(t)
	own := rssTable(t, w)
	f := forwardOnWires(t, w, Config{Pairs: []Pair{{w.In.Name, w.Out.Name}}, Queues: 1, RSS: true})
	if one := rssTable(t, w); slices.Max(one) != 0 {
		t.Errorf("table %v, want the first queue alone", one)
	}
	elsewhere := veth.Namespace(t)
	veth.Move(t, w.Namespace, elsewhere, w.In.Name)
	testutil.Eventually(t, "lost", func() bool { return times(t, f, w.In.Name, eventLost) > 0 })
	veth.Move(t, elsewhere, w.Namespace, w.In.Name)
	testutil.Eventually(t, "back", func() bool { return times(t, f, w.In.Name, eventBack) > 0 })
	f.stop()
	if got := rssTable(t, w); !slices.Equal(got, own) {
		t.Errorf("table %v, want %v", got, own)
	}
}
