package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/unthunk/unthunk/internal/forward"
)

// forwardCollector reads a forwarder's counters when it is asked for them.
type forwardCollector struct {
	forwarder forward.Forwarder

	received, sent, bytes, dropped, batches, inFlight, up, busy *prometheus.Desc
}

func newForwardCollector(f forward.Forwarder) *forwardCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("unthunk_forward_"+name, help, append([]string{"in", "out"}, labels...), nil)
	}
	return &forwardCollector{
		forwarder: f,
		received:  desc("received_frames_total", "Frames received."),
		sent:      desc("sent_frames_total", "Frames sent."),
		bytes:     desc("received_bytes_total", "Bytes received."),
		dropped:   desc("dropped_frames_total", "Frames dropped, by reason.", "reason"),
		batches:   desc("batches_total", "Batches the frames came in."),
		inFlight:  desc("in_flight_frames", "Frames handed to the output and not yet returned."),
		up:        desc("up", "1 when both devices are there."),
		busy:      prometheus.NewDesc("unthunk_forward_busy_seconds_total", "Time the worker spent on batches.", nil, nil),
	}
}

func (c *forwardCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.received, c.sent, c.bytes, c.dropped, c.batches, c.inFlight, c.up, c.busy} {
		ch <- d
	}
}

func (c *forwardCollector) Collect(ch chan<- prometheus.Metric) {
	t, err := c.forwarder.Totals()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.received, err)
		return
	}
	for _, d := range t.Directions {
		emit := func(desc *prometheus.Desc, kind prometheus.ValueType, value uint64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(desc, kind, float64(value), append([]string{d.In, d.Out}, labels...)...)
		}
		emit(c.received, prometheus.CounterValue, d.Received)
		emit(c.sent, prometheus.CounterValue, d.Sent)
		emit(c.bytes, prometheus.CounterValue, d.Bytes)
		emit(c.batches, prometheus.CounterValue, d.Batches)
		emit(c.inFlight, prometheus.GaugeValue, d.InFlight)
		up := uint64(0)
		if d.Up {
			up = 1
		}
		emit(c.up, prometheus.GaugeValue, up)
		for _, drop := range d.Drops {
			emit(c.dropped, prometheus.CounterValue, drop.Frames, drop.Reason)
		}
	}
	if t.Busy > 0 {
		ch <- prometheus.MustNewConstMetric(c.busy, prometheus.CounterValue, t.Busy.Seconds())
	}
}

// loopback adds the loopback's host to an address that has none.
func loopback(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", usagef("--metrics %s: %v", address, err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// serveMetrics serves until stop is called. It returns the address it got.
func serveMetrics(address string, f forward.Forwarder) (stop func(), at string, err error) {
	if address, err = loopback(address); err != nil {
		return nil, "", err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, "", fmt.Errorf("serve metrics: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(newForwardCollector(f))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(l) // ends with Shutdown
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
		<-done
	}, l.Addr().String(), nil
}
