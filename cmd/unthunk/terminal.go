package main

import (
	"io"
	"os"

	"golang.org/x/term"

	"github.com/unthunk/unthunk/internal/report"
)

// isTerminal tells whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// textOptions are the width and color that suit w: those of the terminal it
// is, or 80 columns without color. NO_COLOR is respected (no-color.org).
func textOptions(w io.Writer) report.Options {
	opts := report.Options{Width: 80}
	if !isTerminal(w) {
		return opts
	}
	if width, _, err := term.GetSize(int(w.(*os.File).Fd())); err == nil && width > 0 {
		opts.Width = width
	}
	opts.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return opts
}
