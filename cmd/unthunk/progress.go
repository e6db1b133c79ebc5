package main

import (
	"fmt"
	"time"

	"github.com/unthunk/unthunk/internal/rounds"
)

// progress returns a function that shows where a run stands on one line of a
// terminal, and one that clears it. Elsewhere both do nothing.
func progress(s std) (show func(rounds.Progress), done func()) {
	if !isTerminal(s.err) {
		return nil, func() {}
	}
	var last time.Time
	show = func(p rounds.Progress) {
		if time.Since(last) < 100*time.Millisecond {
			return
		}
		last = time.Now()
		fmt.Fprint(s.err, "\r\033[K", progressLine(p))
	}
	return show, func() { fmt.Fprint(s.err, "\r\033[K") }
}

// progressLine fits on a terminal of 80 columns.
func progressLine(p rounds.Progress) string {
	return fmt.Sprintf("%.79s", fmt.Sprintf("round %d of %d, %v left: %s", p.Round, p.Rounds, p.Left.Round(time.Second), p.What))
}
