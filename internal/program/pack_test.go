package program

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

// unpacked opens what was packed, as another kernel would.
func unpacked(t *testing.T, p *Packed) *Opened {
	t.Helper()
	dir := t.TempDir()
	o := p.Options
	o.Maps = map[string]string{}
	for name, dump := range p.Dumps {
		o.Maps[name] = filepath.Join(dir, name)
		if err := os.WriteFile(o.Maps[name], dump, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "object.o")
	if err := os.WriteFile(path, p.Object, 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, path+":"+p.Name, o)
}

// What another kernel loads of a packed object is what this one has in production: maps of their sizes with what they
// hold, tail-call tables and variables. What cannot be taken along is said.
func TestPack(t *testing.T) {
	testutil.Root(t)
	live := production(t, "-DFLOWS=2048")
	before := sums(t, live)
	target, err := Parse(compile(t) + ":balance")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Pack(t.Context(), target, Options{MapsFrom: fmt.Sprintf("id:%d", idOf(t, live.Program))})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	o := unpacked(t, p)
	got := sums(t, o)
	for _, name := range []string{"flows_of_this_balancer", "hash", "array", "routes", ".rodata", ".data", ".bss", "ports", "cpus"} {
		if before[name] != nil && !maps.Equal(got[name], before[name]) || len(got[name]) != len(before[name]) {
			t.Errorf("%s: %.200v, want %.200v", name, got[name], before[name])
		}
	}
	for _, name := range []string{"percpu_hash", "lru_percpu", "counters"} { // of the first CPU
		if len(got[name]) == 0 || len(got[name]) != len(before[name]) {
			t.Errorf("%s: %d entries, want %d", name, len(got[name]), len(before[name]))
		}
	}
	if n := o.Maps["flows_of_this_balancer"].MaxEntries(); n != 2048 {
		t.Errorf("room for %d flows, the live map has 2048", n)
	}
	if o.Spec.Programs["stage_of_the_balancer"] == nil {
		t.Error("the program of the table is not in the spec")
	}
	if v := verdict(t, o.Program); v != 2 { // limit is 0: it goes on in the table, where the array decides
		t.Errorf("verdict %d, want that of the table's program", v)
	}
	why := map[string]string{}
	for _, c := range p.Copies {
		why[c.Map] = c.Why
	}
	for name, want := range map[string]string{
		"shades": "maps of maps are not taken", "sockets": "AF_XDP sockets", "hash": "", "stages": "", ".rodata": "",
	} {
		if got, ok := why[name]; !ok || !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if after := sums(t, live); !maps.EqualFunc(before, after, maps.Equal) {
		t.Error("the live maps are not as they were")
	}
}

// A program that is loaded has no object, and what is wrong with an option is said before anything is loaded.
func TestPackRefuses(t *testing.T) {
	object := compile(t)
	for _, text := range []string{"id:1", "dev:lo"} {
		target, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Pack(t.Context(), target, Options{}); !errors.Is(err, ErrNoObject) {
			t.Errorf("%s: %v", text, err)
		}
	}
	large := filepath.Join(t.TempDir(), "large.json")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, MaxPacked+1); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]Options{
		"no map nosuch":             {Sizes: map[string]uint32{"nosuch": 1}},
		"no global variable nosuch": {Set: map[string]string{"nosuch": "1"}},
		"uses no map absent":        {Flags: map[string]uint32{"absent": 1}},
		"no such file":              {Maps: map[string]string{"hash": "/nonexistent"}},
		"more than":                 {Maps: map[string]string{"hash": large}},
	} {
		target, err := Parse(object + ":balance")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Pack(t.Context(), target, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := PackObject(t.Context(), []byte("text"), "", Options{}); err == nil || !strings.Contains(err.Error(), "not an ELF object") {
		t.Errorf("no object: %v", err)
	}
}
