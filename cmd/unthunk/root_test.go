package main

import (
	"errors"
	"testing"
)

// What a guest, a file or a device says of itself in an error does not reach the terminal
// as it is.
func TestOneLine(t *testing.T) {
	err := errors.New("in the guest: bad \x1b]0;PWN\a \x1b[2J\u202ex\n  next\u009b1m")
	if got, want := oneLine(err), "in the guest: bad �]0;PWN� �[2J�x next�1m"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
