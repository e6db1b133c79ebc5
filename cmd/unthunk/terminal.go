package main

import (
	"io"
	"os"

	"golang.org/x/term"

	"github.com/unthunk/unthunk/internal/report"
)

// isTerminal tells whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := file(w)
	return ok && term.IsTerminal(int(f.Fd()))
}

// file is the file that w writes to.
func file(w io.Writer) (f *os.File, ok bool) {
	if held, is := w.(*heldOutput); is {
		w = held.of
	}
	if o, is := w.(*output); is {
		w = o.w
	}
	f, ok = w.(*os.File)
	return f, ok
}

// textOptions are the width and color that suit w: those of the terminal it
// is, or 80 columns without color. NO_COLOR is respected (no-color.org).
func textOptions(w io.Writer) report.Options {
	opts := report.Options{Width: 80}
	f, ok := file(w)
	if !ok || !isTerminal(f) {
		return opts
	}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		opts.Width = width
	}
	opts.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return opts
}

// movesCursor tells whether w is a terminal on which text can be taken back.
func movesCursor(w io.Writer) bool {
	return isTerminal(w) && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != ""
}
