package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ksym"
)

// effects makes an object of programs that change what stays.
func effects(t *testing.T) string {
	t.Helper()
	return testutil.Compile(t, "../../internal/program/testdata/effects.bpf.c")
}

// needPrograms skips where the kernel lacks functions that programs of an object call.
func needPrograms(t *testing.T, object string, names ...string) {
	t.Helper()
	for _, name := range names {
		target, err := program.Parse(object + ":" + name)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := target.Open(t.Context(), program.Options{})
		if err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A program that makes connections has its price, and the network namespace of the user has none of them afterwards.
func TestProgApart(t *testing.T) {
	testutil.Root(t)
	object := effects(t)
	needPrograms(t, object, "track")
	exe := build(t)
	space, err := netlab.New(0)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer space.Close()
	const why = "calls bpf_ct_insert_entry, bpf_xdp_ct_alloc, bpf_xdp_ct_lookup: that can change what stays, so it is replayed in a " +
		"network namespace of its own"
	for _, test := range []struct {
		args  string
		wants []string
	}{
		{"prog cost " + object + ":track --packets udp4" + quicklyReplayed, []string{"track", "pass"}},
		{"prog cost " + object + ":called --packets udp4 --lines" + quicklyReplayed, []string{"called", "bpf_xdp_ct_lookup(ctx"}},
		{"prog diff " + object + ":track " + object + ":called --packets udp4 --threshold 1000" + quicklyReplayed, []string{"track", "called"}},
	} {
		var stdout, stderr bytes.Buffer
		var code int
		connections := "?"
		err := space.Do(func() error {
			cmd := exec.Command(exe, strings.Fields(test.args)...)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
				return err
			} else if ok {
				code = exit.ExitCode()
			}
			b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count") // of the thread's namespace
			connections = strings.TrimSpace(string(b))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		skipMissing(t, code, stderr.String())
		if code != exitDone || connections != "0" {
			t.Errorf("%s: exit code %d, %s connections: %s%s", test.args, code, connections, &stdout, &stderr)
		}
		if strings.Count(stderr.String(), "\n") != 1 || !strings.Contains(stderr.String(), why) {
			t.Errorf("%s: %s", test.args, &stderr)
		}
		for _, want := range test.wants {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("%s: no %q in\n%s", test.args, want, &stdout)
			}
		}
	}
}

// What needs a device of the user's network namespace, or rights, is refused before it runs.
func TestProgApartRefuses(t *testing.T) {
	testutil.Root(t)
	object := effects(t)
	needPrograms(t, object, "track")
	refuses(t, "prog", []refused{
		{"device", strings.Fields("cost " + object + ":track --packets udp4 --ifindex 1"), exitUsage, "which has no device for --ifindex"},
	})
	exe := build(t)
	caps := []int{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON}
	code, stdout, stderr := limitedRun(t, exe, 0, caps, "prog cost "+object+":track --packets udp4"+quicklyReplayed)
	if code != exitMissing || stdout != "" || strings.Count(stderr, "\n") != 1 ||
		!strings.Contains(stderr, "for which CAP_SYS_ADMIN is missing") || !strings.Contains(stderr, "lab --prog") {
		t.Errorf("without CAP_SYS_ADMIN: exit code %d: %s%s", code, stdout, stderr)
	}
	if code, _, stderr := limitedRun(t, exe, 0, caps, "prog cost "+object+":locked --packets udp4"+quicklyReplayed); code != exitDone {
		t.Errorf("a program that changes nothing, without CAP_SYS_ADMIN: exit code %d: %s", code, stderr)
	}
}

// What reaches beyond any network namespace is refused before it runs: functions for signals, which older kernels lack.
func TestProgBeyondRefused(t *testing.T) {
	testutil.Root(t)
	object := effects(t)
	for name, calls := range map[string]string{
		"killer": "calls bpf_send_signal_task", "signals": "calls bpf_send_signal, bpf_send_signal_thread",
	} {
		t.Run(name, func(t *testing.T) {
			needPrograms(t, object, "track", name)
			refuses(t, "prog", []refused{
				{"alone", strings.Fields("cost " + object + ":" + name + " --packets udp4"), exitFailed, calls + ", which reaches beyond"},
				{"beside", strings.Fields("diff " + object + ":track " + object + ":" + name + " --packets udp4"), exitFailed,
					"run it in a guest (lab --prog)"},
			})
			code, _, stderr := unthunk(t, strings.Fields("bench --prog "+object+":"+name+" --bulk 64"+quicklyReplayed)...)
			skipMissing(t, code, stderr)
			if code != exitFailed || !strings.Contains(stderr, calls) {
				t.Errorf("bench: exit code %d: %s", code, stderr)
			}
		})
	}
}

// A live program whose calls the kernel hides is not run, and one line says what to set.
func TestProgHiddenRefused(t *testing.T) {
	testutil.Root(t)
	object := effects(t)
	target, err := program.Parse(object + ":locked")
	if err != nil {
		t.Fatal(err)
	}
	opened, err := target.Open(t.Context(), program.Options{})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer opened.Close()
	info, err := opened.Program.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	caps := []int{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN}
	if err := testutil.Capable(t, func() error { _, err := ksym.Live(); return err }, caps...); err == nil {
		testutil.Missing(t, "hidden addresses (kernel.kptr_restrict, kernel.perf_event_paranoid)")
	}
	args := fmt.Sprintf("prog cost id:%d --on-live-maps --packets udp4%s", id, quicklyReplayed)
	code, stdout, stderr := limitedRun(t, build(t), 0, caps, args)
	if code != exitMissing || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "sysctl kernel.kptr_restrict=1") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}
