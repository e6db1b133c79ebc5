package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/internal/forward"
	"github.com/unthunk/unthunk/internal/listen"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/flood"
)

func TestForwardUsage(t *testing.T) {
	for _, args := range []string{
		"", "--in a", "--in a --out a", "--in a --out b --engine dpdk", "--in a --out b --zero-copy x",
		"--in a --out b --zero-copy require --engine xdp",
		"--in a --out b --zero-copy require --generic", "--in a --out b --in a --out c", "--in a --out b --filter bogus",
		"--in a --out b --filter tcp[", "--in a --out b --source-mac 1:2", "--in a --out b --interval 1us", "--in a --out b --duration -1s",
		"--in a --out b --engine xdp --pcap x", "--in a --out b --pcap-every 0", "--in a --out b --filter tcp --bpf x", "--in a --out b extra",
		"--in a --out b --batch -1", "--in a --out b --queues -1", "--in a --out b --workers 1000", "--in a --out b --cpus x",
		"--in a --out b --busy-poll 1ns", "--in a --out b --engine xdp --workers 2", "--in a --out b --live --json",
		"--in a --out b --filter udp --filter-file x", "--in a --out b --filter-file x --bpf y",
		"--in a --out b --metrics nonsense", "--in a --out b --metrics-config x",
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"forward"}, strings.Fields(args)...), nil, &out, &errs)
		if code != exitUsage || out.Len() > 0 || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("forward %s: exit code %d, %q", args, code, errs.String())
		}
		if args == "" && !(strings.Contains(errs.String(), "--in") && strings.Contains(errs.String(), "--out")) {
			t.Errorf("forward: %q does not say what to add", errs.String())
		}
	}
}

// An output that inputs share is named for each, and who names it once is told so.
func TestForwardSharedOutputUsage(t *testing.T) {
	f := forwardFlags{in: []string{"a", "b"}, out: []string{"c"}}
	if _, err := f.config(); err == nil || !strings.Contains(err.Error(), "2 --in and 1 --out: repeat --out c for each") {
		t.Errorf("%v", err)
	}
}

// forwardLab is gen – in, out – sink.
func forwardLab(t *testing.T) (lab *netlab.Namespace, gen int) {
	t.Helper()
	testutil.Root(t)
	lab, err := netlab.New(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	source, _, err := lab.VethPair("gen", "in")
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	_, sink, err := lab.VethPair("out", "sink")
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	if err := sink.EnableGRO(); err != nil {
		t.Fatal(err)
	}
	return lab, source.Index
}

// syncBuffer is written by one goroutine and read by another.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestForwardVerb(t *testing.T) {
	for _, engine := range []string{"afxdp", "xdp"} {
		t.Run(engine, func(t *testing.T) {
			lab, gen := forwardLab(t)
			stop := flood.Start(t, lab, gen)
			defer stop()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out, errs syncBuffer
			args := []string{"forward", "--in", "in", "--out", "out", "--engine", engine, "--json", "--interval", "50ms"}
			sample := filepath.Join(t.TempDir(), "sample.pcap")
			if engine == "afxdp" {
				args = append(args, "--pcap", sample, "--pcap-every", "10")
			}
			done := make(chan int)
			go func() {
				code := -1
				lab.Do(func() error { code = run(ctx, args, nil, &out, &errs); return nil })
				done <- code
			}()
			for range 3000 {
				if time.Sleep(10 * time.Millisecond); strings.Count(out.String(), "\n") >= 4 {
					break
				}
			}
			cancel()
			select {
			case code := <-done:
				if code != exitDone {
					t.Fatalf("exit code %d: %s", code, errs.String())
				}
			case <-time.After(time.Minute):
				t.Fatal("it did not stop within a minute")
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			for i, line := range lines {
				var doc forwardDocument
				if err := json.Unmarshal([]byte(line), &doc); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				if doc.Kind != "forward" || len(doc.Rows) != 1 || doc.Final != (i == len(lines)-1) {
					t.Errorf("line %d of %d: %s", i, len(lines), line)
				}
				if r := doc.Rows[0]; doc.Final && (r.Sent == 0 || r.InFlight != 0) {
					t.Errorf("in the end: %+v", r)
				}
			}
			if len(lines) < 3 {
				t.Errorf("%d lines", len(lines))
			}
			if engine == "afxdp" {
				if st, err := os.Stat(sample); err != nil || st.Size() < 24+76 {
					t.Errorf("sample: %v, %v", st, err)
				}
			}
		})
	}
}

// fixed is a forwarder with counters that stand.
type fixed struct{ forward.Forwarder }

func (fixed) Totals() (forward.Totals, error) {
	events := []forward.Event{{Device: "b", Name: "link-down", Times: 4}}
	return forward.Totals{Busy: 1500 * time.Millisecond, Events: events, Directions: []forward.Direction{{
		In: "a", Out: "b", Received: 10, Sent: 7, Passed: 5, Bytes: 600, Up: true,
		Drops: []forward.Drop{{Reason: "no-room", Frames: 3}},
	}}, Workers: 2, Links: []forward.Link{{Device: "a", Up: true}, {Device: "b"}},
		Queues:  []forward.Queue{{Device: "a", Queue: 1, Worker: 1, Received: 10, Dropped: 3, Up: true}},
		Passage: datapath.Passage{Frames: [datapath.PassageBuckets]uint64{3: 4, 12: 5, 35: 1}, Sum: 3 * time.Second}}, nil
}

func TestMetrics(t *testing.T) {
	own := forwardEvents{reloaded: 2, notReloaded: 1}
	server, err := serveMetrics(t.Context(), listen.Options{Address: ":0"}, fixed{}, &own)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	url := server.URL("/metrics")
	if !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Errorf("metrics are served at %s, not on the loopback", url)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`unthunk_forward_received_frames_total{in="a",out="b"} 10`, `unthunk_forward_sent_frames_total{in="a",out="b"} 7`,
		`unthunk_forward_dropped_frames_total{in="a",out="b",reason="no-room"} 3`, `unthunk_forward_up{in="a",out="b"} 1`,
		`unthunk_forward_events_total{device="b",event="link-down"} 4`,
		`unthunk_forward_link_up{device="a"} 1`, `unthunk_forward_link_up{device="b"} 0`,
		`unthunk_forward_queue_received_frames_total{device="a",queue="1",worker="1"} 10`, `unthunk_forward_workers 2`,
		`unthunk_forward_queue_dropped_frames_total{device="a",queue="1",worker="1"} 3`,
		`unthunk_forward_passage_seconds_bucket{le="1.024e-06"} 4`, `unthunk_forward_passage_seconds_bucket{le="4.096e-06"} 9`,
		`unthunk_forward_passage_seconds_bucket{le="+Inf"} 10`, `unthunk_forward_passage_seconds_sum 3`,
		`unthunk_forward_passage_seconds_count 10`, `unthunk_forward_queue_up{device="a",queue="1",worker="1"} 1`,
		`unthunk_forward_reloads_total{result="done"} 2`, `unthunk_forward_reloads_total{result="failed"} 1`,
		`unthunk_forward_busy_seconds_total 1.5`, `unthunk_forward_passed_frames_total{in="a",out="b"} 5`,
	} {
		if !strings.Contains(string(body), want+"\n") {
			t.Errorf("%q is not in\n%s", want, body)
		}
	}
}

// kernelForwarder is one in the kernel.
type kernelForwarder struct{ forward.Forwarder }

func (kernelForwarder) Totals() (forward.Totals, error) {
	return forward.Totals{Mode: "native", Directions: []forward.Direction{{In: "a", Out: "b", Received: 10}},
		Queues: []forward.Queue{{Device: "a", Queue: 1, Received: 10, ByCPU: []uint64{4, 6}, Up: true}}}, nil
}

// Of a queue in the kernel there is what is counted of it, and nothing of workers.
func TestMetricsOfKernel(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newForwardCollector(kernelForwarder{}, new(forwardEvents)))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var queues []string
	for _, f := range families {
		name, metric := f.GetName(), f.GetMetric()[0]
		if strings.Contains(name, "worker") || strings.Contains(name, "passage") || strings.Contains(name, "batches") {
			t.Errorf("%s of a forwarder in the kernel", name)
		}
		if value := metric.GetCounter().GetValue() + metric.GetGauge().GetValue(); strings.Contains(name, "queue") {
			queues = append(queues, fmt.Sprint(strings.TrimPrefix(name, "unthunk_forward_queue_"), metric.GetLabel()[2].GetValue(), " ", value))
		}
	}
	if want := []string{"received_frames_total 10", "up 1"}; !slices.Equal(queues, want) {
		t.Errorf("queues have %q, want %q", queues, want)
	}
}

// Frames that were lost, with none sent, are an error; those that the program drops, or nobody saw, are not lost.
func TestNoneSent(t *testing.T) {
	for _, test := range []struct {
		sent   uint64
		reason string
		fails  bool
	}{{0, "output-gone", true}, {1, "output-gone", false}, {0, forward.DropVerdict, false}, {0, forward.DropUncounted, false}} {
		d := forward.Direction{Received: 9, Sent: test.sent, Drops: []forward.Drop{{Reason: test.reason, Frames: 8}}}
		if err := noneSent(forward.Totals{Directions: []forward.Direction{d}}); (err != nil) != test.fails {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// docs/forward.md has a row for each metric that is exported, with its labels, and no other.
func TestMetricsAreInDocs(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newForwardCollector(fixed{}, new(forwardEvents)))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var exported []string
	for _, f := range families {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		exported = append(exported, f.GetName()+" "+strings.Join(labels, ", "))
	}
	var documented []string
	page := readFile(t, filepath.Join("..", "..", "docs", "forward.md"))
	for _, m := range regexp.MustCompile("(?m)^\\| `(unthunk_forward_\\w+)` \\| ([^|]*?) ?\\| .+ \\|$").FindAllStringSubmatch(page, -1) {
		documented = append(documented, m[1]+" "+m[2])
	}
	slices.Sort(documented)
	if diff := cmp.Diff(exported, documented); diff != "" {
		t.Errorf("exported, and in docs/forward.md:\n%s", diff)
	}
}

// strange is of devices whose names are no text for a terminal.
type strange struct{ fixed }

// strangeNames are names of devices, and what labels say of them.
var strangeNames = map[string]string{
	"v\xffa": `v\xffa`, "v\xfea": `v\xfea`, `v\xffa`: `v\\xffa`,
	"a\u202eb|": `a\u202eb|`, "c\u009b1": `c\u009b1`, "\x1b[2J": `\x1b[2J`, "e\u00a0f": `e\u00a0f`,
	"eth0": "eth0", "é|<i>\"": "é|<i>\"",
}

func (strange) Totals() (forward.Totals, error) {
	var t forward.Totals
	for name := range strangeNames {
		t.Links = append(t.Links, forward.Link{Device: name})
	}
	return t, nil
}

// Devices have names of any bytes: metrics tell them apart, and a terminal prints them.
func TestMetricsOfAnyName(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newForwardCollector(strange{}, new(forwardEvents)))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		if f.GetName() != "unthunk_forward_link_up" {
			continue
		}
		for _, m := range f.GetMetric() {
			got = append(got, m.GetLabel()[0].GetValue())
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(slices.Sorted(maps.Values(strangeNames)), got); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

func TestForwardText(t *testing.T) {
	lab, gen := forwardLab(t)
	stop := flood.Start(t, lab, gen)
	defer stop()
	var out, errs bytes.Buffer
	code := -1
	lab.Do(func() error {
		code = run(t.Context(), []string{"forward", "--in", "in", "--out", "out", "--interval", "50ms", "--duration", "300ms"}, nil, &out, &errs)
		return nil
	})
	if code != exitDone || errs.Len() > 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	for _, want := range []string{"in → out", "pps ", "ns/pkt", "copy mode", " received, "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

// until is a writer that ends a run when what was written matches.
type until struct {
	bytes.Buffer
	match *regexp.Regexp
	end   func()
}

func (u *until) Write(b []byte) (int, error) {
	n, err := u.Buffer.Write(b)
	if u.match.Match(u.Bytes()) {
		u.end()
	}
	return n, err
}

// Frames that the filter does not match are passed and counted, so that a filter that matches
// nothing is seen.
func TestForwardPassed(t *testing.T) {
	for _, engine := range []string{"afxdp", "xdp"} {
		lab, gen := forwardLab(t)
		stop := flood.Start(t, lab, gen)
		ctx, end := context.WithTimeout(t.Context(), time.Minute)
		out := &until{match: regexp.MustCompile(`  passed  drops\n(.*\n)*.* in → out .* [1-9]\d* +-\n`), end: end}
		var errs bytes.Buffer
		code := -1
		lab.Do(func() error {
			code = run(ctx, []string{
				"forward", "--in", "in", "--out", "out", "--engine", engine, "--filter", "tcp port 1", "--interval", "100ms",
			}, nil, out, &errs)
			return nil
		})
		end()
		stop()
		sums := regexp.MustCompile(`in → out: [1-9]\d* passed, 0 received, 0 sent, dropped: none\n$`)
		if code != exitDone || errs.Len() > 0 || !out.match.Match(out.Bytes()) || !sums.Match(out.Bytes()) {
			t.Errorf("%s: exit code %d: %s\n%s", engine, code, errs.String(), out.String())
		}
	}
}

// An error about a device names it, and the flag of this verb that helps.
func TestForwardWithoutXDP(t *testing.T) {
	lab, _ := forwardLab(t)
	for _, engine := range []string{"afxdp", "xdp"} {
		code, stderr := -1, ""
		lab.Do(func() error {
			code, _, stderr = unthunk(t, "forward", "--in", "lo", "--out", "out", "--engine", engine, "--duration", "100ms")
			return nil
		})
		if code != exitMissing || !strings.Contains(stderr, "unthunk: native XDP on lo is missing (") ||
			!strings.HasSuffix(stderr, ": try --generic\n") || strings.Contains(stderr, "use generic mode") {
			t.Errorf("%s: exit code %d: %s", engine, code, stderr)
		}
	}
}

func TestForwardFails(t *testing.T) {
	lab, _ := forwardLab(t)
	for args, want := range map[string]int{
		"--in in --out nowhere":                   exitFailed,
		"--in in --out out --bpf /nonexistent.o":  exitFailed,
		"--in in --out out --pcap /nonexistent/x": exitFailed,
		"--in in --out out --metrics nonsense":    exitUsage,
		"--in lo --out out":                       exitMissing,
		"--in in --out out --batch 9":             exitDone,
	} {
		var out, errs bytes.Buffer
		code := -1
		lab.Do(func() error {
			// A socket waits for the one that was closed before it, for longer on a busy machine.
			code = run(t.Context(), append([]string{"forward", "--duration", "3s"}, strings.Fields(args)...), nil, &out, &errs)
			return nil
		})
		if code != want {
			t.Errorf("forward %s: exit code %d, want %d: %s", args, code, want, errs.String())
		}
	}
}
