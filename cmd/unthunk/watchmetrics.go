package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unthunk/unthunk/internal/watch"
)

// watchCollector reads the sums of a watch when it is asked for them.
type watchCollector struct {
	watch *watch.Watch

	packets, verdicts, lost, errors, program, path, cost, samples, up *prometheus.Desc
}

func newWatchCollector(w *watch.Watch) *watchCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("unthunk_watch_"+name, help, append([]string{"device", "program"}, labels...), nil)
	}
	return &watchCollector{
		watch:    w,
		packets:  desc("packets_total", "Packets that the program saw."),
		verdicts: desc("verdict_packets_total", "Packets by what the program said of them, where the driver counts that.", "verdict"),
		lost:     desc("lost_packets_total", "Packets that the device lost, by its counter.", "counter"),
		errors:   desc("redirect_errors_total", "Redirects that failed, by the error; with --tracepoints.", "error"),
		program:  desc("program_seconds_total", "Time in the program and what it calls, as samples have it."),
		path:     desc("path_seconds_total", "Time in the device's polls by stage, as samples have it.", "stage"),
		cost:     desc("cost_seconds_total", "Time that watching took of the sampled CPUs."),
		samples:  desc("samples_total", "Samples taken in the program or the device's polls."),
		up:       desc("up", "1 while the program is watched."),
	}
}

func (c *watchCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.packets, c.verdicts, c.lost, c.errors, c.program, c.path, c.cost, c.samples, c.up} {
		ch <- d
	}
}

func (c *watchCollector) Collect(ch chan<- prometheus.Metric) {
	t := c.watch.Totals()
	emit := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- metric(desc, kind, value, append([]string{t.Device, t.Program}, labels...)...)
	}
	emit(c.packets, prometheus.CounterValue, float64(t.Packets))
	for verdict, n := range t.Verdicts {
		emit(c.verdicts, prometheus.CounterValue, float64(n), verdict)
	}
	for counter, n := range t.Lost {
		emit(c.lost, prometheus.CounterValue, float64(n), counter)
	}
	for name, n := range t.Errors {
		emit(c.errors, prometheus.CounterValue, float64(n), name)
	}
	emit(c.program, prometheus.CounterValue, t.Time)
	for stage, seconds := range t.Stages {
		emit(c.path, prometheus.CounterValue, seconds, stage)
	}
	emit(c.cost, prometheus.CounterValue, t.Cost)
	emit(c.samples, prometheus.CounterValue, float64(t.Samples))
	up := 0.0
	if t.Up {
		up = 1
	}
	emit(c.up, prometheus.GaugeValue, up)
}
