package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/guest/guesttest"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestXrayRefuses(t *testing.T) {
	testutil.Root(t)
	refuses(t, "xray", []refused{
		{"argument", []string{"veth"}, exitUsage, `"veth"`},
		{"two views", []string{"--asm", "x", "--all"}, exitUsage, "choose one"},
		{"view and record", []string{"--all", "--save", "x.json"}, exitUsage, "--save does not go with --all"},
		{"graph and JSON", []string{"--dot", "--json"}, exitUsage, "--json and --dot are two outputs"},
		{"view and device", []string{"--func", "x", "--dev", "lo"}, exitUsage, "--dev"},
		{"no name", []string{"--asm", ""}, exitUsage, "--asm is empty"},
		{"no device", []string{"--dev", "no-such-dev"}, exitFailed, "no-such-dev"},
		{"no function", []string{"--asm", "no_such_function"}, exitFailed, "no function no_such_function"},
		{"name of the path", []string{"--asm", "xdp_do_redirct"}, exitFailed, "did you mean xdp_do_redirect?"},
		{"name of the kernel", []string{"--func", "schedule_timeoutt"}, exitFailed, "did you mean schedule_timeout?"},
		{"data", []string{"--func", "jiffies"}, exitFailed, "no function jiffies"},
	})
}

// The command contract of --json, what must be on the path of any veth, and that
// compare reads what --save writes.
func TestXrayJSON(t *testing.T) {
	testutil.Root(t)
	file := filepath.Join(t.TempDir(), "xray.json")
	code, stdout, stderr := unthunk(t, "xray", "--json", "--save", file)
	skipMissing(t, code, stderr)
	if code != exitDone || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var doc struct {
		Schema, Kind string
		Rows         []struct {
			Name, Function, Kind, Per, Stage, Sure string
			Offset                                 *uint64
			Calls                                  *string
			Targets, Via                           []string
		}
	}
	dec := json.NewDecoder(strings.NewReader(stdout))
	if err := dec.Decode(&doc); err != nil || dec.More() {
		t.Fatalf("%v, more %v", err, dec.More())
	}
	if doc.Schema != record.Schema || doc.Kind != "xray" {
		t.Errorf("schema %q, kind %q", doc.Schema, doc.Kind)
	}
	seen := make(map[string]bool)
	for _, row := range doc.Rows {
		if seen[row.Name] || row.Function == "" || row.Offset == nil || row.Kind == "" || row.Per == "" || row.Stage == "" || len(row.Via) == 0 {
			t.Errorf("%+v", row)
		}
		if (row.Calls == nil) != (row.Sure == "unknown") {
			t.Errorf("%s: calls %v, sure %s", row.Name, row.Calls, row.Sure)
		}
		seen[row.Name] = true
		if row.Calls == nil {
			continue
		}
		switch *row.Calls {
		case "net_device.netdev_ops → net_device_ops.ndo_xdp_xmit":
			if row.Per != "bulk" || len(row.Targets) != 1 || !strings.HasPrefix(row.Targets[0], "veth_") {
				t.Errorf("%+v", row)
			}
		case "napi_struct.poll":
			if row.Per != "poll" || len(row.Targets) != 1 || row.Targets[0] != "veth_poll" {
				t.Errorf("%+v", row)
			}
		}
	}
	found := func(pattern string) bool {
		for name := range seen {
			if regexp.MustCompile(pattern).MatchString(name) {
				return true
			}
		}
		return false
	}
	for _, want := range []string{`^__napi_poll/napi_struct\.poll`, `/net_device_ops\.ndo_xdp_xmit$`} {
		if !found(want) {
			t.Errorf("nothing matches %s", want)
		}
	}
	if code, stdout, stderr := unthunk(t, "compare", file, file); code != exitDone || !strings.Contains(stdout, "0 new, 0 gone, 0 changed") {
		t.Errorf("exit code %d: %s\n%s", code, stderr, stdout)
	}
}

func TestXrayViews(t *testing.T) {
	testutil.Root(t)
	for _, test := range []struct{ args, want string }{
		{"", `net_device_ops\.ndo_xdp_xmit = veth_`},
		{"--rare", `\brare\b`},
		{"--dot", `(?s)^digraph path \{.*ndo_xdp_xmit.*\}\n$`},
		{"--asm __x86_indirect_thunk_rax", `target|predictor`}, // with retpolines or without
		{"--func xdp_do_redirect", `xdp_do_redirect: \d+ branches`},
		{"--all", `(?s)functions in.*direct +\d+`},
	} {
		code, stdout, stderr := unthunk(t, append([]string{"xray"}, strings.Fields(test.args)...)...)
		skipMissing(t, code, stderr)
		if code != exitDone || !regexp.MustCompile(test.want).MatchString(stdout) {
			t.Errorf("xray %s: exit code %d, nothing matches %s: %s\n%s", test.args, code, test.want, stderr, stdout)
		}
	}
}

// Views of code are JSON too, and hold what the text leaves out.
func TestXrayViewsJSON(t *testing.T) {
	testutil.Root(t)
	for _, test := range []struct {
		args []string
		ok   func(*record.Code) bool
	}{
		{[]string{"--asm", "__x86_indirect_thunk_rax"}, func(c *record.Code) bool {
			return c.Function == "__x86_indirect_thunk_rax" && c.Address != 0 && len(c.Lines) > 1 && c.Lines[1].Offset > 0
		}},
		{[]string{"--func", "bq_xmit_all"}, func(c *record.Code) bool {
			return slices.ContainsFunc(c.Branches, func(b record.CodeBranch) bool { return b.Within && b.Conditional }) &&
				slices.ContainsFunc(c.Branches, func(b record.CodeBranch) bool { return b.Verb == "ret" }) &&
				slices.ContainsFunc(c.Branches, func(b record.CodeBranch) bool { return b.Indirect && b.Verb == "call" })
		}},
		{[]string{"--all"}, func(c *record.Code) bool {
			return c.Totals != nil && c.Totals.Live && c.Totals.Functions > 1000 && c.Totals.Classes["direct"] > 1000
		}},
	} {
		code, stdout, stderr := unthunk(t, append([]string{"xray", "--json"}, test.args...)...)
		skipMissing(t, code, stderr)
		var c record.Code
		err := json.Unmarshal([]byte(stdout), &c)
		if code != exitDone || err != nil || c.Kind != "code" || c.Schema != record.Schema || !test.ok(&c) {
			t.Errorf("%v: exit code %d, %v: %s\n%.2000s", test.args, code, err, stderr, stdout)
		}
	}
}

// Another kernel in a folder, by driver: the same path, from files alone.
func TestXrayRoot(t *testing.T) {
	old, new := guesttest.Kernel(t, "6.1"), guesttest.Kernel(t, "6.12")
	dir := t.TempDir()
	for name, root := range map[string]string{"old": old, "new": new} {
		code, stdout, stderr := unthunk(t, "xray", "--root", root, "--driver", "virtio_net", "--save", filepath.Join(dir, name))
		if code != exitDone || !strings.Contains(stdout, "virtnet_poll is its poll") || !strings.Contains(stdout, "net_device_ops.ndo_xdp_xmit") {
			t.Errorf("exit code %d: %s\n%s", code, stderr, stdout)
		}
	}
	code, stdout, stderr := unthunk(t, "compare", filepath.Join(dir, "old"), filepath.Join(dir, "new"))
	if code != exitDone || !strings.Contains(stdout, "as they were") || !strings.Contains(stdout, "kernel  6.1") {
		t.Errorf("exit code %d: %s\n%s", code, stderr, stdout)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--root", dir}, "no boot/vmlinuz"},
		{[]string{"--root", old, "--driver", "no_such_driver"}, "no_such_driver"},
		{[]string{"--root", old, "--func", "no_such_function"}, "no function"},
	} {
		code, _, stderr := unthunk(t, append([]string{"xray"}, test.args...)...)
		if code != exitFailed || !strings.Contains(stderr, test.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit code %d: %s", test.args, code, stderr)
		}
	}
}

// labRecord is a record of lab of one guest, which executed ndo_xdp_xmit at an offset that no
// kernel has: the branch is found by what it calls.
func labRecord(t *testing.T, release string) string {
	t.Helper()
	return writeFile(t, `{"schema":"unthunk/1","kind":"lab","time":"2026-01-01T00:00:00Z","run":"a","host":{},"rows":[
{"name":"made/bulk=16","labels":{"kernel":"made","nic":"veth","bulk":"16"},"release":"`+release+`","thunk":"retpoline",
"spectre-v2":"","instructions":10,"calls":0.3125,"sites":[
{"function":"bq_xmit_all","offset":1,"kind":"thunk","stage":"bulk-queue","calls":"net_device_ops.ndo_xdp_xmit","per-packet":0.125},
{"function":"made_up","offset":2,"kind":"thunk","stage":"receive","per-packet":0.1875}],
"counts":{},"functions":[]}],"warnings":[],"differences":[],"price":null}`)
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "record.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestXrayCountsRefuses(t *testing.T) {
	testutil.Root(t)
	lab := labRecord(t, "0.0.0-other")
	sites := writeFile(t, `{"schema":"unthunk/1","kind":"xray","time":"2026-01-01T00:00:00Z","run":"a","host":{},"rows":[],"warnings":[]}`)
	refuses(t, "xray", []refused{
		{"another kernel", []string{"--counts", lab}, exitUsage, "only of Linux 0.0.0-other"},
		{"another record", []string{"--counts", sites}, exitUsage, "is a record of xray: give one of lab"},
		{"no file", []string{"--counts", "no-such-file"}, exitFailed, "no-such-file"},
		{"row alone", []string{"--row", "made"}, exitUsage, "--row goes with --counts"},
		{"no such row", []string{"--counts", lab, "--row", "nope"}, exitUsage, "it has no row nope, but made/bulk=16"},
		{"onto itself", []string{"--counts", lab, "--save", lab}, exitUsage, "would overwrite"},
		{"view", []string{"--counts", lab, "--all"}, exitUsage, "--counts does not go with --all"},
	})
}

// Counts of a guest of the same kernel stand beside the branches, and add up to what the
// guest counted.
func TestXrayCounts(t *testing.T) {
	testutil.Root(t)
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	lab, file := labRecord(t, strings.TrimSpace(string(release))), filepath.Join(t.TempDir(), "xray.json")
	code, stdout, stderr := unthunk(t, "xray", "--counts", lab, "--save", file)
	skipMissing(t, code, stderr)
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	said := strings.Join(strings.Fields(stdout), " ")
	for _, want := range []string{"Counted: 5 indirect branches in 16 packets (0.3125 a packet)", "0.1875 made_up+0x2"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in:\n%s", want, stdout)
		}
	}
	saved, err := record.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, row := range saved.Sites().Rows {
		if row.PerPacket != nil {
			sum += *row.PerPacket
		}
	}
	for _, s := range saved.Sites().Counts.Others {
		sum += s.PerPacket
	}
	if sum != 0.3125 || len(saved.Sites().Counts.Others) != 1 {
		t.Errorf("the counts add up to %v: %+v", sum, saved.Sites().Counts)
	}
	code, stdout, stderr = unthunk(t, "report", file, "--format", "markdown")
	if code != exitDone || !strings.Contains(stdout, "1 in 8 packets") {
		t.Errorf("exit code %d: %s\n%s", code, stderr, stdout)
	}
}

// A veth maps no memory for DMA: the branches of the DMA API are apart from the others, and
// the sum, which counts two at most for a packet besides the program's, does not have them.
func TestXrayCannotRun(t *testing.T) {
	testutil.Root(t)
	file := filepath.Join(t.TempDir(), "xray.json")
	code, stdout, stderr := unthunk(t, "xray", "--save", file)
	skipMissing(t, code, stderr)
	saved, err := record.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	apart, packet := 0, 0
	for _, row := range saved.Sites().Rows {
		switch {
		case row.Stage == "dma" && row.CannotRun != "a veth maps no memory for DMA", row.Stage != "dma" && row.CannotRun != "":
			t.Errorf("%s of stage %s: %q", row.Name, row.Stage, row.CannotRun)
		case row.CannotRun != "" && row.Per != "rare":
			apart++
		case row.Per == "packet":
			packet++
		}
	}
	said := strings.Join(strings.Fields(stdout), " ")
	if apart > 0 != strings.Contains(said, "These are on the path in code and cannot run here: a veth maps no memory for DMA.") {
		t.Errorf("%d branches cannot run:\n%s", apart, stdout)
	}
	if !strings.Contains(said, "Indirect branches: per packet "+strconv.Itoa(packet)+" that may run") {
		t.Errorf("%d branches may run for a packet:\n%s", packet, stdout)
	}
}
