package progcode

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/bpf/sample"
	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/stat"
	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) {
	if guest.First() { // of what TestJumpTable boots
		guest.Init()
	}
	testutil.NoLeaks(m)
}

// loadSample loads a program of package sample.
func loadSample(t *testing.T, name string) *ebpf.Program {
	t.Helper()
	testutil.Root(t)
	coll, p, err := sample.Load(name)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	return p
}

// assembled loads a program of instructions, without BTF.
func assembled(t *testing.T, insns ...asm.Instruction) *ebpf.Program {
	t.Helper()
	testutil.Root(t)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "assembled", Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: insns})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// newMap makes a map that programs can use.
func newMap(t *testing.T, spec ebpf.MapSpec) *ebpf.Map {
	t.Helper()
	testutil.Root(t)
	m, err := ebpf.NewMap(&spec)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func readProgram(t *testing.T, p *ebpf.Program) *Code {
	t.Helper()
	k, err := kernel.OpenLive()
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	c, err := Read(k, p)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	if c.Unseen != "" || c.Unpaired != 0 {
		t.Errorf("%s: %d stretches are not paired, unseen: %q", c.Name, c.Unpaired, c.Unseen)
	}
	return c
}

// said are the sites of a program in words, for comparison: the kind, how it is made without
// the class of thunk, what is called, the maps, how many indirect branches are within.
func said(c *Code) (out []string) {
	for i := range c.Sites {
		s := &c.Sites[i]
		row := c.row(s)
		made := row.Made
		if row.Indirect {
			made = "indirect"
		}
		index := ""
		if row.Index != nil {
			index = fmt.Sprintf("[%d]", *row.Index)
		}
		words := []string{row.Kind, made, row.Calls, strings.Join(row.Maps, " or ") + index}
		if row.Inner != nil {
			words = append(words, "in "+strings.Join(row.Inner, " or "))
		}
		if row.Within > 0 {
			words = append(words, "within "+strconv.Itoa(row.Within))
		}
		if len(row.Programs) > 0 {
			words = append(words, "to "+strings.Join(row.Programs, ","))
		}
		if row.Source != nil {
			words = append(words, "|", row.Source.Text)
		}
		text := strings.Join(strings.Fields(strings.Join(words, " ")), " ")
		// Linux 6.1 calls it, 6.12 has it inline.
		out = append(out, strings.Replace(text, "lookup direct percpu_array_map_lookup_elem", "lookup inline", 1))
	}
	return out
}

// What each program of package sample does is read off its code.
func TestSamples(t *testing.T) {
	for name, want := range map[string][]string{
		"pass": nil,
		"loop": nil,
		"nat": {
			"lookup direct __htab_map_lookup_elem flows | t = bpf_map_lookup_elem(&flows, &flow);",
			"helper direct bpf_user_rnd_u32 | fresh.from_port = swap16(32768 + (bpf_get_prandom_u32() & 16383));",
			"update direct htab_lru_map_update_elem flows | bpf_map_update_elem(&flows, &flow, &fresh, BPF_ANY);",
			"lookup inline nat_counters | count = bpf_map_lookup_elem(&nat_counters, &missed);",
		},
		"tailcall": {"tail-call indirect table to leaf_tx,leaf_drop,leaf_pass | bpf_tail_call(ctx, &table, index);"},
		"tailconstant": {
			"tail-call empty table[3] | bpf_tail_call(ctx, &table, 3);",
			"tail-call direct leaf_drop table[1] to leaf_drop | bpf_tail_call(ctx, &table, 1);",
		},
		"twomaps": {
			"lookup direct bpf_map_lookup_elem local or backends within 1 | value = bpf_map_lookup_elem(map, &key);",
			"lookup direct __htab_map_lookup_elem remote | value = bpf_map_lookup_elem(&remote, &key);",
		},
		"each": {
			"callback direct bpf_for_each_array_elem backends within 1 | bpf_for_each_map_elem(&backends, add, &sum, 0);",
		},
		"redirect": {"redirect direct dev_map_redirect ports | return bpf_redirect_map(&ports, ctx->rx_queue_index, XDP_DROP);"},
		"steps": {
			"subprogram direct backend_of | value = backend_of(ip->from);",
			"subprogram direct backend_of | value = backend_of(ip->to);",
			"lookup inline backends | return bpf_map_lookup_elem(&backends, &index);",
		},
		"encap": {"helper direct bpf_xdp_adjust_head | if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*outer)))"},
	} {
		got := said(readProgram(t, loadSample(t, name)))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// lookup calls bpf_map_lookup_elem with the map in register 1 and a key of zeros.
func lookup() []asm.Instruction {
	return []asm.Instruction{
		asm.Mov.Imm(asm.R2, 0), asm.StoreMem(asm.RFP, -8, asm.R2, asm.DWord), asm.StoreMem(asm.RFP, -16, asm.R2, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -16), asm.FnMapLookupElem.Call(),
	}
}

func done() []asm.Instruction { return []asm.Instruction{asm.Mov.Imm(asm.R0, 1), asm.Return()} }

// Maps are named that a program without BTF looks into: by whatever way they got into the
// register.
func TestMaps(t *testing.T) {
	hash := ebpf.MapSpec{Name: "a_hash", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 4}
	other, array := hash, hash
	other.Name, array.Name, array.Type = "b_hash", "an_array", ebpf.Array
	outer := ebpf.MapSpec{Name: "outer", Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 2, InnerMap: &hash}
	outerHash := outer
	outerHash.Name, outerHash.Type = "outer_hash", ebpf.HashOfMaps
	perCPU := array
	perCPU.Name, perCPU.Type = "per_cpu", ebpf.PerCPUArray
	trie := ebpf.MapSpec{Name: "a_trie", Type: ebpf.LPMTrie, KeySize: 8, ValueSize: 8, MaxEntries: 4, Flags: 1}
	load := func(r asm.Register, spec ebpf.MapSpec) asm.Instruction {
		return asm.LoadMapPtr(r, newMap(t, spec).FD())
	}
	known := func(spec ebpf.MapSpec) []asm.Instruction {
		return slices.Concat([]asm.Instruction{load(asm.R1, spec)}, lookup(), done())
	}
	inner := func(spec ebpf.MapSpec) []asm.Instruction {
		return slices.Concat([]asm.Instruction{load(asm.R1, spec)}, lookup(),
			[]asm.Instruction{asm.JEq.Imm(asm.R0, 0, "out"), asm.Mov.Reg(asm.R1, asm.R0)}, lookup(),
			[]asm.Instruction{asm.Mov.Imm(asm.R0, 1).WithSymbol("out"), asm.Return()})
	}
	either := func(a, b ebpf.MapSpec) []asm.Instruction {
		return slices.Concat([]asm.Instruction{
			asm.LoadMem(asm.R6, asm.R1, 16, asm.Word), load(asm.R1, a), asm.JEq.Imm(asm.R6, 0, "go"), load(asm.R1, b),
			asm.Mov.Imm(asm.R7, 0).WithSymbol("go"),
		}, lookup(), done())
	}
	for name, test := range map[string]struct {
		insns []asm.Instruction
		want  []string
	}{
		"hash":          {known(hash), []string{"lookup direct __htab_map_lookup_elem a_hash"}},
		"array":         {known(array), []string{"lookup inline an_array"}},
		"per-CPU array": {known(perCPU), []string{"lookup inline per_cpu"}},
		"trie":          {known(trie), []string{"lookup direct trie_lookup_elem a_trie"}},
		"moved": {
			slices.Concat([]asm.Instruction{load(asm.R7, hash), asm.FnKtimeGetNs.Call(), asm.Mov.Reg(asm.R1, asm.R7)}, lookup(), done()),
			[]string{"helper direct bpf_ktime_get_ns", "lookup direct __htab_map_lookup_elem a_hash"},
		},
		"spilled": {
			slices.Concat([]asm.Instruction{
				load(asm.R7, array), asm.StoreMem(asm.RFP, -32, asm.R7, asm.DWord), asm.FnKtimeGetNs.Call(),
				asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -24), asm.LoadMem(asm.R1, asm.R3, -8, asm.DWord),
			}, lookup(), done()),
			[]string{"helper direct bpf_ktime_get_ns", "lookup inline an_array"},
		},
		"either":      {either(hash, array), []string{"lookup direct bpf_map_lookup_elem a_hash or an_array within 1"}},
		"either hash": {either(hash, other), []string{"lookup direct bpf_map_lookup_elem a_hash or b_hash within 1"}},
		"inner":       {inner(outer), []string{"lookup inline outer", "lookup direct __htab_map_lookup_elem in outer"}},
		"inner of hash": {
			inner(outerHash), []string{"lookup direct __htab_map_lookup_elem outer_hash", "lookup direct __htab_map_lookup_elem in outer_hash"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := said(readProgram(t, assembled(t, test.insns...)))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Of several tail calls between two lines each is told from the others, whatever its
// entry holds.
func TestTailCalls(t *testing.T) {
	table := newMap(t, ebpf.MapSpec{Name: "table", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 4})
	leaf := assembled(t, done()...)
	if err := table.Put(uint32(1), leaf); err != nil {
		t.Fatal(err)
	}
	jump := func(index ...asm.Instruction) []asm.Instruction {
		return slices.Concat([]asm.Instruction{asm.Mov.Reg(asm.R1, asm.R6), asm.LoadMapPtr(asm.R2, table.FD())}, index,
			[]asm.Instruction{asm.FnTailCall.Call()})
	}
	variable := asm.LoadMem(asm.R3, asm.R6, 16, asm.Word)
	for name, test := range map[string]struct {
		indexes []asm.Instruction
		want    []string
	}{
		"empty, variable, filled": {
			[]asm.Instruction{asm.Mov.Imm(asm.R3, 2), variable, asm.Mov.Imm(asm.R3, 1)},
			[]string{"tail-call empty table[2]", "tail-call indirect table to assembled",
				"tail-call direct assembled table[1] to assembled"},
		},
		"variable, empty": {
			[]asm.Instruction{variable, asm.Mov.Imm(asm.R3, 0)},
			[]string{"tail-call indirect table to assembled", "tail-call empty table[0]"},
		},
		"empty": {[]asm.Instruction{asm.Mov.Imm(asm.R3, 0)}, []string{"tail-call empty table[0]"}},
	} {
		t.Run(name, func(t *testing.T) {
			insns := []asm.Instruction{asm.Mov.Reg(asm.R6, asm.R1)}
			for _, index := range test.indexes {
				insns = append(insns, jump(index)...)
			}
			got := said(readProgram(t, assembled(t, append(insns, done()...)...)))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A loop that the verifier inlines calls its callback directly, one that it does not inline
// by the helper.
func TestLoops(t *testing.T) {
	testutil.Root(t)
	pair, err := price.LoadPair([2]string{"loop_called", "loop_inlined"})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer pair.Close()
	for i, want := range []string{"callback direct bpf_loop within 1", "subprogram direct add_turn"} {
		c := readProgram(t, pair.Programs[i])
		got := slices.DeleteFunc(said(c), func(s string) bool { return strings.Contains(s, "ktime_get_ns") })
		if len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("%q, want %s", got, want)
		}
	}
}

// Functions of the kernel that are called by name are kfuncs.
func TestKfunc(t *testing.T) {
	testutil.Root(t)
	types, err := btf.LoadKernelSpec()
	if err != nil {
		testutil.Missing(t, "BTF")
	}
	var calls []asm.Instruction
	for _, name := range []string{"bpf_rcu_read_lock", "bpf_rcu_read_unlock"} {
		var function *btf.Func
		if err := types.TypeByName(name, &function); err != nil {
			testutil.Missing(t, "bpf_rcu_read_lock") // Linux 6.2
		}
		id, err := types.TypeID(function)
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, asm.Instruction{
			OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: callKfunc, Constant: int64(id),
		})
	}
	got := said(readProgram(t, assembled(t, append(calls, done()...)...)))
	if diff := cmp.Diff([]string{"kfunc direct bpf_rcu_read_lock", "kfunc direct bpf_rcu_read_unlock"}, got); diff != "" {
		t.Error(diff)
	}
}

// What is attached at the entry of a program shows, and so does what stands in its place.
func TestEntry(t *testing.T) {
	target := loadSample(t, "pass")
	tracer, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "tracer", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTarget: target, AttachTo: "pass", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Logf("%v", err)
		testutil.Missing(t, "fentry")
	}
	defer tracer.Close()
	traced, err := link.AttachTracing(link.TracingOptions{Program: tracer})
	if err != nil {
		t.Logf("%v", err)
		testutil.Missing(t, "fentry") // the verifier takes it, and the kernel has no trampolines
	}
	got := said(readProgram(t, target))
	if len(got) != 1 || !strings.HasPrefix(got[0], "attached direct bpf_trampoline_") {
		t.Errorf("%q", got)
	}
	if err := traced.Close(); err != nil {
		t.Fatal(err)
	}
	if got := said(readProgram(t, target)); len(got) != 0 {
		t.Errorf("after it was detached: %q", got)
	}
	spec, err := sample.Spec()
	if err != nil {
		t.Fatal(err)
	}
	other := spec.Programs["leaf_drop"]
	other.Type, other.AttachType, other.AttachTarget, other.AttachTo = ebpf.Extension, ebpf.AttachNone, target, "pass"
	replacement, err := ebpf.NewProgram(other)
	if err != nil {
		t.Fatal(err)
	}
	defer replacement.Close()
	replaced, err := link.AttachFreplace(target, "pass", replacement)
	if err != nil {
		t.Fatal(err)
	}
	defer replaced.Close()
	if got := said(readProgram(t, target)); !slices.Equal(got, []string{"replaced direct leaf_drop"}) {
		t.Errorf("%q", got)
	}
	if c := readProgram(t, replacement); c.about().Type != "extension" {
		t.Errorf("%+v", c.about())
	}
}

// The parts of a program are read beside it: functions, places and maps, of which one that
// both use is one.
func TestParts(t *testing.T) {
	testutil.Root(t)
	spec, err := sample.Spec()
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != "twomaps" && name != "steps" })
	delete(spec.Maps, "table") // it has programs
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer coll.Close()
	c := readProgram(t, coll.Programs["twomaps"])
	alone := said(c)
	part := readProgram(t, coll.Programs["steps"])
	info, err := coll.Programs["steps"].Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	bytes := c.Native + part.Native
	if err := c.AddID(id); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append(alone, said(part)...), said(c)); diff != "" {
		t.Error(diff)
	}
	if len(c.Maps) != 3 || len(c.Functions) != 3 || c.Native != bytes || c.Functions[2].Name != "backend_of" {
		t.Errorf("%d maps, %d functions, %d bytes", len(c.Maps), len(c.Functions), c.Native)
	}
	if err := c.AddID(1 << 31); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a program that is gone: %v", err)
	}
}

// The programs that tail calls go to are read too, each once, those of their tables as well.
func TestFollow(t *testing.T) {
	c := readProgram(t, loadSample(t, "tailcall"))
	if left, err := c.Follow(t.Context()); err != nil || left != 0 {
		t.Fatal(left, err)
	}
	var names []string
	for _, f := range c.Functions {
		names = append(names, f.Name)
	}
	if diff := cmp.Diff([]string{"tailcall", "leaf_tx", "leaf_drop", "leaf_pass"}, names); diff != "" {
		t.Error(diff)
	}
	// A program in a table of its own, in many entries, beside many others.
	table := newMap(t, ebpf.MapSpec{Name: "table", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 300})
	self := assembled(t, asm.LoadMem(asm.R3, asm.R1, 16, asm.Word), asm.LoadMapPtr(asm.R2, table.FD()), asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, 1), asm.Return())
	for i := range uint32(150) {
		if err := table.Put(i, assembled(t, done()...)); err != nil {
			t.Fatal(err)
		}
		if err := table.Put(299-i, self); err != nil {
			t.Fatal(err)
		}
	}
	c = readProgram(t, self)
	if left, err := c.Follow(t.Context()); err != nil || left != 150-maxFollowed || len(c.Functions) != 1+maxFollowed {
		t.Errorf("%d left, %d functions: %v", left, len(c.Functions), err)
	}
	if c.Maps[0].Filled != 300 {
		t.Errorf("%d entries", c.Maps[0].Filled)
	}
}

// Prices are those of what the code has, and what to change is said where it applies.
func TestAdvice(t *testing.T) {
	prices := []record.TaxRow{
		taxed("tail-call", 12), taxed("map-lookup/hash", 18), taxed("callback/for-each", 9), taxed("direct-call", 1), taxed("bpf-prog", 7),
		taxed("tracepoint/1", 50),
	}
	for name, want := range map[string]struct {
		pairs, changes []string
	}{
		"pass":         {nil, nil},
		"nat":          {[]string{"direct-call"}, nil},
		"tailcall":     {[]string{"tail-call"}, []string{"constant-index 12"}},
		"tailconstant": {nil, nil},
		"twomaps":      {[]string{"direct-call", "map-lookup/hash"}, []string{"known-map 18"}},
		"each":         {[]string{"callback/for-each"}, []string{"inline-loop 9"}},
		"redirect":     {[]string{"direct-call"}, []string{"dispatcher 7", "observers 50"}},
	} {
		doc := readProgram(t, loadSample(t, name)).Record(host.Fingerprint{})
		if diff := cmp.Diff(want.pairs, Pairs(doc, false)); diff != "" {
			t.Errorf("%s, pairs: %s", name, diff)
		}
		if name == "redirect" {
			doc.Program.Attached = []string{"eth0 (native)"}
			doc.Dispatcher = &record.ProgXrayDispatcher{Programs: 48, Slots: 48}
			if diff := cmp.Diff([]string{"bpf-prog", "direct-call", "tracepoint/1"}, Pairs(doc, true)); diff != "" {
				t.Errorf("%s, pairs: %s", name, diff)
			}
		}
		Price(doc, prices, "here")
		Advise(doc, prices, []string{"dump at xdp_redirect"})
		var changes []string
		for _, c := range doc.Changes {
			changes = append(changes, fmt.Sprintf("%s %.0f", c.What, c.Saves.Median))
		}
		if diff := cmp.Diff(want.changes, changes); diff != "" {
			t.Errorf("%s, changes: %s", name, diff)
		}
	}
}

func taxed(name string, ns float64) record.TaxRow {
	return record.TaxRow{Name: name, Price: &stat.Quantity{Median: ns, Low: ns, High: ns, N: 7, Unit: "ns"}}
}

// objdump and this package see the same calls, and there are as many as BPF instructions
// that call.
func TestAgainstObjdump(t *testing.T) {
	objdump, err := exec.LookPath("objdump")
	if err != nil {
		testutil.Missing(t, "objdump")
	}
	call := regexp.MustCompile(`(?m)^\s*([0-9a-f]+):\s.*\tcall\s+0x([0-9a-f]+)`)
	for _, name := range []string{"nat", "tailcall", "twomaps", "each", "redirect", "steps", "encap"} {
		p := loadSample(t, name)
		c := readProgram(t, p)
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		insns, err := info.Instructions()
		if err != nil {
			t.Fatal(err)
		}
		calls := 0
		for i := range insns {
			if isCall(&insns[i]) && insns[i].Constant != tailCall {
				calls++
			}
		}
		var seen int
		for f, fn := range c.Functions {
			file := filepath.Join(t.TempDir(), "code")
			if err := os.WriteFile(file, fn.Code, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(objdump, "-D", "-b", "binary", "-m", "i386:x86-64", "--adjust-vma="+fmt.Sprintf("%#x", fn.Addr), file).Output()
			if err != nil {
				t.Fatal(err)
			}
			var want, got []int64
			for _, m := range call.FindAllSubmatch(out, -1) {
				addr, err := strconv.ParseUint(string(m[1]), 16, 64)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, int64(addr-fn.Addr))
			}
			for _, s := range c.Sites {
				if s.Function == f && s.Offset >= 0 && s.Kind != KindTailCall {
					got = append(got, s.Offset)
				}
			}
			seen += len(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %s (-objdump +got):\n%s", name, fn.Name, diff)
			}
		}
		if seen != calls {
			t.Errorf("%s: objdump sees %d calls, the BPF instructions have %d", name, seen, calls)
		}
	}
}

// The listing has each line of the source that the code has, before its first instruction.
func TestListing(t *testing.T) {
	c := readProgram(t, loadSample(t, "nat"))
	doc := c.Listing(host.Fingerprint{})
	lines, notes := 0, 0
	for i := range doc.Listings {
		for line := range c.Lines(i) {
			if line.Source != nil {
				lines++
			}
			if strings.HasPrefix(line.Note, "lookup flows") {
				notes++
			}
		}
	}
	if lines < 20 || notes != 1 {
		t.Errorf("%d lines of the source, %d notes on a lookup", lines, notes)
	}
}

// A program may be half a million calls, which took 600 MB: it is refused.
func TestManyCalls(t *testing.T) {
	insns := make([]asm.Instruction, maxBranches+1, maxBranches+3)
	for i := range insns {
		insns[i] = asm.FnGetPrandomU32.Call()
	}
	p := assembled(t, append(insns, done()...)...)
	k, err := kernel.OpenLive()
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := Read(k, p); err == nil || !strings.Contains(err.Error(), "more than 262144 calls and jumps") {
		t.Error(err)
	}
}

// A program of 100 000 instructions is read within two seconds.
func TestLarge(t *testing.T) {
	m := newMap(t, ebpf.MapSpec{Name: "a_hash", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 4})
	other := newMap(t, ebpf.MapSpec{Name: "an_array", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 4})
	var insns []asm.Instruction
	const turns = 5000
	for i := range turns {
		which := m
		if i%2 == 1 {
			which = other
		}
		label := fmt.Sprintf("next%d", i)
		insns = append(insns, asm.LoadMapPtr(asm.R1, which.FD()))
		insns = append(insns, lookup()...)
		insns = append(insns, asm.JEq.Imm(asm.R0, 0, label), asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord), asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord), asm.Mov.Imm(asm.R1, 0).WithSymbol(label))
		for range 8 {
			insns = append(insns, asm.Mov.Imm(asm.R2, int32(i)))
		}
	}
	p := assembled(t, append(insns, done()...)...)
	start := time.Now()
	c := readProgram(t, p)
	took := time.Since(start)
	t.Logf("%d BPF instructions, %d bytes: %v", c.Xlated, c.Native, took)
	if c.Xlated < 100_000 || len(c.Sites) != turns {
		t.Errorf("%d instructions, %d sites", c.Xlated, len(c.Sites))
	}
	if took > 10*time.Second { // two on a quiet machine
		t.Errorf("it took %v", took)
	}
	for i, s := range c.Sites {
		if want := []string{"a_hash", "an_array"}[i%2]; len(s.Maps) != 1 || c.Maps[s.Maps[0]].Name != want {
			t.Fatalf("site %d is of %v, want %s", i, s.Maps, want)
		}
	}
	doc := c.Record(host.Fingerprint{})
	if len(doc.Rows) != turns {
		t.Errorf("%d rows", len(doc.Rows))
	}
}
