package privilege

import (
	"bufio"
	"errors"
	"math/bits"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// A program does not have the files that this process was started with, but those that it
// is given.
func TestWithholdFiles(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	// As a shell leaves it: exec 177</etc/shadow.
	const left = 177
	if err := unix.Dup3(int(r.Fd()), left, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(left)
	open := func() string {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c",
			"for n in 3 "+strconv.Itoa(left)+"; do test -e /proc/self/fd/$n && echo $n; done; true")
		cmd.ExtraFiles = []*os.File{w}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(string(out)), " ")
	}
	if got := open(); got != "3 177" {
		t.Fatalf("before, a program has %q", got)
	}
	if err := Withhold(); err != nil {
		t.Fatal(err)
	}
	if got := open(); got != "3" {
		t.Errorf("a program has %q", got)
	}
	if _, err := unix.FcntlInt(left, unix.F_GETFD, 0); err != nil {
		t.Errorf("this process lost the file: %v", err)
	}
}

// A program does not have the ambient capabilities that this process was started with.
func TestWithholdCapabilities(t *testing.T) {
	testutil.Root(t)
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		failed <- func() error {
			all, err := permitted()
			if err != nil {
				return err
			}
			low := all & -all
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			data := [2]unix.CapUserData{
				{Effective: uint32(all), Permitted: uint32(all), Inheritable: uint32(low)},
				{Effective: uint32(all >> 32), Permitted: uint32(all >> 32), Inheritable: uint32(low >> 32)},
			}
			if err := unix.Capset(&header, &data[0]); err != nil {
				return err
			}
			first := uintptr(bits.TrailingZeros64(all))
			if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, first, 0, 0); err != nil {
				return err
			}
			if got := inherited(t); got != low {
				t.Errorf("before, a program has %x, want %x", got, low)
			}
			if err := Withhold(); err != nil {
				return err
			}
			if got := inherited(t); got != 0 {
				t.Errorf("a program has the ambient capabilities %x", got)
			}
			now, err := permitted()
			if now != all {
				t.Errorf("this process has %x, not %x", now, all)
			}
			return err
		}()
	}()
	if err := <-failed; errors.Is(err, errors.ErrUnsupported) {
		testutil.Missing(t, "AllThreadsSyscall: this test was built with cgo")
	} else if err != nil {
		t.Fatal(err)
	}
}

// inherited are the ambient capabilities of a program that the calling thread starts.
func inherited(t *testing.T) (set uint64) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "/bin/cat", "/proc/self/status").Output()
	if err != nil {
		t.Error(err)
	}
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "CapAmb:"); ok {
			if set, err = strconv.ParseUint(strings.TrimSpace(value), 16, 64); err != nil {
				t.Error(err)
			}
			return set
		}
	}
	t.Error("no CapAmb")
	return 0
}
