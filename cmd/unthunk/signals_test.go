package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

// A record is saved whole when nobody reads standard output: bench --save FILE | true.
func TestSaveWithoutReader(t *testing.T) {
	testutil.Root(t)
	exe := build(t)
	for _, verb := range []string{"bench --bulk 64", "run"} {
		file := filepath.Join(t.TempDir(), "run.json")
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		args := append(strings.Fields(verb), "--rounds", "2", "--duration", "1s", "--save", file)
		var stderr bytes.Buffer
		cmd := exec.Command(exe, args...)
		cmd.Stdout, cmd.Stderr = w, &stderr
		err = cmd.Run()
		w.Close()
		if code := cmd.ProcessState.ExitCode(); code != exitFailed || stderr.Len() > 0 {
			t.Errorf("%s: exit code %d, want %d (%v)\n%s", verb, code, exitFailed, err, &stderr)
		}
		if _, err := record.Load(file); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
	}
}

// A terminal that is closed ends a run like Ctrl-C: its record is saved, incomplete. It
// does not end a run that nohup started.
func TestHangup(t *testing.T) {
	testutil.Root(t)
	// A signal that is handled here is not ignored by what is started, as it is under nohup.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	exe := build(t)
	for _, test := range []struct {
		shell, flags string
		incomplete   bool
	}{
		{`exec "$@"`, "--duration 60s", true},
		{`trap '' HUP; exec "$@"`, "--duration 4s --rounds 2", false},
	} {
		file := filepath.Join(t.TempDir(), "bench.json")
		args := []string{"-c", test.shell, "sh", exe, "bench", "--bulk", "64", "--save", file}
		cmd := exec.Command("sh", append(args, strings.Fields(test.flags)...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		for range 2 { // the shell's and the kernel's
			if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
		err := cmd.Wait()
		saved, errLoad := record.Load(file)
		if errLoad != nil {
			t.Fatalf("%s: %v, %v", test.shell, err, errLoad)
		}
		if saved.Incomplete != test.incomplete {
			t.Errorf("%s: the record's incomplete is %v (%v)", test.shell, saved.Incomplete, err)
		}
	}
}

func TestOnlyBrokenPipe(t *testing.T) {
	t.Parallel()
	pipe := fmt.Errorf("write output: %w", &os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE})
	for _, test := range []struct {
		err  error
		want bool
	}{
		{pipe, true},
		{errors.Join(pipe, pipe), true},
		{errors.Join(pipe, io.EOF), false},
		{fmt.Errorf("%w: %w", pipe, io.EOF), false},
		{io.EOF, false},
	} {
		if got := onlyBrokenPipe(test.err); got != test.want {
			t.Errorf("onlyBrokenPipe(%q) = %v", test.err, got)
		}
	}
}

// A signal ends a verb at any moment of its start, while it executes itself without the
// rights that it does not need, too.
func TestSignalAtStart(t *testing.T) {
	testutil.Root(t)
	exe := build(t)
	for i := range 40 {
		cmd := exec.Command(exe, "bench", "--duration", "5m", "--rounds", "2")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 500 * time.Microsecond)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(time.Minute, func() {
			t.Errorf("SIGTERM %d ms after the start is lost", i/2)
			cmd.Process.Kill()
		})
		if err := cmd.Wait(); err == nil {
			t.Error("a run that was stopped ends with 0")
		}
		late.Stop()
	}
}
