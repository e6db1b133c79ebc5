package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil/flood"
)

// inLab runs a command line in a namespace.
func inLab(t *testing.T, lab *netlab.Namespace, args string) (code int, stdout, stderr string) {
	t.Helper()
	lab.Do(func() error {
		code, stdout, stderr = unthunk(t, strings.Fields(args)...)
		return nil
	})
	skipMissing(t, code, stderr)
	return code, stdout, stderr
}

// handle is a netlink socket in a namespace.
func handle(t *testing.T, lab *netlab.Namespace) *netlink.Handle {
	t.Helper()
	var h *netlink.Handle
	if err := lab.Do(func() (err error) { h, err = netlink.NewHandle(unix.NETLINK_ROUTE); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// A device that goes away ends a measurement, and says so once.
func TestDeviceVanishes(t *testing.T) {
	for _, test := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"profile --in in --out out --duration 9s --rounds 4", exitFailed, "unthunk: in went away\n"},
		{"bench --in in --out out --duration 6s --rounds 3", exitFailed, "unthunk: in went away\n"},
		{"forward --in in --out out --engine xdp --duration 5s", exitDone,
			"warning: in is lost: it went away, or to another network namespace\n"},
	} {
		t.Run(test.args, func(t *testing.T) {
			lab, gen := forwardLab(t)
			network := handle(t, lab)
			stop := flood.Start(t, lab, gen)
			defer stop()
			deleted := time.AfterFunc(2500*time.Millisecond, func() {
				if l, err := network.LinkByName("in"); err != nil {
					t.Error(err)
				} else if err := network.LinkDel(l); err != nil {
					t.Error(err)
				}
			})
			defer deleted.Stop()
			code, stdout, stderr := inLab(t, lab, test.args)
			if code != test.code || stderr != test.stderr {
				t.Errorf("exit code %d, want %d; stderr %q, want %q\n%s", code, test.code, stderr, test.stderr, stdout)
			}
			if strings.HasPrefix(test.args, "forward") && !strings.Contains(stdout, "device or program gone") {
				t.Errorf("the lines do not say it:\n%s", stdout)
			}
		})
	}
}

// A device that is down is named at once, with what brings it up.
func TestDeviceDown(t *testing.T) {
	lab, _ := forwardLab(t)
	network := handle(t, lab)
	l, err := network.LinkByName("in")
	if err == nil {
		err = network.LinkSetDown(l)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"bench --in in --out out", "profile --in in --out out", "bench --in out --out in"} {
		begun := time.Now()
		code, _, stderr := inLab(t, lab, args)
		if code != exitFailed || stderr != "unthunk: in is down: ip link set in up\n" ||
			time.Since(begun) > 8*time.Second {
			t.Errorf("%s: exit code %d after %v: %s", args, code, time.Since(begun), stderr)
		}
	}
	for _, engine := range []string{"xdp", "afxdp"} {
		code, _, stderr := inLab(t, lab, "forward --in in --out out --duration 100ms --engine "+engine)
		if code != exitDone || stderr != "warning: in is down: ip link set in up\n" {
			t.Errorf("forward by %s: exit code %d: %s", engine, code, stderr)
		}
	}
}

// A profile without a number is not saved: no verb could read it.
func TestProfileOfNothing(t *testing.T) {
	lab, _ := forwardLab(t)
	file := filepath.Join(t.TempDir(), "p.json")
	code, stdout, stderr := inLab(t, lab, "profile --in in --out out --duration 3s --rounds 2 --save "+file)
	const want = "unthunk: no answer: no packet was redirected; no file is written\n"
	if _, err := os.Stat(file); code != exitFailed || stderr != want || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("exit code %d, stderr %q, want %q; the file: %v\n%s", code, stderr, want, err, stdout)
	}
}

// Redirects that all fail are a warning with the error and what helps.
func TestNothingRedirected(t *testing.T) {
	lab, gen := forwardLab(t)
	if _, _, err := lab.VethPair("deaf", "plain"); err != nil { // plain has no GRO and no program
		t.Fatal(err)
	}
	stop := flood.Start(t, lab, gen)
	defer stop()
	code, stdout, stderr := inLab(t, lab, "forward --in in --out deaf --engine xdp --duration 3s")
	for _, want := range []string{
		"warning: nothing that in receives leaves by deaf: ", " times: operation not supported: ", "ethtool -K PEER gro on",
		"\nunthunk: no frame was sent, and ",
	} {
		if code != exitFailed || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 2 {
			t.Errorf("forward: exit code %d, stderr lacks %q: %s\n%s", code, want, stderr, stdout)
		}
	}
	begun := time.Now()
	code, stdout, stderr = inLab(t, lab, "bench --in in --out deaf")
	const cure = "unthunk: deaf takes no redirected frames: its peer plain has no XDP program and no GRO: ethtool -K plain gro on\n"
	if code != exitFailed || stdout != "" || stderr != cure || time.Since(begun) > 8*time.Second {
		t.Errorf("bench: exit code %d after %v: %s\n%s", code, time.Since(begun), stderr, stdout)
	}
}

// A device that does not exist, or that nothing is redirected through.
func TestNoSuchDevice(t *testing.T) {
	lab, _ := forwardLab(t)
	for args, want := range map[string]string{
		"bench --in nope --out out":                       "there is no device nope in this network namespace",
		"profile --in in --out nope":                      "there is no device nope in this network namespace",
		"forward --in nope --out out":                     "there is no device nope in this network namespace",
		"forward --in in --out nope --engine xdp":         "there is no device nope in this network namespace",
		"xray --dev nope":                                 "there is no device nope in this network namespace",
		"forward --in in --out out --bpf nope.o":          "open BPF object nope.o: no such file or directory",
		"forward --in in --out out --bpf /etc/passwd":     "read BPF object /etc/passwd: it is not an ELF object",
		"forward --in in --out out --pcap /nonexistent/x": "save /nonexistent/x: no such file",
	} {
		code, stdout, stderr := inLab(t, lab, args)
		if code != exitFailed || stdout != "" || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 ||
			strings.Count(stderr, "open") > 1 {
			t.Errorf("%s: exit code %d, stderr lacks %q: %s", args, code, want, stderr)
		}
	}
	code, stdout, stderr := 0, "", ""
	lab.Do(func() error { code, stdout, stderr = unthunk(t, "xray", "--dev", "lo"); return nil })
	if code != exitMissing || stdout != "" ||
		!strings.Contains(stderr, "a redirect path of lo is missing: it has no NAPI poll") {
		t.Errorf("xray --dev lo: exit code %d: %s%s", code, stderr, stdout)
	}
}
