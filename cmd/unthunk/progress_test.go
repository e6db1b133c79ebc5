package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/rounds"
)

func TestProgressLine(t *testing.T) {
	p := rounds.Progress{Round: 3, Rounds: 15, What: "redirect-map/bulk=64/operation=parse/mode=generic/size=1000",
		Left: 12400 * time.Millisecond}
	if got, want := progressLine("", p), "12s left: round 3 of 15, redirect-map/bulk=64/operation=parse/mode=generic/size"; got != want {
		t.Errorf("line is %q, want %q", got, want)
	}
	if n := len(progressLine("", p)); n > 79 {
		t.Errorf("line has %d columns: it would wrap", n)
	}
}

func TestNoProgressWithoutTerminal(t *testing.T) {
	var buf bytes.Buffer
	show, done := progress(std{err: &buf})
	if show != nil {
		t.Error("progress is shown where there is no terminal")
	}
	done()
	if buf.Len() > 0 {
		t.Errorf("wrote %q", &buf)
	}
}
