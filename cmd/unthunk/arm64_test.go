package main

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/testutil"
)

// The path and the drivers of kernel packages of arm64, whose kernels are Images, are read on any machine.
func TestXrayRootARM64(t *testing.T) {
	for _, series := range []string{"6.1", "6.12", "7.3"} {
		root := guesttest.Named(t, "debian:"+series+"-cloud-arm64").Dir
		rows := pathOf(t, root).Rows
		for _, want := range []string{
			"__napi_poll napi_struct.poll", "bpf_dispatcher_xdp_func argument bpf_func of bpf_dispatcher_xdp_func",
			"bq_xmit_all xdp_dev_bulk_queue.dev → net_device.netdev_ops → net_device_ops.ndo_xdp_xmit", "call_on_irq_stack ____do_softirq",
		} {
			if !slices.ContainsFunc(rows, func(r record.SiteRow) bool { return r.Kind == "register" && r.Function+" "+calls(r) == want }) {
				t.Errorf("%s: no %s in %d rows", series, want, len(rows))
			}
		}
		code, stdout, stderr := unthunk(t, "xray", "--root", root, "--asm", "bpf_dispatcher_xdp_func")
		if code != exitDone || !strings.Contains(stdout, "blr x2") {
			t.Errorf("%s: exit code %d: %s%s", series, code, stderr, stdout)
		}
		code, stdout, stderr = unthunk(t, "drivers", root, "--driver", "veth")
		if code != exitDone || !strings.Contains(strings.Join(strings.Fields(stdout), " "), " return indirect veth yes n") {
			t.Errorf("%s: exit code %d: %s%s", series, code, stderr, stdout)
		}
	}
}

// The path in a package of arm64 is the one that the kernel in a guest has, but for what only types of a running module tell.
func TestXrayRootAgainstARM64(t *testing.T) {
	program, kernel := armGuest(t, "debian:7.3-cloud-arm64")
	m := guest.Machine{Kernel: kernel, Init: program, Modules: []string{"veth"}}
	report, err := m.Run(t.Context(), guest.Command{Args: strings.Fields("unthunk xray --driver veth --json"), Timeout: 5 * time.Minute})
	if err != nil {
		t.Fatalf("%v; console:\n%s", err, report.Console)
	}
	var live record.Document[record.SiteRow]
	if err := json.Unmarshal(report.Results[0].Stdout, &live); err != nil {
		t.Fatalf("%v: %s", err, report.Results[0].Stderr)
	}
	doc := pathOf(t, kernel.Dir)
	if len(doc.Rows) != len(live.Rows) {
		t.Errorf("%d branches, the kernel in a guest has %d", len(doc.Rows), len(live.Rows))
	}
	if diff := cmp.Diff(doc.Partial, live.Partial); diff != "" {
		t.Errorf("not followed (-in files +in the guest): %s", diff)
	}
	for _, r := range doc.Rows {
		if !slices.ContainsFunc(live.Rows, func(o record.SiteRow) bool {
			return o.Function == r.Function && o.Offset == r.Offset && o.Per == r.Per && o.Always == r.Always && o.Stage == r.Stage &&
				(calls(o) == calls(r) || calls(r) == "" && calls(o) == "sk_buff.destructor")
		}) {
			t.Errorf("not in the guest: %s+%#x calls %q", r.Function, r.Offset, calls(r))
		}
	}
}

// The loader moves instructions of modules out of line on a Cortex-A53, which QEMU's model has the erratum 843419 of, and with
// KASLR their calls go through veneers: each is followed.
func TestDetoursARM64(t *testing.T) {
	program, kernel := armGuest(t, "debian:6.12-cloud-arm64")
	m := guest.Machine{Kernel: kernel, Init: program, CPU: "cortex-a53", Modules: []string{"veth", "xfs", "mlx5_core", "nfsd"},
		Files: map[string]string{"/kernel.test": testOf(t, "internal/kernel", filepath.Dir(program))}}
	runVerbs(t, m, []verb{{"/kernel.test -test.v -test.run ^TestLiveJumps$", []int{exitDone},
		` goes out of line for adrp .* [1-9]\d* detours --- PASS: TestLiveJumps `, ""}})
}

// pathOf is the record of veth's path in a kernel package.
func pathOf(t *testing.T, root string) record.Document[record.SiteRow] {
	t.Helper()
	code, stdout, stderr := unthunk(t, "xray", "--root", root, "--json")
	var doc record.Document[record.SiteRow]
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || code != exitDone {
		t.Fatalf("exit code %d, %v: %s", code, err, stderr)
	}
	return doc
}

// calls is what a row says that its branch calls; "" when that is not known.
func calls(r record.SiteRow) string {
	if r.Pointer == nil {
		return ""
	}
	return *r.Pointer
}

// A base of guests of arm64 judges kernels of arm64: exit codes, and what is unlike. A program's trace is refused before a
// guest is booted.
func TestGateARM64(t *testing.T) {
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	testutil.SkipMissing(t, guest.Available(guest.ARM64))
	cache, err := guest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, kernel := range []string{"debian:6.12-cloud-arm64", "debian:6.18-cloud-arm64", "debian:6.1-cloud-arm64"} {
		if _, err := guest.Resolve(t.Context(), cache, kernel); err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	program, base, of := filepath.Join(dir, "unthunk-arm64"), filepath.Join(dir, "base.json"), filepath.Join(dir, "amd64.json")
	if err := guest.BuildFor(t.Context(), guest.ARM64, testutil.Package("cmd/unthunk"), program); err != nil {
		t.Fatal(err)
	}
	if err := record.Save(of, recordtest.GateLab("debian:6.12-cloud")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		code int
		want string // on standard output or standard error
	}{
		{"gate --save " + base + " --bulk 16 --arch arm64 --guest-program " + program + " debian:6.12-cloud", exitDone, "bulk=16"},
		{"gate --base " + base + " --guest-program " + program + " debian:6.12-cloud", exitDone, "Within: 1 row of the base"},
		{"gate --base " + base + " --unlike config,compiler --guest-program " + program + " debian:6.18-cloud-arm64", exitBeyond,
			"Beyond: redirect-map/bulk=16 "},
		{"gate --base " + base + " --unlike config,compiler --guest-program " + program + " debian:6.1-cloud-arm64", exitCannotTell,
			"KALLSYMS_ALL"},
		{"gate --base " + base + " --arch amd64 debian:6.12-cloud", exitCannotTell, "guests of arm64, and --arch amd64 was asked for"},
		{"gate --base " + base + " " + of, exitCannotTell, "arch"},
		{"gate --base " + base + " --guest-program " + os.Args[0] + " debian:6.12-cloud", exitCannotTell, "guests of arm64 need one of"},
		{"lab debian:6.12-cloud --arch arm64 --guest-program " + program + " --prog " + samples + ":pass --packets udp4 --trace",
			exitMissing, "a trace of a guest of arm64 is missing"},
	} {
		code, stdout, stderr := unthunk(t, strings.Fields(test.args)...)
		said := strings.Join(strings.Fields(stdout+stderr), " ")
		if code != test.code || !strings.Contains(said, test.want) {
			t.Errorf("%s: exit code %d, want %d and %q: %s", test.args, code, test.code, test.want, said)
		}
	}
}

// verb is a command in a guest of arm64, and what it has to say. Out and errs match standard output and standard error, with one
// space for white space.
type verb struct {
	args      string
	exits     []int
	out, errs string
}

// Each verb answers on arm64, or refuses in one line; nothing has a price where the CPU is emulated, by QEMU's own model or
// by one that has the name of hardware.
func TestVerbsARM64(t *testing.T) {
	program, kernel := armGuest(t, "debian:6.12-cloud-arm64")
	tests := testOf(t, "cmd/unthunk", filepath.Dir(program))
	const (
		software = `^unthunk: a CPU of hardware is missing: this one is emulated \(QEMU\), .*$`
		cost     = "unthunk prog cost /sample.o:pass --packets udp4 --quick"
		agent    = "unthunk agent --once --max-load 100"
		warned   = "! the CPU is emulated: times are those of QEMU"
	)
	kpti := map[string]string{"max": "off", "neoverse-n1": "on"}
	for model, verbs := range map[string][]verb{
		"max": {
			{"unthunk check", []int{exitDone}, `cpu emulated \(QEMU's max\) .* indirect-call blr and br.*` +
				"entry-from-user nothing against predictions", ""},
			// All that may run on a veth has a name: by the types of a module, of the kernel, and by the caller of assembly.
			{"unthunk xray", []int{exitDone}, `veth_xdp_rcv_skb[^ ]* packet\? call register sk_buff.destructor ` +
				"program .*bq_xmit_all[^ ]* bulk[^=]* → net_device_ops.ndo_xdp_xmit = veth_ndo_xdp_xmit " +
				`call_on_irq_stack[^ ]* packet\? call register → ____do_softirq \(likely\) = ____do_softirq These are on the path` +
				`.*fq_flush_iotlb[^ ]* packet\? call register → iommu_domain_ops.flush_iotlb_all `, ""},
			{"unthunk drivers /modules", []int{exitDone}, "veth yes no DMA API", ""},
			{"unthunk tax --quick --json", []int{exitFailed},
				`"name": "bpf-prog".*"premise": "bpf_dispatcher_xdp_func\+[^"]* call register; priced by ` +
					`[^}]*"per-packet": \{ "median": 1,`, "no row has a number: the rows say why"},
			{"unthunk prog list", []int{exitDone}, "The kernel has no BPF dispatcher", ""},
			{"unthunk prog xray /sample.o:pass", []int{exitDone}, "indirect branches: 0 in its code", ""},
			{cost, []int{exitMissing}, "", software},
			{"unthunk bench --quick --bulk 16", []int{exitDone}, "redirect-map 16 [0-9].* " + warned, ""},
			{"unthunk profile --rate 200 --rounds 6 --duration 24s", []int{exitDone, exitFailed},
				`bpf_dispatcher_xdp_func\+0x[0-9a-f]+ .* ` + warned, ""},
			{agent, []int{exitMissing}, "", software},
			// Both engines, AF_XDP by copies, forward a flood between veths: each frame that a counter has arrived.
			{"/verbs.test -test.v -test.run ^TestForwardVerb$", []int{exitDone},
				"--- PASS: TestForwardVerb/afxdp .*--- PASS: TestForwardVerb/xdp ", ""},
		},
		"neoverse-n1": {
			{"unthunk check", []int{exitDone}, `virtual-machine yes, QEMU TCG.* cpu Arm Neoverse N1 r4p1.* a switch of page tables ` +
				`\(KPTI\): \d+ instructions before the kernel's own vectors, 18 where user space is entered again`, ""},
			{"unthunk tax --quick --json --pair control,callback,direct-call", []int{exitFailed}, "", "no row has a number: the rows say why"},
			{cost, []int{exitMissing}, "", software},
			{agent, []int{exitMissing}, "", software},
		},
	} {
		t.Run(model, func(t *testing.T) {
			runVerbs(t, guest.Machine{Kernel: kernel, Init: program, CPU: model, Append: "kpti=" + kpti[model], Modules: []string{"veth"},
				Files: map[string]string{"/sample.o": samples, "/verbs.test": tests}}, verbs)
		})
	}
}

// Nothing has a price on an emulated CPU of x86-64 either, and the rule is that of arm64; calls are counted.
func TestVerbsAMD64(t *testing.T) {
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	const refused = `^unthunk: a CPU of hardware is missing: this one is emulated \(QEMU\), .*$`
	m := guest.Machine{Kernel: guesttest.Named(t, "debian:6.12-cloud"), Init: build(t), Modules: []string{"veth"},
		Files: map[string]string{"/sample.o": samples}}
	runVerbs(t, m, []verb{
		{"unthunk tax --quick --json", []int{exitFailed},
			`"name": "ndo-xdp-xmit/bulk=16".* "per-packet": \{ "median": 0.9375.*"name": "packet/bulk=16"`, "no row has a number: the rows say why"},
		{"unthunk prog cost /sample.o:pass --packets udp4 --quick", []int{exitMissing}, "", refused},
		{"unthunk agent --once --max-load 100", []int{exitMissing}, "", refused},
		{"unthunk agent --once --emulated --max-load 100 --json", []int{exitDone}, `"text": "the CPU is emulated: times are those of QEMU`, ""},
		{"unthunk --quick", []int{exitDone},
			"^What a redirect costs was not measured: the CPU is emulated, and its times say nothing of hardware. bulk", ""},
	})
}

// runVerbs runs commands in a guest, and holds what each says against what it has to say.
func runVerbs(t *testing.T, m guest.Machine, verbs []verb) {
	t.Helper()
	var commands []guest.Command
	for _, v := range verbs {
		commands = append(commands, guest.Command{Args: strings.Fields(v.args), Timeout: 5 * time.Minute})
	}
	report, err := m.Run(t.Context(), commands...)
	if err != nil {
		t.Fatalf("%v; console:\n%s", err, report.Console)
	}
	for i, r := range report.Results {
		verbs[i].check(t, r)
	}
}

// What a PMU counts for a packet is what lab counts: in a guest of arm64 whose clock counts instructions, of which its PMU takes each
// for a cycle. So it is with a program of the user's, whose packet takes more.
func TestProfileARM64(t *testing.T) {
	const name = "debian:6.12-cloud-arm64"
	program, kernel := armGuest(t, name)
	m := guest.Machine{Kernel: kernel, Init: program, Exact: true, Modules: []string{"veth", "sch_ingress", "cls_bpf"},
		Files: map[string]string{"/sample.o": samples, "/profile.test": testOf(t, "internal/profile", filepath.Dir(program))}}
	var commands []guest.Command
	for _, args := range []string{
		"/profile.test -test.v -test.run ^TestExactCounters$",
		"unthunk profile --rounds 6 --duration 3s --rate 500 --json",
		"unthunk profile --prog /sample.o:pass --packets udp4 --rounds 6 --duration 3s --rate 500 --json",
	} {
		commands = append(commands, guest.Command{Args: strings.Fields(args), Timeout: 10 * time.Minute})
	}
	report, err := m.Run(t.Context(), commands...)
	if err != nil {
		t.Fatalf("%v; console:\n%s", err, report.Console)
	}
	if r := report.Results[0]; r.Exit != 0 || !strings.Contains(string(r.Stdout), "--- PASS: TestExactCounters ") {
		t.Errorf("%v: exit code %d %s\n%s%s", r.Args, r.Exit, r.Err, r.Stdout, r.Stderr)
	}
	code, stdout, stderr := unthunk(t, "lab", name, "--bulk", "16", "--guest-program", program, "--json")
	var counted record.Lab
	if err := json.Unmarshal([]byte(stdout), &counted); err != nil || code != exitDone || len(counted.Rows) != 1 {
		t.Fatalf("lab: exit code %d, %v: %s%s", code, err, stdout, stderr)
	}
	want := *counted.Rows[0].Instructions
	for _, r := range report.Results[1:] {
		var p record.Profile
		if err := json.Unmarshal(r.Stdout, &p); err != nil || p.Undisturbed == nil || len(p.Counters) != 2 {
			t.Errorf("%v: exit code %d %s, %v, counters %+v\n%s", r.Args, r.Exit, r.Err, err, p.Counters, r.Stderr)
			continue
		}
		cycles, instructions := p.Counters[0].PerPacket.Median, p.Counters[1].PerPacket.Median
		t.Logf("%v: %v cycles, %v instructions in %v ns; lab %v", r.Args, cycles, instructions, p.Undisturbed.Median, want)
		share := 0.005 // ticks are in what the PMU counts
		if slices.Contains(r.Args, "--prog") {
			want, share = p.Undisturbed.Median, 0.02 // what the program passes goes into the stack, where windows differ
		}
		if near := func(x float64) bool { return math.Abs(x-want) < share*want }; !near(cycles) || !near(instructions) {
			t.Errorf("%v: %v cycles and %v instructions a packet, want %v", r.Args, cycles, instructions, want)
		}
	}
}

// testOf builds the tests of a package for guests of arm64 into a folder, and returns the file.
func testOf(t *testing.T, pkg, dir string) string {
	t.Helper()
	path := filepath.Join(dir, filepath.Base(pkg)+".test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", path, testutil.Package(pkg))
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOARCH="+guest.ARM64)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build tests of %s: %v: %s", pkg, err, out)
	}
	return path
}

// armGuest builds unthunk for guests of arm64, and finds a kernel. It skips the test where guests are not asked for, or cannot be had.
func armGuest(t *testing.T, name string) (program string, kernel guest.Kernel) {
	t.Helper()
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	testutil.SkipMissing(t, guest.Available(guest.ARM64))
	kernel = guesttest.Named(t, name)
	dir := t.TempDir()
	program = filepath.Join(dir, "unthunk")
	if err := guest.BuildFor(t.Context(), guest.ARM64, testutil.Package("cmd/unthunk"), program); err != nil {
		t.Fatal(err)
	}
	return program, kernel
}

// check holds a result against what the verb has to say. What a verb refuses is one line; no row of tax has a price.
func (v verb) check(t *testing.T, r guest.Result) {
	t.Helper()
	out, errs := strings.Join(strings.Fields(string(r.Stdout)), " "), strings.TrimSuffix(string(r.Stderr), "\n")
	if r.Err != "" || !slices.Contains(v.exits, r.Exit) || !regexp.MustCompile(v.out).MatchString(out) ||
		!regexp.MustCompile(v.errs).MatchString(errs) {
		t.Errorf("%s: exit code %d %s, want %d, %q and %q; standard output:\n%s\nstandard error:\n%s", v.args, r.Exit, r.Err, v.exits,
			v.out, v.errs, r.Stdout, r.Stderr)
	}
	if r.Exit != exitDone && strings.Contains(errs, "\n") {
		t.Errorf("%s: more than one line: %s", v.args, errs)
	}
	if !strings.HasPrefix(v.args, "unthunk tax ") {
		return
	}
	var doc struct {
		Rows []struct {
			Name, Refused string
			Price         *struct{}
		}
	}
	if err := json.Unmarshal(r.Stdout, &doc); err != nil || len(doc.Rows) == 0 {
		t.Errorf("%s: %d rows, %v", v.args, len(doc.Rows), err)
	}
	for _, row := range doc.Rows {
		if row.Price != nil || row.Refused == "" {
			t.Errorf("%s: %s has a price, or no reason for none: %q", v.args, row.Name, row.Refused)
		}
	}
}

// Models are completed of the architecture that the flag or the kernel says.
func TestCompleteModels(t *testing.T) {
	testutil.SkipMissing(t, guest.Available(guest.AMD64))
	testutil.SkipMissing(t, guest.Available(guest.ARM64))
	for _, test := range []struct{ args, want, not string }{
		{"lab debian:6.12-cloud --cpu-model ", "EPYC", "neoverse-n1"},
		{"lab debian:6.12-cloud-arm64 --cpu-model ", "neoverse-n1", "EPYC"},
		{"lab --arch arm64 --cpu-model ", "neoverse-n1", "EPYC"},
		{"gate --arch amd64 --cpu-model ", "EPYC", "neoverse-n1"},
	} {
		_, stdout, _ := unthunk(t, append([]string{"__complete"}, strings.Split(test.args, " ")...)...)
		models := strings.Fields(stdout)
		if !slices.Contains(models, test.want) || slices.Contains(models, test.not) {
			t.Errorf("%s: %v", test.args, models)
		}
	}
}
