package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
)

// packaged is the folder of what is shipped beside the command.
const packaged = "../../packaging"

// The recording and alert rules are right for Prometheus, and say of series what they should.
func TestPrometheusRules(t *testing.T) {
	if _, err := exec.LookPath("promtool"); err != nil {
		testutil.Missing(t, "promtool")
	}
	for _, args := range [][]string{
		{"check", "rules", packaged + "/prometheus/recording.rules.yml", packaged + "/prometheus/alerts.rules.yml"},
		{"test", "rules", packaged + "/prometheus/tests/rules_test.yml"},
	} {
		if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// simulatedFleet makes records of machines that there are not: of two kernels and two CPUs, one of them slow, one with
// another thunk, one that refused to measure and never had.
func simulatedFleet(machines uint64) []*record.Agent {
	var all []*record.Agent
	for n := range machines {
		a := recordtest.Agent(fmt.Sprintf("RUN%d", n), n, 8+float64(n%7)/10)
		r := rand.New(rand.NewPCG(n, 1))
		a.Time = time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
		measured := a.Time
		a.Measured = &measured
		a.Machine.Name = fmt.Sprintf("edge-%d", n)
		a.Programs[0].Attached = []record.Attachment{{Device: "eth0", Mode: "native"}}
		a.Host.CPU = fmt.Sprintf("CPU %d", n%2)
		a.Host.Kernel = fmt.Sprintf("6.1%d", n/2%2)
		ns := 100 + 10*float64(n%4) + r.Float64()
		switch n {
		case 5:
			ns = 190
		case 6:
			a.Host.IndirectThunk = "none"
		case 7:
			a.Rows, a.Redirect, a.Measured = []record.TaxRow{}, []record.BenchRow{}, nil
			a.Refused = []record.AgentRefusal{{Part: "measure", Reason: "load", Text: "a load of 3 a CPU"}}
		}
		for i := range a.Redirect {
			x := ns / float64(i+1)
			a.Redirect[i].Hop = &stat.Quantity{Median: x, Low: x - 1, High: x + 1, N: 7, Unit: "ns"}
		}
		all = append(all, a)
	}
	return all
}

// promTarget is a machine that a Prometheus asks for its metrics: its name, labels that the configuration gives it, and the metrics.
type promTarget struct {
	name   string
	labels map[string]string
	text   []byte
}

// promTargets are the metrics of machines, as the agent writes them of their records.
func promTargets(t *testing.T, machines []*record.Agent) (targets []promTarget) {
	t.Helper()
	for _, doc := range machines {
		m := agentMetrics{doc: doc}
		if doc.Measured != nil {
			m.measured = doc
		}
		text, err := m.text()
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, promTarget{name: doc.Machine.Name, text: text})
	}
	return targets
}

// metricsEngine is a server of metrics that scrapes: its program, and arguments that give it a configuration, a folder and an address.
type metricsEngine struct {
	program string
	args    func(config, dir, address string) []string
}

// metricsEngines are those that answer the queries of the dashboard.
func metricsEngines() []metricsEngine {
	return []metricsEngine{
		{"prometheus", func(config, dir, address string) []string {
			return []string{"--config.file=" + config, "--storage.tsdb.path=" + dir, "--web.listen-address=" + address}
		}},
		{"victoria-metrics", func(config, dir, address string) []string {
			return []string{"-promscrape.config=" + config, "-storageDataPath=" + dir, "-httpListenAddr=" + address,
				"-search.latencyOffset=0s", "-search.maxQueryDuration=5m", "-search.disableCache", "-promscrape.config.strictParse=false"}
		}},
	}
}

// metricsServer is one that runs, and has asked all machines.
type metricsServer struct {
	address string
	pid     int
	// at is when it had all machines: queries are as of that moment, as a busy machine may be late for the next.
	at time.Time
}

// prometheusOf starts a Prometheus that asks these machines for their metrics, and has files of rules.
func prometheusOf(t *testing.T, machines []promTarget, rules ...string) metricsServer {
	t.Helper()
	return metricsEngines()[0].start(t, machines, 5*time.Second, rules...)
}

// start starts a server that asks these machines for their metrics, and waits until it has all machines.
func (e metricsEngine) start(t *testing.T, machines []promTarget, interval time.Duration, rules ...string) metricsServer {
	t.Helper()
	program, err := exec.LookPath(e.program)
	if err != nil {
		testutil.Missing(t, e.program)
	}
	agents := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		if err != nil || n >= len(machines) {
			http.NotFound(w, r)
			return
		}
		w.Write(machines[n].text)
	}))
	t.Cleanup(agents.Close)
	config := strings.Builder{}
	fmt.Fprintf(&config, "global: {scrape_interval: %v, scrape_timeout: 5s}\nrule_files:\n", interval)
	for _, file := range rules {
		fmt.Fprintf(&config, "- %s\n", file)
	}
	config.WriteString("scrape_configs:\n- job_name: unthunk\n  static_configs:\n")
	for i, m := range machines {
		labels := fmt.Sprintf("__metrics_path__: /%d, instance: %s", i, m.name)
		for _, name := range sortedKeys(m.labels) {
			labels += ", " + name + ": " + m.labels[name]
		}
		fmt.Fprintf(&config, "  - {targets: ['%s'], labels: {%s}}\n", strings.TrimPrefix(agents.URL, "http://"), labels)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s := metricsServer{address: freeAddress(t)}
	cmd := exec.Command(program, e.args(file, filepath.Join(dir, "data"), s.address)...)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.pid = cmd.Process.Pid
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	for deadline := time.Now().Add(2*time.Minute + 3*interval); ; time.Sleep(200 * time.Millisecond) {
		if c, err := net.Dial("tcp", s.address); err == nil {
			c.Close()
			s.at = time.Now()
			got := s.query(t, "count(unthunk_host_info)")
			if len(got) == 1 && got[0].value == float64(len(machines)) {
				return s
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has not all machines:\n%s", e.program, log.String())
		}
	}
}

// query asks as of the moment when it had all machines.
func (s metricsServer) query(t *testing.T, expr string) []promSample {
	t.Helper()
	return promQuery(t, s.address, expr, s.at)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// promSample is one of an answer of Prometheus.
type promSample struct {
	labels map[string]string
	value  float64
}

// promQuery asks a Prometheus as of a time; nil while it does not answer.
func promQuery(t *testing.T, address, expr string, at time.Time) []promSample {
	t.Helper()
	resp, err := http.Get("http://" + address + "/api/v1/query?" +
		url.Values{"query": {expr}, "time": {at.Format(time.RFC3339Nano)}}.Encode())
	if err != nil {
		return nil // it is not up yet
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal(b, &answer); err != nil || resp.StatusCode == http.StatusServiceUnavailable {
		return nil
	}
	if answer.Status != "success" {
		t.Fatalf("%s: %s", expr, answer.Error)
	}
	var samples []promSample
	for _, r := range answer.Data.Result {
		text, _ := r.Value[1].(string)
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		samples = append(samples, promSample{r.Metric, value})
	}
	return samples
}

// dashboard is the part of a Grafana dashboard that asks.
type dashboard struct {
	UID    string
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
}

// dashboardOf is the dashboard that is shipped.
func dashboardOf(t *testing.T) (board dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(readFile(t, packaged+"/grafana/unthunk.json")), &board); err != nil {
		t.Fatal(err)
	}
	return board
}

// Each query of the dashboard is one that a real Prometheus and a real VictoriaMetrics answer, and what they answer of groups of
// machines is what fleet who says of their records, and of odd ones what fleet odd says. The machines are simulated.
func TestDashboard(t *testing.T) {
	board := dashboardOf(t)
	machines := simulatedFleet(40)
	who, odd := askFleet(t, filepath.Join(t.TempDir(), "fleet.db"), machines)
	for _, engine := range metricsEngines() {
		t.Run(engine.program, func(t *testing.T) {
			server := engine.start(t, promTargets(t, machines), 5*time.Second)
			testDashboard(t, board, func(expr string) []promSample { return server.query(t, expr) }, who, odd)
		})
	}
}

// testDashboard holds the answers to the queries of a dashboard against those of fleet.
func testDashboard(t *testing.T, board dashboard, query func(expr string) []promSample, who record.FleetWho, odd record.FleetOdd) {
	t.Helper()
	asked := 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			asked++
			if got := query(target.Expr); len(got) == 0 {
				t.Errorf("%s: no answer to %s", panel.Title, target.Expr)
			}
		}
	}
	if asked < 15 {
		t.Errorf("%d queries: the test reads nothing", asked)
	}
	panel := func(title string) []promSample {
		for _, p := range board.Panels {
			if p.Title == title {
				return query(p.Targets[0].Expr)
			}
		}
		t.Fatalf("there is no panel %q", title)
		return nil
	}
	counted := panel("Machines")
	for _, bulk := range []string{"1", "16", "64"} {
		redirects := panel("A redirect in bulks of " + bulk)
		if len(redirects) != len(who.Rows) || len(counted) != len(who.Rows) {
			t.Fatalf("%d and %d groups, fleet who has %d", len(counted), len(redirects), len(who.Rows))
		}
		for _, row := range who.Rows {
			if got := find(t, counted, row.Labels); got != float64(row.Machines) {
				t.Errorf("%s: %v machines, fleet who says %d", row.Name, got, row.Machines)
			}
			want := fleetNumber(t, row, "redirect/bulk="+bulk)
			if got := 1e9 * find(t, redirects, row.Labels); math.Abs(got-want) > 1e-6 {
				t.Errorf("%s, bulk %s: %v ns, fleet who says %v", row.Name, bulk, got, want)
			}
		}
	}
	for _, s := range panel("What one call takes") {
		for _, row := range who.Rows {
			if row.Labels["kernel"] != s.labels["kernel"] || row.Labels["cpu"] != s.labels["cpu"] || row.Labels["indirect"] != s.labels["indirect"] {
				continue
			}
			if want := fleetNumber(t, row, s.labels["row"]); math.Abs(1e9*s.value-want) > 1e-6 {
				t.Errorf("%s, %s: %v s, fleet who says %v ns", row.Name, s.labels["row"], s.value, want)
			}
		}
	}
	slow, thunk := panel("Slower than their twins"), panel("Another thunk than their twins")
	if len(thunk) != 1 || thunk[0].labels["instance"] != "edge-6" {
		t.Errorf("machines with another thunk: %v", thunk)
	}
	if len(odd.Rows) != 2 || odd.Rows[0].Name != "edge-5" || odd.Rows[1].Name != "edge-6" {
		t.Fatalf("fleet odd: %+v", odd.Rows)
	}
	if slow[0].labels["instance"] != "edge-5" || math.Abs(1e9*slow[0].value-*odd.Rows[0].Lost) > 1 {
		t.Errorf("the slowest is %v, fleet odd says %v of %s", slow[0], *odd.Rows[0].Lost, odd.Rows[0].Name)
	}
}

// targetsEnv is how many machines TestManyTargets simulates; the figures of docs/fleet.md are of 10000.
const targetsEnv = "UNTHUNK_TARGETS"

// Many machines are scraped, each has at most as many series as promised, and each query of the dashboard is answered. What
// it takes is in the log: memory of the server, and the longest of three answers and the CPU time of one.
func TestManyTargets(t *testing.T) {
	targets := 100
	if text := os.Getenv(targetsEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 10 {
			t.Fatalf("%s=%s: a number of machines, 10 at least", targetsEnv, text)
		}
		targets = n
	}
	board := dashboardOf(t)
	machines := promTargets(t, simulatedFleet(uint64(targets)))
	interval := max(5*time.Second, time.Duration(targets)*6*time.Millisecond) // a minute for 10000
	for _, engine := range metricsEngines() {
		t.Run(engine.program, func(t *testing.T) {
			server := engine.start(t, machines, interval)
			each := server.query(t, `count({instance="edge-0",__name__=~"unthunk_.+"})`)
			if len(each) != 1 || each[0].value > maxSeries || each[0].value < 20 {
				t.Errorf("series of a machine: %v, at most %d", each, maxSeries)
			}
			slowest, slowestCPU, of := time.Duration(0), time.Duration(0), ""
			for _, panel := range board.Panels {
				for _, target := range panel.Targets {
					longest := time.Duration(0)
					before := processCPU(t, server.pid)
					for range 3 {
						began := time.Now()
						if got := server.query(t, target.Expr); len(got) == 0 {
							t.Errorf("%s: no answer to %s", panel.Title, target.Expr)
						}
						longest = max(longest, time.Since(began))
					}
					slowestCPU = max(slowestCPU, (processCPU(t, server.pid)-before)/3)
					if longest > slowest {
						slowest, of = longest, panel.Title
					}
				}
			}
			t.Logf("%d targets each %v, at most %v series of one: %s resident; the slowest query took %v (%s); at most %v of CPU time", targets,
				interval, each[0].value, residentOf(t, server.pid), slowest, of, slowestCPU)
		})
	}
}

// processCPU is what a process has taken of the CPUs.
func processCPU(t *testing.T, pid int) time.Duration {
	t.Helper()
	// Behind the name, which may have blanks: the state, and as 12th and 13th ticks of user and system.
	_, text, _ := strings.Cut(readFile(t, fmt.Sprintf("/proc/%d/stat", pid)), ") ")
	fields := strings.Fields(text)
	ticks := 0
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// residentOf is how much memory of a process was resident at most.
func residentOf(t *testing.T, pid int) string {
	t.Helper()
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/status", pid))) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Error("the kernel does not say how much memory was resident")
	return ""
}

// askFleet puts records into a store, and asks it who pays what and which machines are odd.
func askFleet(t *testing.T, store string, machines []*record.Agent) (who record.FleetWho, odd record.FleetOdd) {
	t.Helper()
	dir := t.TempDir()
	for _, m := range machines {
		if err := record.Save(filepath.Join(dir, m.Machine.Name+".json"), m); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, stderr := unthunk(t, "fleet", "ingest", "--store", store, dir); code != exitDone {
		t.Fatal(stderr)
	}
	for verb, into := range map[string]any{"who": &who, "odd": &odd} {
		code, stdout, stderr := unthunk(t, "fleet", verb, "--store", store, "--json")
		if code != exitDone {
			t.Fatal(stderr)
		}
		if err := json.Unmarshal([]byte(stdout), into); err != nil {
			t.Fatal(err)
		}
	}
	return who, odd
}

// find is the sample that has these labels.
func find(t *testing.T, samples []promSample, labels map[string]string) float64 {
	t.Helper()
next:
	for _, s := range samples {
		for name, value := range labels {
			if s.labels[name] != value {
				continue next
			}
		}
		return s.value
	}
	t.Errorf("no sample has %v", labels)
	return math.NaN()
}

// fleetNumber is a number of a group, in ns.
func fleetNumber(t *testing.T, row record.FleetWhoRow, name string) float64 {
	t.Helper()
	for _, n := range row.Numbers {
		if n.Row == name {
			return n.Ns.Median
		}
	}
	t.Errorf("%s has no %s", row.Name, name)
	return math.NaN()
}
