package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

// Outputs that nobody reads wait until the verb is to end, and from then on half a second in
// all. What is read after that moment is written whole.
func TestOutputUnread(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var read bytes.Buffer
	reader, writer := io.Pipe()
	defer reader.Close()
	stuck, also := newOutputs(ctx, writer, writer)
	fine, _ := newOutputs(ctx, &read, nil)
	began := time.Now()
	time.AfterFunc(100*time.Millisecond, cancel)
	for _, o := range []*output{stuck, also, stuck} {
		if n, err := o.Write([]byte("x")); n != 0 || err != errUnread {
			t.Errorf("%d, %v", n, err)
		}
	}
	if took := time.Since(began); took < 100*time.Millisecond+allPatience || took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if stuck.first() != errUnread || fine.first() != nil {
		t.Error(stuck.first(), fine.first())
	}
	for range 3 {
		if n, err := fine.Write([]byte("abc")); n != 3 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if read.String() != "abcabcabc" {
		t.Errorf("%q", read.String())
	}
}

// What is made of files of others has a limit, and hears its context.
func TestHeld(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var b bytes.Buffer
	out, errs := newOutputs(ctx, &b, io.Discard)
	s := std{nil, out, errs}
	shown, err := held(ctx, s, func(s std) error { _, err := io.WriteString(s.out, "abc"); return err })
	if err != nil || shown.Len() != 3 || b.Len() > 0 {
		t.Error(shown, err, b.Len())
	}
	much := func(s std) error {
		for range memory.MaxOutput>>20 + 1 {
			s.out.Write(make([]byte, 1<<20)) // no writer looks at each error
		}
		return nil
	}
	if _, err := held(ctx, s, much); err == nil || err.Error() != "write output: it has more than 64 MiB" {
		t.Error(err)
	}
	cancel()
	if _, err := held(ctx, s, much); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	err = outputFlags{}.publishRead(ctx, s, 1, func(std) error { select {} })
	if err != errInterrupted {
		t.Error(err)
	}
}

// SIGTERM ends a verb whose output is a full pipe, as that of a paused pager, and its record
// is saved.
func TestFullPipe(t *testing.T) {
	testutil.Root(t)
	exe := build(t)
	file := filepath.Join(t.TempDir(), "run.json")
	for _, args := range []string{
		"report testdata/saved/run.json --format csv", "bench --bulk 64 --rounds 2 --duration 1s --save " + file,
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for full := false; !full; {
			if err := w.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			_, err := w.Write(make([]byte, 1024))
			full = errors.Is(err, os.ErrDeadlineExceeded)
		}
		var stderr bytes.Buffer
		cmd := exec.Command(exe, strings.Fields(args)...)
		cmd.Stdout, cmd.Stderr = w, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		if strings.HasPrefix(args, "bench") {
			for range 300 { // until it is saved, which is before it is printed
				if _, err := os.Stat(file); err == nil {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
		}
		time.Sleep(500 * time.Millisecond)
		at := time.Now()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("%s: it has ended before the signal: %v: %s", args, err, &stderr)
		}
		late := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		late.Stop()
		if took := time.Since(at); took > 5*time.Second || cmd.ProcessState.ExitCode() != exitFailed ||
			!strings.Contains(stderr.String(), errUnread.Error()) {
			t.Errorf("%s: ended %v after SIGTERM: %v\n%s", args, took, cmd.ProcessState, &stderr)
		}
	}
	if _, err := record.Load(file); err != nil {
		t.Error(err)
	}
}
