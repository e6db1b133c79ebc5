package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/guest/guesttest"
)

// What reads files of others ends with its context, and does not wait for what is under way.
func TestReadingVerbs(t *testing.T) {
	dir := guesttest.Kernel(t, "6.12")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{{"drivers", dir}, {"xray", "--root", dir}, {"xray", "--root", dir, "--all"}} {
		var stdout, stderr bytes.Buffer
		code := run(ctx, args, strings.NewReader(""), &stdout, &stderr)
		if code != exitFailed || stdout.Len() > 0 || stderr.String() != "unthunk: "+errInterrupted.Error()+"\n" {
			t.Errorf("%v: exit code %d: %s%s", args, code, stdout.String(), stderr.String())
		}
	}
}

func TestReading(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	if n, err := reading(t.Context(), func() (int, error) { return 7, broken }); n != 7 || err != broken {
		t.Errorf("%d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stuck := make(chan struct{})
	defer close(stuck)
	n, err := reading(ctx, func() (int, error) {
		cancel()
		<-stuck
		return 7, nil
	})
	if n != 0 || err != errInterrupted {
		t.Errorf("%d, %v: want errInterrupted while a file is read", n, err)
	}
}

// A panic is one line that says where, and no usage error; of gate, it is one that a bisection skips.
func TestFlaw(t *testing.T) {
	t.Parallel()
	var none []int
	n, err := reading(t.Context(), func() (int, error) { return none[len(t.Name())], nil })
	const want = "a flaw of unthunk itself, please report it: runtime error: index out of range [8] with length 0, at unthunk/reading_test.go:"
	if n != 0 || err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%d, %v: want %s", n, err, want)
	}
	for verb, exit := range map[string]int{"report": exitFailed, "gate": exitCannotTell} {
		root := newRoot(std{})
		cmd, _, err := root.Find([]string{verb})
		if err != nil {
			t.Fatal(err)
		}
		cmd.RunE = func(*cobra.Command, []string) error { panic(verb) }
		cmd.Args = nil
		root.SetArgs([]string{verb})
		var errs bytes.Buffer
		ran, err := execute(t.Context(), root, []string{verb})
		if code := tellError(&errs, ran, err); code != exit || strings.Count(errs.String(), "\n") != 1 || !strings.Contains(errs.String(), verb) {
			t.Errorf("%s: exit code %d, %s", verb, code, &errs)
		}
	}
}
