package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/record/recordtest"
)

// All that is neither within nor beyond is 125, as git bisect run reads any other code as bad, or stops.
func TestGateRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, doc any) string {
		b, ok := doc.([]byte)
		if !ok {
			var err error
			if b, err = json.Marshal(doc); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := file("base.json", recordtest.GateLab("debian:6.12-cloud"))
	two := recordtest.GateLab("a")
	two.Rows[1].Labels["kernel"] = "b"
	bad := recordtest.GateLab("a")
	bad.Rows[1].Labels["bulk"] = "many"
	nic := recordtest.GateLab("a")
	nic.Rows[1].Labels["nic"] = "e1000"
	const kernel = "debian:6.12-cloud"
	refuses(t, "gate", []refused{
		{"no kernel", nil, exitCannotTell, "gate needs one kernel"},
		{"two kernels", []string{kernel, kernel}, exitCannotTell, "gate needs one kernel"},
		{"no such flag", []string{"--bse", base, kernel}, exitCannotTell, "did you mean --base?"},
		{"empty base", []string{"--base", "", kernel}, exitCannotTell, "--base is empty"},
		{"no base", []string{"--base", filepath.Join(dir, "none"), kernel}, exitCannotTell, "no such file"},
		{"a folder as base", []string{"--base", dir, kernel}, exitCannotTell, dir},
		{"a base that is no record", []string{"--base", file("x.json", []byte("{}")), kernel}, exitCannotTell, "not a record of unthunk"},
		{"a base of bench", []string{"--base", "testdata/saved/bench.json", kernel}, exitCannotTell,
			"a record of bench: gate compares those of gate --save"},
		{"a base of two kernels", []string{"--base", file("two.json", two), kernel}, exitCannotTell, "rows of 2 kernels"},
		{"a base with a bad bulk", []string{"--base", file("bad.json", bad), kernel}, exitCannotTell, `bulk "many" is no number`},
		{"a base with a bad NIC", []string{"--base", file("nic.json", nic), kernel}, exitCannotTell, `NIC "e1000"`},
		{"max", []string{"--base", base, "--max", "instructions=4", kernel}, exitCannotTell, "with a + before it"},
		{"max of no row", []string{"--base", base, "--max", "tx/bulk=1:indirect=+1", kernel}, exitCannotTell, "the base has no row"},
		{"max without base", []string{"--max", "instructions=+4", kernel}, exitCannotTell, "they need --base"},
		{"unlike", []string{"--base", base, "--unlike", "bot", kernel}, exitCannotTell, "did you mean boot?"},
		{"format", []string{"--base", base, "--format", "junt", kernel}, exitCannotTell, "did you mean junit?"},
		{"format without base", []string{"--format", "junit", kernel}, exitCannotTell, "it needs --base"},
		{"config and save", []string{"--config", "--save", filepath.Join(dir, "x.json")}, exitCannotTell, "--config writes text alone"},
		{"two formats", []string{"--base", base, "--format", "junit", "--json", kernel}, exitCannotTell, "two outputs"},
		{"bulk that the base has not", []string{"--base", base, "--bulk", "8", kernel}, exitCannotTell, "the base has no row of bulk 8: it has"},
		{"scenario that the base has not", []string{"--base", base, "--scenario", "tx", kernel}, exitCannotTell, "no row of scenario tx"},
		{"top", []string{"--base", base, "--top", "-1", kernel}, exitCannotTell, "--top -1"},
		{"two command lines", []string{"--base", base, "--append", "a", "--append", "b", kernel}, exitCannotTell, "--append"},
		{"bulk", []string{"--bulk", "0", kernel}, exitCannotTell, "bulk 0"},
		{"limit", []string{"--limit", "1ms", kernel}, exitCannotTell, "1ms"},
		{"save over the base", []string{"--base", base, "--save", base, kernel}, exitCannotTell, "would overwrite"},
		{"prices", []string{"--base", base, "--prices", "testdata/saved/lab.json", kernel}, exitCannotTell, "has no prices"},
		{"name", []string{"debian:6_12"}, exitCannotTell, "debian:VERSION"},
		{"record without base", []string{base}, exitCannotTell, "--base names the one to compare it with"},
		{"record and command line", []string{"--base", base, "--append", "x", base}, exitCannotTell, "no guest is booted: leave --append out"},
		{"record and packets", []string{"--base", base, "--prog", "a.o", base}, exitCannotTell, "leave --prog out"},
		{"record of bench", []string{"--base", base, "testdata/saved/bench.json"}, exitCannotTell, "a record of bench"},
		{"record of two kernels", []string{"--base", base, file("two.json", two)}, exitCannotTell, "rows of 2 kernels"},
		{"no record", []string{"--base", base, filepath.Join(dir, "none.json")}, exitCannotTell, "no such file"},
		{"architecture", []string{"--arch", "arm46", kernel}, exitCannotTell, "did you mean arm64?"},
		{"near series", []string{"debain:6.12-cloud"}, exitCannotTell, "did you mean debian:6.12-cloud?"},
		{"series alone", []string{"6.12-cloud"}, exitCannotTell, "did you mean debian:6.12-cloud?"},
		{"no such kernel", []string{filepath.Join(dir, "none")}, exitCannotTell, "a kernel is a tree, "},
	})
	if guest.Available(guest.AMD64) == nil {
		refuses(t, "gate", []refused{
			{"model", []string{kernel, "--cpu-model", "NoSuchCPU"}, exitCannotTell, `no CPU model "NoSuchCPU"`},
		})
	}
	// For a person one line says it, and a record that was there stays.
	kept := file("kept.json", []byte("a record"))
	code, stdout, stderr := unthunk(t, "gate", "--base", base, filepath.Join(dir, "none"))
	if code != exitCannotTell || stdout != "" || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	// With a base the verdict is written for CI too when there is no kernel to count.
	code, stdout, stderr = unthunk(t, "gate", "--base", base, "--save", kept, "--format", "json", filepath.Join(dir, "none"))
	saved, err := record.Parse([]byte(stdout))
	if err != nil {
		t.Fatalf("%v: %s %s", err, stdout, stderr)
	}
	if g := saved.Gate(); code != exitCannotTell || g.Verdict != record.GateCannotTell || len(g.Rows) != 2 ||
		!strings.Contains(g.Why, "there is no file") && !strings.Contains(g.Why, "is missing") {
		t.Errorf("exit code %d, %+v", code, g)
	}
	if b, err := os.ReadFile(kept); err != nil || string(b) != "a record" {
		t.Errorf("the record that was there is %q (%v)", b, err)
	}
}

// A record is judged without a boot: the verdict and its exit code are those of the guest that it was counted in.
func TestGateJudges(t *testing.T) {
	dir := t.TempDir()
	save := func(name string, change func(*record.Lab)) string {
		l := recordtest.GateLab("debian:6.12-cloud")
		change(l)
		path := filepath.Join(dir, name)
		if err := record.Save(path, l); err != nil {
			t.Fatal(err)
		}
		return path
	}
	options := func(all ...string) func(*record.Lab) {
		return func(l *record.Lab) { l.Rows[0].Build.Options = all }
	}
	base := save("base.json", options("HZ=250", "NUMA=y", "SMP=y"))
	more := save("more.json", func(l *record.Lab) {
		*l.Rows[1].Instructions++
		options("HZ=250", "NUMA=y", "SMP=y")(l)
	})
	unlike := save("unlike.json", func(l *record.Lab) {
		options("HZ=1000", "PREEMPT=y", "SMP=y")(l)
		l.Rows[0].Build.Config = strings.Repeat("f", 64)
	})
	stopped := save("stopped.json", func(l *record.Lab) { l.Incomplete = true })
	for _, test := range []struct {
		args   string
		code   int
		stdout string // or stderr
	}{
		{base, exitDone, "Within: 2 rows of the base"},
		{more, exitBeyond, "Beyond: redirect-map/bulk=16 +1 instructions."},
		{more + " --max instructions=+1", exitDone, "More, and allowed: redirect-map/bulk=16 +1 instructions."},
		{more + " --format junit", exitBeyond, `classname="unthunk.gate.6_12_117"`},
		{unlike, exitCannotTell, "(HZ: 250 → 1000, NUMA: y → off, PREEMPT: off → y)"},
		{unlike + " --unlike config", exitDone, "Within"},
		{more + " --bulk 1", exitDone, "Within: 1 row of the base"},
		{more + " --bulk 16 --scenario redirect-map", exitBeyond, "Beyond: redirect-map/bulk=16 +1 instructions."},
		{more + " --bulk 8", exitCannotTell, "the base has no row of bulk 8"},
		{stopped, exitCannotTell, "the run that made it was stopped before its end"},
	} {
		args := append([]string{"gate", "--base", base}, strings.Fields(test.args)...)
		code, stdout, stderr := unthunk(t, args...)
		said := strings.Join(strings.Fields(stdout+stderr), " ")
		if code != test.code || !strings.Contains(said, test.stdout) {
			t.Errorf("%s: exit code %d, %s", test.args, code, said)
		}
	}
}

// The records of a gate have the limits of one, all together.
func TestGateTogether(t *testing.T) {
	dir := t.TempDir()
	half := filepath.Join(dir, "half.json")
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(half, record.MaxSize/2+1); err != nil {
		t.Fatal(err)
	}
	// 1 MB in the file, 190 MB in memory.
	var rows []string
	for i := range 45 {
		rows = append(rows, fmt.Sprintf(`{"name":"r%d","sites":[],"functions":[],"calls":1,"dma":[{}%s]}`, i,
			strings.Repeat(`,{}`, record.MaxRows-1)))
	}
	many := filepath.Join(dir, "many.json")
	doc := `{"schema":"unthunk/1","kind":"lab","run":"a","rows":[` + strings.Join(rows, ",") + `]}`
	if err := os.WriteFile(many, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(t, "gate", []refused{
		{"bytes", []string{"--base", half, half}, exitCannotTell, "64 MB together, more than 64"},
		{"bytes of prices", []string{"--base", half, "--prices", half, "debian:6.12-cloud"}, exitCannotTell, "64 MB together, more than 64"},
		{"memory", []string{"--base", many, many}, exitCannotTell, "with the records before it"},
		{"memory of prices", []string{"--base", many, "--prices", many, "debian:6.12-cloud"}, exitCannotTell, "with the records before it"},
	})
}

// A verdict has a limit, and hears a signal; what was counted before one is told.
func TestGateTell(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var b bytes.Buffer
	s := std{nil, &b, io.Discard}
	long := &record.Gate{Verdict: record.GateWithin, Console: []string{strings.Repeat("x", memory.MaxOutput)}}
	for _, f := range []gateFlags{{format: "json", output: outputFlags{json: true}}, {format: "text"}} {
		if err := f.tell(ctx, s, long, nil); err == nil || err.Error() != "write output: it has more than 64 MiB" || b.Len() > 0 {
			t.Errorf("%s: %.80v, and %d bytes", f.format, err, b.Len())
		}
	}
	beyond := &record.Gate{Verdict: record.GateBeyond}
	text := gateFlags{format: "text"}
	if err := text.tell(&ending{Context: ctx, end: cancel}, s, beyond, nil); !errors.Is(err, errInterrupted) || b.Len() > 0 {
		t.Errorf("%v, and %q", err, &b)
	}
	if err := text.tell(ctx, s, beyond, nil); !errors.Is(err, errBeyond) || b.Len() == 0 {
		t.Errorf("%v, and %q", err, &b)
	}
}

// ending is a context that ends once it was asked whether it has.
type ending struct {
	context.Context
	end func()
}

func (e *ending) Err() error {
	defer e.end()
	return e.Context.Err()
}
