package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

// object writes the object of the sample programs into a folder of its own.
func object(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lb.o")
	if err := os.WriteFile(path, sample.Object(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBenchProgRefuses(t *testing.T) {
	testutil.Root(t)
	lb := object(t)
	refuses(t, "bench", []refused{
		{"empty", []string{"--prog", ""}, exitUsage, "--prog is empty"},
		{"no file", []string{"--prog", "no.o"}, exitFailed, "there is no file no.o"},
		{"several programs", []string{"--prog", lb}, exitUsage, "XDP programs: name one"},
		{"no such program", []string{"--prog", lb + ":encapp"}, exitUsage, "did you mean encap?"},
		{"devmap without prog", []string{"--devmap", "ports:0"}, exitUsage, "--devmap goes with --prog"},
		{"set without prog", []string{"--set", "a=1"}, exitUsage, "--set goes with --prog"},
		{"scenario", []string{"--prog", lb + ":encap", "--scenario", "tx"}, exitUsage, "--scenario does not go with --prog"},
		{"operation", []string{"--prog", lb + ":encap", "--operation", "parse"}, exitUsage, "--operation does not go with --prog"},
		{"device", []string{"--prog", lb + ":encap", "--in", "lo"}, exitUsage, "--in does not go with --prog"},
		{"mode", []string{"--prog", lb + ":encap", "--mode", "generic"}, exitUsage, "--mode does not go with --prog"},
		{"key", []string{"--prog", lb + ":redirect", "--devmap", "ports"}, exitUsage, "is not NAME:KEY"},
		{"key x", []string{"--prog", lb + ":redirect", "--devmap", "ports:x"}, exitUsage, "the key is not a number"},
		{"map", []string{"--prog", lb + ":redirect", "--devmap", "port:0"}, exitUsage, "did you mean ports?"},
		{"no devmap", []string{"--prog", lb + ":nat", "--devmap", "flows:0"}, exitUsage, "no devmap"},
		{"no such key", []string{"--prog", lb + ":redirect", "--devmap", "ports:8"}, exitUsage, "has the keys 0 to 7, not 8"},
		{"empty name", []string{"--prog", lb + ":"}, exitUsage, "the name of the program is empty"},
		{"packets without prog", []string{"--packets", "udp4"}, exitUsage, "--packets goes with --prog"},
		{"packets and size", []string{"--prog", lb + ":encap", "--packets", "udp4", "--size", "64"}, exitUsage, "--size does not go"},
		{"no packets", []string{"--prog", lb + ":encap", "--packets", "udp5"}, exitUsage, "there is no such file"},
		{"packets of an object", []string{"--prog", lb + ":encap", "--packets", lb}, exitFailed, "lb.o"},
		{"long packets", []string{"--prog", lb + ":encap", "--packets", "udp4:2100"}, exitFailed, "none of 1 packets has 2044 bytes or fewer"},
		{"bulk", []string{"--prog", lb + ":encap", "--bulk", "300"}, exitUsage, "bulk 300"},
		{"size", []string{"--prog", lb + ":encap", "--size", "20"}, exitUsage, "frame size 20"},
	})
	refuses(t, "profile", []refused{
		{"several programs", []string{"--prog", lb}, exitUsage, "XDP programs: name one"},
		{"scenario", []string{"--prog", lb + ":encap", "--scenario", "tx"}, exitUsage, "--scenario does not go with --prog"},
	})
	refuses(t, "xray", []refused{
		{"several programs", []string{"--prog", lb}, exitUsage, "XDP programs: name one"},
		{"device", []string{"--prog", lb + ":encap", "--dev", "lo"}, exitUsage, "--dev does not go with --prog"},
		{"set without prog", []string{"--set", "a=1"}, exitUsage, "goes with --prog"},
	})
	refuses(t, "tax", []refused{
		{"several programs", []string{"--prog", lb}, exitUsage, "XDP programs: name one"},
		{"map without prog", []string{"--map", "a=b"}, exitUsage, "--map goes with --prog"},
	})
}

// A program is one of an object with several: not to name it is wrong usage, whichever verb opens it.
func TestProgUnnamed(t *testing.T) {
	testutil.Root(t)
	lb := object(t)
	refuses(t, "prog", []refused{
		{"cost", []string{"cost", lb, "--packets", "udp4"}, exitUsage, "XDP programs: name one"},
		{"diff", []string{"diff", lb, lb + ":nat", "--packets", "udp4"}, exitUsage, "XDP programs: name one"},
	})
}

// Two objects are compared by their records: a program that does something else with the packets is said to, before its
// time is compared.
func TestBenchProg(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	lb := object(t)
	before, after := filepath.Join(dir, "before.json"), filepath.Join(dir, "after.json")
	for file, args := range map[string][]string{
		before: {"--prog", lb + ":redirect", "--devmap", "ports:0"},
		after:  {"--prog", lb + ":redirect"},
	} {
		code, stdout, stderr := unthunk(t, append([]string{
			"bench", "--bulk", "16", "--rounds", "6", "--duration", "3s", "--save", file}, args...)...)
		skipMissing(t, code, stderr)
		if code != exitDone {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		want := map[string]string{before: "verdicts  redirect 100 % of the packets: redirect", after: "verdicts  drop 100 %"}[file]
		if !strings.Contains(stdout, want) || !strings.Contains(stdout, "prog/redirect\n") {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
	b, err := os.ReadFile(before)
	if err != nil {
		t.Fatal(err)
	}
	var doc record.Document[record.BenchRow]
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	row := doc.Rows[0]
	if row.Name != "prog/redirect/bulk=16" || row.Labels["object"] != "lb.o" || row.Verdicts == nil || row.Verdicts.Redirect == 0 ||
		doc.Settings["devmap"] != "ports:0" || doc.Settings["scenario"] != "" {
		t.Errorf("%+v, %v", row, doc.Settings)
	}
	code, stdout, stderr := unthunk(t, "compare", before, after)
	if code != exitDone || !strings.Contains(strings.Join(strings.Fields(stdout), " "),
		"the program does something else with the packets: drop +100.0 points, redirect -100.0 points") {
		t.Errorf("exit code %d: %s\n%s", code, stderr, stdout)
	}
}

// A program of the user's is on the path that xray shows, and in the profile and the prices.
func TestProgInOtherVerbs(t *testing.T) {
	testutil.Root(t)
	lb := object(t)
	for _, test := range []struct{ args, want string }{
		{"xray --json --prog " + lb + ":nat", "htab_lru_map_update_elem"},
		{"profile --json --rounds 3 --duration 4s --prog " + lb + ":nat", "lb.o:nat"},
		{"tax --json --pair ndo-xdp-xmit,devmap-prog --rounds 1 --duration 3s --devmap ports:0 --prog " + lb + ":redirect",
			"has room for a program (struct bpf_devmap_val)"},
	} {
		code, stdout, stderr := unthunk(t, strings.Fields(test.args)...)
		skipMissing(t, code, stderr)
		busy := strings.Contains(stderr, "no answer") || strings.Contains(stderr, "no row has a number")
		if code != exitDone && !(code == exitFailed && busy) {
			t.Errorf("%s: exit code %d: %s", test.args, code, stderr)
		}
		if !json.Valid([]byte(stdout)) || !bytes.Contains([]byte(stdout), []byte(test.want)) {
			t.Errorf("%s: %q is not in\n%.2000s", test.args, test.want, stdout)
		}
	}
}

// Packets of several kinds come in turn, each as often as the others.
func TestBenchProgPackets(t *testing.T) {
	testutil.Root(t)
	save := filepath.Join(t.TempDir(), "x.json")
	code, stdout, stderr := unthunk(t, "bench", "--bulk", "16", "--rounds", "1", "--duration", "1s", "--prog", object(t)+":tailcall",
		"--packets", "udp4,tcp4:1514,icmp6,udp6:2000", "--save", save)
	skipMissing(t, code, stderr)
	if code != exitDone || !strings.Contains(stdout, "verdicts  tx 50.0 %, drop 25.0 %, pass 25.0 % of the packets: tailcall") {
		t.Errorf("exit code %d: %s%s", code, stderr, stdout)
	}
	b, err := os.ReadFile(save)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := record.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if labels := saved.Bench().Rows[0].Labels; labels["packets"] != "udp4,tcp4:1514,icmp6,udp6:2000" || labels["size"] != "" {
		t.Errorf("labels are %v", labels)
	}
}

// A live program is attached a second time. One that would change what production uses, or send frames to its devices, is
// not.
func TestBenchLiveProg(t *testing.T) {
	testutil.Root(t)
	for _, test := range []struct {
		name, more string
		code       int
		want       string
	}{
		{"encap", "", exitDone, "verdicts  tx 100 % of the packets: encap"},
		{"nat", "", exitUsage, "would run on its live maps"},
		{"nat", " --on-live-maps", exitDone, "verdicts  tx 100 % of the packets: nat"},
		{"redirect", " --on-live-maps", exitFailed, "redirects by its live map ports: frames of the chain would go where production's go"},
	} {
		live, p, err := sample.Load(test.name)
		if err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		args := fmt.Sprintf("bench --bulk 16 --rounds 1 --duration 1s --prog id:%d%s", id, test.more)
		code, stdout, stderr := unthunk(t, strings.Fields(args)...)
		live.Close()
		skipMissing(t, code, stderr)
		if code != test.code || !strings.Contains(stdout+stderr, test.want) {
			t.Errorf("%s%s: exit code %d: %s%s", test.name, test.more, code, stderr, stdout)
		}
	}
}
