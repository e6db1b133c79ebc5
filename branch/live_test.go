package branch

import (
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"

	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// live is the running kernel.
func live(t testing.TB) (*ktext.Live, *ksym.Table) {
	t.Helper()
	testutil.Root(t)
	l, err := ktext.OpenLive()
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	table, err := ksym.Live()
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	return l, table
}

func names(table *ksym.Table) Resolver {
	return func(addr uint64) (string, bool) {
		all := table.At(addr)
		if len(all) == 0 {
			return "", false
		}
		return all[len(all)-1].Name, true
	}
}

// TestLiveAgainstObjdump takes every twentieth function of the running kernel,
// and all of the redirect path that are not inlined.
func TestLiveAgainstObjdump(t *testing.T) {
	l, table := live(t)
	start, _ := table.Lookup("_stext")
	end, ok := table.Lookup("_etext")
	if !ok || start.Addr >= end.Addr {
		t.Fatal("no _stext and _etext")
	}
	text := make([]byte, end.Addr-start.Addr)
	if err := l.ReadAddr(text, start.Addr); err != nil {
		t.Fatal(err)
	}
	path := []string{"xdp_do_redirect", "bq_xmit_all", "dev_map_enqueue", "veth_xdp_xmit", "veth_poll", "__xdp_return",
		"xdp_return_frame", "cpu_map_enqueue", "__xsk_map_redirect", "page_pool_put_unrefed_netmem", "dma_map_page_attrs"}
	var p pieces
	classes := make(map[Class]int)
	resolve := names(table)
	follow := func(addr uint64) []byte {
		b := make([]byte, 32)
		if l.ReadAddr(b, addr) != nil {
			return nil
		}
		return b
	}
	n := 0
	for addr := start.Addr; addr < end.Addr; {
		s, off, ok := table.Find(addr)
		if !ok || s.Size == 0 {
			break
		}
		addr += s.Size - off
		if off != 0 || !s.Text() || s.Addr+s.Size > end.Addr || strings.HasPrefix(s.Name, "__pfx_") {
			continue
		}
		n++
		if n%20 != 0 && !slices.Contains(path, s.Name) {
			continue
		}
		code := text[s.Addr-start.Addr:][:s.Size]
		p.add(code)
		// Branches has every step that branches, and no other.
		want := 0
		for step := range Scan(code, s.Addr) {
			switch step.Kind {
			case CallDirect, CallIndirect, JumpDirect, JumpIndirect, JumpCond, Return:
				want++
			}
		}
		found := Branches(code, s.Addr, resolve, nil, follow)
		got := 0
		for _, b := range found {
			classes[b.Class]++
			if b.Class != ClassFar {
				got++
			}
		}
		for step := range Scan(code, s.Addr) {
			if step.special == far && step.Kind == Return {
				want--
			}
		}
		if got != want {
			t.Errorf("%s: %d branches, want %d", s.Name, got, want)
		}
		sites, returns := Sites(code, s.Addr, resolve, follow)
		indirect, back := countSteps(code, s.Addr, resolve, follow)
		for _, n := range returns {
			back -= n
		}
		if indirect != len(sites) || back != 0 {
			t.Errorf("%s: %d indirect branches, %d sites; %d returns apart", s.Name, indirect, len(sites), back)
		}
	}
	d := p.compare(t)
	t.Logf("%d of %d functions: %+v; %v", len(p.begin), n, d, classes)
	if d.starts+d.missing+d.invented+d.targets > 0 {
		t.Error("differs")
	}
}

// countSteps counts a function's indirect branches and returns by their
// instructions and by the names of thunks.
func countSteps(code []byte, addr uint64, resolve Resolver, follow func(addr uint64) []byte) (indirect, returns int) {
	for step := range Scan(code, addr) {
		switch step.Kind {
		case CallIndirect, JumpIndirect:
			indirect++
		case Return:
			if step.special != far {
				returns++
			}
		case CallDirect, JumpDirect, JumpCond:
			if step.Target >= addr && step.Target < addr+uint64(len(code)) {
				continue
			}
			switch name := resolve.lookup(step.Target); {
			case strings.HasPrefix(name, "__x86_indirect_"):
				indirect++
			case ReturnThunk(name) && step.Kind != CallDirect:
				returns++
			case name == "" && step.Kind != JumpCond:
				if NameIndirectThunk(follow(step.Target), step.Target, resolve).Kind == ThunkITS {
					indirect++
				}
			}
		}
	}
	return indirect, returns
}

// TestProgramsAgainstObjdump does so for what the BPF JIT makes.
func TestProgramsAgainstObjdump(t *testing.T) {
	_, table := live(t)
	_ = rlimit.RemoveMemlock()
	progs, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 4})
	testutil.SkipMissing(t, err)
	if err != nil {
		testutil.Missing(t, "loading BPF programs")
	}
	defer progs.Close()
	insns := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.FnGetPrandomU32.Call(),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.FnKtimeGetNs.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, progs.FD()),
		asm.Mov.Imm(asm.R3, 1),
		asm.FnTailCall.Call(), // a constant index: patched to a direct jump
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, progs.FD()),
		asm.Mov.Reg(asm.R3, asm.R7),
		asm.FnTailCall.Call(), // any index
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: insns})
	testutil.SkipMissing(t, err)
	if err != nil {
		testutil.Missing(t, "loading BPF programs")
	}
	defer prog.Close()
	if err := progs.Put(uint32(1), prog); err != nil {
		t.Fatal(err)
	}
	var p pieces
	next := ebpf.ProgramID(0)
	for {
		var err error
		if next, err = ebpf.ProgramGetNextID(next); err != nil {
			break
		}
		q, err := ebpf.NewProgramFromID(next)
		if err != nil {
			continue
		}
		info, err := q.Info()
		q.Close()
		if err != nil {
			continue
		}
		if code, ok := info.JitedInsns(); ok && len(code) > 0 {
			p.add(code)
		}
	}
	if len(p.begin) == 0 {
		testutil.Missing(t, "the BPF JIT's code")
	}
	d := p.compare(t)
	t.Logf("%d programs: %+v", len(p.begin), d)
	if d.starts+d.missing+d.invented+d.targets > 0 {
		t.Error("differs")
	}

	// The program of this test: both of its tail calls.
	info, err := prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	code, _ := info.JitedInsns()
	addrs, _ := info.JitedKsymAddrs()
	if len(addrs) != 1 || addrs[0] == 0 {
		testutil.Missing(t, "addresses of BPF programs")
	}
	// The symbols were read before it was loaded.
	resolve := func(addr uint64) (string, bool) {
		if addr == uint64(addrs[0]) {
			return "bpf_prog_test", true
		}
		return names(table)(addr)
	}
	own, indirect, helpers := 0, 0, 0
	for _, b := range Branches(code, uint64(addrs[0]), resolve, nil, nil) {
		switch {
		case b.Class == ClassDirect && b.Jump && b.Target > uint64(addrs[0]) && b.Target < b.Addr:
			own++ // the tail call into itself, behind its prologue
		case b.Indirect() && b.Jump:
			indirect++
		case b.Class == ClassDirect && !b.Jump:
			helpers++
		}
	}
	if own != 1 || indirect != 1 || helpers < 1 {
		t.Errorf("%d direct and %d indirect tail calls, %d helpers", own, indirect, helpers)
	}
}

// TestLiveFacts holds the running kernel's static keys and static calls
// against its text.
func TestLiveFacts(t *testing.T) {
	l, table := live(t)
	section := func(from, to string) ([]byte, uint64) {
		a, ok := table.Lookup(from)
		b, ok2 := table.Lookup(to)
		if !ok || !ok2 || b.Addr < a.Addr {
			testutil.Missing(t, "CONFIG_KALLSYMS_ALL")
		}
		data := make([]byte, b.Addr-a.Addr)
		if err := l.ReadAddr(data, a.Addr); err != nil {
			t.Fatal(err)
		}
		return data, a.Addr
	}
	text, start := section("_stext", "_etext")
	end := start + uint64(len(text))
	init, _ := table.Lookup("_sinittext")
	exec := func(addr uint64) bool {
		return addr >= start && addr < end || addr >= init.Addr && addr < init.Addr+8<<20
	}
	facts := new(Facts)
	for name, bounds := range map[string][2]string{
		"__jump_table":       {"__start___jump_table", "__stop___jump_table"},
		".static_call_sites": {"__start_static_call_sites", "__stop_static_call_sites"},
	} {
		data, addr := section(bounds[0], bounds[1])
		if err := facts.AddSection(name, data, addr, exec, names(table), nil); err != nil {
			t.Error(err)
		}
	}
	steps := make(map[uint64]Step)
	for step := range Scan(text, start) {
		if step.Kind != Other || step.special == pad || step.Len == 5 {
			steps[step.Addr] = step
		}
	}
	keys, off, calls, nothing := 0, 0, 0, 0
	for addr, fact := range facts.StaticKeys {
		if addr < start || addr >= end {
			continue
		}
		keys++
		switch step := steps[addr]; {
		case step.special == pad:
			off++
		case step.Kind != JumpDirect:
			t.Errorf("static key at %#x, %s: % x", addr, fact, text[addr-start:][:5])
		}
	}
	for addr, fact := range facts.StaticCalls {
		if addr < start || addr >= end {
			continue
		}
		calls++
		switch step := steps[addr]; step.Kind {
		case CallDirect, JumpDirect, JumpCond, Return:
		default:
			nothing++
			if step.special != pad && step.Len != 5 {
				t.Errorf("static call at %#x, %s: % x", addr, fact, text[addr-start:][:5])
			}
		}
	}
	t.Logf("%d static keys, %d of them off; %d static calls, %d of them of nothing", keys, off, calls, nothing)
	if keys == 0 || calls == 0 {
		t.Error("no sites")
	}
}
