package main

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/unthunk/unthunk/internal/forward"
)

// totals are of two queues, the second of which came later.
func totals(frames uint64, queues int) forward.Totals {
	t := forward.Totals{
		Mode: "copy", Workers: 2, Busy: time.Duration(frames) * 500,
		Directions: []forward.Direction{{
			In: "in", Out: "out", Received: frames, Sent: frames - 3, Batches: frames / 50, Up: true, Passed: 777777,
			Drops: []forward.Drop{{Reason: "no-room", Frames: 3}},
		}},
		Links: []forward.Link{{Device: "in", Up: true}, {Device: "out", Up: true}},
	}
	t.Passage.Frames[14], t.Passage.Frames[17] = frames*95/100, frames*5/100
	for q := range queues {
		t.Queues = append(t.Queues, forward.Queue{
			Device: "in", Queue: q, Worker: q % 2, Received: frames / uint64(q+1), Up: q != 3,
			Dropped: uint64(3 * q), KernelRX: uint64(2 * q), RingFull: uint64(q),
		})
	}
	return t
}

// The picture has a line for each queue, as far as the screen has lines, and no line is wider.
func TestForwardPicture(t *testing.T) {
	s := forwardScreen{width: 80, height: 24}
	got := s.picture(forward.Totals{}, totals(2_000_000, 4), time.Second, 90*time.Second, nil)
	for _, want := range []string{
		"unthunk forward: copy mode, workers: 2, 1m30s\nframes were with a worker: p50 < 16 µs, p99 < 131 µs, ",
		"\nin all: 2000000 received, 1999997 sent, 3 dropped\n", "in → out", "2.000 Mpps", "500.0", "50.0", "no-room 3", "500.0 kpps",
		"in:0", "in:3", "gone", " █████████\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	// Of a name as long as the kernel has them no column moves.
	long := totals(2_000_000, 1)
	long.Queues[0].Device, long.Queues[0].Queue = "abcdefghijklmno", 255
	if got := s.picture(forward.Totals{}, long, time.Second, time.Second, nil); !regexp.MustCompile(
		`(?m)^device:queue +worker .*\nabcdefghijklmno:255      0 `).MatchString(got) {
		t.Errorf("a long name moves columns:\n%s", got)
	}
	many := s.picture(totals(1_000_000, 1), totals(2_000_000, 300), time.Second, time.Second, nil)
	if n := strings.Count(many, "\n"); n > 23 || !strings.Contains(many, "+2") {
		t.Errorf("%d lines:\n%s", n, many)
	}
	for _, picture := range []string{got, many} {
		for line := range strings.Lines(picture) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
				t.Errorf("%d columns: %s", n, line)
			}
		}
		if strings.Contains(picture, "\x1b") {
			t.Errorf("escapes without color: %q", picture)
		}
	}
	s.filter = true
	if got := s.picture(forward.Totals{}, totals(2_000_000, 1), time.Second, time.Second, nil); !regexp.MustCompile(
		`(?m) passed  drops\n.* 777777  no-room 3$`).MatchString(got) {
		t.Errorf("frames that were passed are not in\n%s", got)
	}
	s.color = true
	colored := s.picture(forward.Totals{}, totals(2_000_000, 4), time.Second, time.Second, nil)
	if !strings.HasPrefix(colored, "\x1b[1munthunk") {
		t.Errorf("no color: %q", colored[:20])
	}
}

// What keeps frames from passing is on the screen as long as it lasts and not cut off, and what was told last stays there.
func TestForwardPictureOfTrouble(t *testing.T) {
	after := totals(2_000_000, 300)
	d := &after.Directions[0]
	d.Up, after.Links[1].Up = false, false
	d.Drops = []forward.Drop{
		{Reason: "no-room", Frames: 768}, {Reason: "link-down", Frames: 1_234_567_890}, {Reason: "lost-with-output", Frames: 307},
	}
	var errs bytes.Buffer
	e := forwardEvents{text: &errs}
	for _, text := range []string{"first", "a\x1b", "b", strings.Repeat("long ", 30), "last"} {
		e.warn(text)
	}
	got := forwardScreen{width: 80, height: 24}.picture(forward.Totals{}, after, time.Second, time.Second, e.lastTold())
	for _, want := range []string{
		"  no-room 768,\n    link-down 1234567890, lost-with-output 307, device or program gone, out down\n",
		" warning: a\ufffd\n", " warning: b\n", " warning: long long", "…\n", " warning: last\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n"); n > 23 || strings.Contains(got, "first") {
		t.Errorf("%d lines, want 23 at most, without the first warning:\n%s", n, got)
	}
	for line := range strings.Lines(got) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// However low the screen is no picture is higher: what was told is left out first, the oldest before others.
func TestForwardPictureHeight(t *testing.T) {
	t.Parallel()
	told := []string{"told 1", "told 2", "told 3", "told 4"}
	var before forward.Totals
	after := totals(2_000_000, 30)
	after.Directions = append(after.Directions, after.Directions[0], after.Directions[0])
	for height := range 50 {
		got := forwardScreen{width: 80, height: height}.picture(before, after, time.Second, time.Second, told)
		limit := max(1, height-1)
		if n := strings.Count(got, "\n"); n > limit || n != min(limit, 44) {
			t.Errorf("%d lines of %d:\n%s", n, height, got)
		}
		if strings.Contains(got, "told 1") != (height >= 16) || strings.Contains(got, "told 4") != (height >= 13) {
			t.Errorf("height %d:\n%s", height, got)
		}
		if height == 12 && !strings.HasSuffix(got, "\n+30 queues\n") || height == 8 && !strings.HasSuffix(got, "\n+5 lines\n") {
			t.Errorf("height %d:\n%s", height, got)
		}
	}
}

// The time of the workers is that of all directions, and of one by which nothing came there is none.
func TestBusyTimeOfDirections(t *testing.T) {
	after := forward.Totals{Busy: 900, Directions: []forward.Direction{{Received: 1}, {Received: 2}, {}}}
	var got []string
	for _, r := range rows(forward.Totals{}, after, time.Second) {
		got = append(got, cell(r.NS, "%.0f"))
	}
	if want := []string{"300", "300", "-"}; !slices.Equal(got, want) {
		t.Errorf("ns a packet are %q, want %q", got, want)
	}
}

// A time with a worker has a unit that it is short in.
func TestPassageText(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		time time.Duration
		want string
	}{{1 << 14, "16 µs"}, {1 << 23, "8389 µs"}, {1 << 25, "33.6 ms"}} {
		if got := passageText(test.time); got != test.want {
			t.Errorf("%v is %q, want %q", test.time, got, test.want)
		}
	}
}

// A bulk is as full when the output sends none of it.
func TestBulkFillOfUnsent(t *testing.T) {
	t.Parallel()
	before := forward.Totals{Directions: []forward.Direction{{Sent: 100, Handed: 120, Bulks: 10}}}
	after := forward.Totals{Directions: []forward.Direction{{Sent: 100, Handed: 280, Bulks: 20}}}
	if got := rows(before, after, time.Second)[0].Bulk; got == nil || *got != 16 {
		t.Errorf("%s frames a bulk, want 16", cell(got, "%.1f"))
	}
}

// What was dropped between two readings is never less than nothing.
func TestDropsOfInterval(t *testing.T) {
	t.Parallel()
	of := func(frames ...uint64) forward.Totals {
		var d forward.Direction
		for _, n := range frames {
			d.Drops = append(d.Drops, forward.Drop{Reason: "no-room", Frames: n})
		}
		return forward.Totals{Directions: []forward.Direction{d}}
	}
	got := rows(of(10, 20, 30), of(9, 20, 34), time.Second)[0].Drops
	if want := []forward.Drop{{Reason: "no-room", Frames: 4}}; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// No line of an interval, and none of the sums, is wider than the terminal, and nothing of them is cut off.
func TestForwardLinesAreWrapped(t *testing.T) {
	t.Parallel()
	after := totals(2_000_000, 1)
	after.Links[1].Up = false
	after.Directions[0].Drops = []forward.Drop{{Reason: "xmit-refused", Frames: 3245}, {Reason: "link-down", Frames: 1_234_567_890}}
	var out bytes.Buffer
	now := time.Now()
	w := forwardWriter{out: &out, columns: 80, events: &forwardEvents{}, started: now.Add(-time.Second), at: now.Add(-time.Second)}
	if err := w.interval(after, now); err != nil {
		t.Fatal(err)
	}
	if err := w.final(after, nil); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	got := strings.Join(strings.Fields(out.String()), " ")
	if n := strings.Count(got, "xmit-refused 3245, link-down 1234567890, out down"); n != 2 {
		t.Errorf("the drops are there %d times, want 2:\n%s", n, out.String())
	}
}

// In the end what happened is said, and how often.
func TestForwardFinal(t *testing.T) {
	var out bytes.Buffer
	w := forwardWriter{out: &out, events: &forwardEvents{reloaded: 2}, started: time.Now()}
	if err := w.final(forward.Totals{Mode: "copy", Events: []forward.Event{
		{Device: "eth1", Name: "link-down", Times: 3}, {Device: "eth1", Name: "link-up", Times: 1}, {Device: "eth1", Name: "device-lost"},
	}}, nil); err != nil {
		t.Fatal(err)
	}
	if want := "eth1 link-down: 3 times\neth1 link-up: 1 time\nreloaded: 2 times\n"; !strings.HasSuffix(out.String(), "mode\n"+want) {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// In the kernel a queue has no worker, but CPUs, and nobody counts what it sends.
func TestForwardPictureOfKernel(t *testing.T) {
	before := forward.Totals{Mode: "native", Queues: []forward.Queue{{Device: "in", Received: 7, ByCPU: []uint64{7, 0, 0, 0, 0}, Up: true}}}
	after := forward.Totals{Mode: "native", Queues: []forward.Queue{
		{Device: "in", Received: 1_000_007, ByCPU: []uint64{7, 1_000_000, 0, 0, 0}, Up: true},
		{Device: "in", Queue: 1, Received: 500_000, ByCPU: []uint64{100_000, 100_000, 100_000, 100_000, 100_000}, Up: true},
		{Device: "in", Queue: 2, ByCPU: make([]uint64, 5)},
	}}
	got := forwardScreen{width: 80, height: 24}.picture(before, after, time.Second, time.Second, nil)
	for _, want := range []string{
		"unthunk forward: native mode, 1s\n", "\ndevice:queue           received  CPUs\n",
		"\nin:0                 1.000 Mpps  1               █████",
		"\nin:1                 500.0 kpps  0,1,2,+2        ███", "\nin:2                      0 pps                  gone\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	for _, never := range []string{"worker", "p50"} {
		if strings.Contains(got, never) {
			t.Errorf("%q is in\n%s", never, got)
		}
	}
	rows := queueRows(before, after, time.Second)
	if r := rows[0]; r.Worker != nil || r.Sent != nil || r.SentMpps != nil || r.Dropped != nil || r.KernelRX != nil || r.RingFull != nil ||
		r.Received != 1_000_000 || !slices.Equal(r.CPUs, []int{1}) {
		t.Errorf("%+v", r)
	}
	if r := rows[2]; r.CPUs == nil || len(r.CPUs) != 0 || r.Up {
		t.Errorf("%+v", r)
	}
}

// Queues and times with workers are in the document, of an interval and of all.
func TestForwardDocument(t *testing.T) {
	before, after := totals(1_000_000, 1), totals(2_000_000, 2)
	queues := queueRows(before, after, 2*time.Second)
	if len(queues) != 2 || queues[0].Received != 1_000_000 || queues[0].Mpps != 0.5 || queues[1].Received != 1_000_000 ||
		*queues[1].Dropped != 3 || *queues[1].KernelRX != 2 || *queues[1].RingFull != 1 ||
		*queues[1].Worker != 1 || *queues[1].Sent != 0 || queues[1].CPUs != nil {
		t.Errorf("%+v", queues)
	}
	want := []passageRow{{1 << 14, 950_000}, {1 << 17, 50_000}}
	if got := passageRows(before, after); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if got := passageRows(after, after); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}
