package program

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/memory"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// compile makes a BPF object of testdata/maps.bpf.c.
func compile(t testing.TB, flags ...string) (path string) {
	t.Helper()
	return testutil.Compile(t, "testdata/maps.bpf.c", flags...)
}

// open opens a target that there is.
func open(t testing.TB, text string, o Options) *Opened {
	t.Helper()
	target, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := target.Open(t.Context(), o)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatalf("open %s: %v", text, err)
	}
	t.Cleanup(func() {
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	})
	return opened
}

// refused opens a target that cannot be used.
func refused(t testing.TB, text string, o Options) error {
	t.Helper()
	target, err := Parse(text)
	if err != nil {
		return err
	}
	opened, err := target.Open(t.Context(), o)
	if err == nil {
		opened.Close()
		t.Fatalf("%s: opened", text)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: more than a line: %v", text, err)
	}
	return err
}

// verdict runs a program once.
func verdict(t testing.TB, p *ebpf.Program) uint32 {
	t.Helper()
	v, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func idOf(t testing.TB, p *ebpf.Program) ebpf.ProgramID {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"lb.o", "lb.o:balancer", "/sys/fs/bpf/lb", "id:42", "dev:eth0", "dev:eth0:prog0", "identity", "./id:4"} {
		target, err := Parse(text)
		if err != nil || target.String() != text || target.Live() != (strings.HasPrefix(text, "id:") || strings.HasPrefix(text, "dev:")) {
			t.Errorf("%s: %v, %v", text, target, err)
		}
	}
	for _, text := range []string{
		"", "id:", "id:x", "id:0", "id:-1", "id:4294967296", "dev:", "dev:a/b", "dev:averyverylongname", "dev:eth0:", "a\x00b", "a\nb",
		"dev:c\u009b2J", "lb\u202eo.", strings.Repeat("x", 5000),
	} {
		if target, err := Parse(text); err == nil || strings.ContainsAny(err.Error(), "\n\x00\u009b\u202e") {
			t.Errorf("%q: %v, %v", text, target, err)
		}
	}
}

// An object's program is found by its function, by its section, or because it is the only one.
func TestChoose(t *testing.T) {
	testutil.Root(t)
	path := compile(t)
	for _, tt := range []struct{ name, want string }{
		{":balance", "balance"}, {":xdp/stage_of_the_balancer", "stage_of_the_balancer"}, {":at_exit", "at_exit"}, {":untyped", "untyped"},
	} {
		o := open(t, path+tt.name, Options{})
		if o.Name != tt.want || o.Live || o.Program == nil || o.Spec.Programs[o.Name] == nil || o.Program.Type() != ebpf.XDP {
			t.Errorf("%s: %+v", tt.name, o)
		}
	}
	for name, want := range map[string]string{
		"":          "has 5 XDP programs: name one, as " + path + ":at_exit: at_exit, balance, busy, stage_of_the_balancer, wild",
		":classify": "classify is no XDP program: classify (SchedCLS, section tc)",
		":balancer": "has no program balancer: it has at_exit, balance, busy, classify,",
		":xdp":      "has 3 programs in section xdp: name one: balance, busy, wild",
		":":         "the name of the program is empty",
		":wild":     "the verifier refuses it: ",
	} {
		if err := refused(t, path+name, Options{}); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	var empty *OptionError
	_, _, err := ReadProgram(t.Context(), path+":")
	if !errors.As(err, &empty) || !strings.Contains(err.Error(), "the name of the program is empty") {
		t.Errorf("read: %v", err)
	}
	var load *LoadError
	if err := refused(t, path+":wild", Options{}); !errors.As(err, &load) || len(load.Log) < 2 {
		t.Errorf("there is no log: %v", err)
	}
	// The verifier says no more than one line, and what a program does not use need not load.
	if len(open(t, path+":at_exit", Options{}).Maps) != 0 {
		t.Error("maps of other programs are made")
	}
}

func TestRefused(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if out, err := exec.Command("mkfifo", fifo).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for target, want := range map[string]string{
		filepath.Join(dir, "none.o"):          "there is no file",
		filepath.Join(dir, "none.o:x"):        "there is no file",
		dir:                                   "not a regular file",
		fifo:                                  "not a regular file",
		"/dev/zero":                           "not a regular file",
		write("empty", ""):                    "not an ELF object",
		write("text:o", "int main"):           "not an ELF object",
		write("elf", "\x7fELF\x02\x01\x01xx"): "read BPF object",
		"/bin/true":                           "unexpected machine type",
		"id:4294967295":                       "there is no program with id",
		"dev:nosuchdev":                       "there is no device nosuchdev",
		"dev:lo":                              "has no XDP program attached",
	} {
		if err := refused(t, target, Options{}); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", target, err, want)
		}
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "socket", Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := refused(t, fmt.Sprintf("id:%d", idOf(t, p)), Options{}); !strings.Contains(err.Error(), "socket is of type SocketFilter") {
		t.Error(err)
	}
}

// Without rights a feature is missing, and not a file.
func TestWithoutRights(t *testing.T) {
	testutil.Root(t)
	path := compile(t)
	o := open(t, path+":at_exit", Options{})
	for _, text := range []string{path + ":at_exit", fmt.Sprintf("id:%d", idOf(t, o.Program))} {
		target, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		err = testutil.Capable(t, func() error {
			opened, err := target.open(t.Context(), Options{}) // on this thread
			if err == nil {
				opened.Close()
			}
			return err
		}, 1 /* CAP_DAC_OVERRIDE */)
		if feature.AsMissing(err) == nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// A live program is only read, unless it is said that its maps may change.
func TestLive(t *testing.T) {
	testutil.Root(t)
	production := open(t, compile(t)+":balance", Options{})
	n, err := netlab.New(0)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	dev, _, err := n.VethPair("a", "b")
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	if err := dev.Attach(production.Program, link.XDPGenericMode); err != nil {
		t.Fatal(err)
	}
	err = n.Do(func() error {
		target, err := Parse("dev:a")
		if err != nil {
			return err
		}
		live, err := target.open(t.Context(), Options{}) // on the namespace's thread
		if err != nil {
			return err
		}
		defer live.Close()
		if !live.Live || live.Spec != nil || live.Name != "balance" || idOf(t, live.Program) != idOf(t, production.Program) {
			t.Errorf("%+v", live)
		}
		if live.Maps["flows_of_this_b"] == nil || live.Maps["hash"] == nil {
			t.Errorf("maps: %v", live.Maps)
		}
		if err := live.Maps["array"].Put(uint32(1), uint32(1)); err == nil {
			t.Error("a live map is open for writing")
		}
		_, err = target.open(t.Context(), Options{Run: true})
		if err == nil || !strings.Contains(err.Error(), "--maps-from dev:a, or --on-live-maps") {
			t.Errorf("run on live maps: %v", err)
		}
		_, err = target.open(t.Context(), Options{Set: map[string]string{"x": "1"}})
		var option *OptionError
		if !errors.As(err, &option) || !strings.Contains(err.Error(), "--set is for an object file") {
			t.Errorf("set in a live program: %v", err)
		}
		allowed, err := target.open(t.Context(), Options{Run: true, OnLiveMaps: true})
		if err != nil {
			return err
		}
		if len(allowed.Warnings) != 1 || !strings.Contains(allowed.Warnings[0], "which it can change") {
			t.Errorf("warnings: %v", allowed.Warnings)
		}
		return allowed.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	changesOfTailCalls(t, production)
	folder := "/sys/fs/bpf"
	if onBPFFS(folder) {
		var option *OptionError
		if err := refused(t, folder, Options{}); !errors.As(err, &option) || !strings.Contains(err.Error(), "is a folder") {
			t.Errorf("a folder of pins: %v", err)
		}
	}
	// One without maps changes nothing.
	free := open(t, compile(t)+":at_exit", Options{})
	open(t, fmt.Sprintf("id:%d", idOf(t, free.Program)), Options{Run: true})
}

// changesOfTailCalls runs a program that changes nothing but by a tail call.
func changesOfTailCalls(t *testing.T, production *Opened) {
	t.Helper()
	table, err := ebpf.NewMap(&ebpf.MapSpec{Name: "handlers", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "jumps", Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R2, table.FD()), asm.Mov.Imm(asm.R3, 1), asm.FnTailCall.Call(), asm.Mov.Imm(asm.R0, 2), asm.Return(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	target := fmt.Sprintf("id:%d", idOf(t, p))
	if o := open(t, target, Options{Run: true}); len(o.Warnings) != 0 {
		t.Errorf("it cannot change a table of programs: %v", o.Warnings)
	}
	if err := table.Put(uint32(1), production.Program); err != nil {
		t.Fatal(err)
	}
	o := open(t, target, Options{Run: true, OnLiveMaps: true})
	if len(o.Warnings) != 1 || !strings.Contains(o.Warnings[0], "array") || strings.Contains(o.Warnings[0], "handlers") ||
		strings.Contains(o.Warnings[0], "ports") || strings.Contains(o.Warnings[0], "stages") {
		t.Errorf("warnings: %v", o.Warnings)
	}
	if err := refused(t, target, Options{Run: true}); !strings.Contains(err.Error(), "array") || strings.Contains(err.Error(), "handlers") {
		t.Errorf("refused: %v", err)
	}
}

// What the object says is pinned is neither made nor touched.
func TestPinsAreDropped(t *testing.T) {
	testutil.Root(t)
	before, _ := filepath.Glob("/sys/fs/bpf/*")
	o := open(t, compile(t)+":balance", Options{})
	if o.Maps["flows_of_this_balancer"].IsPinned() || o.Spec.Maps["flows_of_this_balancer"].Pinning != ebpf.PinNone {
		t.Error("a map is pinned")
	}
	if after, _ := filepath.Glob("/sys/fs/bpf/*"); !slices.Equal(before, after) {
		t.Errorf("pins before: %v, after: %v", before, after)
	}
	spec, err := ReadObject(t.Context(), compile(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range spec.Maps {
		if m.Pinning != ebpf.PinNone || m.Extra != nil {
			t.Errorf("map %s of an object that is read alone: pinning %v, %v behind its definition", name, m.Pinning, m.Extra)
		}
	}
}

// 100 000 instructions and 60 maps load in seconds, in a bounded heap; who cancels does not wait.
func TestLarge(t *testing.T) {
	testutil.Root(t)
	path := testutil.Compile(t, "testdata/large.bpf.c")
	start := time.Now()
	testutil.Allocates(t, 512<<20, func() {
		o := open(t, path, Options{})
		if len(o.Maps) != 60 {
			t.Errorf("%d maps", len(o.Maps))
		}
		if v := verdict(t, o.Program); v != 2 {
			t.Errorf("verdict %d", v)
		}
	})
	t.Logf("loaded in %v", time.Since(start))
	target, err := Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	start = time.Now()
	if _, err := target.Open(ctx, Options{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Second {
		t.Errorf("canceled after 10 ms: %v after %v", err, time.Since(start))
	}
}

// What an open program keeps of an object has no source lines: the kernel has them.
func TestLinesAreForgotten(t *testing.T) {
	testutil.Root(t)
	path := compile(t)
	spec, err := ReadObject(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	opened := open(t, path+":balance", Options{})
	opened.ForgetLines()
	lines := func(s *ebpf.CollectionSpec) (n int) {
		for _, ins := range s.Programs[opened.Name].Instructions {
			if ins.Source() != nil {
				n++
			}
		}
		return n
	}
	if was, is := lines(spec), lines(opened.Spec); was == 0 || is != 0 {
		t.Errorf("%d lines are kept of %d", is, was)
	}
	info, err := opened.Program.Info()
	if err != nil {
		t.Fatal(err)
	}
	if l, err := info.LineInfos(); err != nil || len(l) == 0 {
		t.Errorf("the kernel has %d lines: %v", len(l), err)
	}
	again, err := ebpf.NewCollectionWithOptions(opened.Spec.Copy(), ebpf.CollectionOptions{MapReplacements: maps.Clone(opened.Maps)})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestCancel(t *testing.T) {
	testutil.Root(t)
	target, err := Parse(compile(t) + ":balance")
	if err != nil {
		t.Fatal(err)
	}
	testutil.Unchanged(t, func() {
		for range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			go cancel()
			if o, err := target.Open(ctx, Options{}); err == nil {
				o.Close()
			} else if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
}

// A table is filled as the loader would, and the program goes on there.
func TestTailCalls(t *testing.T) {
	testutil.Root(t)
	path := compile(t) + ":balance"
	limit := map[string]string{"limit": "0"}
	set := func(table string, index uint32, program string) Options {
		return Options{Set: limit, TailCalls: map[string]map[uint32]string{table: {index: program}}}
	}
	if v := verdict(t, open(t, path, set("stages", 2, "stage_of_the_balancer")).Program); v != 0 {
		t.Errorf("verdict %d, want that of the table's program, XDP_ABORTED", v)
	}
	if v := verdict(t, open(t, path, set("stages", 2, "untyped")).Program); v != 2 {
		t.Errorf("verdict %d, want XDP_PASS", v)
	}
	larger := set("stages", 9, "untyped")
	larger.Sizes = map[string]uint32{"stages": 10}
	if o := open(t, path, larger); verdict(t, o.Program) != 1 || o.Maps["stages"].MaxEntries() != 10 {
		t.Error("an entry at 9 is used at 2, or the table has not grown")
	}
	var beyond *OptionError
	if err := refused(t, path, set("stages", 4, "untyped")); !errors.As(err, &beyond) ||
		!strings.Contains(err.Error(), "stages has the entries 0 to 3, and none for untyped at 4") {
		t.Errorf("an entry beyond the table's 4: %v", err)
	}
	for _, tt := range []struct {
		table, program, want string
	}{
		{"stage", "untyped", "no map stage"}, {"hash", "untyped", "no tail-call table"}, {"stages", "unknown", "no program unknown"},
		{"stages", "classify", "no XDP program"},
	} {
		err := refused(t, path, set(tt.table, 2, tt.program))
		var option *OptionError
		if !errors.As(err, &option) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s, %s: %v, want %s", tt.table, tt.program, err, tt.want)
		}
	}
}

// An object that is run with maps that nothing fills says which lookups miss.
func TestMisses(t *testing.T) {
	testutil.Root(t)
	path := compile(t) + ":balance"
	said := func(o Options) int {
		return strings.Count(strings.Join(open(t, path, o).Warnings, "\n"),
			"lookups in them miss: blue, flows_of_this_balancer, hash, lru_percpu, percpu_hash, routes, shades (")
	}
	if n := said(Options{Run: true}); n != 1 {
		t.Errorf("said %d times: %v", n, open(t, path, Options{Run: true}).Warnings)
	}
	if n := said(Options{}); n != 0 {
		t.Error("said of a program that is not run")
	}
}

// Maps that the program itself fills are not empty for long, one map that is filled leaves the others empty, and a map that redirects go
// by is empty when no entry of it leads anywhere.
func TestMissesNamesTheEmptyAlone(t *testing.T) {
	testutil.Root(t)
	path := compile(t)
	dump := filepath.Join(t.TempDir(), "ports.json")
	if err := os.WriteFile(dump, []byte(`[{"key":["0x00","0x00","0x00","0x00"],"value":["0x01","0x00","0x00","0x00"]}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	const missed, nowhere, sockets = "lookups in them miss: blue, flows", "entries of the program's maps lead nowhere unless --map or " +
		"--maps-from fills them (", "no AF_XDP socket is in the program's maps of them (sockets)"
	for _, tt := range []struct {
		name, program string
		options       Options
		missed        bool
		nowhere, text string
	}{
		{"empty", "balance", Options{Run: true}, true, "cpus, ports, sockets", nowhere + "cpus, ports), and " + sockets},
		{"one is filled", "balance", Options{Run: true, Maps: map[string]string{"ports": dump}}, true, "cpus, sockets",
			nowhere + "cpus), and " + sockets},
		{"the verb fills them", "balance", Options{Run: true, Ports: true}, true, "", ""},
		{"not run", "balance", Options{}, false, "", ""},
		{"the program fills its maps", "busy", Options{Run: true}, false, "", ""},
	} {
		o := open(t, path+":"+tt.program, tt.options)
		text := strings.Join(o.Warnings, "\n")
		if strings.Contains(text, missed) != tt.missed || strings.Join(o.Nowhere, ", ") != tt.nowhere ||
			o.NowhereText() != tt.text || strings.Contains(text, "nowhere") {
			t.Errorf("%s: nowhere %v, %q, warnings %q", tt.name, o.Nowhere, o.NowhereText(), text)
		}
		if tt.program == "busy" && strings.Contains(text, "lookups in them miss") {
			t.Errorf("%s: %q", tt.name, text)
		}
	}
}

// A map whose size is its loader's gets one, or the option is named.
func TestSizes(t *testing.T) {
	testutil.Root(t)
	path := compile(t, "-DFLOWS=0") + ":balance"
	if err := refused(t, path, Options{}); !strings.Contains(err.Error(), "add --map-size flows_of_this_balancer=N, or") {
		t.Error(err)
	}
	o := open(t, path, Options{Sizes: map[string]uint32{"flows_of_this_balancer": 7000, "hash": 1}})
	if flows, hash := o.Maps["flows_of_this_balancer"].MaxEntries(), o.Maps["hash"].MaxEntries(); flows != 7000 || hash != 1 {
		t.Errorf("room for %d flows and %d in the hash", flows, hash)
	}
	for name, want := range map[string]string{"none": "no map none", ".rodata": "a section of variables"} {
		if err := refused(t, path, Options{Sizes: map[string]uint32{name: 1}}); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	err := refused(t, path, Options{Sizes: map[string]uint32{"flows_of_this_balancer": 4e9}})
	if m := feature.AsMissing(err); m == nil || !strings.Contains(err.Error(), "memory for the maps of the object") {
		t.Errorf("a map larger than the machine: %v", err)
	}
}

// Maps of objects that are open at once have half of the memory together.
func TestBeside(t *testing.T) {
	testutil.Root(t)
	path := compile(t) + ":balance"
	first := open(t, path, Options{})
	want, err := CheckMemory(0, first.Spec.Maps)
	if err != nil || first.memory != want {
		t.Errorf("%d bytes, want %d, %v", first.memory, want, err)
	}
	half := memory.Limit() / 2
	open(t, path, Options{Beside: []*Opened{first, {memory: half - 2*want}}})
	err = refused(t, path, Options{Beside: []*Opened{first, {memory: half - 2*want + 1}}})
	if feature.AsMissing(err) == nil || !strings.Contains(err.Error(), "memory for the maps of the object") {
		t.Error(err)
	}
}

func TestSet(t *testing.T) {
	testutil.Root(t)
	path := compile(t) + ":balance"
	if v := verdict(t, open(t, path, Options{}).Program); v != 1 {
		t.Errorf("verdict %d as compiled, want XDP_DROP", v)
	}
	set := map[string]string{
		"small": "9", "level": "-5", "large": "0x10000000000", "on": "true", "mode": "MODE_SLOW", "config.port": "443",
		"config.strict": "1", "config.mac": "02:00:00:00:00:01", "config.backends[1].name": `"web"`,
		"config.backends[0].address": "192.0.2.1", "hidden": "8", "limit": "1000",
	}
	o := open(t, path, Options{Set: set})
	if v := verdict(t, o.Program); v != 3 {
		t.Errorf("verdict %d with variables set, want XDP_TX", v)
	}
	got := map[string][]byte{}
	for name, v := range variables(o.Spec) {
		got[name] = v.data
	}
	if want := (net.HardwareAddr{2, 0, 0, 0, 0, 1}); !slices.Equal(got["config"][3:9], want) {
		t.Errorf("address %v, want %v", got["config"][3:9], want)
	}
	if want := []byte{192, 0, 2, 1}; !slices.Equal(got["config"][12:16], want) {
		t.Errorf("address %v, want %v", got["config"][12:16], want)
	}
	for _, tt := range []struct{ name, value, want string }{
		{"smal", "1", "no global variable smal: it uses config, hidden, large,"},
		{"small", "256", "256 does not fit: 0 to 255 do"}, {"level", "4294967295", "does not fit"},
		{"level", "x", "no whole number"}, {"on", "2", "neither true nor false"},
		{"mode", "MODE", "none of MODE_FAST, MODE_SLOW"}, {"config", "0x00", "1 bytes are given"},
		{"config.por", "1", "no member por: it has port, strict"}, {"config.backends[2].name", "a", "has 2 elements"},
		{"config.backends[1].name", "longname", "7 and a zero fit"}, {"config.port[0]", "1", "is no array"},
		{"config.mac", "0x0", "not hex of whole bytes"}, {"config.port.x", "1", "is no structure"}, {"config.backends[x]", "1", "no index"},
	} {
		err := refused(t, path, Options{Set: map[string]string{tt.name: tt.value}})
		var option *OptionError
		if !errors.As(err, &option) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s=%s: %v, want %s", tt.name, tt.value, err, tt.want)
		}
	}
}
