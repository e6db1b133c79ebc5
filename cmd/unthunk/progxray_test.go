package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// sampleFile is the object of package sample in a file.
func sampleFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sample.o")
	if err := os.WriteFile(file, sample.Object(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestProgXrayRefuses(t *testing.T) {
	file := sampleFile(t)
	refuses(t, "prog", []refused{
		{"no target", []string{"xray"}, exitUsage, "prog xray needs a target"},
		{"two targets", []string{"xray", "id:1", "id:2"}, exitUsage, `unexpected argument "id:2"`},
		{"no file", []string{"xray", "no-such.o"}, exitFailed, "there is no file no-such.o"},
		{"no id", []string{"xray", "id:none"}, exitUsage, "an id is a number"},
		{"several programs", []string{"xray", file}, exitUsage, "XDP programs: name one"},
		{"no program", []string{"xray", file + ":nope"}, exitUsage, "has no program nope"},
		{"no object", []string{"xray", "progxray_test.go"}, exitFailed, "is not an ELF object"},
		{"two prices", []string{"xray", file + ":pass", "--price", "--prices", "x"}, exitUsage, "two sources of prices"},
		{"prices that are not there", []string{"xray", file + ":pass", "--prices", "no-such.json"}, exitFailed, "no-such.json"},
		{"prices without prices", []string{"xray", file + ":pass", "--prices", "testdata/saved/bench.json"}, exitUsage, "has no prices"},
		{"over its prices", []string{
			"xray", file + ":pass", "--prices", "testdata/saved/tax.json", "--save", "testdata/saved/tax.json",
		}, exitUsage, "would overwrite"},
		{"code with prices", []string{"xray", file + ":pass", "--asm", "--price"}, exitUsage, "--asm shows no prices"},
		{"code saved", []string{"xray", file + ":pass", "--asm", "--save", "x.json"}, exitUsage, "--save does not go with --asm"},
		{"a CPU for nothing", []string{"xray", file + ":pass", "--cpu", "0"}, exitUsage, "--cpu goes with --price"},
		{"no CPU", []string{"xray", file + ":pass", "--cpu", "4096", "--price"}, exitUsage, "is not a CPU"},
	})
}

// A program of an object file is read and gone; the record says what the text says.
func TestProgXray(t *testing.T) {
	testutil.Root(t)
	file, save := sampleFile(t), filepath.Join(t.TempDir(), "x.json")
	code, stdout, stderr := unthunk(t, "prog", "xray", file+":twomaps", "--prices", "testdata/saved/tax.json", "--save", save)
	if code != exitDone || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, want := range []string{
		"twomaps (tag ", "loaded to be read, and gone)", "lookup local or backends", "(» 1 in it)", "What to change:",
		"value = bpf_map_lookup_elem(map, &key);", "look into local and backends in a branch each, with asm volatile", "are of another CPU",
	} {
		if !strings.Contains(strings.Join(strings.Fields(stdout), " "), want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	saved, err := record.Load(save)
	if err != nil {
		t.Fatal(err)
	}
	doc := saved.ProgXray()
	if doc == nil || doc.Rows[0].Price == nil || doc.Rows[0].PriceOf != "map-lookup/hash" || len(doc.Changes) != 1 ||
		doc.Changes[0].Saves == nil {
		t.Errorf("%+v", doc)
	}
	if ids := loadedPrograms(t, "twomaps"); len(ids) > 0 {
		t.Errorf("it is still loaded: %v", ids)
	}
	code, stdout, stderr = unthunk(t, "report", save, "--format", "markdown")
	if code != exitDone || !strings.Contains(stdout, "lookup local or backends") {
		t.Errorf("report: exit code %d: %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = unthunk(t, "prog", "xray", file+":twomaps", "--asm")
	if code != exitDone || !strings.Contains(stdout, "; sample.bpf.c:") || !strings.Contains(stdout, "; lookup local or backends") {
		t.Errorf("--asm: exit code %d: %s%s", code, stdout, stderr)
	}
}

// loadedPrograms are the ids of the programs of that name.
func loadedPrograms(t *testing.T, name string) (ids []ebpf.ProgramID) {
	t.Helper()
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if err != nil {
			return ids
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue
		}
		if info, err := p.Info(); err == nil && info.Name == name {
			ids = append(ids, id)
		}
		p.Close()
	}
}

// A program at work is only read; --price measures what is in it.
func TestProgXrayAttached(t *testing.T) {
	lab := veth.Namespace(t)
	_, b := veth.Pair(t, lab, "xr0", "xr1")
	coll, program, err := sample.Load("tailcall")
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer coll.Close()
	if err := b.Attach(program, link.XDPDriverMode); err != nil {
		t.Fatal(err)
	}
	info, err := program.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	code, stdout, stderr := unthunk(t, "prog", "xray", fmt.Sprintf("id:%d", id), "--json", "--price")
	if code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var doc record.ProgXray
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Program.ID != uint32(id) || doc.Program.Loaded || len(doc.Program.Attached) != 1 ||
		!strings.Contains(doc.Program.Attached[0], "namespace") {
		t.Errorf("%+v", doc.Program)
	}
	if d := doc.Dispatcher; d == nil || d.Slots != 48 || !d.In && d.Programs < 48 {
		t.Errorf("%+v", d)
	}
	if len(doc.Rows) != 1 || doc.Rows[0].Price == nil || doc.Rows[0].PriceOf != "tail-call" || doc.PricesFrom == "" {
		t.Errorf("%+v", doc.Rows)
	}
	code, stdout, stderr = unthunk(t, "prog", "xray", fmt.Sprintf("id:%d", id))
	if code != exitDone || !strings.Contains(stdout, "tail-call table") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}
