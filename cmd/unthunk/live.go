package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/redirect"
	"github.com/unthunk/unthunk/internal/report"
)

// liveWriter writes a line for each second of a run on real devices.
type liveWriter struct {
	w     io.Writer
	width int
	lines int
}

// live returns what writes the lines: to a terminal, or where they are asked for; else nil.
// They are progress, and go where progress goes.
func live(s std, asked bool) func(redirect.Interval) {
	if !asked && !isTerminal(s.err) {
		return nil
	}
	w := &liveWriter{w: s.err, width: textOptions(s.err).Width}
	return w.interval
}

func (w *liveWriter) interval(i redirect.Interval) {
	if w.lines%20 == 0 {
		fmt.Fprintf(w.w, "%-8s %9s %9s %9s  %s\n", "time", "Mpps", "left", "lost/s", "Mpps by queue:CPU; what was lost")
	}
	w.lines++
	rate := func(frames uint64) float64 { return float64(frames) / i.Length.Seconds() / 1e6 }
	left := "-"
	if i.Left != nil {
		left = fmt.Sprintf("%.4f", rate(*i.Left))
	}
	lost := uint64(0)
	for _, l := range i.Lost {
		lost += l.Frames
	}
	line := fmt.Sprintf("%s %9.4f %9s %9.0f  ", i.End.Format("15:04:05"), rate(i.Frames()), left,
		float64(lost)/i.Length.Seconds())
	fmt.Fprintln(w.w, strings.TrimRight(line+w.details(i, rate, w.width-utf8.RuneCountInString(line)), " "))
}

// details are the losses by reason and the busiest queues, as far as they fit into width.
func (w *liveWriter) details(i redirect.Interval, rate func(uint64) float64, width int) string {
	var parts []string
	for _, l := range i.Lost {
		parts = append(parts, fmt.Sprintf("%s %d", report.Loss(l), l.Frames))
	}
	queues := slices.SortedStableFunc(slices.Values(i.Queues), func(a, b record.QueueCount) int {
		return cmp.Compare(b.Frames, a.Frames)
	})
	for _, q := range queues {
		parts = append(parts, fmt.Sprintf("%d:%d %.4f", q.Queue, q.CPU, rate(q.Frames)))
	}
	text := ""
	for n, part := range parts {
		longer := text + part
		if n > 0 {
			longer = text + ", " + part
		}
		if more := len(parts) - n - 1; n > 0 && more >= 0 && utf8.RuneCountInString(longer)+len(", +999") > width {
			return fmt.Sprintf("%s, +%d", text, more+1)
		}
		text = longer
	}
	return text
}
