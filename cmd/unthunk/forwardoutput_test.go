package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/internal/testutil"
)

// Lines wait for their reader while there is room, those that come then are left out and counted, and no writer waits.
func TestLineQueue(t *testing.T) {
	t.Parallel()
	reader, writer := io.Pipe()
	l := newLineQueue(writer)
	const written = 3 * waitingLines
	for i := range written {
		if _, err := fmt.Fprintf(l, "%d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	missed := int(l.missed.Load())
	if missed < written-waitingLines-1 || missed > written-waitingLines {
		t.Errorf("of %d lines %d were left out, and %d wait at most", written, missed, waitingLines)
	}
	ended := make(chan error)
	go func() {
		err := l.Close()
		writer.Close()
		ended <- err
	}()
	n := 0
	for s := bufio.NewScanner(reader); s.Scan(); n++ {
		if n < waitingLines && s.Text() != fmt.Sprint(n) {
			t.Errorf("line %d is %q", n, s.Text())
		}
	}
	if err := <-ended; err != nil || n+missed != written {
		t.Errorf("%v; %d were read and %d left out of %d", err, n, missed, written)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := io.WriteString(l, "late\n"); err != nil || int(l.missed.Load()) != missed+1 {
		t.Errorf("once closed: %v, %d were left out", err, l.missed.Load())
	}
	begin := fmt.Sprintf("warning: %d times ", missed+1)
	if said := l.leftOut("standard output"); !strings.HasPrefix(said, begin) || strings.Count(said, "\n") != 1 {
		t.Errorf("said %q", said)
	}
}

// The error of an output ends who writes, and nothing more is written.
func TestLineQueueFails(t *testing.T) {
	t.Parallel()
	reader, writer := io.Pipe()
	reader.Close()
	l := newLineQueue(writer)
	testutil.Eventually(t, "the error of an earlier write", func() bool { _, err := l.Write([]byte("x\n")); return err == io.ErrClosedPipe })
	if err := l.Close(); err != io.ErrClosedPipe {
		t.Error(err)
	}
	if said := new(lineQueue).leftOut("standard output"); said != "" {
		t.Errorf("said %q of nothing", said)
	}
}

// While nobody reads its output a forwarder takes devices back, and it ends when it is told to.
func TestForwardUnread(t *testing.T) {
	for _, engine := range []string{"afxdp", "xdp"} {
		t.Run(engine, func(t *testing.T) {
			lab, _ := forwardLab(t)
			network := handle(t, lab) // the namespace's own thread runs the verb
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			reader, writer := io.Pipe()
			defer reader.Close()
			var errs syncBuffer
			done := make(chan int, 1)
			go func() {
				code := -1
				lab.Do(func() error {
					args := []string{"forward", "--in", "in", "--out", "out", "--engine", engine, "--json", "--interval", "10ms"}
					code = run(ctx, args, nil, writer, &errs)
					return nil
				})
				done <- code
			}()
			if _, err := bufio.NewReader(reader).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * waitingLines * 10 * time.Millisecond) // so that there is no room for more
			said := func(text string) {
				testutil.Eventually(t, text, func() bool { return strings.Contains(errs.String(), text) })
			}
			l, err := network.LinkByName("out")
			if err == nil {
				err = network.LinkDel(l)
			}
			if err != nil {
				t.Fatal(err)
			}
			said("out is lost")
			if err := network.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out"}, PeerName: "sink"}); err != nil {
				t.Fatal(err)
			}
			said("out is back")
			cancel()
			if code := <-done; code != exitFailed || !strings.Contains(errs.String(), errUnread.Error()) {
				t.Errorf("exit code %d: %s", code, errs.String())
			}
		})
	}
}
