package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/forward"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
)

// manager is a service manager's end of sd_notify.
type manager struct{ *net.UnixConn }

func newManager(t *testing.T) manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return manager{c}
}

// next is what it is told next, but for what feeds the watchdog unless that is asked for.
func (m manager) next(t *testing.T, watchdog bool) string {
	t.Helper()
	buf := make([]byte, 4096)
	for {
		if err := m.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, err := m.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if text := string(buf[:n]); watchdog || text != "WATCHDOG=1" {
			return text
		}
	}
}

// eachLine has each line that is written said.
type eachLine struct{ say func(string) }

func (l eachLine) Write(b []byte) (int, error) {
	l.say(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

// polling is a forwarder whose workers poll, but for one that stands when it is told to.
type polling struct {
	forward.Forwarder
	polls  []uint64
	stands bool
	claims []asm.Instructions
	err    error
}

func (p *polling) Polls() []uint64 {
	p.polls[0]++
	if !p.stands {
		p.polls[1]++
	}
	return slices.Clone(p.polls)
}

func (p *polling) Reload(_ context.Context, claim asm.Instructions) error {
	p.claims = append(p.claims, claim)
	return p.err
}

// The manager is told of the beginning and the end, and its watchdog fed.
func TestServiceNotifies(t *testing.T) {
	m := newManager(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	v := service{forwarder: &polling{polls: make([]uint64, 2)}, events: &forwardEvents{text: eachLine{func(s string) { t.Error(s) }}}}
	go func() { v.serve(ctx, nil); close(done) }()
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		if got := m.next(t, true); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	cancel()
	if got := m.next(t, false); got != "STOPPING=1" {
		t.Errorf("told %q, want that it stops", got)
	}
	<-done
}

// A manager that reads nothing holds nothing up, and that it hears nothing is said once.
func TestServiceUnheard(t *testing.T) {
	newManager(t)
	var err error
	testutil.Eventually(t, "full", func() bool { err = notify("x"); return err != nil })
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	var said []string
	v := service{events: &forwardEvents{text: eachLine{func(s string) { said = append(said, s) }}}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v.serve(ctx, nil)
	if len(said) != 1 || !strings.HasPrefix(said[0], "warning: tell the service manager: ") {
		t.Errorf("said %q", said)
	}
}

// The watchdog is not fed while a worker stands still.
func TestServiceAlive(t *testing.T) {
	var said []string
	p := &polling{polls: make([]uint64, 2)}
	v := service{forwarder: p, events: &forwardEvents{text: eachLine{func(s string) { said = append(said, s) }}}}
	for i, stands := range []bool{false, false, true, true, false} {
		p.stands = stands
		if got := v.alive(); got == stands {
			t.Errorf("%d: alive %v with a worker that stands %v", i, got, stands)
		}
	}
	if len(said) != 2 || said[0] != "warning: worker 1 stands still" {
		t.Errorf("warnings: %q", said)
	}
}

// SIGHUP has the filter read again; what is wrong with it changes nothing, and the manager hears of
// both.
func TestServiceReloads(t *testing.T) {
	m := newManager(t)
	file := filepath.Join(t.TempDir(), "filter")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &polling{polls: make([]uint64, 2)}
	said := make(chan string, 10)
	hangups := make(chan os.Signal)
	v := service{forwarder: p, flags: forwardFlags{filterFile: file}, events: &forwardEvents{text: eachLine{func(s string) { said <- s }}}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { v.serve(ctx, hangups); close(done) }()
	if got := m.next(t, false); got != "READY=1" {
		t.Errorf("told %q", got)
	}
	for _, tt := range []struct {
		text, want string
		err        error
	}{
		{"udp port 53\n", "reloaded", nil}, {"greater 0", "reloaded", nil},
		{" \n", "warning: not reloaded: --filter-file " + file + ": it is empty", nil},
		{"udp prt 53", "warning: not reloaded: --filter-file " + file, nil}, {"tcp", "warning: not reloaded: refused", errors.New("refused")},
	} {
		write(tt.text)
		p.err = tt.err
		hangups <- unix.SIGHUP
		if got := m.next(t, false); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
			t.Errorf("told %q", got)
		}
		if got := m.next(t, false); got != "READY=1" {
			t.Errorf("told %q", got)
		}
		if got := <-said; !strings.HasPrefix(got, tt.want) || strings.Contains(got, "\n") {
			t.Errorf("%q: said %q, want %q", tt.text, got, tt.want)
		}
	}
	if len(p.claims) != 3 || slices.ContainsFunc(p.claims, func(c asm.Instructions) bool { return c == nil }) {
		t.Errorf("%d filters were loaded", len(p.claims))
	}
	if done, failed := v.events.reloads(); done != 2 || failed != 3 {
		t.Errorf("%d reloads done and %d failed, want 2 and 3", done, failed)
	}
	cancel()
	<-done
}

// Workers run on the CPUs in the order that they were named in, and what is no list is said in a line.
func TestCPUList(t *testing.T) {
	if got, err := cpuList("5,2,0-1"); err != nil || !slices.Equal(got, []int{5, 2, 0, 1}) {
		t.Errorf("%v, %v, want 5 2 0 1", got, err)
	}
	if _, err := cpuList("x"); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v, want one line", err)
	}
}

// A process that gets SIGHUP while it forwards goes on, with the filter that the file has then.
func TestForwardHangup(t *testing.T) {
	lab, gen := forwardLab(t)
	network := handle(t, lab) // the namespace's own thread runs the verb
	stop := flood.Start(t, lab, gen)
	defer stop()
	file := filepath.Join(t.TempDir(), "filter")
	if err := os.WriteFile(file, []byte("tcp port 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errs syncBuffer
	done := make(chan int, 1)
	go func() {
		code := -1
		lab.Do(func() error {
			args := []string{"forward", "--in", "in", "--out", "out", "--interval", "20ms", "--filter-file", file}
			code = run(ctx, args, nil, &out, &errs)
			return nil
		})
		done <- code
	}()
	testutil.Eventually(t, "lines", func() bool { return strings.Count(out.String(), "\n") > 2 })
	if err := os.WriteFile(file, []byte("udp"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(os.Getpid(), unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "reloaded", func() bool { return strings.HasPrefix(errs.String(), "reloaded\n") })
	testutil.Eventually(t, "frames that match", func() bool {
		l, err := network.LinkByName("out")
		return err == nil && l.Attrs().Statistics.TxPackets > 1000
	})
	cancel()
	if code := <-done; code != exitDone {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	if sums := out.String(); strings.Contains(sums, " 0 received") {
		t.Errorf("nothing matched the new filter:\n%s", sums)
	}
}

// A rate has the unit in which it can be read.
func TestPacketRate(t *testing.T) {
	for mpps, want := range map[float64]string{
		0: "0 pps", 64e-6: "64 pps", 0.0123: "12.3 kpps", 1.5: "1.500 Mpps", 14.88095: "14.881 Mpps",
	} {
		if got := packetRate(mpps); got != want {
			t.Errorf("%v Mpps: %q, want %q", mpps, got, want)
		}
	}
}

// To a pipe pictures follow each other, without escapes.
func TestForwardLive(t *testing.T) {
	lab, gen := forwardLab(t)
	stop := flood.Start(t, lab, gen)
	defer stop()
	var out, errs bytes.Buffer
	code := -1
	lab.Do(func() error {
		code = run(t.Context(), []string{
			"forward", "--in", "in", "--out", "out", "--interval", "50ms", "--duration", "300ms", "--live", "--queues", "1", "--workers", "1",
			"--cpus", "0", "--busy-poll", "20us",
		}, nil, &out, &errs)
		return nil
	})
	if code != exitDone || errs.Len() > 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	for _, want := range []string{"unthunk forward: copy mode, workers: 1", "device:queue", "in:0", "out:0", " received, "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("escapes: %q", out.String())
	}
}

// Each event is a document and a line, those that are no trouble without a warning; sums are of what happened.
func TestForwardEvents(t *testing.T) {
	var out, errs bytes.Buffer
	e := forwardEvents{text: &errs, documents: &out}
	at := time.Date(2026, 11, 30, 1, 2, 3, 4, time.UTC)
	lost := forward.Event{Device: "a\x1b", Name: "device-lost", Times: 2}
	e.happened(forward.Happening{Time: at, Event: lost, Text: "a\x1b is lost", Warning: true})
	e.reload(nil)
	e.reload(errors.New("no"))
	if want := "warning: a\ufffd is lost\nreloaded\nwarning: not reloaded: no\n"; errs.String() != want {
		t.Errorf("said %q, want %q", errs.String(), want)
	}
	var got []forwardEvent
	for line := range strings.Lines(out.String()) {
		var d forwardEvent
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got = append(got, d)
	}
	failed := forward.Event{Name: "reload-failed", Times: 1}
	if len(got) != 3 || !got[0].Time.Equal(at) || got[0].Kind != "forward-event" || got[0].Event != lost || got[2].Event != failed ||
		got[2].Text != "not reloaded: no" {
		t.Errorf("%+v", got)
	}
	sums := e.since(forward.Totals{Events: []forward.Event{lost, {Device: "b", Name: "device-lost"}}})
	if want := []forward.Event{lost, {Name: "reloaded", Times: 1}, failed}; !slices.Equal(sums, want) {
		t.Errorf("%+v, want %+v", sums, want)
	}
}

// With --json a device that goes and comes back is a document of an event each, between those of intervals.
func TestForwardEventDocuments(t *testing.T) {
	lab, _ := forwardLab(t)
	network := handle(t, lab) // the namespace's own thread runs the verb
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs syncBuffer
	done := make(chan int, 1)
	go func() {
		code := -1
		lab.Do(func() error {
			code = run(ctx, []string{"forward", "--in", "in", "--out", "out", "--engine", "xdp", "--json", "--interval", "50ms"}, nil, &out, &errs)
			return nil
		})
		done <- code
	}()
	testutil.Eventually(t, "documents", func() bool { return strings.Count(out.String(), "\n") > 1 })
	l, err := network.LinkByName("out")
	if err == nil {
		err = network.LinkDel(l)
	}
	if err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "lost", func() bool { return strings.Contains(out.String(), `"event":"device-lost","times":1`) })
	if err := network.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out"}, PeerName: "sink"}); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "back", func() bool { return strings.Contains(out.String(), `"event":"device-back","times":1`) })
	cancel()
	if code := <-done; code != exitDone {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var last forwardDocument
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	if !last.Final || !slices.Contains(last.Events, forward.Event{Device: "out", Name: "device-lost", Times: 1}) {
		t.Errorf("in the end: %+v", last)
	}
}
