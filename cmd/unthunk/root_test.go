package main

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// What a guest, a file or a device says of itself in an error does not reach the terminal
// as it is.
func TestOneLine(t *testing.T) {
	err := errors.New("in the guest: bad \x1b]0;PWN\a \x1b[2J\u202ex\n  next\u009b1m")
	if got, want := oneLine(err), "in the guest: bad �]0;PWN� �[2J�x next�1m"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	long := errors.New("web.yml: " + strings.Repeat("line 1: field a not found\n", 40_000))
	got := oneLine(long)
	if n := utf8.RuneCountInString(got); n != maxLine || !strings.HasPrefix(got, "web.yml: line 1") || !strings.HasSuffix(got, "…") {
		t.Errorf("%d characters: %.80q", n, got)
	}
}
