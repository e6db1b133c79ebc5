package main

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
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

// A binary for arm64 says of a kernel package what one for x86-64 does, of either architecture.
func TestXrayRootByARM64(t *testing.T) {
	testutil.Slow(t)
	qemu, err := exec.LookPath("qemu-aarch64-static")
	if err != nil || runtime.GOARCH != guest.AMD64 {
		testutil.Missing(t, "qemu-aarch64-static on x86-64")
	}
	program := filepath.Join(t.TempDir(), "unthunk")
	if err := guest.BuildFor(t.Context(), guest.ARM64, testutil.Package("cmd/unthunk"), program); err != nil {
		t.Fatal(err)
	}
	for _, kernel := range []string{"debian:6.12-cloud", "debian:6.12-cloud-arm64"} {
		root := guesttest.Named(t, kernel).Dir
		cmd := exec.CommandContext(t.Context(), qemu, program, "xray", "--root", root, "--json")
		cmd.Stderr = new(strings.Builder)
		stdout, err := cmd.Output()
		var doc record.Document[record.SiteRow]
		if err := errors.Join(err, json.Unmarshal(stdout, &doc)); err != nil {
			t.Fatalf("%s: %v: %s", kernel, err, cmd.Stderr)
		}
		want := pathOf(t, root)
		if diff := cmp.Diff(want.Rows, doc.Rows); diff != "" {
			t.Errorf("%s: rows (-x86-64 +arm64): %s", kernel, diff)
		}
		if diff := cmp.Diff(want.Partial, doc.Partial); diff != "" {
			t.Errorf("%s: not followed (-x86-64 +arm64): %s", kernel, diff)
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
	for _, test := range gateScriptsARM64(program, base, of) {
		code, stdout, stderr := unthunk(t, strings.Fields(test.args)...)
		said := strings.Join(strings.Fields(stdout+stderr), " ")
		if code != test.code || !regexp.MustCompile(test.want).MatchString(said) {
			t.Errorf("%s: exit code %d, want %d and %q: %s", test.args, code, test.code, test.want, said)
		}
	}
}

// What a PMU counts for a packet is what lab counts: in a guest of arm64 whose clock counts instructions, of which its PMU takes each
// for a cycle. So it is with a program of the user's, whose packet takes more. The agent reads and measures there, too.
func TestProfileARM64(t *testing.T) {
	const name = "debian:6.12-cloud-arm64"
	program, kernel := armGuest(t, name)
	m := guest.Machine{Kernel: kernel, Init: program, Exact: true, Modules: programModules,
		Files: map[string]string{"/sample.o": samples, "/profile.test": testOf(t, "internal/profile", filepath.Dir(program))}}
	profiles := []verb{
		{args: "unthunk profile --rounds 6 --duration 3s --rate 500 --json"},
		{args: "unthunk profile --prog /sample.o:pass --packets udp4 --rounds 6 --duration 3s --rate 500 --json"},
	}
	script := slices.Concat([]verb{{args: "/profile.test -test.v -test.run ^TestExactCounters$"}}, profiles, exactScriptARM64())
	var commands []guest.Command
	for _, v := range script {
		commands = append(commands, guest.Command{Args: strings.Fields(v.args), Timeout: 10 * time.Minute})
	}
	report, err := m.Run(t.Context(), commands...)
	if err != nil {
		t.Fatalf("%v; console:\n%s", err, report.Console)
	}
	if r := report.Results[0]; r.Exit != 0 || !strings.Contains(string(r.Stdout), "--- PASS: TestExactCounters ") {
		t.Errorf("%v: exit code %d %s\n%s%s", r.Args, r.Exit, r.Err, r.Stdout, r.Stderr)
	}
	for i, v := range exactScriptARM64() {
		v.check(t, report.Results[1+len(profiles)+i])
	}
	code, stdout, stderr := unthunk(t, "lab", name, "--bulk", "16", "--guest-program", program, "--json")
	var counted record.Lab
	if err := json.Unmarshal([]byte(stdout), &counted); err != nil || code != exitDone || len(counted.Rows) != 1 {
		t.Fatalf("lab: exit code %d, %v: %s%s", code, err, stdout, stderr)
	}
	want := *counted.Rows[0].Instructions
	for _, r := range report.Results[1 : 1+len(profiles)] {
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
