package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/testutil"
)

// verb is a command in a guest of arm64, and what it has to say. Out and errs match standard output and standard error, with one
// space for white space.
type verb struct {
	args      string
	exits     []int
	out, errs string
}

// What an emulated CPU has no price for is refused, and what is measured says so. Guests of guests need QEMU in them.
const (
	refusedSoftware = `^unthunk: a CPU of hardware is missing: this one is emulated \(QEMU\), .*$`
	warnedSoftware  = "! the CPU is emulated: times are those of QEMU"
	noRowSoftware   = "no row has a number: the rows say why"
	costSoftware    = "unthunk prog cost /sample.o:pass --packets udp4 --quick"
	agentSoftware   = "unthunk agent --once --max-load 100"
	lacksQEMU       = "^unthunk: qemu-system-aarch64 is missing: install qemu-system-arm$"
)

// programModules are what a program on a chain of veths needs, where it passes packets.
var programModules = []string{"veth", "sch_ingress", "cls_bpf"}

// verbTests are the tests, in the order in which they end, that run a verb in the guest whose devices they make: both engines of
// forward, AF_XDP by copies, and each frame that a counter has arrived.
var verbTests = []struct{ verb, test string }{
	{"forward", "TestForwardVerb/afxdp"}, {"forward", "TestForwardVerb/xdp"}, {"prog record", "TestProgRecord"},
	{"prog watch", "TestProgWatch"},
}

// verbTestsScript runs verbTests. Each has to pass: one that is skipped does not.
func verbTestsScript() verb {
	var tests, passed []string
	for _, v := range verbTests {
		test, _, _ := strings.Cut(v.test, "/")
		tests = append(tests, test)
		passed = append(passed, "--- PASS: "+v.test+" ")
	}
	return verb{"/verbs.test -test.v -test.run ^(" + strings.Join(slices.Compact(tests), "|") + ")$", []int{exitDone},
		strings.Join(passed, ".*"), ""}
}

// scriptsARM64 are what guests of arm64 are asked, by CPU model.
func scriptsARM64() map[string][]verb {
	done, missing := []int{exitDone}, []int{exitMissing}
	return map[string][]verb{
		"max": {
			{"unthunk version", done, "build .* linux/arm64 ", ""},
			{"unthunk help prog cost", done, "in ns, on your packets", ""},
			{"unthunk completion bash", done, "__unthunk_debug", ""},
			{"unthunk man /tmp/man", done, `^\d\d pages in /tmp/man$`, ""},
			{"unthunk check", done, `cpu emulated \(QEMU's max\) .* indirect-call blr and br.*` +
				"entry-from-user nothing against predictions", ""},
			{"unthunk --quick --save /tmp/quick.json", done,
				"^What a redirect costs was not measured: the CPU is emulated, and its times say nothing of hardware. bulk", ""},
			{"unthunk run --rounds 2 --duration 2s --json", done, `"kind": "run".*"name": "redirect-map/bulk=64"`, ""},
			{"unthunk bench --quick --bulk 16 --save /tmp/bench.json", done, "redirect-map 16 [0-9].* " + warnedSoftware, ""},
			{"unthunk bench --quick --bulk 16 --prog /sample.o:pass", done, "pass.* " + warnedSoftware, ""},
			{"unthunk history /tmp", done, "^2 records, too few to tell .* redirect-map/bulk=16 ", ""},
			{"unthunk compare /tmp/bench.json /tmp/bench.json", done,
				`no difference seen \(would have seen 0.00 %\).*There is no difference between the machines`, ""},
			{"unthunk report /tmp/quick.json --format markdown", done, "^# What a redirect costs was not measured.*redirect-map/bulk=64 ", ""},
			// All that may run on a veth has a name: by the types of a module, of the kernel, and by the caller of assembly.
			{"unthunk xray", done, `veth_xdp_rcv_skb[^ ]* packet\? call register sk_buff.destructor ` +
				"program .*bq_xmit_all[^ ]* bulk[^=]* → net_device_ops.ndo_xdp_xmit = veth_ndo_xdp_xmit " +
				`call_on_irq_stack[^ ]* packet\? call register → ____do_softirq \(likely\) = ____do_softirq These are on the path` +
				`.*fq_flush_iotlb[^ ]* packet\? call register → iommu_domain_ops.flush_iotlb_all `, ""},
			{"unthunk drivers /modules", done, "veth yes no DMA API", ""},
			{"unthunk tax --quick --json", []int{exitFailed},
				`"name": "bpf-prog".*"premise": "bpf_dispatcher_xdp_func\+[^"]* call register; priced by ` +
					`[^}]*"per-packet": \{ "median": 1,`, noRowSoftware},
			{"unthunk prog list", done, "The kernel has no BPF dispatcher", ""},
			{"unthunk prog xray /sample.o:pass", done, "indirect branches: 0 in its code", ""},
			{costSoftware, missing, "", refusedSoftware},
			{"unthunk prog diff /sample.o:ttl /sample.o:encap --packets udp4 --quick", missing, "", refusedSoftware},
			{"unthunk profile --rate 200 --rounds 6 --duration 24s", []int{exitDone, exitFailed},
				`bpf_dispatcher_xdp_func\+0x[0-9a-f]+ .* ` + warnedSoftware, ""},
			{agentSoftware, missing, "", refusedSoftware},
			// The store is SQLite's; the records are of machines that there are not.
			{"unthunk fleet ingest --store /tmp/fleet.db /records", done, "^Of 60 documents 60 are new", ""},
			{"unthunk fleet who --store /tmp/fleet.db", done, "40 machines in 3 groups", ""},
			{"unthunk fleet odd --store /tmp/fleet.db", done, "edge-33 -4.*boot-params: mitigations=off", ""},
			{"unthunk fleet compare --store /tmp/fleet.db --base kernel=6.12 --canary kernel=6.18", []int{exitRegression},
				"slower than the base", ""},
			{"unthunk fleet report --store /tmp/fleet.db -o /tmp/fleet.html", done, "^$", ""},
			{"unthunk lab /Image", missing, "", lacksQEMU},
			{"unthunk gate --save /tmp/base.json /Image", []int{exitCannotTell}, "", lacksQEMU},
			verbTestsScript(),
		},
		"neoverse-n1": {
			{"unthunk check", done, `virtual-machine yes, QEMU TCG.* cpu Arm Neoverse N1 r4p1.* a switch of page tables ` +
				`\(KPTI\): \d+ instructions before the kernel's own vectors, 18 where user space is entered again`, ""},
			{"unthunk tax --quick --json --pair control,callback,direct-call", []int{exitFailed}, "", noRowSoftware},
			{costSoftware, missing, "", refusedSoftware},
			{agentSoftware, missing, "", refusedSoftware},
		},
	}
}

// exactScriptARM64 is what a guest of arm64 is asked whose clock counts instructions. Elsewhere the agent's limits of time end it:
// an emulated CPU takes ten times as long to read the kernel's code, and more on a machine with other work.
func exactScriptARM64() []verb {
	return []verb{
		{"unthunk agent --once --emulated --max-load 100 --state /tmp/state --records /tmp/records", []int{exitDone},
			`callback/loop +\d.* bulk 16 +\d.* Redirect path of veth, indirect branches: 1 a packet, .*` + warnedSoftware, ""},
		{"unthunk fleet ingest --store /tmp/fleet.db /tmp/records", []int{exitDone}, "^Of 1 document 1 are new", ""},
		{"unthunk fleet who --store /tmp/fleet.db", []int{exitDone}, "1 of 1 have numbers.*a call: direct-call ", ""},
	}
}

// gateScript is a command on this machine whose guests are of arm64, and what matches what it says: standard output and standard error,
// with one space for white space.
type gateScript struct {
	args string
	code int
	want string
}

// gateScriptsARM64 have an unthunk of arm64, a base that they save, and a record of guests of x86-64.
func gateScriptsARM64(program, base, of string) []gateScript {
	return []gateScript{
		{"gate --save " + base + " --bulk 16 --arch arm64 --guest-program " + program + " debian:6.12-cloud", exitDone, "bulk=16"},
		{"gate --base " + base + " --guest-program " + program + " debian:6.12-cloud", exitDone, "Within: 1 row of the base"},
		{"gate --base " + base + " --unlike config,compiler --guest-program " + program + " debian:6.18-cloud-arm64", exitBeyond,
			"Beyond: redirect-map/bulk=16 "},
		{"gate --base " + base + " --unlike config,compiler --guest-program " + program + " debian:6.1-cloud-arm64", exitCannotTell,
			"KALLSYMS_ALL"},
		{"gate --base " + base + " --arch amd64 debian:6.12-cloud", exitCannotTell, "guests of arm64, and --arch amd64 was asked for"},
		{"gate --base " + base + " " + of, exitCannotTell, "arch"},
		{"gate --base " + base + " --guest-program " + os.Args[0] + " debian:6.12-cloud", exitCannotTell, "guests of arm64 need one of"},
		{"lab debian:6.12-cloud --arch arm64 --guest-program " + program + " --prog " + samples + ":encap --packets udp4", exitDone,
			`all 1 100 % ([1-9]\d*) \d+ \d+ tx`},
		{"lab debian:6.12-cloud --arch arm64 --guest-program " + program + " --prog " + samples + ":pass --packets udp4 --trace",
			exitMissing, "a trace of a guest of arm64 is missing"},
	}
}

// Each verb that help lists is run on arm64.
func TestScriptsARM64(t *testing.T) {
	t.Parallel()
	root := newRoot(std{})
	ran := make(map[string]bool)
	for _, v := range verbTests {
		ran[v.verb] = true
	}
	note := func(args []string) {
		cmd, _, err := root.Find(args)
		if err != nil {
			t.Error(err)
			return
		}
		ran[verbOf(cmd)] = true
	}
	for script := range maps.Values(scriptsARM64()) {
		for _, v := range script {
			if args, own := strings.CutPrefix(v.args, "unthunk "); own {
				note(strings.Fields(args))
			}
		}
	}
	for _, s := range gateScriptsARM64("program", "base", "of") {
		note(strings.Fields(s.args))
	}
	for _, cmd := range verbs(root) {
		if cmd.Hidden || grouping(cmd) {
			continue
		}
		if name := verbOf(cmd); !ran[name] {
			t.Errorf("%s: no script of arm64 has it: add one to scriptsARM64", name)
		}
	}
}

// Each verb answers on arm64, or refuses in one line; nothing has a price where the CPU is emulated, by QEMU's own model or
// by one that has the name of hardware.
func TestVerbsARM64(t *testing.T) {
	program, kernel := armGuest(t, "debian:6.12-cloud-arm64")
	tests := testOf(t, "cmd/unthunk", filepath.Dir(program))
	kpti := map[string]string{"max": "off", "neoverse-n1": "on"}
	data := make(map[string][]byte)
	for _, a := range rollout() {
		data["/records/"+a.Run+".json"] = []byte(recordtest.Marshal(t, a))
	}
	for model, script := range scriptsARM64() {
		t.Run(model, func(t *testing.T) {
			runVerbs(t, guest.Machine{Kernel: kernel, Init: program, CPU: model, Append: "kpti=" + kpti[model], Modules: programModules,
				Files: map[string]string{"/sample.o": samples, "/verbs.test": tests, "/Image": arm64Image(t)}, Data: data}, script)
		})
	}
}

// Nothing has a price on an emulated CPU of x86-64 either, and the rule is that of arm64; calls are counted.
func TestVerbsAMD64(t *testing.T) {
	if os.Getenv("UNTHUNK_GUEST") == "" {
		testutil.Missing(t, "guest kernels (make test-kernels)")
	}
	m := guest.Machine{Kernel: guesttest.Named(t, "debian:6.12-cloud"), Init: build(t), Modules: []string{"veth"},
		Files: map[string]string{"/sample.o": samples}}
	runVerbs(t, m, []verb{
		{"unthunk tax --quick --json", []int{exitFailed},
			`"name": "ndo-xdp-xmit/bulk=16".* "per-packet": \{ "median": 0.9375.*"name": "packet/bulk=16"`, noRowSoftware},
		{costSoftware, []int{exitMissing}, "", refusedSoftware},
		{agentSoftware, []int{exitMissing}, "", refusedSoftware},
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
