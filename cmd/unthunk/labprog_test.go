package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

// What is wrong with a program, its packets or a flag is said before a guest boots: by lab as wrong usage, by gate as
// what it cannot tell.
func TestLabProgRefuses(t *testing.T) {
	dir := t.TempDir()
	object, text := filepath.Join(dir, "lb.o"), filepath.Join(dir, "text.o")
	redirect, program := filepath.Join(dir, "redirect.json"), filepath.Join(dir, "program.json")
	l := recordtest.GateLab("debian:6.12-cloud")
	for path, content := range map[string]any{object: sample.Object(), text: []byte("text"), redirect: l} {
		writeOrMarshal(t, path, content)
	}
	l.Rows = l.Rows[:1]
	l.Rows[0].Labels = map[string]string{"kernel": "k", "prog": "balancer", "class": "all", "packets": "udp4"}
	l.Rows[0].Program, l.Rows[0].CallsPerPacket, l.Rows[0].Sites = &record.LabProgram{Verdicts: map[string]int{}}, nil, nil
	writeOrMarshal(t, program, l)
	const kernel = "debian:6.12-cloud"
	for _, r := range []refused{
		{"no packets", []string{"--prog", object + ":nat"}, exitUsage, "which packets?"},
		{"packets alone", []string{"--packets", "udp4"}, exitUsage, "--packets is for --prog"},
		{"set alone", []string{"--set", "a=1"}, exitUsage, "--set is for --prog"},
		{"bulk", []string{"--prog", object + ":nat", "--packets", "udp4", "--bulk", "1"}, exitUsage, "leave --bulk out"},
		{"NIC", []string{"--prog", object + ":nat", "--packets", "udp4", "--nic", "igb"}, exitUsage, "leave --nic out"},
		{"several programs", []string{"--prog", object, "--packets", "udp4"}, exitUsage, "name one"},
		{"no such program", []string{"--prog", object + ":nt", "--packets", "udp4"}, exitUsage, "no program nt"},
		{"a live one", []string{"--prog", "id:1", "--packets", "udp4"}, exitFailed, "its object file is needed"},
		{"a device's", []string{"--prog", "dev:lo", "--packets", "udp4"}, exitFailed, "its object file is needed"},
		{"no object", []string{"--prog", text, "--packets", "udp4"}, exitFailed, "not an ELF object"},
		{"no file", []string{"--prog", filepath.Join(dir, "none.o"), "--packets", "udp4"}, exitFailed, "there is no file"},
		{"no such packets", []string{"--prog", object + ":nat", "--packets", "udp5"}, exitUsage, "there is no such file"},
		{"rows", []string{"--prog", object + ":nat", "--packets", "udp4", "--by", "verdct"}, exitUsage, "did you mean verdict?"},
		{"metadata", []string{"--prog", object + ":nat", "--packets", "udp4", "--metadata", "0"}, exitUsage, "is not hex"},
		{"too many packets", []string{"--prog", object + ":nat", "--packets", "udp4", "--max-packets", "20000"}, exitUsage, "20000 packets"},
		{"no such variable", []string{"--prog", object + ":loop", "--packets", "udp4", "--set", "turn=1"}, exitUsage, "did you mean turns?"},
		{"save over the object", []string{"--prog", object, "--packets", "udp4", "--save", object}, exitUsage, "would overwrite"},
	} {
		r.args = append(r.args, kernel)
		refuses(t, "lab", []refused{r})
		r.code = exitCannotTell
		refuses(t, "gate", []refused{r})
	}
	refuses(t, "gate", []refused{
		{"a base of a redirect", []string{"--prog", object + ":nat", "--packets", "udp4", "--base", redirect, kernel}, exitCannotTell,
			"counts a redirect: leave --prog out"},
		{"a base of a program", []string{"--base", program, kernel}, exitCannotTell, "counts the program balancer"},
		{"a base of another program", []string{"--prog", object + ":nat", "--packets", "udp4", "--base", program, kernel}, exitCannotTell,
			"is nat"},
		{"behavior without base", []string{"--behavior-may-change", kernel}, exitCannotTell, "they need --base"},
	})
	refuses(t, "prog-guest", []refused{{"not in a guest", nil, exitMissing, "a guest of lab"}})
}

func writeOrMarshal(t *testing.T, path string, content any) {
	t.Helper()
	b, ok := content.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A program whose packets come out otherwise from run to run has no number, and that is a failure.
func TestNoCounts(t *testing.T) {
	n := 7.0
	refused := record.LabRow{Refused: "3 of 7 runs differ"}
	for _, test := range []struct {
		rows   []record.LabRow
		counts bool
		want   error
	}{
		{[]record.LabRow{refused, refused}, true, errNoNumber},
		{[]record.LabRow{refused, {Instructions: &n}}, true, nil},
		{[]record.LabRow{refused}, false, nil}, // of a redirect: its guest says why
	} {
		l := new(record.Lab)
		l.Rows = test.rows
		if got := noCounts(l, test.counts); !errors.Is(got, test.want) {
			t.Errorf("%+v: %v, want %v", test.rows, got, test.want)
		}
	}
}
