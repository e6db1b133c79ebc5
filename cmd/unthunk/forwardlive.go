package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/unthunk/unthunk/internal/forward"
	"github.com/unthunk/unthunk/internal/report/cells"
)

// forwardScreen is one picture of a forwarder: its directions, and a line for each queue.
type forwardScreen struct {
	width, height int
	color, moves  bool // whether it may be in color, and be drawn over the last one
	filter        bool // frames may be passed to the network stack
}

// newForwardScreen is that of a terminal, or of 80 columns and 24 lines.
func newForwardScreen(w io.Writer) *forwardScreen {
	o := textOptions(w)
	s := &forwardScreen{width: o.Width, height: 24, color: o.Color, moves: movesCursor(w)}
	if f, ok := file(w); ok && s.moves {
		if _, height, err := term.GetSize(int(f.Fd())); err == nil && height > 0 {
			s.height = height
		}
	}
	return s
}

// Escapes of a terminal.
const (
	homeAndClear = "\x1b[H\x1b[J"
	boldOn       = "\x1b[1m"
	colorOff     = "\x1b[0m"
)

// picture is what happened between two readings, in at most height lines of width columns.
func (s forwardScreen) picture(before, after forward.Totals, took, since time.Duration) string {
	passed := after.Passage.Less(before.Passage)
	lines := []string{s.bold(fmt.Sprintf("unthunk forward: %s mode, workers: %d, %v", after.Mode, after.Workers, since.Round(time.Second)))}
	add := func(format string, args ...any) { lines = append(lines, s.cut(fmt.Sprintf(format, args...))) }
	if p := passed.Below(0.5); p > 0 {
		micros := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
		add("frames were with a worker: p50 < %.0f µs, p99 < %.0f µs, p99.9 < %.0f µs",
			micros(p), micros(passed.Below(0.99)), micros(passed.Below(0.999)))
	}
	lines = append(lines, "")
	add("%-24s %11s %8s %7s%s  %s", "in → out", "sent", "ns/pkt", "batch", passedCell(s.filter, "passed"), "drops")
	for _, r := range rows(before, after, took) {
		add("%-24s %11s %8s %7s%s  %s", r.devices(), packetRate(r.Mpps), cell(r.NS, "%.1f"), cell(first(r.Batch, r.Bulk), "%.1f"),
			passedCell(s.filter, strconv.FormatUint(r.Passed, 10)), drops(r))
	}
	if len(after.Queues) > 0 {
		lines = append(lines, "")
		add("%-19s %6s %11s %11s %8s %8s", "device:queue", "worker", "received", "sent", "dropped", "late")
	}
	queues := queueRows(before, after, took)
	most := 0.0
	for _, q := range queues {
		most = max(most, q.Mpps, q.SentMpps)
	}
	for i, q := range queues {
		if left := s.height - len(lines) - 1; left <= 1 && len(queues)-i > left {
			add("+%d queues", len(queues)-i)
			break
		}
		state := ""
		if !q.Up {
			state = "gone"
		} else if most > 0 {
			room := max(0, s.width-71)
			state = strings.Repeat("█", int(float64(room)*max(q.Mpps, q.SentMpps)/most+0.5))
		}
		add("%-19s %6d %11s %11s %8d %8d  %s", cells.Clean(fmt.Sprintf("%s:%d", q.Device, q.Queue)), q.Worker, packetRate(q.Mpps),
			packetRate(q.SentMpps), q.Dropped, q.RingFull, state)
	}
	return strings.Join(lines, "\n") + "\n"
}

// cut ends a line at the width.
func (s forwardScreen) cut(line string) string {
	line = strings.TrimRight(line, " ")
	if utf8.RuneCountInString(line) <= s.width {
		return line
	}
	return string([]rune(line)[:s.width-1]) + "…"
}

func (s forwardScreen) bold(line string) string {
	if line = s.cut(line); !s.color {
		return line
	}
	return boldOn + line + colorOff
}

// queueRow is one queue over a time.
type queueRow struct {
	Device   string  `json:"device"`
	Queue    int     `json:"queue"`
	Worker   int     `json:"worker"`
	Up       bool    `json:"up"`
	Mpps     float64 `json:"mpps"`
	SentMpps float64 `json:"sent-mpps"`
	Received uint64  `json:"received"`
	Sent     uint64  `json:"sent"`
	Dropped  uint64  `json:"dropped"`
	RingFull uint64  `json:"rx-ring-full"`
}

// queueRows are what happened at each queue between two readings.
func queueRows(before, after forward.Totals, took time.Duration) []queueRow {
	type key struct {
		device string
		queue  int
	}
	earlier := make(map[key]forward.Queue)
	for _, q := range before.Queues {
		earlier[key{q.Device, q.Queue}] = q
	}
	list := []queueRow{}
	for _, q := range after.Queues {
		p := earlier[key{q.Device, q.Queue}]
		r := queueRow{
			Device: q.Device, Queue: q.Queue, Worker: q.Worker, Up: q.Up,
			Received: q.Received - p.Received, Sent: q.Sent - p.Sent, Dropped: q.Dropped - p.Dropped, RingFull: q.RingFull - p.RingFull,
		}
		r.Mpps, r.SentMpps = float64(r.Received)/took.Seconds()/1e6, float64(r.Sent)/took.Seconds()/1e6
		list = append(list, r)
	}
	return list
}

// passageRow is how many frames were with a worker for less than a time, and not less than half
// of it.
type passageRow struct {
	Below  int64  `json:"below-ns"`
	Frames uint64 `json:"frames"`
}

// passageRows are those of a time that have frames.
func passageRows(before, after forward.Totals) []passageRow {
	list := []passageRow{}
	for i, n := range after.Passage.Less(before.Passage).Frames {
		if n > 0 {
			list = append(list, passageRow{int64(1) << i, n})
		}
	}
	return list
}
