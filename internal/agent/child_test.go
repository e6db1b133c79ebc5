package agent

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/testutil"
)

// held names a socket: a part of a run that has it in its environment answers there, and waits.
const held = "UNTHUNK_TEST_HELD"

// partOutput is where a part writes its answer in tests.
func partOutput() io.Writer {
	if path := os.Getenv(held); path != "" {
		return holder(path)
	}
	return os.Stdout
}

// holder is the name of a socket. Who writes to it waits until the other side closes it.
type holder string

func (h holder) Write(b []byte) (int, error) {
	conn, err := net.Dial("unix", string(h))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("here")); err != nil {
		return 0, err
	}
	_, err = conn.Read(make([]byte, 1))
	return len(b), err
}

// elsewhere calls f on a thread that is not the first of the process: a thread that executes a program becomes the first, and
// what the kernel kept for the one before is lost.
func elsewhere(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if unix.Gettid() == unix.Getpid() { // this thread waits, and another one takes the next goroutine
			done <- elsewhere(f)
			return
		}
		done <- f()
	}()
	return <-done
}

// A child ends with its parent, also when that is killed; it does not come to its own end here.
func TestChildEndsWithParent(t *testing.T) {
	testutil.Root(t)
	cpu, err := rounds.OnCPU(-1).Pick()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "held")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "agent-parent", string(ReadPart), strconv.Itoa(cpu))
	cmd.Env = append(os.Environ(), held+"="+path, humbled+"="+string(ReadPart))
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		listener.Close()
	}()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatalf("no child came: %v, %s", <-ended, &said)
	}
	defer conn.Close() // the child ends then, in any case
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatal(err)
	}
	// It is limited, whatever the environment of its parent says.
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var peer *unix.Ucred
	var errPeer error
	if err := raw.Control(func(fd uintptr) { peer, errPeer = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	err = errors.Join(errPeer, unix.Prlimit(int(peer.Pid), unix.RLIMIT_CPU, nil, &limit))
	if err != nil || limit.Cur > cpuSeconds || limit.Max > cpuSeconds+1 {
		t.Errorf("the child may take %d s of CPU time, %v", limit.Cur, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if _, err := conn.Read(b); err != io.EOF {
		t.Errorf("the child lives on without its parent: %v", err)
	}
}

// A child whose parent has ended before the kernel knew of the two does nothing.
func TestChildWithoutParent(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "agent-part", string(MeasurePart), "0")
	cmd.Env = append(os.Environ(), parent+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "process 1, which started this one, has ended") {
		t.Errorf("%v: %s", err, out)
	}
}
