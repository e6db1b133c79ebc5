package main

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// What gives RSS back answers why it cannot read a table; in guests it has one (internal/forward).
func TestRSSGuard(t *testing.T) {
	exe := build(t)
	for args, want := range map[string]struct {
		code         int
		out, message string
	}{
		"1 1":    {exitDone, "read RSS of lo: an RSS table of lo is missing", ""},
		"eth0 1": {exitUsage, "", `unthunk: "eth0" is not a number`},
	} {
		cmd := exec.Command(exe, append([]string{rssGuard}, strings.Fields(args)...)...)
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != want.code || !strings.HasPrefix(string(out), want.out) ||
			strings.Count(string(out), "\n") != min(len(want.out), 1) || !strings.HasPrefix(errs.String(), want.message) {
			t.Errorf("%s: exit code %d, said %q, %q", args, code, out, errs.String())
		}
	}
}
