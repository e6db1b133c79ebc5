package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/unthunk/unthunk/internal/report/cells"
)

// labProgress shows on a line of a terminal which guest began or ended last, how long the
// run has taken, and how long it will take, once a guest is done. Elsewhere it does nothing.
func labProgress(s std) (show func(done, all int, what string), clear func()) {
	if !isTerminal(s.err) {
		return nil, func() {}
	}
	var (
		mu        sync.Mutex
		done, all int
		what      string
		began     = time.Now()
		ticker    = time.NewTicker(time.Second)
		quit      = make(chan struct{})
		ended     = make(chan struct{})
	)
	write := func() {
		mu.Lock()
		defer mu.Unlock()
		if all > 0 {
			fmt.Fprint(s.err, "\r\033[K", labProgressLine(done, all, time.Since(began), what))
		}
	}
	go func() {
		defer close(ended)
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				write()
			}
		}
	}()
	show = func(nowDone, nowAll int, now string) {
		mu.Lock()
		done, all, what = nowDone, nowAll, now
		mu.Unlock()
		write()
	}
	return show, func() {
		ticker.Stop()
		close(quit)
		<-ended
		fmt.Fprint(s.err, "\r\033[K")
	}
}

// labProgressLine fits on a terminal of 80 columns. Guests take about the same time each, so
// those that are done say how long the others will take.
func labProgressLine(done, all int, took time.Duration, what string) string {
	left := ""
	if done > 0 && done < all {
		left = fmt.Sprintf(", %v left", (took / time.Duration(done) * time.Duration(all-done)).Round(time.Second))
	}
	line := fmt.Sprintf("%d of %d guests done in %v%s: %s", done, all, took.Round(time.Second), left, cells.Clean(what))
	return fmt.Sprintf("%.79s", line)
}
