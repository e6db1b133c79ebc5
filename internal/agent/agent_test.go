package agent

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
)

// agentPart is what does a part of a run in tests: this program.
var agentPart = []string{"/proc/self/exe", "agent-part"}

// TestMain also does a part of a run, in a child of a test, and is the parent of one.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && slices.Contains([]string{"agent-part", "agent-parent", "agent-limited"}, os.Args[1]) {
		cpu, err := strconv.Atoi(os.Args[3])
		switch {
		case err != nil:
		case os.Args[1] == "agent-limited":
			err = limited(os.Args[2], uint64(cpu))
		case os.Args[1] == "agent-parent":
			_, err = child(context.Background(), agentPart, Part(os.Args[2]), cpu, time.Hour, new(Reading))
		default:
			err = elsewhere(func() error { return Answer(context.Background(), Part(os.Args[2]), cpu, partOutput()) })
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	testutil.NoLeaks(m)
}

// limited takes CPU time, of which it has so many seconds, or is killed.
func limited(what string, seconds uint64) error {
	if err := limitCPUTime(seconds); err != nil {
		return err
	}
	endAtCPUTime()
	if what == "killed" {
		return unix.Kill(unix.Getpid(), unix.SIGKILL)
	}
	for began := time.Now(); time.Since(began) < time.Hour; {
	}
	return nil
}

const secret = "0123456789abcdef0123456789abcdef"

// An identity is the same each time, hides what it is made of, and differs with it.
func TestDerived(t *testing.T) {
	t.Parallel()
	id, err := derived(secret + "\n")
	if err != nil {
		t.Fatal(err)
	}
	again, _ := derived("01234567-89ab-cdef-0123-456789abcdef")
	other, _ := derived("1" + secret[1:])
	if id != again || id == other || id == secret || len(id) != 32 || id[12] != '4' {
		t.Errorf("identities %s, %s, %s", id, again, other)
	}
	for _, bad := range []string{"", "uninitialized", secret[1:], "x" + secret[1:]} {
		if id, err := derived(bad); err == nil {
			t.Errorf("%q gives %s", bad, id)
		}
	}
}

// The identity is what systemd makes of the same two.
func TestMachineIDOracle(t *testing.T) {
	t.Parallel()
	want := machineID(here())
	out, err := exec.Command("systemd-id128", "machine-id", "--app-specific="+hex.EncodeToString(application[:])).Output()
	if err != nil {
		testutil.Missing(t, "systemd-id128 and /etc/machine-id")
	}
	if got := strings.TrimSpace(string(out)); got != want {
		t.Errorf("%s, and systemd says %s", want, got)
	}
}

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestMachineID(t *testing.T) {
	t.Parallel()
	want, _ := derived(secret)
	for name, test := range map[string]struct {
		root fstest.MapFS
		want string
	}{
		"machine-id":    {fstest.MapFS{"etc/machine-id": file(secret + "\n")}, want},
		"uninitialized": {fstest.MapFS{"etc/machine-id": file("uninitialized\n"), "sys/class/dmi/id/product_uuid": file(secret)}, want},
		"zero":          {fstest.MapFS{"etc/machine-id": file(strings.Repeat("0", 32) + "\n")}, ""},
		"none":          {fstest.MapFS{}, ""},
	} {
		if got := machineID(test.root); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	a, b := NewIdentity(), NewIdentity()
	if a == b || len(a) != 32 {
		t.Errorf("random identities %s, %s", a, b)
	}
}

func TestMachine(t *testing.T) {
	t.Parallel()
	link := func(to string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(to), Mode: os.ModeSymlink} }
	root := fstest.MapFS{
		"etc/machine-id":                            file(secret),
		"proc/sys/kernel/random/boot_id":            file(secret + "\n"),
		"sys/kernel/iommu_groups/0/type":            file("DMA-FQ\n"),
		"sys/kernel/iommu_groups/1/type":            file("identity\n"),
		"sys/kernel/iommu_groups/2/type":            file("DMA-FQ\n"),
		"sys/class/net/eth0/device/driver":          link("../../bus/pci/drivers/ixgbe"),
		"sys/bus/pci/drivers/ixgbe/x":               file(""),
		"sys/class/net/eth0/operstate":              file("up\n"),
		"sys/class/net/eth1/device/driver":          link("../../bus/pci/drivers/ixgbe"),
		"sys/class/net/eth1/operstate":              file("up\n"),
		"sys/class/net/eth2/device/driver":          link("../../bus/pci/drivers/mlx5_core"),
		"sys/class/net/eth2/operstate":              file("down\n"),
		"sys/class/net/eth3/device/driver":          link("../../bus/pci/drivers/v\u202ex"),
		"sys/bus/pci/drivers/v\u202ex/x":            file(""),
		"sys/class/net/eth3/operstate":              file("up\n"),
		"sys/class/net/veth0/operstate":             file("up\n"),
		"sys/devices/system/cpu/cpu0/microcode/foo": file(""),
	}
	m, err := machine(root, "", map[string]string{"rack": "r1"}, true)
	if err != nil {
		t.Fatal(err)
	}
	want := record.Machine{Labels: map[string]string{"rack": "r1"}, IOMMU: "DMA-FQ, identity"}
	want.Drivers = []string{"ixgbe", record.Name("v\u202ex")}
	want.ID, _ = derived(secret)
	want.Boot = want.ID
	if d := cmp.Diff(want, m); d != "" {
		t.Error(d)
	}
	delete(root, "etc/machine-id")
	if m, err := machine(root, "kept", nil, false); err != nil || m.ID != "kept" {
		t.Errorf("%+v, %v", m, err)
	}
	if got := ioMMU(fstest.MapFS{}); got != "none" {
		t.Errorf("no IOMMU is %q", got)
	}
	if got := ioMMU(fstest.MapFS{"sys/class/iommu/dmar0/x": file(""), "sys/kernel/iommu_groups/0/x": file("")}); got != "" {
		t.Errorf("an IOMMU that cannot be seen is %q", got)
	}
}

func TestFactsChanged(t *testing.T) {
	t.Parallel()
	f := Facts{Boot: "b", Kernel: "k", Microcode: "m", BootParams: "p", Programs: []string{"eth0 native x"}}
	if got := f.Changed(f); got != nil {
		t.Errorf("nothing changed: %v", got)
	}
	was := Facts{Boot: "c", Kernel: "l", Microcode: "n", BootParams: "q", Programs: []string{}}
	if d := cmp.Diff([]string{"kernel", "microcode", "boot-params", "programs"}, f.Changed(was)); d != "" {
		t.Error(d)
	}
}

// Facts of the running machine do not change by themselves.
func TestFacts(t *testing.T) {
	var w Watcher
	a, err := w.Facts()
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.Facts()
	if err != nil {
		t.Fatal(err)
	}
	a.Programs, b.Programs = nil, nil // other tests attach some
	if d := cmp.Diff(a, b); d != "" {
		t.Error(d)
	}
	if len(a.Boot) != 32 || a.Kernel == "" || a.BootParams == "" {
		t.Errorf("%+v", a)
	}
}

func BenchmarkFacts(b *testing.B) {
	var w Watcher
	for b.Loop() {
		if _, err := w.Facts(); err != nil {
			b.Fatal(err)
		}
	}
}

func TestDue(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	f := Facts{Boot: "b", Kernel: "k", Programs: []string{}}
	with := func(change func(*Facts)) Facts { g := f; change(&g); return g }
	const week = 7 * 24 * time.Hour
	other := with(func(f *Facts) { f.Programs = []string{"x"} })
	programs := Why{record.AgentChanged, []string{"programs"}}
	for name, test := range map[string]struct {
		state  State
		facts  Facts
		before *Facts // as at the look before; nil for the same
		every  time.Duration
		want   Why
		due    bool
	}{
		"first of all": {State{}, f, nil, week, Why{Reason: record.AgentBoot}, true},
		"boot":         {State{Facts: f, Run: at}, with(func(f *Facts) { f.Boot = "c" }), nil, week, Why{Reason: record.AgentBoot}, true},
		"boot of a kernel": {State{Facts: f, Run: at}, with(func(f *Facts) { f.Boot, f.Kernel = "c", "l" }), nil, week,
			Why{record.AgentBoot, []string{"kernel"}}, true},
		"programs":          {State{Facts: f, Run: at}, other, nil, week, programs, true},
		"seen once":         {State{Facts: f, Run: at}, other, &f, week, Why{Reason: record.AgentAsked}, false},
		"seen once, asked":  {State{Facts: f, Run: at}, other, &f, 0, programs, true},
		"changes each look": {State{Facts: f, Run: at.Add(-week)}, other, &f, week, Why{record.AgentDue, []string{"programs"}}, true},
		"changed again": {State{Facts: f, Run: at, Change: at.Add(time.Second - changesApart)}, other, nil, week,
			Why{Reason: record.AgentAsked}, false},
		"changed an hour ago":   {State{Facts: f, Run: at, Change: at.Add(-changesApart)}, other, nil, week, programs, true},
		"changed in the future": {State{Facts: f, Run: at, Change: at.Add(2 * changesApart)}, other, nil, week, programs, true},
		"not yet":               {State{Facts: f, Run: at.Add(-week + time.Minute)}, f, nil, week, Why{Reason: record.AgentAsked}, false},
		"due":                   {State{Facts: f, Run: at.Add(-week)}, f, nil, week, Why{Reason: record.AgentDue}, true},
		"not measured, an hour": {State{Facts: f, Run: at.Add(-firstRetry), Unmeasured: 1}, f, nil, week, Why{Reason: record.AgentDue}, true},
		"not measured, again":   {State{Facts: f, Run: at.Add(-firstRetry), Unmeasured: 2}, f, nil, week, Why{Reason: record.AgentAsked}, false},
		"never measured":        {State{Facts: f, Run: at.Add(-week), Unmeasured: 1000}, f, nil, week, Why{Reason: record.AgentDue}, true},
		"clock was ahead":       {State{Facts: f, Run: at.Add(2 * week)}, f, nil, week, Why{Reason: record.AgentDue}, true},
		"clock a bit ahead":     {State{Facts: f, Run: at.Add(time.Minute)}, f, nil, week, Why{Reason: record.AgentAsked}, false},
		"once":                  {State{Facts: f, Run: at.Add(-week)}, f, nil, 0, Why{Reason: record.AgentAsked}, false},
	} {
		before := test.facts
		if test.before != nil {
			before = *test.before
		}
		why, due := test.state.Due(test.facts, before, at, test.every)
		if d := cmp.Diff(test.want, why); d != "" || due != test.due {
			t.Errorf("%s: due %v, want %v\n%s", name, due, test.due, d)
		}
	}
}

func TestState(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "state")
	if s, err := LoadState(dir); err != nil || !cmp.Equal(s, State{}) {
		t.Errorf("no state is %+v, %v", s, err)
	}
	want := State{Facts: Facts{Boot: "b", Programs: []string{"x"}}, Run: time.Unix(1, 0).UTC(), Identity: "i", Dropped: 2}
	if err := want.Save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := LoadState(dir)
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	for _, bad := range []string{"", "{", `{"dropped":-1}`, "[]", "null x", `{"run":"yesterday"}`, strings.Repeat(" ", maxState+1)} {
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := LoadState(dir); err == nil || !cmp.Equal(s, State{}) {
			t.Errorf("damaged state %.20q is %+v, %v", bad, s, err)
		}
	}
}

func FuzzState(f *testing.F) {
	b, err := json.Marshal(State{Facts: Facts{Boot: "b", Programs: []string{"eth0 native x"}}, Run: time.Unix(1, 0)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"facts":{"programs":[""]},"dropped":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		testutil.Allocates(t, 64*uint64(len(b))+1<<20, func() {
			s, err := parseState(b)
			if err != nil && !cmp.Equal(s, State{}) {
				t.Errorf("an error and %+v", s)
			}
		})
	})
}

// Numbers hold for the kernel, the microcode and the boot parameters that they were measured with.
func TestMeasured(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	doc := recordtest.Agent("run", 1, 12)
	only := recordtest.Agent("later", 1, 12)
	only.Rows, only.Redirect, only.Measured = []record.TaxRow{}, []record.BenchRow{}, nil
	if got := LoadMeasured(dir, only); got != nil {
		t.Errorf("%v, and nothing was measured", got)
	}
	if err := SaveMeasured(dir, doc); err != nil {
		t.Fatal(err)
	}
	if got := LoadMeasured(dir, only); got == nil || got.Run != "run" {
		t.Errorf("the record with numbers is %v", got)
	}
	if got := LoadMeasured(dir, doc); got != doc {
		t.Errorf("a record with numbers has those of %v", got)
	}
	for _, change := range []func(*host.Fingerprint){
		func(h *host.Fingerprint) { h.Kernel = "x" }, func(h *host.Fingerprint) { h.Microcode = "x" },
		func(h *host.Fingerprint) { h.BootParams = "x" }, func(h *host.Fingerprint) { h.CPU = "x" },
	} {
		h := only.Host
		change(&only.Host)
		if got := LoadMeasured(dir, only); got != nil {
			t.Errorf("%+v has the numbers of %+v", only.Host, got.Host)
		}
		only.Host = h
	}
}

func TestCPUs(t *testing.T) {
	t.Parallel()
	if d := cmp.Diff(map[int]bool{0: true, 2: true, 3: true, 4: true}, cpuSet("0,2-4\n")); d != "" {
		t.Error(d)
	}
	for text, want := range map[string]int{"": 3, "3": 2, "2-3": 1, "1-3": 0} {
		got, ok := housekeeping(fstest.MapFS{"sys/devices/system/cpu/isolated": file(text + "\n")}, []int{0, 1, 2, 3})
		if got != want || !ok {
			t.Errorf("isolated %q: %d, want %d", text, got, want)
		}
	}
	root := fstest.MapFS{"sys/devices/system/cpu/isolated": file("0-1"), "sys/devices/system/cpu/nohz_full": file("2-3")}
	if cpu, ok := housekeeping(root, []int{0, 1, 2, 3}); ok {
		t.Errorf("CPU %d is not isolated", cpu)
	}
}

// busyFS is a machine whose CPU 1 spends, from one reading of /proc/stat to the next, so many ticks of 10 ms on tasks, on
// softirqs and on other guests; and CPU 0, a thread of the same core, so many on tasks.
type busyFS struct {
	files   fstest.MapFS
	ticks   [3]int
	sibling int
	n       int
}

func (b *busyFS) Open(name string) (fs.File, error) { return b.files.Open(name) }

func (b *busyFS) ReadFile(name string) ([]byte, error) {
	if name == "proc/stat" {
		n := b.n
		b.n++
		return []byte("cpu  0 0 0 0 0 0 0 0 0 0\n" + statLine("cpu0", n*b.sibling, 0, 0) +
			statLine("cpu1", n*b.ticks[0], n*b.ticks[1], n*b.ticks[2])), nil
	}
	return b.files.ReadFile(name)
}

func statLine(cpu string, tasks, softirq, steal int) string {
	b, _ := json.Marshal([]int{tasks, 0, 0, 0, 0, 0, softirq, steal, 0, 0})
	return cpu + " " + strings.NewReplacer("[", "", "]", "", ",", " ").Replace(string(b)) + "\n"
}

// Above a load or a steal time the machine is not measured, and the reason says which.
func TestTooBusy(t *testing.T) {
	t.Parallel()
	const watch = 20 * time.Millisecond
	for name, test := range map[string]struct {
		load    string
		ticks   [3]int // of a CPU that is watched for two
		sibling int
		want    string
	}{
		"quiet":    {"0.50 0.1 0.1 1/100 1", [3]int{0, 0, 0}, 0, ""},
		"load":     {"1.50 0.1 0.1 1/100 1", [3]int{0, 0, 0}, 0, record.RefusedLoad},
		"tasks":    {"0.50 0.1 0.1 1/100 1", [3]int{1000, 0, 0}, 0, record.RefusedLoad},
		"softirqs": {"0.50 0.1 0.1 1/100 1", [3]int{0, 1000, 0}, 0, record.RefusedLoad},
		"steal":    {"0.50 0.1 0.1 1/100 1", [3]int{0, 0, 1000}, 0, record.RefusedSteal},
		"sibling":  {"0.50 0.1 0.1 1/100 1", [3]int{0, 0, 0}, 1000, record.RefusedLoad},
		"garbage":  {"x", [3]int{0, 0, 0}, 0, record.RefusedLoad},
	} {
		root := &busyFS{files: fstest.MapFS{
			"proc/loadavg": file(test.load), "sys/devices/system/cpu/online": file("0-1\n"),
			"sys/devices/system/cpu/cpu1/topology/thread_siblings_list": file("0-1\n"),
		}, ticks: test.ticks, sibling: test.sibling}
		got, err := tooBusy(t.Context(), root, 1, Limits{Load: DefaultMaxLoad, Steal: DefaultMaxSteal}, watch)
		if err != nil {
			t.Fatal(err)
		}
		reason := ""
		if got != nil {
			reason = got.Reason
			if got.Part != record.PartMeasure || got.Text == "" {
				t.Errorf("%s: %+v", name, got)
			}
		}
		if reason != test.want {
			t.Errorf("%s: refused for %q (%+v), want %q", name, reason, got, test.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root := &busyFS{files: fstest.MapFS{"proc/loadavg": file("0 0 0 1/1 1")}}
	if _, err := tooBusy(ctx, root, 1, Limits{Load: 1, Steal: 1}, time.Hour); err == nil {
		t.Error("it watches on when it is to end")
	}
}

func TestDisturbed(t *testing.T) {
	t.Parallel()
	most := Limits{Load: 0.5, Steal: 5}
	steal := func(percent float64) []record.Reference {
		return []record.Reference{{Name: record.Steal, Value: &stat.Quantity{Median: percent, Unit: "percent"}}}
	}
	for _, test := range []struct {
		m    Measured
		want string
	}{
		{Measured{Others: 0.4, References: steal(4)}, ""},
		{Measured{Others: 0.6, References: steal(4)}, record.RefusedLoad},
		{Measured{Others: 0.4, References: steal(6)}, record.RefusedSteal},
	} {
		got := disturbed(&test.m, most)
		if (got == nil) != (test.want == "") || got != nil && got.Reason != test.want {
			t.Errorf("others %v, %v: %+v, want %q", test.m.Others, test.m.References[0].Value.Median, got, test.want)
		}
	}
}

// A path that needs a veth is not read where that would take one of the last twelve entries of the BPF dispatcher.
func TestPathsLeaveDispatcher(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		taken int
		err   error
		want  string
	}{
		"one too many": {kernel.DispatcherSlots - leastFree + 1, nil, record.RefusedDispatcher},
		"full":         {kernel.DispatcherSlots, nil, record.RefusedDispatcher},
		"not read":     {0, errors.New("no memory of the kernel"), record.RefusedFailed},
	} {
		r := &Reading{}
		r.paths(t.Context(), nil, func() ([]uint64, error) { return make([]uint64, test.taken), test.err })
		if len(r.Refused) != 1 || r.Refused[0].Part != record.PartXray || r.Refused[0].Reason != test.want || r.Slots != 0 {
			t.Errorf("%s: refused %+v, %d entries", name, r.Refused, r.Slots)
		}
	}
}

// Nothing of the machine's names stays in an anonymous record, in texts neither.
func TestAnonymize(t *testing.T) {
	t.Parallel()
	doc := recordtest.Agent("run", 1, 12)
	doc.Machine.Name = "edge-1"
	doc.Programs[0].Attached = []record.Attachment{{Device: "enx0242ac110002", Namespace: 7, Where: "blue", Mode: "native"},
		{Device: "eth1", Mode: "native"}}
	doc.Programs[0].Pins = []string{"/sys/fs/bpf/edge-1"}
	doc.Programs[0].Holders = []record.Process{{PID: 1, Name: "edge-daemon"}}
	doc.Findings = append(doc.Findings, host.Finding{Name: "nic-enx0242ac110002-rings", Level: host.LevelOK, Found: "eth1.100 on edge-1"})
	doc.Warn("", "eth1 is not eth10, and method is a word")
	doc.Refused = []record.AgentRefusal{{Part: "xray", Reason: "failed", Text: "eth1.100: gone"}}
	anonymize(doc, []string{"eth1", "eth1.100", "eth10", "enx0242ac110002"}, "edge-1")
	text := recordtest.Marshal(t, doc)
	for _, name := range []string{"edge", "0242ac110002", "eth1", "blue", "/sys/fs/bpf"} {
		if strings.Contains(text, name) {
			t.Errorf("the record has %q", name)
		}
	}
	if !strings.Contains(text, "method is a word") || !strings.Contains(text, "nic-dev3-rings") {
		t.Errorf("other words changed:\n%s", text)
	}
	if _, err := record.Parse([]byte(text)); err != nil {
		t.Error(err)
	}
}

// What a child says last gives the reason, a trace of the runtime its first line.
func TestReasonOfChild(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ said, want string }{
		{"runtime: out of memory: cannot allocate 4194304-byte block (8388608 in use)\nfatal error: out of memory\n\ngoroutine 1",
			record.RefusedMemory},
		{"fatal error: out of memory\n\ngoroutine 1 [running]:\nmain.main()", record.RefusedMemory},
		{"warning: x\nunthunk: load program: cannot allocate memory\n", record.RefusedMemory},
		{"unthunk: something else\n", record.RefusedFailed},
		{"", record.RefusedFailed},
	} {
		if got := reasonOfChild(errors.New(saidLine(test.said))); got != test.want {
			t.Errorf("%q: %s, want %s", test.said, got, test.want)
		}
	}
	for _, err := range []error{errKilled, errCPUTime} {
		if got := reasonOfChild(fmt.Errorf("read: %w", err)); got != record.RefusedTime {
			t.Errorf("%v: %s", err, got)
		}
	}
}

// A process that takes its CPU time ends, and is told from one that somebody kills.
func TestOutOfCPUTime(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]int{"spin": exitCPUTime, "killed": -1} {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "agent-limited", what, "1")
		if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != want {
			t.Errorf("%s: %v, %s", what, err, out)
		}
	}
}
