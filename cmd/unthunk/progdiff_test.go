package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/prog"
)

func TestProgDiffRefuses(t *testing.T) {
	testutil.Root(t)
	pass := samples + ":pass"
	var tests []refused
	for _, tt := range []struct {
		name, args string
		code       int
		want       string
	}{
		{"one program", pass + " --packets udp4", exitUsage, "prog diff needs two programs"},
		{"threshold", pass + " " + pass + " --packets udp4 --threshold -1", exitUsage, "a threshold of -1 % is impossible"},
		{"format", pass + " " + pass + " --packets udp4 --format junti", exitUsage, "did you mean junit?"},
		{"two formats", pass + " " + pass + " --packets udp4 --format junit --json", exitUsage, "two outputs"},
		{"no packets", pass + " " + pass, exitUsage, "which packets?"},
		{"another record", "testdata/saved/bench.json " + pass + " --packets udp4", exitUsage, "is a record of bench"},
		{"no record", "nothing.json " + pass + " --packets udp4", exitFailed, "nothing.json"},
		{"no such object", pass + " nothing.o --packets udp4", exitFailed, "there is no file nothing.o"},
		{"overwrites", "testdata/saved/bench.json " + pass + " --save testdata/saved/bench.json", exitUsage, "would overwrite a file"},
	} {
		tests = append(tests, refused{tt.name, append([]string{"diff"}, strings.Fields(tt.args)...), tt.code, tt.want})
	}
	refuses(t, "prog", tests)
}

// Behavior comes before speed; a program that is slower by more than the threshold is exit code 3, and one against
// itself is not.
func TestProgDiff(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "diff.json")
	run := func(args string) (int, string, string) {
		t.Helper()
		code, stdout, stderr := unthunk(t, append([]string{"prog", "diff"}, strings.Fields(args+quicklyReplayed)...)...)
		skipMissing(t, code, stderr)
		return code, stdout, stderr
	}
	code, stdout, stderr := run(samples + ":ttl " + samples + ":encap --packets udp4,arp --save " + file)
	if code != exitRegression || stderr != "" || !strings.Contains(stdout, "BEHAVIOR CHANGED: 1 packet of 2 come out otherwise.") ||
		!strings.Contains(stdout, "60 → 80 bytes") || !strings.Contains(stdout, "Calls that came: helper bpf_xdp_adjust_head") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	saved, err := record.Load(file)
	if err != nil || saved.ProgDiff() == nil || !saved.ProgDiff().Regressed() || saved.ProgDiff().NewProgram.Name != "encap" {
		t.Fatalf("%+v, %v", saved, err)
	}
	code, stdout, stderr = unthunk(t, "report", file, "--format", "markdown")
	if code != exitDone || !strings.Contains(stdout, "Behavior changed: 1 of 2 packets") {
		t.Errorf("report: exit code %d: %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = run(samples + ":ttl " + samples + ":encap --packets udp4,arp --format markdown")
	if code != exitRegression || !strings.Contains(stdout, "- 1 packet: 60 → 80 bytes, first packet 1") {
		t.Errorf("markdown: exit code %d: %s%s", code, stdout, stderr)
	}
	// A random port is no other behavior.
	code, stdout, stderr = run(samples + ":nat " + samples + ":nat --packets udp4 --threshold 50 --format markdown")
	if code != exitDone || strings.Contains(strings.ToLower(stdout), "behavior changed") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	// A saved record, with its packets.
	cost := filepath.Join(dir, "cost.json")
	code, _, stderr = unthunk(t, strings.Fields("prog cost "+samples+":loop --packets udp4 --save "+cost+quicklyReplayed)...)
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	code, stdout, _ = run(cost + " " + samples + ":encap --format junit --threshold 50")
	// So short runs at two times may be too few for a verdict on a busy machine.
	if code != exitRegression && code != exitDone || !strings.Contains(stdout, "the old side is a saved record") ||
		!strings.Contains(stdout, `testcase name="all"`) {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	checkTaken(t, run, dir)
	code, stdout, stderr = run(samples + ":leaf_pass " + samples + ":leaf_drop --packets udp4,arp --threshold 1000")
	if code != exitRegression || !strings.Contains(stdout, "BEHAVIOR CHANGED") {
		t.Errorf("all dropped: exit code %d: %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = run(samples + ":leaf_pass " + samples + ":leaf_drop --packets udp4,arp --threshold 1000 --behavior-may-change")
	if code != exitDone || !strings.Contains(stdout, "BEHAVIOR CHANGED") {
		t.Errorf("all dropped, as is meant: exit code %d: %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr = unthunk(t, "compare", cost, cost); code != exitDone || !strings.Contains(stdout, "no difference seen") {
		t.Errorf("compare: exit code %d: %s%s", code, stdout, stderr)
	}
}

// Where a redirect goes is behavior: to another device is another one, by another entry with the same device it is not.
func TestProgDiffRedirectTargets(t *testing.T) {
	testutil.Root(t)
	object := testutil.Compile(t, "../../internal/program/lines/testdata/redirect.bpf.c")
	dump := filepath.Join(t.TempDir(), "ports.json")
	if err := os.WriteFile(dump, []byte(`[{"key":["0x00","0x00","0x00","0x00"],"value":["0x01","0x00","0x00","0x00"]},
		{"key":["0x01","0x00","0x00","0x00"],"value":["0x01","0x00","0x00","0x00"]}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		old, is string
		code    int
		want    string
	}{
		{"first", "second", exitDone, "All packets come out of both alike: verdict, length, bytes, and where redirects go."},
		{"first", "direct", exitRegression, "1 packet: redirect to device 1 → device 7, first packet 1"},
		{"direct", "everywhere", exitRegression, "1 packet: redirect to device 7 → all of ports, first packet 1"},
		{"random", "random", exitDone, "Whether packets come out otherwise is NOT known: of all 1 something"},
		{"direct", "random", exitRegression, "1 packet: redirect to device 7 → other each time, first packet 1"},
		{"random", "direct", exitRegression, "1 packet: redirect to other each time → device 7, first packet 1"},
		{"tx_marked", "tx_random", exitRegression, "1 packet: bytes always the same → other each time, first packet 1"},
		{"tx_random", "tx_marked", exitRegression, "1 packet: bytes other each time → always the same, first packet 1"},
		{"tx_random", "tx_random", exitDone, "Whether packets come out otherwise is NOT known: of all 1 something"},
		{"random", "random_marked", exitRegression, "1 packet: other bytes"},
		{"everywhere", "elsewhere", exitRegression, "1 packet: redirect to all of ports → all of ports but the ingress, first packet 1"},
		{"pass", "pass", exitDone, "All packets come out of both alike: verdict, length and bytes."},
	} {
		args := "prog diff " + object + ":" + tt.old + " " + object + ":" + tt.is + " --packets udp4 --threshold 1000 --map ports=" + dump +
			quicklyReplayed
		code, stdout, stderr := unthunk(t, strings.Fields(args)...)
		skipMissing(t, code, stderr)
		if code != tt.code || !strings.Contains(strings.Join(strings.Fields(stdout), " "), tt.want) {
			t.Errorf("%s, %s: exit code %d: %s%s", tt.old, tt.is, code, stdout, stderr)
		}
	}
}

// Where the map that redirects go by is empty no packet is redirected: a line says so, with what comes of packets.
func TestProgDiffRedirectsNowhere(t *testing.T) {
	testutil.Root(t)
	code, stdout, stderr := unthunk(t, strings.Fields("prog diff "+samples+":redirect "+samples+":redirect --packets udp4 --threshold 1000"+
		quicklyReplayed)...)
	skipMissing(t, code, stderr)
	const said = "no packet was redirected: entries of the program's maps lead nowhere unless --map or --maps-from fills them (ports). " +
		"Packets came out as drop"
	if code != exitDone || strings.Count(strings.Join(strings.Fields(stdout), " "), said) != 1 || strings.Contains(stderr, "ports") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = unthunk(t, strings.Fields("prog diff "+samples+":pass "+samples+":redirect --packets udp4 --threshold 1000"+
		quicklyReplayed)...)
	if code != exitRegression || strings.Contains(stderr, "ports") ||
		strings.Count(strings.Join(strings.Fields(stdout), " "), "new: "+said) != 1 {
		t.Errorf("of one of them: exit code %d: %s%s", code, stdout, stderr)
	}
	if code, stdout, _ = unthunk(t, strings.Fields("prog diff "+samples+":redirect "+samples+":redirect --packets udp4 --threshold 1000 "+
		"--format junit"+quicklyReplayed)...); code != exitDone || !strings.Contains(stdout, "Where redirects go was NOT compared") {
		t.Errorf("JUnit: exit code %d: %s", code, stdout)
	}
}

// A map of --map may be of one of the two programs: one may have got another name. One of neither is wrong usage.
func TestProgDiffMapOfOne(t *testing.T) {
	testutil.Root(t)
	dump := filepath.Join(t.TempDir(), "ports.json")
	if err := os.WriteFile(dump, []byte(`[{"key":["0x00","0x00","0x00","0x00"],"value":["0x01","0x00","0x00","0x00"]}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	args := "prog diff " + samples + ":pass " + samples + ":redirect --packets udp4 --threshold 1000 --map ports=" + dump + quicklyReplayed
	code, stdout, stderr := unthunk(t, strings.Fields(args)...)
	skipMissing(t, code, stderr)
	if code != exitRegression || !strings.Contains(stdout, "pass → redirect") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	code, _, stderr = unthunk(t, strings.Fields(args+" --map nomap="+dump)...)
	if code != exitUsage || !strings.Contains(stderr, "--map nomap: neither program uses a map of this name") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// What is so of both programs is said once, all else of which it is.
func TestTellAll(t *testing.T) {
	t.Parallel()
	old := &program.Opened{Warnings: []string{"maps are empty: a", "both"}}
	is := &program.Opened{Warnings: []string{"both"}, Copies: []program.Copy{{Map: "m", Why: "why"}}}
	var said strings.Builder
	tellAll(std{err: &said}, []string{"old.o", "new.o"}, []*program.Opened{old, is})
	want := "warning: old.o: maps are empty: a\nwarning: both\nwarning: new.o: map m is not copied whole: why\n"
	if said.String() != want {
		t.Errorf("%q, want %q", said.String(), want)
	}
}

// Calls are compared in all programs that tail calls reach: two programs that differ in such a target only do not call the same.
func TestProgDiffCallsOfTailCalls(t *testing.T) {
	testutil.Root(t)
	open := func(target string) *program.Opened {
		t.Helper()
		parsed, err := program.Parse(samples + ":tailcall")
		if err != nil {
			t.Fatal(err)
		}
		o, err := parsed.Open(t.Context(), program.Options{TailCalls: map[string]map[uint32]string{"table": {0: target}}})
		testutil.SkipMissing(t, err)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { o.Close() })
		return o
	}
	leaf, other, again := open("leaf_tx"), open("encap"), open("encap")
	codes, _ := readWhole(t.Context(), []*program.Opened{leaf, other})
	if codes == nil {
		t.Fatal("the code cannot be read")
	}
	came := slices.ContainsFunc(callChanges(codes), func(c record.CallChange) bool {
		return c.Name == "helper bpf_xdp_adjust_head" && c.Old == 0 && c.New == 1
	})
	var id record.ProgramIdentity
	codes[1].addTo(&id)
	if !came || id.Programs != 4 || id.AllBytes <= codes[0].bytes || codes[0].programs != 4 {
		t.Errorf("calls %+v, %+v", callChanges(codes), id)
	}
	if codes, _ = readWhole(t.Context(), []*program.Opened{other, again}); len(callChanges(codes)) != 0 {
		t.Errorf("of the same program: %+v", callChanges(codes))
	}
}

// checkTaken checks that what the user does not say of a replay is that of the record, and that a folder's name stays out.
func checkTaken(t *testing.T, run func(string) (int, string, string), dir string) {
	t.Helper()
	cost, again := filepath.Join(dir, "cold.json"), filepath.Join(dir, "again.json")
	packets := filepath.Join(dir, "taken.pcap")
	capture := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4) // pcap, as libpcap's savefile(5) has it
	for _, word := range []uint32{4<<16 | 2, 0, 0, 65535, 1, 0, 0, 60, 60} {
		capture = binary.LittleEndian.AppendUint32(capture, word)
	}
	if err := os.WriteFile(packets, append(capture, make([]byte, 60)...), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := unthunk(t, strings.Fields("prog cost "+samples+":loop --packets "+packets+
		" --cold --working-set 8 --metadata 01020304 --save "+cost+quicklyReplayed)...)
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	code, _, stderr = run(cost + " " + samples + ":loop")
	if code != exitUsage || !strings.Contains(stderr, "a file taken.pcap, which is no file in this folder: --packets") {
		t.Errorf("packets elsewhere: exit code %d: %s", code, stderr)
	}
	for args, want := range map[string]string{
		"--set turns=1000 --packets " + packets: "with --set none, this run would be with turns=1000",
		"--packets udp4":                        "on other packets: 1 of taken.pcap",
	} {
		if code, _, stderr = run(cost + " " + samples + ":loop " + args); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d: %s", args, code, stderr)
		}
	}
	// Cold runs of two times may be too few for a verdict.
	_, stdout, stderr := run(cost + " " + samples + ":loop --threshold 1000 --packets " + packets + " --save " + again)
	if strings.Contains(stdout+stderr, "asked for different") {
		t.Errorf("%s%s", stdout, stderr)
	}
	b, err := os.ReadFile(again)
	if err != nil || strings.Contains(string(b), packets) || !strings.Contains(string(b), `"metadata": "01020304"`) ||
		!strings.Contains(string(b), `"working-set": "8"`) || !strings.Contains(string(b), `"cold": "`) {
		t.Errorf("%s (%v)", b, err)
	}
}

// A record of a program that ran in another network namespace is not compared: lookups find other things there.
func TestProgDiffSavedNamespace(t *testing.T) {
	t.Parallel()
	packets, err := prog.MakePackets("udp4")
	if err != nil {
		t.Fatal(err)
	}
	f := &diffFlags{replay: replayFlags{packets: "udp4"}}
	doc := recordtest.Cost("a", 1, 1)
	doc.Packets = f.replay.source(packets)
	for _, was := range []string{"", "own"} {
		for _, is := range []string{"", "own"} {
			doc.Settings = map[string]string{ownNamespace: was}
			err := f.same(record.NewSaved(doc), map[string]string{ownNamespace: is}, packets)
			if (err != nil) != (was != is) || err != nil && !strings.Contains(err.Error(), "network namespace") {
				t.Errorf("was %q, is %q: %v", was, is, err)
			}
		}
	}
}
