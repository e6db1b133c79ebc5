package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

// samples is an object file with programs such as users write.
const samples = "../../internal/bpf/sample/sample_bpfel.o"

// quicklyReplayed is a run that shows that it runs.
const quicklyReplayed = " --rounds 6 --duration 1s"

// What cannot be replayed is refused in one line.
func TestProgCostRefuses(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	header := func(link uint32) []byte {
		b := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
		b = append(b, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, 65535), link)
	}
	text, none, wifi := write("text.pcap", []byte("this is a text")), write("none.pcap", header(1)), write("wifi.pcap", header(105))
	gz := write("p.pcap.gz", []byte{0x1f, 0x8b, 8, 0})
	pass := samples + ":pass"
	var tests []refused
	for _, tt := range []struct {
		name, args string
		code       int
		want       string
	}{
		{"no target", "--packets udp4", exitUsage, "prog cost needs one program"},
		{"two targets", pass + " " + pass + " --packets udp4", exitUsage, "prog cost needs one program"},
		{"no packets", pass, exitUsage, "which packets?"},
		{"unknown packets", pass + " --packets udp5", exitUsage, "there is no such file, and it is none of arp"},
		{"unknown among known", pass + " --packets udp4,udp5", exitUsage, `packet "udp5" is not one of`},
		{"size", pass + " --packets udp4:65536", exitUsage, "not within 60 … 65535"},
		{"not for fragments", pass + " --packets udp4:9000", exitFailed, "no packet can be replayed: 1 above 3520 bytes, which a device gives"},
		{"first buffer", samples + ":trailer --packets udp4:9000 --first-buffer 13", exitUsage, "13 bytes is not within 14 … 3520"},
		{"first buffer of no fragments", pass + " --packets udp4 --first-buffer 256", exitFailed, "a device gives fragments only"},
		{"releases fragments", samples + ":snap --packets udp4:9000", exitFailed, "program snap cannot be replayed: it releases fragments"},
		{"folder", pass + " --packets " + dir, exitFailed, "is a directory"},
		{"text", pass + " --packets " + text, exitFailed, "neither pcap nor pcapng"},
		{"empty capture", pass + " --packets " + none, exitFailed, "the file has none"},
		{"link type", pass + " --packets " + wifi, exitFailed, "only Ethernet can be replayed"},
		{"packed", pass + " --packets " + gz, exitFailed, "unpack it first"},
		{"by", pass + " --packets udp4 --by flows", exitUsage, "did you mean flow?"},
		{"working set", pass + " --packets udp4 --working-set 0", exitUsage, "a working set of 0"},
		{"max packets", pass + " --packets udp4 --max-packets -1", exitUsage, "-1 packets are not within"},
		{"queue", pass + " --packets udp4 --rx-queue 3", exitUsage, "needs --ifindex"},
		{"device", pass + " --packets udp4 --ifindex 99999999", exitFailed, "there is no device with index 99999999"},
		{"metadata", pass + " --packets udp4 --metadata xy", exitUsage, "is not hex"},
		{"metadata length", pass + " --packets udp4 --metadata 0102", exitUsage, "in steps of 4"},
		{"cpu", pass + " --packets udp4 --cpu 9999", exitUsage, "CPU 9999"},
		{"duration", pass + " --packets udp4 --duration 1ms", exitUsage, "too short"},
		{"no such program", samples + ":pas --packets udp4", exitUsage, "did you mean pass?"},
		{"no such object", "nothing.o --packets udp4", exitFailed, "there is no file nothing.o"},
		{"save", pass + " --packets udp4 --save /nowhere/x.json", exitFailed, "/nowhere/x.json"},
	} {
		tests = append(tests, refused{tt.name, append([]string{"cost"}, strings.Fields(tt.args)...), tt.code, tt.want})
	}
	refuses(t, "prog", tests)
}

// A program that pushes a header costs what its way costs, and packets that it leaves alone next to nothing; the record
// says the same as the text.
func TestProgCost(t *testing.T) {
	testutil.Root(t)
	file := filepath.Join(t.TempDir(), "cost.json")
	code, stdout, stderr := unthunk(t, strings.Fields("prog cost "+samples+":encap --packets udp4,tcp4:900,arp --save "+file+
		quicklyReplayed)...)
	skipMissing(t, code, stderr)
	if code != exitDone || stderr != "" {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	for _, want := range []string{"encap of " + samples + ":encap", "on 3 packets", "tx 66.7 %, pass 33.3 %", "verdict/tx", "verdict/pass"} {
		if !strings.Contains(strings.ReplaceAll(stdout, "\n", " "), want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	s, err := record.Load(file)
	if err != nil || s.ProgCost() == nil || len(s.ProgCost().Rows) != 3 || len(s.ProgCost().References) == 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	doc := s.ProgCost()
	if doc.Program.Name != "encap" || doc.Program.Tag == "" || doc.Program.JitedBytes == 0 || doc.Program.Places < 6 ||
		doc.Packets.Kept != 3 || doc.Settings["packets"] != "udp4,tcp4:900,arp" {
		t.Errorf("%+v, %+v, %v", doc.Program, doc.Packets, doc.Settings)
	}
	tx, passed := doc.Rows[1].Ns, doc.Rows[2].Ns
	if doc.Rows[1].Name != "verdict/tx" || tx == nil || passed == nil || tx.Median < 4 || passed.Median > tx.Median/2 {
		t.Errorf("tx %v, pass %v", tx, passed)
	}
	code, stdout, stderr = unthunk(t, "report", file, "--format", "markdown")
	if code != exitDone || !strings.Contains(stdout, "What a packet costs a program") {
		t.Errorf("report: exit code %d: %s%s", code, stdout, stderr)
	}
}

// Source lines are counted in a copy, and say where the ns go.
func TestProgCostLines(t *testing.T) {
	testutil.Root(t)
	file := filepath.Join(t.TempDir(), "cost.json")
	code, stdout, stderr := unthunk(t, strings.Fields("prog cost "+samples+":nat --packets udp4,arp --lines --save "+file+quicklyReplayed)...)
	skipMissing(t, code, stderr)
	if code != exitDone || !strings.Contains(stdout, "runs: how often the line ran a packet") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	s, err := record.Load(file)
	if err != nil || s.ProgCost() == nil {
		t.Fatal(err)
	}
	found := false
	for _, l := range s.ProgCost().Lines {
		if strings.Contains(l.Text, "bpf_map_lookup_elem(&flows") {
			found = true
			if l.Runs != 0.5 || l.Function != "nat" || l.File != "sample.bpf.c" || l.Line == 0 {
				t.Errorf("of two packets one is looked up: %+v", l)
			}
		}
	}
	if !found {
		t.Errorf("no line has the lookup: %+v", s.ProgCost().Lines)
	}
	code, stdout, stderr = unthunk(t, "report", file, "--format", "markdown")
	if code != exitDone || !strings.Contains(stdout, "bpf_map_lookup_elem(&flows") && !strings.Contains(stdout, "&amp;flows") {
		t.Errorf("report: exit code %d: %s%s", code, stdout, stderr)
	}
	refuses(t, "prog", []refused{
		{"lines of a live program", strings.Fields("cost id:4294967295 --packets udp4 --lines"), exitFailed, "there is no program"},
	})
}

// Constants are set, rows are by what is asked for, and the device is seen.
func TestProgCostOptions(t *testing.T) {
	testutil.Root(t)
	file := filepath.Join(t.TempDir(), "cost.json")
	for args, want := range map[string]string{
		samples + ":loop --set turns=2000 --packets udp4 --metadata 01020304":   "drop",
		samples + ":ttl --packets udp4,udp4:100,tcp4 --by flow":                 "flow/tcp 192.0.2.1:40000",
		samples + ":nat --packets udp4,udp4:100 --by packet --working-set 1024": "packet/2",
		samples + ":nat --packets udp4,udp4:1400 --by length --cold":            "length/1024-1518",
	} {
		code, stdout, stderr := unthunk(t, append([]string{"prog", "cost", "--save", file}, strings.Fields(args+quicklyReplayed)...)...)
		skipMissing(t, code, stderr)
		if code != exitDone || !strings.Contains(stdout, want) {
			t.Errorf("%s: exit code %d: %s%s", args, code, stdout, stderr)
		}
		s, err := record.Load(file)
		if err != nil || s.ProgCost() == nil {
			t.Fatalf("%s: %v", args, err)
		}
		if strings.Contains(args, "turns=2000") && s.ProgCost().Rows[0].Ns.Median < 300 {
			t.Errorf("2000 turns take %v", s.ProgCost().Rows[0].Ns)
		}
	}
}

// A program that is loaded is measured where it is; on the maps that it has only when the user says so.
func TestProgCostLive(t *testing.T) {
	testutil.Root(t)
	for _, test := range []struct {
		program, flags string
		code           int
		want           string
	}{
		{"ttl", "", exitDone, "tx"},
		{"nat", "", exitUsage, "--on-live-maps"},
		{"nat", " --on-live-maps", exitDone, "tx"},
	} {
		coll, p, err := sample.Load(test.program)
		if err != nil {
			t.Fatal(err)
		}
		defer coll.Close()
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		args := fmt.Sprintf("prog cost id:%d --packets udp4%s%s", id, quicklyReplayed, test.flags)
		code, stdout, stderr := unthunk(t, strings.Fields(args)...)
		skipMissing(t, code, stderr)
		if code != test.code || !strings.Contains(stdout+stderr, test.want) {
			t.Errorf("%s: exit code %d: %s%s", args, code, stdout, stderr)
		}
		if strings.Contains(stdout, "loaded anew") {
			t.Errorf("a live program is loaded anew:\n%s", stdout)
		}
	}
}

// Who ends a run before its first round is told so, in one line.
func TestProgCostInterrupted(t *testing.T) {
	testutil.Root(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, verb := range []string{"cost " + samples + ":ttl", "diff " + samples + ":ttl " + samples + ":ttl"} {
		var out, errs bytes.Buffer
		code := run(ctx, strings.Fields("prog "+verb+" --packets udp4"), strings.NewReader(""), &out, &errs)
		if code != exitFailed || out.Len() > 0 || errs.String() != "unthunk: "+errInterrupted.Error()+"\n" {
			t.Errorf("%s: exit code %d: %s%s", verb, code, out.String(), errs.String())
		}
	}
}
