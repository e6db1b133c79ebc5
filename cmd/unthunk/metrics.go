package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/internal/forward"
	"github.com/unthunk/unthunk/internal/listen"
)

// forwardCollector reads a forwarder's counters when it is asked for them.
type forwardCollector struct {
	forwarder forward.Forwarder
	own       *forwardEvents

	reloaded, received, sent, passed, bytes, dropped, batches, inFlight, up, linkUp, busy, events *prometheus.Desc
	workers, passage, queueReceived, queueSent, queueDropped, queueUp                             *prometheus.Desc
}

func newForwardCollector(f forward.Forwarder, own *forwardEvents) *forwardCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("unthunk_forward_"+name, help, append([]string{"in", "out"}, labels...), nil)
	}
	queue := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("unthunk_forward_queue_"+name, help, []string{"device", "queue", "worker"}, nil)
	}
	return &forwardCollector{
		forwarder: f, own: own,
		reloaded: prometheus.NewDesc("unthunk_forward_reloads_total", "Times that SIGHUP had files read again: done, or failed.",
			[]string{"result"}, nil),
		received: desc("received_frames_total", "Frames received."),
		sent:     desc("sent_frames_total", "Frames sent."),
		passed:   desc("passed_frames_total", "Frames that were passed to the network stack, as the filter said."),
		bytes:    desc("received_bytes_total", "Bytes received."),
		dropped:  desc("dropped_frames_total", "Frames dropped, by reason.", "reason"),
		batches:  desc("batches_total", "Batches the frames came in."),
		inFlight: desc("in_flight_frames", "Frames handed to the output and not yet returned."),
		up:       desc("up", "1 when both devices are there and have their programs. Their links may be down."),
		linkUp:   prometheus.NewDesc("unthunk_forward_link_up", "1 when the link of a device is up.", []string{"device"}, nil),
		busy:     prometheus.NewDesc("unthunk_forward_busy_seconds_total", "Time the workers spent on batches.", nil, nil),
		events: prometheus.NewDesc("unthunk_forward_events_total", "What happened to a device: links down, devices lost, programs gone.",
			[]string{"device", "event"}, nil),
		workers: prometheus.NewDesc("unthunk_forward_workers", "Workers that share the queues.", nil, nil),
		passage: prometheus.NewDesc("unthunk_forward_passage_seconds",
			"Time that frames were with a worker, from the RX ring until its batch was handed to the drivers.", nil, nil),
		queueReceived: queue("received_frames_total", "Frames received by a queue."),
		queueSent:     queue("sent_frames_total", "Frames sent by a queue."),
		queueDropped:  queue("dropped_frames_total", "Frames that came by a queue, or were to leave by it, and were dropped, by the kernel too."),
		queueUp:       queue("up", "1 when the queue is there."),
	}
}

func (c *forwardCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.reloaded, c.received, c.sent, c.passed, c.bytes, c.dropped, c.batches, c.inFlight, c.up, c.linkUp, c.busy, c.events,
		c.workers, c.passage, c.queueReceived, c.queueSent, c.queueDropped, c.queueUp,
	} {
		ch <- d
	}
}

func (c *forwardCollector) Collect(ch chan<- prometheus.Metric) {
	done, failed := c.own.reloads()
	ch <- metric(c.reloaded, prometheus.CounterValue, float64(done), "done")
	ch <- metric(c.reloaded, prometheus.CounterValue, float64(failed), "failed")
	t, err := c.forwarder.Totals()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.received, err)
		return
	}
	for _, d := range t.Directions {
		emit := func(desc *prometheus.Desc, kind prometheus.ValueType, value uint64, labels ...string) {
			ch <- metric(desc, kind, float64(value), append([]string{d.In, d.Out}, labels...)...)
		}
		emit(c.received, prometheus.CounterValue, d.Received)
		emit(c.sent, prometheus.CounterValue, d.Sent)
		emit(c.passed, prometheus.CounterValue, d.Passed)
		emit(c.bytes, prometheus.CounterValue, d.Bytes)
		if !inKernel(t) {
			emit(c.batches, prometheus.CounterValue, d.Batches)
		}
		emit(c.inFlight, prometheus.GaugeValue, d.InFlight)
		emit(c.up, prometheus.GaugeValue, oneIf(d.Up))
		for _, drop := range d.Drops {
			emit(c.dropped, prometheus.CounterValue, drop.Frames, drop.Reason)
		}
	}
	for _, l := range t.Links {
		ch <- metric(c.linkUp, prometheus.GaugeValue, float64(oneIf(l.Up)), l.Device)
	}
	for _, e := range t.Events {
		ch <- metric(c.events, prometheus.CounterValue, float64(e.Times), e.Device, e.Name)
	}
	if t.Busy > 0 {
		ch <- metric(c.busy, prometheus.CounterValue, t.Busy.Seconds())
	}
	if !inKernel(t) {
		ch <- metric(c.workers, prometheus.GaugeValue, float64(t.Workers))
		ch <- passageMetric(c.passage, t.Passage)
	}
	for _, q := range t.Queues {
		worker := strconv.Itoa(q.Worker)
		if inKernel(t) {
			worker = ""
		}
		emit := func(desc *prometheus.Desc, kind prometheus.ValueType, value uint64) {
			ch <- metric(desc, kind, float64(value), q.Device, strconv.Itoa(q.Queue), worker)
		}
		emit(c.queueReceived, prometheus.CounterValue, q.Received)
		emit(c.queueUp, prometheus.GaugeValue, oneIf(q.Up))
		if inKernel(t) {
			continue
		}
		emit(c.queueSent, prometheus.CounterValue, q.Sent)
		emit(c.queueDropped, prometheus.CounterValue, q.Dropped)
	}
}

func oneIf(is bool) uint64 {
	if is {
		return 1
	}
	return 0
}

// Ends of the buckets of the histogram, as powers of two in ns: 1 µs to 0.5 s.
const (
	firstBucket = 10
	lastBucket  = 29
)

// passageMetric is a histogram of how long frames were with a worker.
func passageMetric(desc *prometheus.Desc, p datapath.Passage) prometheus.Metric {
	buckets := make(map[float64]uint64)
	var count uint64
	for i, n := range p.Frames {
		if count += n; i >= firstBucket && i <= lastBucket {
			buckets[math.Ldexp(1e-9, i)] = count
		}
	}
	return prometheus.MustNewConstHistogram(desc, count, p.Sum.Seconds(), buckets)
}

// metric is one whose labels may be any bytes, as a device's name: one that a terminal does not print as it is, or that has a
// backslash, is written as Go does, v\xffa. Names that differ stay different.
func metric(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) prometheus.Metric {
	hidden := func(r rune) bool { return r == '\\' || !unicode.IsPrint(r) }
	values := make([]string, len(labels))
	for i, label := range labels {
		if values[i] = label; !utf8.ValidString(label) || strings.ContainsFunc(label, hidden) {
			quoted := strconv.Quote(label)
			values[i] = quoted[1 : len(quoted)-1]
		}
	}
	m, err := prometheus.NewConstMetric(desc, kind, value, values...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return m
}

// serveMetrics serves a forwarder's counters until the server is closed.
func serveMetrics(ctx context.Context, o listen.Options, f forward.Forwarder, own *forwardEvents) (*listen.Server, error) {
	return serve(ctx, o, newForwardCollector(f, own))
}

// serve serves what a collector reads until ctx ends or the server is closed.
func serve(ctx context.Context, o listen.Options, c prometheus.Collector) (*listen.Server, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	server, err := listen.Serve(ctx, o, mux)
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	return server, nil
}
