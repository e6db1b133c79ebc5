package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/pgserver"
)

// rolloutKernel is the kernel of all machines of the rollout.
const rolloutKernel = "debian:6.12-cloud"

// rolloutMachine is a guest that stands for a machine of the rollout.
type rolloutMachine struct {
	name, group, params string

	saved   []byte // the record as the agent wrote it
	metrics []byte // what the agent wrote for node_exporter
}

// rolloutMachines are six of the base, without mitigations of branches and returns; six canaries with them; and a canary on which
// a parameter was forgotten.
func rolloutMachines() (all []*rolloutMachine) {
	for n := range 6 {
		all = append(all,
			&rolloutMachine{name: fmt.Sprintf("base-%d", n+1), group: "base", params: "spectre_v2=off retbleed=off spec_rstack_overflow=off"},
			&rolloutMachine{name: fmt.Sprintf("canary-%d", n+1), group: "canary", params: "spectre_v2=retpoline"})
	}
	return append(all, &rolloutMachine{name: "canary-7", group: "canary", params: "mitigations=off"})
}

// rolloutClock makes a guest's clock count two instructions a nanosecond, as of a core of 2 GHz: in the 3 s that the agent measures
// at most, one that does an instruction a nanosecond does not come to its end.
const rolloutClock = "tsc=reliable tsc_early_khz=2000000"

// rolloutDay is the day on which the clock of each guest begins.
const rolloutDay = "2026-01-01"

// The chapter about a rollout, as it is written: guests run the agent, PostgreSQL has their records and Prometheus their metrics;
// what canaries pay more, the alert, and the canary with a forgotten parameter are found. A guest's clock counts instructions.
func TestRollout(t *testing.T) {
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	server := pgserver.Start(t)
	server.Database(t, "fleet")
	lines := guideLines(t, "../../docs/fleet.md", "## A rollout, end to end", "", 4)
	machines := rolloutMachines()
	exe := build(t)
	bootRollout(t, machines, exe)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "records"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, m := range machines {
		if err := os.WriteFile(filepath.Join(dir, "records", m.name+".json"), m.saved, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PGHOST", "127.0.0.1")
	t.Setenv("PGPORT", strconv.Itoa(server.Port))
	t.Setenv("PGUSER", "fleet")
	asked := make(map[string]bool)
	for _, line := range lines {
		words := strings.Fields(line.command)
		if len(words) < 3 || words[0] != "unthunk" || words[1] != "fleet" {
			t.Errorf("docs/fleet.md, line %d: %s is no question to a fleet", line.number, line.command)
			continue
		}
		asked[words[2]] = true
		want := exitDone
		if words[2] == "compare" {
			want = exitRegression
		}
		said := askRollout(t, dir, exe, want, words[1:])
		t.Logf("$ %s\n%s", line.command, said)
		switch words[2] {
		case "ingest":
			if want := fmt.Sprintf("%d are new", len(machines)); !strings.Contains(said, want) {
				t.Errorf("ingest does not say %q", want)
			}
		case "odd":
			checkRolloutOdd(t, askRollout(t, dir, exe, want, append(words[1:], "--json")))
		case "compare":
			checkRolloutCompare(t, askRollout(t, dir, exe, want, append(words[1:], "--json")))
		}
	}
	if !asked["ingest"] || !asked["odd"] || !asked["compare"] {
		t.Errorf("the chapter asks %v", asked)
	}
	alertOnRollout(t, machines)
}

// askRollout runs a command in a folder, and returns what it prints.
func askRollout(t *testing.T, dir, exe string, want int, args []string) string {
	t.Helper()
	cmd := exec.Command(exe, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		t.Fatalf("unthunk %s: exit code %d, not %d\n%s%s", strings.Join(args, " "), code, want, out, stderr.String())
	}
	return string(out)
}

// bootRollout boots the machines, two at a time, and runs the agent in each.
func bootRollout(t *testing.T, machines []*rolloutMachine, exe string) {
	t.Helper()
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := guest.Resolve(t.Context(), cache, rolloutKernel)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	files, err := guest.Libraries("/bin/cat")
	if err != nil {
		t.Fatal(err)
	}
	files["/bin/cat"] = "/bin/cat"
	var (
		group sync.WaitGroup
		slots = make(chan struct{}, 2)
		began = time.Now()
	)
	for _, m := range machines {
		slots <- struct{}{}
		if t.Failed() {
			break
		}
		group.Go(func() {
			defer func() { <-slots }()
			if err := m.boot(t, kernel, exe, files); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		})
	}
	group.Wait()
	t.Logf("%d guests took %v", len(machines), time.Since(began).Round(time.Second))
	if t.Failed() {
		t.FailNow()
	}
}

// boot boots a machine and runs the agent in it, and reads the record and the metrics.
func (m *rolloutMachine) boot(t *testing.T, kernel guest.Kernel, exe string, files map[string]string) error {
	id := sha256.Sum256([]byte(m.name))
	g := guest.Machine{
		Kernel: kernel, Init: exe, CPU: "EPYC", Exact: true, Modules: []string{"veth"}, Files: maps.Clone(files),
		// Without a name of its own each guest would draw the same random numbers.
		Append: "hostname=" + m.name + " " + rolloutClock + " " + m.params,
		Data:   map[string][]byte{"/etc/machine-id": []byte(hex.EncodeToString(id[:16]) + "\n")},
	}
	report, err := g.Run(t.Context(),
		guest.Command{
			Args: []string{
				guest.Self, "agent", "--once", "--emulated", "--json", "--textfile", "/tmp", "--state", "/tmp/state", "--max-load", "100",
				"--label", "clock=icount,group=" + m.group,
			},
			Timeout: 10 * time.Minute,
		},
		guest.Command{Args: []string{"/bin/cat", "/tmp/unthunk.prom"}})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, report.Console)
	}
	for _, r := range report.Results {
		if r.Exit != 0 {
			return fmt.Errorf("%v: exit code %d %s\n%s", r.Args, r.Exit, r.Err, r.Stderr)
		}
	}
	m.saved, m.metrics = report.Results[0].Stdout, report.Results[1].Stdout
	saved, err := record.Parse(m.saved)
	if err != nil {
		return err
	}
	doc := saved.Agent()
	switch {
	case doc.Measured == nil:
		return fmt.Errorf("it was not measured: %+v", doc.Refused)
	case doc.Machine.Labels["clock"] != "icount" || doc.Time.Format(time.DateOnly) != rolloutDay:
		return fmt.Errorf("at %v, %v: the record could be taken for hardware's", doc.Time, doc.Machine.Labels)
	}
	return nil
}

// checkRolloutOdd checks that the forgotten parameter is found, and nothing else.
func checkRolloutOdd(t *testing.T, text string) {
	t.Helper()
	var odd record.FleetOdd
	if err := json.Unmarshal([]byte(text), &odd); err != nil {
		t.Fatal(err)
	}
	if len(odd.Rows) != 1 || odd.Rows[0].Name != "canary-7" {
		t.Fatalf("odd machines: %+v", odd.Rows)
	}
	for _, field := range odd.Rows[0].Fields {
		is, usual := strings.HasSuffix(field.Value, " mitigations=off"), strings.HasSuffix(field.Usual, " spectre_v2=retpoline")
		if field.Name == "boot-params" && is && usual {
			return
		}
	}
	t.Errorf("the parameter is not named: %+v", odd.Rows[0].Fields)
}

// checkRolloutCompare checks that calls and a redirect became dearer on canaries: a direct one, too, as it returns by a thunk there.
func checkRolloutCompare(t *testing.T, text string) {
	t.Helper()
	var doc record.FleetCompare
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	slower := make(map[string]bool)
	for _, row := range doc.Rows {
		slower[row.Name] = row.Regression
	}
	if !slower["callback/loop"] || !slower["redirect/bulk=1"] || !slower["direct-call"] || doc.BaseMachines != 6 || doc.CanaryMachines != 6 {
		t.Errorf("%d and %d machines, slower: %v", doc.BaseMachines, doc.CanaryMachines, slower)
	}
}

// alertOnRollout waits until the shipped alert about canaries fires in a Prometheus that asks the machines for their metrics.
// The test does not wait for the quarter of an hour that the rule does, nor a minute from one evaluation to the next.
func alertOnRollout(t *testing.T, machines []*rolloutMachine) {
	t.Helper()
	dir := t.TempDir()
	var rules []string
	for _, name := range []string{"recording.rules.yml", "alerts.rules.yml"} {
		text := readFile(t, packaged+"/prometheus/"+name)
		text = strings.NewReplacer("interval: 1m", "interval: 1s", "for: 15m", "for: 3s").Replace(text)
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		rules = append(rules, file)
	}
	var targets []promTarget
	for _, m := range machines {
		targets = append(targets, promTarget{name: m.name, labels: map[string]string{"group": m.group}, text: m.metrics})
	}
	address := prometheusOf(t, targets, rules...).address
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		alerts := promAlerts(t, address)
		for _, a := range alerts {
			if a.Labels["alertname"] == "UnthunkCanarySlower" && a.State == "firing" && a.Labels["bulk"] == "1" {
				t.Logf("%s", a.Annotations["summary"])
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the alert does not fire: %+v", alerts)
		}
	}
}

// promAlert is an alert of a Prometheus: pending or firing.
type promAlert struct {
	Labels, Annotations map[string]string
	State               string
}

// promAlerts are the alerts that a Prometheus has now.
func promAlerts(t *testing.T, address string) []promAlert {
	t.Helper()
	resp, err := http.Get("http://" + address + "/api/v1/alerts")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Data struct{ Alerts []promAlert } }
	if err := json.Unmarshal(b, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Data.Alerts
}
