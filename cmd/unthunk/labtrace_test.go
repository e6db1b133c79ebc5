package main

import (
	"strings"
	"testing"
)

// What a trace cannot be of is said before a guest boots.
func TestLabTraceRefuses(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"lab debian:6.1-cloud debian:6.12-cloud --svg " + t.TempDir() + "/x.svg": "6 are asked for",
		"lab debian:6.1-cloud --run check --annotate f":                          "leave --trace, --annotate and --svg out",
	} {
		var out, errs strings.Builder
		code := run(t.Context(), strings.Fields(args), strings.NewReader(""), &out, &errs)
		if code != 2 || !strings.Contains(errs.String(), want) || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%s: exit code %d, %q, want %q", args, code, errs.String(), want)
		}
	}
}
