package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/internal/agent"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

func TestAgentRefuses(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	refuses(t, "agent", []refused{
		{"argument", []string{"x"}, exitUsage, `"x"`},
		{"once and every", []string{"--once", "--every", "1h"}, exitUsage, "choose one"},
		{"every 1s", []string{"--every", "1s"}, exitUsage, "--every 1s"},
		{"every 0", []string{"--every", "0"}, exitUsage, "--every 0s"},
		{"splay", []string{"--splay", "-1s"}, exitUsage, "--splay -1s"},
		{"check-every alone", []string{"--check-every", "1m"}, exitUsage, "goes with --every"},
		{"check-every 0", []string{"--every", "1h", "--check-every", "0"}, exitUsage, "--check-every 0s"},
		{"listen alone", []string{"--listen", ":1"}, exitUsage, "--listen goes with --every"},
		{"metrics-config alone", []string{"--metrics-config", dir}, exitUsage, "needs --listen"},
		{"save with every", []string{"--every", "1h", "--save", dir + "/x"}, exitUsage, "--save is of one record"},
		{"token alone", []string{"--token-file", dir}, exitUsage, "go with --post"},
		{"password in URL", []string{"--post", "https://a:b@c/"}, exitUsage, "a password in a URL"},
		{"CPU", []string{"--cpu", "9999"}, exitUsage, "CPU 9999"},
		{"load", []string{"--max-load", "0"}, exitUsage, "--max-load"},
		{"label", []string{"--label", "rack"}, exitUsage, "give NAME=VALUE"},
		{"label that no record has", []string{"--label", "rack=a\u202e"}, exitUsage, "--label: impossible label"},
		{"no folder", []string{"--records", "/proc/self/exe"}, exitUsage, "it is no folder"},
		{"no textfile folder", []string{"--textfile", dir + "/none"}, exitUsage, "there is no such folder"},
	})
}

// Without rights the exit code is 4, and one line says which are missing.
func TestAgentRights(t *testing.T) {
	testutil.Root(t)
	code, stderr := -1, ""
	err := testutil.Capable(t, func() error {
		code, _, stderr = unthunk(t, "agent", "--state", t.TempDir())
		return nil
	})
	if err != nil || code != exitMissing || !strings.Contains(stderr, "CAP_SYS_ADMIN") {
		t.Errorf("exit code %d, %v: %s", code, err, stderr)
	}
}

// anyBusy are the flags of an agent that measures however busy the machine is.
var anyBusy = []string{"--max-load", "1000", "--max-steal", "100"}

// agentOf runs an agent that was built, and reads its record.
func agentOf(t *testing.T, exe string, args ...string) (*record.Agent, string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(exe, append([]string{"agent", "--json", "--state", t.TempDir()}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		failed(t, err, stderr.String())
	}
	saved, err := record.Parse(stdout.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return saved.Agent(), stdout.String()
}

// failed ends the test of an agent that failed. Where other work kept it, which is of the idle class, from reading anything in time,
// nothing can be said.
func failed(t *testing.T, err error, stderr string) {
	t.Helper()
	if strings.Contains(stderr, "no answer: nothing was read, and nothing measured: read: it was ended as it took too long") {
		testutil.Missing(t, needsCPU)
	}
	t.Fatalf("%v\n%s", err, stderr)
}

// needsCPU is what an agent needs on a busy machine.
const needsCPU = "CPU time for the agent to read in"

// forbidden is what a process has open that others would pay for: BPF programs of other types than those that it runs itself,
// links to anything but devices, perf events, run statistics. What somebody else has too it only looks at, as prog list does.
func forbidden(pid int) (found []string) {
	allowed := map[string]bool{
		strconv.Itoa(int(ebpf.XDP)): true, strconv.Itoa(int(ebpf.SocketFilter)): true, strconv.Itoa(int(ebpf.Syscall)): true,
	}
	infos, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	for _, path := range infos {
		link, _ := os.Readlink(strings.Replace(path, "fdinfo", "fd", 1))
		if link == "anon_inode:bpf-stats" || strings.Contains(link, "perf_event") {
			found = append(found, link)
		}
		info := fdInfo(path)
		programType, isProgram := info["prog_type"]
		linkType, isLink := info["link_type"]
		switch {
		case isLink && linkType != "xdp" && !hasAnother(pid, "link_id", info["link_id"]):
			found = append(found, "link to "+linkType)
		case !isLink && isProgram && !allowed[programType] && !hasAnother(pid, "prog_id", info["prog_id"]):
			found = append(found, "program of type "+programType)
		}
	}
	return found
}

// fdInfo is what /proc says of a descriptor, empty when it is gone.
func fdInfo(path string) map[string]string {
	info := make(map[string]string)
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		info[key] = strings.TrimSpace(value)
	}
	return info
}

// hasAnother tells whether another process has a descriptor of which /proc says the same.
func hasAnother(pid int, key, value string) bool {
	infos, _ := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	return slices.ContainsFunc(infos, func(path string) bool {
		return !strings.HasPrefix(path, fmt.Sprintf("/proc/%d/", pid)) && fdInfo(path)[key] == value
	})
}

// While it measures, an agent has at most four entries of the BPF dispatcher, nothing at a tracepoint, and run statistics
// as they are; and the devices of its network namespace stay as they are.
func TestAgentSafe(t *testing.T) {
	testutil.Root(t)
	testutil.AMD64(t)
	exe := build(t)
	k, err := kernel.OpenNamed(func(name, _ []byte) bool { return kernel.DispatcherSymbol(name) })
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer k.Close()
	before := linksNow(t)
	file := filepath.Join(t.TempDir(), "agent.json")
	cmd := exec.Command(exe, append([]string{"agent", "--state", t.TempDir(), "--save", file}, anyBusy...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	most, looks := 0, 0
	for running := true; running; {
		select {
		case err := <-ended:
			if err != nil {
				failed(t, err, stderr.String())
			}
			running = false
		case <-time.After(5 * time.Millisecond):
		}
		for _, pid := range testutil.Children(t, cmd.Process.Pid) {
			if found := forbidden(pid); found != nil {
				t.Fatalf("it has %v", found)
			}
			most = max(most, entries(t, k, pid))
			looks++
		}
	}
	saved, err := record.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	doc := saved.Agent()
	if most > 4 || doc.Cost.Slots > 4 {
		t.Errorf("%d entries of the BPF dispatcher were seen, the record says %d", most, doc.Cost.Slots)
	}
	if looks < 10 {
		t.Errorf("its children were looked at %d times", looks)
	}
	if doc.Measured != nil && (most == 0 || doc.Cost.Slots != 4) {
		t.Errorf("it measured with %d entries seen, and %d in the record", most, doc.Cost.Slots)
	}
	if d := cmp.Diff(before, linksNow(t)); d != "" {
		t.Errorf("devices changed:\n%s", d)
	}
	checkAgent(t, doc)
}

// entries is how many programs of a process are in the BPF dispatcher.
func entries(t *testing.T, k *kernel.Kernel, pid int) (n int) {
	t.Helper()
	h := holds(t, pid)
	slices.Sort(h.progs)
	now, _, err := k.Dispatcher()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range slices.Compact(h.progs) {
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if err != nil {
			continue // gone by now
		}
		functions, err := kernel.Program(p)
		p.Close()
		if err == nil && functions != nil && kernel.Dispatched(now, functions[0]) {
			n++
		}
	}
	return n
}

// linksNow are the devices here with what can be set of them, less counters.
func linksNow(t *testing.T) (all []string) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		a := *l.Attrs()
		xdp := ""
		if a.Xdp != nil {
			xdp = fmt.Sprintf("%+v", *a.Xdp)
		}
		all = append(all, fmt.Sprintf("%s %d %v mtu %d, qlen %d, promisc %d, gso %d, queues %d %d, xdp %s",
			a.Name, a.Index, a.Flags, a.MTU, a.TxQLen, a.Promisc, a.GSOMaxSize, a.NumRxQueues, a.NumTxQueues, xdp))
	}
	return all
}

// checkAgent checks what each record has: all parts were read; and there are numbers, or the reason why not. Where other work
// keeps the agent, which is of the idle class, from reading in time, nothing can be said.
func checkAgent(t *testing.T, doc *record.Agent) {
	t.Helper()
	if slices.ContainsFunc(doc.Refused, func(r record.AgentRefusal) bool { return r.Part != "measure" && r.Reason == "time" }) {
		testutil.Missing(t, needsCPU)
	}
	if len(doc.Findings) == 0 || len(doc.Paths) == 0 || doc.Host.Kernel == "" || doc.Host.IndirectThunk == "" {
		t.Errorf("not read: %d findings, %d paths, kernel %q; refused: %v", len(doc.Findings), len(doc.Paths), doc.Host.Kernel, doc.Refused)
	}
	if doc.Machine.ID == "" || doc.Cost.CPUSeconds <= 0 || doc.Cost.PeakBytes == 0 {
		t.Errorf("machine %+v, cost %+v", doc.Machine, doc.Cost)
	}
	if doc.Measured == nil {
		i := slices.IndexFunc(doc.Refused, func(r record.AgentRefusal) bool { return r.Part == "measure" })
		if i < 0 || doc.Refused[i].Reason != "time" && doc.Refused[i].Reason != "load" {
			t.Errorf("not measured: %v", doc.Refused)
		}
		return
	}
	var rows []string
	for _, row := range doc.Rows {
		rows = append(rows, row.Name)
	}
	for _, name := range []string{"control", "callback/loop", "map-lookup/lpm", "direct-call"} {
		if !slices.Contains(rows, name) {
			t.Errorf("no row %s: %v", name, rows)
		}
	}
	if len(doc.Redirect) != 3 {
		t.Errorf("%d rows of the redirect", len(doc.Redirect))
	}
}

// A load or a steal above what it states is a refusal, and all else is read.
func TestAgentTooBusy(t *testing.T) {
	testutil.Root(t)
	testutil.AMD64(t)
	doc, _ := agentOf(t, build(t), "--max-load", "1e-9")
	checkAgent(t, doc)
	if doc.Measured != nil || len(doc.Rows)+len(doc.Redirect) > 0 || len(doc.Refused) != 1 || doc.Refused[0].Reason != "load" {
		t.Errorf("measured %v; refused %v", doc.Measured, doc.Refused)
	}
}

// An anonymous record has no name, address or identity of the machine.
func TestAgentAnonymous(t *testing.T) {
	testutil.Root(t)
	testutil.AMD64(t)
	exe := build(t)
	doc, text := agentOf(t, exe, "--anonymous", "--max-load", "1e-9", "--label", "group=canary")
	if doc.Machine.Name != "" || doc.Machine.Labels["group"] != "canary" {
		t.Errorf("%+v", doc.Machine)
	}
	open, _ := agentOf(t, exe, "--max-load", "1e-9")
	if open.Machine.ID != doc.Machine.ID || open.Machine.Boot != doc.Machine.Boot {
		t.Error("the identity of an anonymous record is another one")
	}
	names := map[string]string{}
	add := func(what, name string) {
		if name = strings.TrimSpace(name); name != "" && name != "lo" {
			names[what+" "+name] = name
		}
	}
	host, _ := os.Hostname()
	for _, file := range []string{"/etc/machine-id", "/proc/sys/kernel/random/boot_id", "/sys/class/dmi/id/product_uuid"} {
		b, _ := os.ReadFile(file)
		add(file, string(b))
		add(file, strings.ReplaceAll(string(b), "-", ""))
	}
	devices, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		add("device", d.Name)
		add("address", d.HardwareAddr.String())
		add("address", strings.ReplaceAll(d.HardwareAddr.String(), ":", ""))
		addresses, _ := d.Addrs()
		for _, a := range addresses {
			if ip, _, err := net.ParseCIDR(a.String()); err == nil && !ip.IsLoopback() {
				add("address", ip.String())
			}
		}
	}
	for what, name := range names {
		if strings.Contains(text, name) {
			t.Errorf("the record has the %s", what)
		}
	}
	// The host's name may be a word of its own elsewhere: vm.
	for _, quoted := range []string{`"` + host + `"`, " " + host + " "} {
		if strings.Contains(text, quoted) {
			t.Errorf("the record has the host's name %s", quoted)
		}
	}
}

// An agent that is killed at any moment leaves nothing, its children neither.
func TestAgentKill(t *testing.T) {
	testutil.Root(t)
	testutil.AMD64(t)
	exe := build(t)
	before := linksNow(t)
	for n := range 8 {
		others := existing()
		cmd := exec.Command(exe, append([]string{"agent", "--state", t.TempDir()}, anyBusy...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Half of the kills come at any moment, half soon after a measurement holds something.
		end := time.Now().Add(time.Duration(rand.N(4000)) * time.Millisecond)
		var pids []int
		var h holdings
		testutil.Eventually(t, fmt.Sprintf("the moment of kill %d", n), func() bool {
			h, pids = holdings{}, append(testutil.Children(t, cmd.Process.Pid), cmd.Process.Pid)
			for _, pid := range pids {
				h.add(holds(t, pid), others)
			}
			if n%2 == 0 {
				return time.Now().After(end)
			}
			return len(h.progs) > 0
		})
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		testutil.Eventually(t, fmt.Sprintf("kill %d: children are gone", n), func() bool {
			return !slices.ContainsFunc(pids, func(pid int) bool { return syscall.Kill(pid, 0) == nil })
		})
		testutil.Eventually(t, fmt.Sprintf("kill %d: nothing is left", n), func() bool { return len(h.left()) == 0 })
	}
	if d := cmp.Diff(before, linksNow(t)); d != "" {
		t.Errorf("devices changed:\n%s", d)
	}
}

// SIGTERM ends an agent soon, at any moment, with nothing written.
func TestAgentSignal(t *testing.T) {
	testutil.Root(t)
	testutil.AMD64(t)
	exe := build(t)
	for _, args := range [][]string{{}, {"--every", "1h"}, {"--splay", "1h"}} {
		for _, after := range []time.Duration{100 * time.Millisecond, time.Second, 2500 * time.Millisecond} {
			dir := t.TempDir()
			cmd := exec.Command(exe, slices.Concat([]string{"agent", "--state", dir, "--records", dir}, anyBusy, args)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after)
			began := time.Now()
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			late := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
			cmd.Wait()
			if !late.Stop() {
				t.Errorf("%v, SIGTERM after %v: it did not end", args, after)
			}
			t.Logf("%v, SIGTERM after %v: ended in %v", args, after, time.Since(began))
		}
	}
}

// A run hands its record and its metrics to all that ask for them, and the next one knows of it.
func TestAgentOutputs(t *testing.T) {
	testutil.Root(t)
	testutil.AMD64(t)
	exe := build(t)
	var mu sync.Mutex
	var got []string
	away := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if away {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		b, _ := io.ReadAll(r.Body)
		saved, err := record.Parse(b)
		if err != nil {
			t.Error(err)
			return
		}
		got = append(got, saved.Run)
	}))
	defer server.Close()
	dir := t.TempDir()
	args := []string{"agent", "--max-load", "1e-9", "--state", filepath.Join(dir, "state"), "--records", dir, "--textfile", dir,
		"--post", server.URL}
	var reasons, runs []string
	for n := range 2 {
		mu.Lock()
		away = n == 0
		mu.Unlock()
		out, err := exec.Command(exe, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if waits := strings.Contains(string(out), "records that wait in "); waits != (n == 0) {
			t.Errorf("run %d:\n%s", n, out)
		}
		files, _ := filepath.Glob(filepath.Join(dir, "*.json"))
		if len(files) != n+1 {
			t.Fatalf("%d records", len(files))
		}
		for _, file := range files {
			saved, err := record.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(runs, saved.Run) {
				runs, reasons = append(runs, saved.Run), append(reasons, saved.Agent().Reason)
			}
		}
		text := readFile(t, filepath.Join(dir, "unthunk.prom"))
		for _, want := range []string{"unthunk_host_info{", `unthunk_refused{part="measure",reason="load"} 1`, "unthunk_agent_cpu_seconds ",
			fmt.Sprintf("unthunk_agent_waiting_records %d", 1-n)} {
			if !strings.Contains(text, want) {
				t.Errorf("run %d: metrics lack %s:\n%s", n, want, text)
			}
		}
	}
	if d := cmp.Diff([]string{record.AgentBoot, record.AgentAsked}, reasons); d != "" {
		t.Errorf("reasons:\n%s", d)
	}
	slices.Sort(got)
	slices.Sort(runs)
	if d := cmp.Diff(runs, got); d != "" {
		t.Errorf("the server got other records:\n%s", d)
	}
}

// An agent that runs again and again runs once for a boot, and once more when XDP programs on devices changed.
func TestAgentEvery(t *testing.T) {
	testutil.Root(t)
	testutil.AMD64(t)
	exe := build(t)
	lab := veth.Namespace(t)
	device, _ := veth.Pair(t, lab, "ag0", "ag1")
	dir := t.TempDir()
	cmd := exec.Command(exe, "agent", "--every", "1h", "--check-every", "1s", "--max-load", "1e-9",
		"--state", filepath.Join(dir, "state"), "--records", dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := lab.Do(cmd.Start); err != nil { // in that namespace
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, &stderr)
		}
	}()
	records := func() []*record.Agent {
		files, _ := filepath.Glob(filepath.Join(dir, "*.json"))
		var all []*record.Agent
		for _, file := range files {
			saved, err := record.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, saved.Agent())
		}
		return all
	}
	testutil.Eventually(t, "a record of the boot", func() bool { return len(records()) == 1 })
	// Other tests have programs in other network namespaces.
	programs := func(doc *record.Agent) (names []string) {
		for _, p := range doc.Programs {
			for _, a := range p.Attached {
				if a.Device == device.Name && slices.ContainsFunc(doc.Code, func(c record.ProgramCode) bool { return c.Name == p.Name }) {
					names = append(names, p.Name)
				}
			}
		}
		return names
	}
	if got := records()[0]; got.Reason != record.AgentBoot || programs(got) != nil {
		t.Errorf("reason %s, programs %v", got.Reason, programs(got))
	}
	if err := device.Attach(veth.Program(t, asm.Mov.Imm(asm.R0, 2), asm.Return()), link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "a record of the change", func() bool { return len(records()) == 2 })
	got := records()[1]
	late := slices.ContainsFunc(got.Refused, func(r record.AgentRefusal) bool { return r.Reason == record.RefusedTime }) // others had the CPUs
	if got.Reason != record.AgentChanged || !slices.Equal(got.Changed, []string{"programs"}) || len(programs(got)) != 1 && !late {
		t.Errorf("reason %s, changed %v, code of programs %v; refused %v", got.Reason, got.Changed, programs(got), got.Refused)
	}
}

// An agent serves the metrics of its last run, at once when it is started anew.
func TestAgentListen(t *testing.T) {
	testutil.Root(t)
	testutil.AMD64(t)
	exe := build(t)
	state := t.TempDir()
	metrics := func(url string) string {
		response, err := http.Get(url)
		if err != nil {
			return ""
		}
		defer response.Body.Close()
		b, err := io.ReadAll(response.Body)
		if err != nil {
			return ""
		}
		return string(b)
	}
	first := ""
	for n := range 2 {
		cmd := exec.Command(exe, "agent", "--every", "1h", "--max-load", "1e-9", "--state", state, "--listen", "127.0.0.1:0")
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(stderr).ReadString('\n')
		url, ok := strings.CutPrefix(strings.TrimSpace(line), "metrics at ")
		if err == nil && ok && n == 0 {
			testutil.Eventually(t, "metrics of a run", func() bool {
				first = metrics(url)
				return strings.Contains(first, "unthunk_host_info{") && strings.Contains(first, `unthunk_refused{part="measure",reason="load"} 1`)
			})
			testutil.Eventually(t, "a state", func() bool { _, err := os.Stat(filepath.Join(state, "last.json")); return err == nil })
		} else if d := cmp.Diff(first, metrics(url)); d != "" {
			t.Errorf("%v: %q; the metrics of the next agent differ:\n%s", err, line, d)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}
}

// fakeAgent is an agent whose runs are recorded, and measure nothing; facts are those that a function gives at each call.
func fakeAgent(t *testing.T, flags agentFlags, facts func(call int) (agent.Facts, error)) (a *agentRun, reasons, warnings *[]string) {
	t.Helper()
	reasons, warnings = new([]string), new([]string)
	calls := 0
	flags.state, flags.every, flags.checkEvery = t.TempDir(), time.Hour, time.Nanosecond
	a = &agentRun{
		s: std{out: io.Discard, err: io.Discard}, flags: flags, warn: func(text string) { *warnings = append(*warnings, text) },
		facts: func() (agent.Facts, error) { calls++; return facts(calls) },
		measure: func(_ context.Context, _ agent.Options, why agent.Why) (*record.Agent, error) {
			*reasons = append(*reasons, why.Reason)
			doc := recordtest.Agent(fmt.Sprintf("run%d", len(*reasons)), 1, 12)
			doc.Machine.Name = "edge-1"
			return doc, nil
		},
	}
	return a, reasons, warnings
}

// A run that finds no numbers is told of, with when the next comes, which is soon until one finds some.
func TestAgentUnmeasured(t *testing.T) {
	t.Parallel()
	a, _, warnings := fakeAgent(t, agentFlags{}, func(int) (agent.Facts, error) { return agent.Facts{Boot: "b"}, nil })
	a.flags.every = 168 * time.Hour
	busy := true
	measure := a.measure
	a.measure = func(ctx context.Context, o agent.Options, why agent.Why) (*record.Agent, error) {
		doc, err := measure(ctx, o, why)
		if busy {
			doc.Rows, doc.Redirect, doc.Measured = nil, nil, nil
			doc.Refused = []record.AgentRefusal{{Part: record.PartMeasure, Reason: record.RefusedLoad, Text: "the load is 9 a CPU"}}
		}
		return doc, err
	}
	for range 2 {
		if err := a.run(t.Context(), agent.Facts{Boot: "b"}, agent.Why{Reason: record.AgentDue}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"not measured (load): the load is 9 a CPU; again in 1h0m0s", "not measured (load): the load is 9 a CPU; again in 2h0m0s"}
	if !slices.Equal(*warnings, want) || a.state.Unmeasured != 2 {
		t.Errorf("%q", *warnings)
	}
	busy = false
	if err := a.run(t.Context(), agent.Facts{Boot: "b"}, agent.Why{Reason: record.AgentDue}); err != nil || a.state.Unmeasured != 0 {
		t.Errorf("%v, %+v", err, a.state)
	}
	if kept, err := agent.LoadState(a.flags.state); err != nil || kept.Unmeasured != 0 || len(*warnings) != 2 {
		t.Errorf("%v, %+v, %q", err, kept, *warnings)
	}
}

// One run that neither read nor measured anything is no answer, though its record is kept. One that read is.
func TestAgentUnanswered(t *testing.T) {
	t.Parallel()
	a, _, _ := fakeAgent(t, agentFlags{records: t.TempDir()}, func(int) (agent.Facts, error) { return agent.Facts{Boot: "b"}, nil })
	measure := a.measure
	read := false
	a.measure = func(ctx context.Context, o agent.Options, why agent.Why) (*record.Agent, error) {
		doc, err := measure(ctx, o, why)
		doc.Rows, doc.Redirect, doc.Measured = nil, nil, nil
		doc.Refused = []record.AgentRefusal{{Part: record.PartCheck, Reason: record.RefusedTime, Text: "read: it took too long"}}
		if !read {
			doc.Findings, doc.Paths, doc.Programs = []host.Finding{}, []record.AgentPath{}, []record.ProgramRow{}
		}
		return doc, err
	}
	const want = "no answer: nothing was read, and nothing measured: read: it took too long"
	if err := a.run(t.Context(), agent.Facts{Boot: "b"}, agent.Why{}); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	read = true
	if err := a.run(t.Context(), agent.Facts{Boot: "b"}, agent.Why{}); err != nil {
		t.Errorf("it has read: %v", err)
	}
	if kept, err := os.ReadDir(a.flags.records); err != nil || len(kept) != 2 {
		t.Errorf("%d records, %v", len(kept), err)
	}
}

// A look that fails is warned of, and the next one is as ever; a run knows the facts from after its delay.
func TestAgentForever(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	was, is := agent.Facts{Boot: "b", Programs: []string{"x"}}, agent.Facts{Boot: "b", Programs: []string{"y"}}
	flags := agentFlags{splay: time.Nanosecond}
	a, reasons, warnings := fakeAgent(t, flags, func(call int) (agent.Facts, error) {
		switch call {
		case 1:
			return was, nil
		case 4:
			return agent.Facts{}, errors.New("there are too many files")
		case 8:
			cancel()
		}
		return is, nil
	})
	if err := a.forever(ctx); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff([]string{record.AgentBoot}, *reasons); d != "" {
		t.Errorf("runs:\n%s", d)
	}
	if d := cmp.Diff([]string{"there are too many files"}, *warnings); d != "" {
		t.Errorf("warnings:\n%s", d)
	}
	broken, _, _ := fakeAgent(t, agentFlags{}, func(int) (agent.Facts, error) { return agent.Facts{}, errors.New("there is no /proc") })
	if err := broken.forever(t.Context()); err == nil {
		t.Error("an agent that never sees its machine goes on")
	}
}

// Where programs are other ones at each look, the runs of each period are made, and no others.
func TestAgentChanging(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	const looks = 50
	a, reasons, _ := fakeAgent(t, agentFlags{}, func(call int) (agent.Facts, error) {
		if call == looks {
			cancel()
		}
		return agent.Facts{Boot: "b", Programs: []string{strconv.Itoa(call)}}, nil
	})
	a.state = agent.State{Facts: agent.Facts{Boot: "b"}, Run: time.Now().Add(-2 * time.Hour)}
	if err := a.forever(ctx); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff([]string{record.AgentDue}, *reasons); d != "" {
		t.Errorf("runs:\n%s", d)
	}
}

// Without the record of the last run, or with one that has names while there are to be none, a run is due.
func TestAgentResume(t *testing.T) {
	t.Parallel()
	a, _, _ := fakeAgent(t, agentFlags{}, func(int) (agent.Facts, error) { return agent.Facts{Boot: "b"}, nil })
	a.served = &agentMetrics{}
	resumed := func(saved, anonymous bool) {
		t.Helper()
		a.served.doc, a.served.host, a.state.Run, a.flags.anonymous = nil, nil, time.Now(), anonymous
		a.resume()
		want := saved && !anonymous
		if got := a.served.doc != nil; got != want || a.state.Run.IsZero() == want {
			t.Errorf("saved %v, anonymous %v: served %v, last run %v", saved, anonymous, got, a.state.Run)
		}
		text, err := a.served.text()
		if err != nil {
			t.Fatal(err)
		}
		waits := strings.Contains(string(text), `unthunk_refused{part="measure",reason="waiting"} 1`)
		if !strings.Contains(string(text), "unthunk_host_info{") || waits == want || strings.Contains(string(text), "timestamp") == waits {
			t.Errorf("saved %v, anonymous %v: metrics\n%s", saved, anonymous, text)
		}
	}
	resumed(false, false)
	if err := a.run(t.Context(), agent.Facts{Boot: "b"}, agent.Why{Reason: record.AgentBoot}); err != nil {
		t.Fatal(err)
	}
	resumed(true, false)
	resumed(true, true)
}

// What a server refuses for good is given up: the metrics and the state say so.
func TestAgentGivenUp(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnprocessableEntity)
	}))
	defer server.Close()
	a, _, warnings := fakeAgent(t, agentFlags{textfile: t.TempDir()}, nil)
	a.flags.post = agent.Post{URL: server.URL, Spool: filepath.Join(a.flags.state, "spool")}
	a.served = &agentMetrics{}
	for n := 1; n <= 2; n++ {
		a.sendAt = time.Time{}
		if err := a.run(t.Context(), agent.Facts{}, agent.Why{Reason: record.AgentDue}); err != nil {
			t.Fatal(err)
		}
		saved, err := agent.LoadState(a.flags.state)
		if err != nil || saved.Dropped != n || a.served.dropped != n || a.served.waiting != 0 || len(*warnings) != n {
			t.Errorf("run %d: %d dropped in the state, %d in the metrics, %d wait, %v; %v", n, saved.Dropped, a.served.dropped,
				a.served.waiting, err, *warnings)
		}
		text := readFile(t, filepath.Join(a.flags.textfile, "unthunk.prom"))
		if !strings.Contains(text, fmt.Sprintf("unthunk_agent_dropped_records %d\n", n)) {
			t.Errorf("run %d:\n%s", n, text)
		}
	}
}

// Records that have to go, as too many wait for the server, are told of: those that the clock says are later, too.
func TestAgentDropped(t *testing.T) {
	t.Parallel()
	a, _, warnings := fakeAgent(t, agentFlags{}, nil)
	a.flags.post = agent.Post{URL: "http://127.0.0.1:1", Spool: filepath.Join(a.flags.state, "spool")}
	for i := range agent.MaxSpooled + 1 {
		if _, err := a.flags.post.Add(fmt.Sprintf("2126%04dT000000Z-run.json", i), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.run(t.Context(), agent.Facts{}, agent.Why{Reason: record.AgentDue}); err != nil {
		t.Fatal(err)
	}
	const want = "1 record dropped, the oldest: more than 64, or 64 MiB, waited for the server"
	if len(*warnings) != 2 || !strings.Contains((*warnings)[0], want) || a.state.Dropped != 1 {
		t.Errorf("%d dropped, %q, want %q", a.state.Dropped, *warnings, want)
	}
	waits, err := filepath.Glob(filepath.Join(a.flags.post.Spool, "*-run1.json"))
	if err != nil || len(waits) != 1 {
		t.Errorf("of the new record there are %q, %v", waits, err)
	}
}

// A record is sent from memory where the folder in which it would wait cannot be written.
func TestAgentWithoutSpool(t *testing.T) {
	t.Parallel()
	var got atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	defer server.Close()
	a, _, _ := fakeAgent(t, agentFlags{}, nil)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for url, sent := range map[string]bool{server.URL: true, "http://127.0.0.1:1": false} {
		a.flags.post = agent.Post{URL: url, Spool: filepath.Join(file, "spool")}
		got.Store(0)
		err := a.run(t.Context(), agent.Facts{}, agent.Why{Reason: record.AgentDue})
		if err == nil || strings.Contains(err.Error(), "the record was sent without") != sent || (got.Load() == 1) != sent {
			t.Errorf("%s: %v, %d records came", url, err, got.Load())
		}
	}
	if a.state.Dropped != 1 {
		t.Errorf("%d records are lost", a.state.Dropped)
	}
}

// fleetMachine is a record of a machine with so many XDP programs.
func fleetMachine(programs int) *record.Agent {
	doc := recordtest.Agent("run", 1, 12)
	doc.Programs, doc.Code = nil, nil
	for i := range programs {
		name := fmt.Sprintf("id:%d", i+1)
		doc.Programs = append(doc.Programs, record.ProgramRow{
			Name: name, ID: uint32(i + 1), Program: "xdp", Type: "xdp", Tag: "0123456789abcdef", Dispatcher: "in",
			Attached: []record.Attachment{{Device: fmt.Sprintf("veth%d", i), Mode: "native"}},
		})
		doc.Code = append(doc.Code, record.ProgramCode{Name: name, Indirect: 2})
	}
	doc.Refused = []record.AgentRefusal{
		{Part: "check", Reason: "failed", Text: "a"}, {Part: "xray", Reason: "kernel", Text: "b"},
		{Part: "xray", Reason: "failed", Text: "c"}, {Part: "measure", Reason: "load", Text: "d"},
	}
	return doc
}

// A machine has at most 40 series, however many programs it has, and no series twice; what is left out is counted.
func TestAgentSeries(t *testing.T) {
	t.Parallel()
	for _, programs := range []int{0, 1, 200} {
		doc := fleetMachine(programs)
		m := &agentMetrics{doc: doc, measured: doc, waiting: 3, dropped: 1}
		b, err := m.text()
		if err != nil {
			t.Fatal(err)
		}
		series := map[string]bool{}
		for line := range strings.Lines(string(b)) {
			if name, _, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
				if series[name] {
					t.Errorf("twice: %s", name)
				}
				series[name] = true
			}
		}
		shown := strings.Count(string(b), "\nunthunk_xdp_program_info{")
		if len(series) > maxSeries || programs == 200 && len(series) != maxSeries {
			t.Errorf("%d programs: %d series", programs, len(series))
		}
		for _, want := range []string{
			fmt.Sprintf("unthunk_xdp_programs %d\n", programs), fmt.Sprintf("unthunk_xdp_programs_left_out %d\n", programs-shown),
			`unthunk_refused{part="xray",reason="kernel"} 1`, `unthunk_refused{part="measure",reason="load"} 1`,
			`unthunk_price_low_seconds{row="callback/loop"}`, `unthunk_redirect_seconds{bulk="64"}`,
		} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%d programs: no %q in\n%s", programs, want, b)
			}
		}
	}
	// Devices of one name in two network namespaces run one program: one has the series.
	doc := fleetMachine(1)
	doc.Programs[0].Attached = []record.Attachment{
		{Device: "eth0", Namespace: 7, Mode: "native"}, {Device: "eth0", Namespace: 8, Mode: "native"},
	}
	b, err := (&agentMetrics{doc: doc, measured: doc}).text()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"unthunk_xdp_programs 2\n", "unthunk_xdp_programs_left_out 1\n"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("one program on eth0 in two namespaces: no %q in\n%s", want, b)
		}
	}
	if b, err := (&agentMetrics{}).text(); err != nil || len(b) != 0 {
		t.Errorf("before the first run: %q, %v", b, err)
	}
}

// promtool finds nothing to say of the metrics.
func TestAgentPromtool(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("promtool"); err != nil {
		testutil.Missing(t, "promtool")
	}
	doc := fleetMachine(3)
	b, err := (&agentMetrics{doc: doc, measured: doc}).text()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = bytes.NewReader(b)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
