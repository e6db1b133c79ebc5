package main

import (
	"fmt"
	"io"
	"time"

	"github.com/unthunk/unthunk/internal/report/cells"
	"github.com/unthunk/unthunk/internal/rounds"
)

// progress returns a function that shows where a run stands on one line of a
// terminal, and one that clears it. Elsewhere both do nothing.
func progress(s std) (show func(rounds.Progress), done func()) { return progressOf(s, "", 0) }

// progressOf is the progress of one part of a run, which later parts of a length follow.
func progressOf(s std, part string, later time.Duration) (show func(rounds.Progress), done func()) {
	if !isTerminal(s.err) {
		return nil, func() {}
	}
	var last time.Time
	show = func(p rounds.Progress) {
		if time.Since(last) < 100*time.Millisecond {
			return
		}
		last = time.Now()
		p.Left += later
		fmt.Fprint(s.err, "\r\033[K", progressLine(part, p))
	}
	return show, func() { fmt.Fprint(s.err, "\r\033[K") }
}

// progressLine fits on a terminal of 80 columns.
func progressLine(part string, p rounds.Progress) string {
	if part != "" {
		part += ", "
	}
	what := cells.Clean(p.What) // it may have the name of a device
	return fmt.Sprintf("%.79s", fmt.Sprintf("%v left: %sround %d of %d, %s", p.Left.Round(time.Second), part, p.Round, p.Rounds, what))
}

// interim is text on a terminal that a later one takes the place of.
type interim struct {
	w     io.Writer
	lines int
}

// erase takes the text off the terminal, if there is any.
func (i *interim) erase() {
	if i.lines > 0 {
		fmt.Fprintf(i.w, "\033[%dA\033[J", i.lines)
		i.lines = 0
	}
}
