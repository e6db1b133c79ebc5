package cells

import "testing"

func TestClean(t *testing.T) {
	const hostile = "a\tb\nc\r\x1b[2J\x00\xff\u202e"
	if got, want := Clean(hostile), "a b c��[2J���"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := CleanLines(hostile), "a\tb\nc��[2J���"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
