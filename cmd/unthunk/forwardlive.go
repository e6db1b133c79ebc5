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

// picture is what happened between two readings, and what was told last, in lines of width columns that leave one of the height to
// the cursor. Where there is no room what was told is left out first, and queues then.
func (s forwardScreen) picture(before, after forward.Totals, took, since time.Duration, told []string) string {
	passed := after.Passage.Less(before.Passage)
	workers := fmt.Sprintf("workers: %d, ", after.Workers)
	if inKernel(after) {
		workers = ""
	}
	lines := []string{s.bold(fmt.Sprintf("unthunk forward: %s mode, %s%v", after.Mode, workers, since.Round(time.Second)))}
	add := func(format string, args ...any) { lines = append(lines, s.cut(fmt.Sprintf(format, args...))) }
	if p := passed.Below(0.5); p > 0 {
		add("frames were with a worker: p50 < %s, p99 < %s, p99.9 < %s",
			passageText(p), passageText(passed.Below(0.99)), passageText(passed.Below(0.999)))
	}
	lines = append(lines, s.cut(sums(after)), "")
	add("%-24s %11s %8s %7s%s  %s", "in → out", "sent", "ns/pkt", "batch", passedCell(s.filter, "passed"), "drops")
	for _, r := range rows(before, after, took) {
		line := fmt.Sprintf("%-24s %11s %8s %7s%s  ", r.devices(), packetRate(r.Mpps), cell(r.NS, "%.1f"),
			cell(first(r.Batch, r.Bulk), "%.1f"), passedCell(s.filter, strconv.FormatUint(r.Passed, 10)))
		for _, line := range fitted(s.width, line, drops(r, "-")) {
			lines = append(lines, s.cut(line))
		}
	}
	if len(after.Queues) > 0 {
		lines = append(lines, "")
		if inKernel(after) {
			add("%-19s %11s  %-14s", "device:queue", "received", "CPUs")
		} else {
			add("%-19s %6s %11s %11s %8s %8s", "device:queue", "worker", "received", "sent", "dropped", "kernel")
		}
	}
	queues := queueRows(before, after, took)
	most := 0.0
	for _, q := range queues {
		most = max(most, q.Mpps, q.sentMpps())
	}
	limit := max(1, s.height-1)
	told = told[len(told)-min(len(told), max(0, limit-len(lines)-min(1, len(queues)))):]
	for i, q := range queues {
		if left := limit - len(lines) - len(told); left <= 1 && len(queues)-i > left {
			add("+%d queues", len(queues)-i)
			break
		}
		add("%s", s.queue(q, most))
	}
	for _, text := range told {
		add("%s", text)
	}
	if more := len(lines) - limit; more > 0 {
		lines = lines[:limit-1]
		add("+%d lines", more+1)
	}
	return strings.Join(lines, "\n") + "\n"
}

// passageText is a time in µs, or in ms from 10 ms on.
func passageText(d time.Duration) string {
	if d >= 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d.Nanoseconds())/1e6)
	}
	return fmt.Sprintf("%.0f µs", float64(d.Nanoseconds())/1e3)
}

// sums is all that was forwarded since the beginning.
func sums(t forward.Totals) string {
	var received, sent, dropped uint64
	for _, d := range t.Directions {
		received, sent, dropped = received+d.Received, sent+d.Sent, dropped+d.Dropped()
	}
	return fmt.Sprintf("in all: %d received, %d sent, %d dropped", received, sent, dropped)
}

// queue is the line of a queue, with a bar as long as its rate in parts of the greatest.
func (s forwardScreen) queue(q queueRow, most float64) string {
	line := fmt.Sprintf("%-19s ", cells.Clean(fmt.Sprintf("%s:%d", q.Device, q.Queue)))
	if q.Worker == nil {
		line += fmt.Sprintf("%11s  %-14s", packetRate(q.Mpps), cpuText(q.CPUs))
	} else {
		line += fmt.Sprintf("%6d %11s %11s %8d %8d", *q.Worker, packetRate(q.Mpps), packetRate(*q.SentMpps), *q.Dropped, *q.KernelRX+*q.RingFull)
	}
	switch {
	case !q.Up:
		return line + "  gone"
	case most > 0:
		room := max(0, s.width-utf8.RuneCountInString(line)-3)
		return line + "  " + strings.Repeat("█", int(float64(room)*max(q.Mpps, q.sentMpps())/most+0.5))
	}
	return line
}

// cpuText names CPUs, at most three.
func cpuText(cpus []int) string {
	var names []string
	for i, cpu := range cpus {
		if i == 3 {
			names = append(names, fmt.Sprintf("+%d", len(cpus)-i))
			break
		}
		names = append(names, strconv.Itoa(cpu))
	}
	return strings.Join(names, ",")
}

// inKernel says whether the kernel forwards, without workers.
func inKernel(t forward.Totals) bool { return t.Workers == 0 }

// fitted appends parts to a line, and goes on in another where they do not fit into the columns. Nothing is cut.
func fitted(columns int, line string, parts []string) (lines []string) {
	const indent = "    "
	for i, part := range parts {
		if i < len(parts)-1 {
			part += ","
		}
		if utf8.RuneCountInString(line+part) > columns && line != indent {
			lines, line = append(lines, strings.TrimRight(line, " ")), indent
		}
		line += part + " "
	}
	return append(lines, strings.TrimRight(line, " "))
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

// queueRow is one queue over a time. What nobody counts of the engine xdp is nil, and so are CPUs of the engine afxdp.
type queueRow struct {
	Device   string   `json:"device"`
	Queue    int      `json:"queue"`
	Worker   *int     `json:"worker"`
	CPUs     []int    `json:"cpus"` // that redirected its frames
	Up       bool     `json:"up"`
	Mpps     float64  `json:"mpps"`
	SentMpps *float64 `json:"sent-mpps"`
	Received uint64   `json:"received"`
	Sent     *uint64  `json:"sent"`
	Dropped  *uint64  `json:"dropped"`
	KernelRX *uint64  `json:"kernel-rx"`
	RingFull *uint64  `json:"rx-ring-full"`
}

// sentMpps is 0 where nobody counts it.
func (r *queueRow) sentMpps() float64 {
	if r.SentMpps == nil {
		return 0
	}
	return *r.SentMpps
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
		mpps := func(frames uint64) float64 { return float64(frames) / took.Seconds() / 1e6 }
		r := queueRow{Device: q.Device, Queue: q.Queue, Up: q.Up, Received: q.Received - p.Received, Mpps: mpps(q.Received - p.Received)}
		if inKernel(after) {
			r.CPUs = cpusOf(p.ByCPU, q.ByCPU)
		} else {
			sent, dropped, kernel, full := q.Sent-p.Sent, q.Dropped-p.Dropped, q.KernelRX-p.KernelRX, q.RingFull-p.RingFull
			rate := mpps(sent)
			r.Worker, r.Sent, r.SentMpps, r.Dropped, r.KernelRX, r.RingFull = &q.Worker, &sent, &rate, &dropped, &kernel, &full
		}
		list = append(list, r)
	}
	return list
}

// cpusOf are the CPUs that redirected frames between two readings.
func cpusOf(before, after []uint64) []int {
	cpus := []int{}
	for cpu, n := range after {
		if cpu < len(before) {
			n -= before[cpu]
		}
		if n > 0 {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
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
