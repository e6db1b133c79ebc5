package main

import (
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

// refused is a command that cannot be meant, or cannot be done.
type refused struct {
	name string
	args []string
	code int
	want string // in the one line that says why
}

// refuses runs a verb with bad arguments: nothing on stdout, one line on stderr, the
// right exit code.
func refuses(t *testing.T, verb string, tests []refused) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, stdout, stderr := unthunk(t, append([]string{verb}, test.args...)...)
			if test.code != exitMissing {
				skipMissing(t, code, stderr)
			}
			if code != test.code || stdout != "" {
				t.Errorf("exit code %d, want %d; stdout: %s", code, test.code, stdout)
			}
			if !strings.Contains(stderr, test.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("stderr is not one line with %q:\n%s", test.want, stderr)
			}
		})
	}
}

// skipMissing skips the test when a verb ended because this machine lacks a feature.
func skipMissing(t *testing.T, code int, stderr string) {
	t.Helper()
	if code != exitMissing {
		return
	}
	t.Log(stderr)
	name, _, _ := strings.Cut(strings.TrimPrefix(stderr, "unthunk: "), " is missing")
	testutil.Missing(t, name)
}
