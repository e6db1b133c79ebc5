package examples

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// forwarding is a forwarder between two pairs of veths, gen - in, out - end.
type forwarding struct {
	*netlab.Namespace
	*process
	gen     netlab.Device
	arrived func() []byte // the next frame at end
	size    int           // of the frame that was sent last
}

// newForwarding starts a forwarder, in a cgroup unless that is "".
func newForwarding(t *testing.T, group string) *forwarding {
	t.Helper()
	f := &forwarding{Namespace: veth.Namespace(t), size: 60}
	f.gen, _ = veth.Pair(t, f.Namespace, "gen", "in")
	_, end := veth.Pair(t, f.Namespace, "out", "end")
	f.arrived = veth.Listen(t, f.Namespace, end.Index)
	command := exec.Command(filepath.Join(built, "forwarder"), "in", "out")
	if group != "" {
		command = exec.Command("sh", "-c", `echo $$ >"$0/cgroup.procs"; exec "$@"`, group, command.Path, "in", "out")
	}
	f.process = start(t, f.Namespace, "in", "forwarder", command)
	return f
}

// pass sends frames and waits for one of another length that is sent after them.
func (f *forwarding) pass(t *testing.T, frames int) {
	t.Helper()
	f.size++
	veth.Send(t, f.Namespace, f.gen.Index, slices.Repeat([][]byte{veth.Frame(t, 60)}, frames)...)
	testutil.Eventually(t, "frames pass", func() bool {
		veth.Send(t, f.Namespace, f.gen.Index, veth.Frame(t, f.size))
		for b := f.arrived(); b != nil; b = f.arrived() {
			if len(b) == f.size {
				return true
			}
		}
		return false
	})
}

// balance ends the forwarder: every frame that its device received it had, or its socket's drops
// say that it had not. It returns how many those are.
func (f *forwarding) balance(t *testing.T) (dropped int) {
	t.Helper()
	received := link(t, f.Namespace, "in").Statistics.RxPackets
	said := f.end(t, true)
	had := number(t, said, `Received:(\d+)`)
	dropped = number(t, said, `RXDropped:(\d+)`) + number(t, said, `RXRingFull:(\d+)`)
	if uint64(had+dropped) != received {
		t.Errorf("the device received %d frames, the forwarder %d, and the kernel dropped %d:\n%s", received, had, dropped, said)
	}
	return dropped
}

// A forwarder that is stopped (SIGSTOP) while frames come for more than its rings hold goes on as
// if nothing had been, and the kernel has counted what it missed.
func TestSurvivesStop(t *testing.T) {
	f := newForwarding(t, "")
	f.pass(t, 100)
	for range 2 {
		if err := f.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		stat := filepath.Join("/proc", strconv.Itoa(f.Process.Pid), "stat")
		testutil.Eventually(t, "the process is stopped", func() bool {
			b, err := os.ReadFile(stat)
			return err == nil && strings.Contains(string(b), ") T ")
		})
		before := link(t, f.Namespace, "in").Statistics.RxPackets
		veth.Send(t, f.Namespace, f.gen.Index, slices.Repeat([][]byte{veth.Frame(t, 60)}, 5000)...)
		testutil.Eventually(t, "frames come while it is stopped", func() bool {
			return link(t, f.Namespace, "in").Statistics.RxPackets >= before+5000
		})
		if err := f.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		f.pass(t, 100)
	}
	if dropped := f.balance(t); dropped < 2*(5000-2048) {
		t.Errorf("%d frames dropped while it was stopped, want what the ring of 2048 has no room for", dropped)
	}
}

// Beside a process that takes all memory of the cgroup again and again frames pass.
func TestSurvivesMemoryPressure(t *testing.T) {
	group := testutil.MemoryCgroup(t, 64<<20) // half of which the UMEM takes
	f := newForwarding(t, group)
	f.pass(t, 100)
	file := filepath.Join(t.TempDir(), "file")
	hog := exec.Command("sh", "-c", `echo $$ >"$1/cgroup.procs"; dd if=/dev/zero of="$2" bs=1M count=96 2>/dev/null
		while cat "$2" >/dev/null; do :; done`, "sh", group, file)
	hog.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := hog.Start(); err != nil {
		t.Fatal(err)
	}
	stop := func() {
		if hog.ProcessState == nil {
			syscall.Kill(-hog.Process.Pid, syscall.SIGKILL)
			hog.Wait()
		}
	}
	defer stop()
	for range 3 {
		before := refusals(t, group)
		testutil.Eventually(t, "the limit is met", func() bool { return refusals(t, group) > before })
		f.pass(t, 500)
	}
	stop()
	f.pass(t, 100)
	f.balance(t)
}

// refusals are how often a cgroup had to take memory back from its processes.
func refusals(t *testing.T, group string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(group, "memory.failcnt"))
	if errors.Is(err, fs.ErrNotExist) { // version 2
		if b, err = os.ReadFile(filepath.Join(group, "memory.events")); err == nil {
			return number(t, string(b), `(?m)^max (\d+)$`)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return number(t, string(b), `(\d+)`)
}
