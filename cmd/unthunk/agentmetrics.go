package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
)

// maxSeries is the most series that one machine has.
const maxSeries = 40

// agentMetrics are the metrics of the last run.
type agentMetrics struct {
	mu sync.Mutex
	// doc is the record of the last run, nil before there is one; measured the last one whose numbers hold, or nil.
	doc, measured *record.Agent
	// host is the machine until there is doc: the first run waits for its turn, or is under way.
	host *host.Fingerprint
	// waiting is how many records wait for a server, dropped how many were given up.
	waiting, dropped int
}

// take takes the metrics of a newer run.
func (m *agentMetrics) take(newer *agentMetrics) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.doc, m.measured, m.waiting, m.dropped = newer.doc, newer.measured, newer.waiting, newer.dropped
}

// wait says how many records wait for a server, and how many were given up.
func (m *agentMetrics) wait(records, dropped int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting, m.dropped = records, dropped
}

// Describe describes nothing: the metrics of a run depend on it (prometheus.Collector calls that unchecked).
func (m *agentMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect writes at most [maxSeries] series. What is left out is XDP programs, of which there is a count.
func (m *agentMetrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	series := 0
	emit := func(name, help string, value float64, labels ...string) {
		var names, values []string
		for i := 0; i < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		desc := prometheus.NewDesc("unthunk_"+name, help, names, nil)
		ch <- metric(desc, prometheus.GaugeValue, value, values...)
		series++
	}
	if m.doc == nil {
		if m.host != nil {
			machineMetrics(emit, m.host, &record.Machine{})
			emit("refused", refusedHelp, 1, "part", record.PartMeasure, "reason", record.RefusedWaiting)
		}
		return
	}
	machineMetrics(emit, &m.doc.Host, &m.doc.Machine)
	m.numbers(emit)
	d := m.doc
	refused := make(map[string]bool)
	for _, r := range d.Refused {
		if !refused[r.Part] { // the paths of two drivers are one part
			emit("refused", refusedHelp, 1, "part", r.Part, "reason", r.Reason)
		}
		refused[r.Part] = true
	}
	emit("read_timestamp_seconds", "When the last run began.", float64(d.Time.Unix()))
	emit("agent_duration_seconds", "What the last run took.", d.Cost.Seconds)
	emit("agent_measuring_seconds", "How long the last run measured.", d.Cost.MeasureSeconds)
	emit("agent_cpu_seconds", "CPU time that the last run took.", d.Cost.CPUSeconds)
	emit("agent_peak_bytes", "Most memory of the last run that was resident.", float64(d.Cost.PeakBytes))
	emit("agent_dispatcher_entries", "Entries of the BPF dispatcher that the last run took at one time.", float64(d.Cost.Slots))
	emit("agent_waiting_records", "Records that wait for the server.", float64(m.waiting))
	emit("agent_dropped_records", "Records that were given up since the state was made, as too many waited or the server refused them.",
		float64(m.dropped))
	m.programs(emit, func() int { return maxSeries - series })
}

// emitter writes one series: its name and help, its value, and names and values of labels in turn.
type emitter func(name, help string, value float64, labels ...string)

const refusedHelp = "1 for each part of the last run that was not done, with the reason."

// machineMetrics writes what the machine is.
func machineMetrics(emit emitter, h *host.Fingerprint, machine *record.Machine) {
	emit("host_info", "What this machine is, to join with.", 1,
		"kernel", h.Kernel, "microcode", h.Microcode, "cpu", h.CPU, "indirect", h.IndirectThunk, "return", h.ReturnThunk,
		"virtual", h.Virtual, "iommu", machine.IOMMU, "driver", strings.Join(machine.Drivers, ", "))
}

// numbers writes what was measured.
func (m *agentMetrics) numbers(emit emitter) {
	if m.measured == nil {
		return
	}
	const ns = 1e-9
	quantity := func(name, help string, q *stat.Quantity, label, value string) {
		emit(name+"_seconds", help, ns*q.Median, label, value)
		emit(name+"_low_seconds", "Low end of the 95 % interval of unthunk_"+name+"_seconds.", ns*q.Low, label, value)
		emit(name+"_high_seconds", "High end of the 95 % interval of unthunk_"+name+"_seconds.", ns*q.High, label, value)
	}
	for i := range m.measured.Rows {
		if row := &m.measured.Rows[i]; row.Price != nil {
			quantity("price", "What one call takes, by the pair of programs that differ in it.", row.Price, "row", row.Name)
		}
	}
	for i := range m.measured.Redirect {
		if row := &m.measured.Redirect[i]; row.Hop != nil {
			quantity("redirect", "What XDP_REDIRECT alone takes of a packet, by packets in a bulk.", row.Hop, "bulk", row.Labels["bulk"])
		}
	}
	emit("measured_timestamp_seconds", "When these numbers were measured.", float64(m.measured.Measured.Unix()))
}

// programs writes the XDP programs that devices run, as many as there is room for besides their counts. The labels do not name
// the network namespace, whose number is another one after each start: of devices of one name in two that run one program, the
// first has the series.
func (m *agentMetrics) programs(emit emitter, room func() int) {
	indirect := make(map[string]string)
	for _, c := range m.doc.Code {
		indirect[c.Name] = strconv.Itoa(c.Indirect)
	}
	const counts = 2
	all, left := 0, 0
	seen := make(map[string]bool)
	for i := range m.doc.Programs {
		p := &m.doc.Programs[i]
		for _, a := range p.Attached {
			all++
			labels := []string{
				"ifname", a.Device, "id", strconv.Itoa(int(p.ID)), "tag", p.Tag, "name", p.Program, "mode", a.Mode, "dispatcher", p.Dispatcher,
				"jited_bytes", strconv.Itoa(int(p.JitedBytes)), "indirect", indirect[p.Name],
			}
			key := strings.Join(labels, "\x00")
			if seen[key] || room() <= counts {
				left++
				continue
			}
			seen[key] = true
			emit("xdp_program_info", "An XDP program that a device runs.", 1, labels...)
		}
	}
	emit("xdp_programs", "XDP programs on devices.", float64(all))
	emit("xdp_programs_left_out", "XDP programs on devices that have no series of their own.", float64(left))
}

// text is the metrics in the text format of Prometheus.
func (m *agentMetrics) text() ([]byte, error) {
	registry := prometheus.NewRegistry()
	if err := registry.Register(m); err != nil {
		return nil, fmt.Errorf("write metrics: %w", err)
	}
	families, err := registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("write metrics: %w", err)
	}
	var b bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&b, family); err != nil {
			return nil, fmt.Errorf("write metrics: %w", err)
		}
	}
	return b.Bytes(), nil
}
