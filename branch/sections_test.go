package branch

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/unthunk/unthunk/internal/testutil"
)

// table assembles sections of relative pointers.
type table struct {
	addr uint64
	b    []byte
}

func (s *table) rel(target uint64) *table {
	s.b = binary.LittleEndian.AppendUint32(s.b, uint32(target-s.addr-uint64(len(s.b))))
	return s
}
func (s *table) u16(v uint16) *table { s.b = binary.LittleEndian.AppendUint16(s.b, v); return s }
func (s *table) u64(v uint64) *table { s.b = binary.LittleEndian.AppendUint64(s.b, v); return s }
func (s *table) u8(v ...byte) *table { s.b = append(s.b, v...); return s }

const (
	textAt  = 0xffffffff81000000
	tableAt = 0xffffffff83000000
)

func inText(addr uint64) bool { return addr >= textAt && addr < textAt+0x10000 }

func TestAlternatives(t *testing.T) {
	newer := &table{addr: tableAt}
	newer.rel(textAt+0x10).rel(textAt+0x8000).u16(3*32+16).u16(0).u8(5, 5).
		rel(textAt+0x20).rel(textAt+0x8005).u16(11*32+12).u16(1).u8(5, 2).
		rel(textAt+0x30).rel(textAt+0x8007).u16(8*32+16).u16(2).u8(6, 6)
	older := &table{addr: tableAt}
	older.rel(textAt+0x10).rel(textAt+0x8000).u16(3*32+16).u8(5, 5).
		rel(textAt+0x20).rel(tableAt).u16(0x8000|11*32+12).u8(5, 0)
	oldest := &table{addr: tableAt}
	oldest.rel(textAt+0x10).rel(textAt+0x8000).u16(3*32+16).u8(5, 5, 2)
	a := Alternative{Addr: textAt + 0x10, Len: 5, Replacement: textAt + 0x8000, ReplacementLen: 5, Feature: 3*32 + 16}
	for _, tt := range []struct {
		name string
		data []byte
		want []Alternative
	}{
		{"6.12", newer.b, []Alternative{a,
			{Addr: textAt + 0x20, Len: 5, Replacement: textAt + 0x8005, ReplacementLen: 2, Feature: 11*32 + 12, Not: true},
			{Addr: textAt + 0x30, Len: 6, Replacement: textAt + 0x8007, ReplacementLen: 6, Feature: 8*32 + 16, Direct: true}}},
		{"6.1", older.b, []Alternative{a,
			{Addr: textAt + 0x20, Len: 5, Replacement: tableAt, Feature: 11*32 + 12, Not: true}}},
		{"5.10", oldest.b, []Alternative{a}},
		{"empty", nil, nil},
	} {
		got, err := Alternatives(tt.data, tableAt, inText)
		if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreUnexported(Alternative{})); err != nil || diff != "" {
			t.Errorf("%s: %v %s", tt.name, err, diff)
		}
	}
	for _, data := range [][]byte{newer.b[:13], newer.b[1:], make([]byte, 14*12*13), {1}} {
		if _, err := Alternatives(data, tableAt, inText); !errors.Is(err, ErrLayout) {
			t.Errorf("% x: %v", data, err)
		}
	}
}

func TestSections(t *testing.T) {
	resolve := func(addr uint64) (string, bool) {
		name, ok := map[uint64]string{
			textAt + 0x100: "other",
			tableAt + 0x80: "xdp_key",
			tableAt + 0x90: "__SCK__might_resched",
		}[addr]
		return name, ok
	}
	replacement := (&code{base: textAt + 0x8000}).rel("\xe8", textAt+0x100).b
	text := func(addr uint64) []byte {
		if addr == textAt+0x8000 {
			return append(replacement, 0xcc, 0xcc)
		}
		return nil
	}
	var f Facts
	add := func(name string, data []byte) {
		t.Helper()
		if err := f.AddSection(name, data, tableAt, inText, resolve, text); err != nil {
			t.Error(err)
		}
	}
	s := &table{addr: tableAt}
	s.rel(textAt + 0x10).rel(textAt + 0x100)
	add("__jump_table", s.u64(0x80-8|1).b)
	s = &table{addr: tableAt}
	add(".static_call_sites", s.rel(textAt+0x20).rel(tableAt+0x90|1).b)
	s = &table{addr: tableAt}
	add(".parainstructions", s.u64(textAt+0x30).u8(7, 6, 0, 0, 0, 0, 0, 0).u64(textAt+0x36).u8(8, 6).b)
	for _, name := range []string{".retpoline_sites", ".return_sites", ".call_sites", ".ibt_endbr_seal"} {
		s = &table{addr: tableAt}
		add(name, s.rel(textAt+0x40).b)
	}
	s = &table{addr: tableAt}
	s.rel(textAt+0x50).rel(textAt+0x8000).u16(9*32+9).u16(0).u8(5, 5)
	add(".altinstructions", s.rel(textAt+0x50).rel(textAt+0x8005).u16(30*32).u16(1).u8(5, 0).b)
	add(".rodata", []byte{1})
	site := func(fact string) map[uint64]string { return map[uint64]string{textAt + 0x40: fact} }
	want := Facts{
		StaticKeys:     map[uint64]string{textAt + 0x10: "jmp other, key xdp_key"},
		StaticCalls:    map[uint64]string{textAt + 0x20: "might_resched"},
		Alternatives:   map[uint64]string{textAt + 0x50: "call other if ERMS; nop unless feature 30*32+0"},
		RetpolineSites: site("retpoline"), ReturnSites: site("return"), CallSites: site("call"), Sealed: site("endbr64"),
		Paravirt: map[uint64]string{textAt + 0x30: "pv_ops[7]", textAt + 0x36: "pv_ops[8]"},
	}
	f.alternatives = nil
	if diff := cmp.Diff(want, f, cmp.AllowUnexported(Facts{})); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{
		"__jump_table", ".static_call_sites", ".parainstructions", ".retpoline_sites", ".altinstructions",
	} {
		for _, data := range [][]byte{{1, 2, 3}, make([]byte, 16*14)} {
			var f Facts
			if err := f.AddSection(name, data, tableAt, inText, nil, nil); !errors.Is(err, ErrLayout) {
				t.Errorf("%s: %v", name, err)
			}
			if diff := cmp.Diff(Facts{}, f, cmp.AllowUnexported(Facts{})); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	}
}

// relocated is a module as it would be loaded: sections one behind the other,
// symbols it lacks beyond them.
type relocated struct {
	sections map[string]*table
	text     []*table
	names    map[uint64]string
}

func (r *relocated) exec(addr uint64) bool { return r.bytes(addr) != nil }

func (r *relocated) bytes(addr uint64) []byte {
	for _, s := range r.text {
		if addr >= s.addr && addr < s.addr+uint64(len(s.b)) {
			return s.b[addr-s.addr:]
		}
	}
	return nil
}

func relocate(t testing.TB, name string) *relocated {
	t.Helper()
	f, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := &relocated{sections: make(map[string]*table), names: make(map[uint64]string)}
	placed := make([]*table, len(f.Sections))
	addr := uint64(0xffffffffc0200000)
	for i, s := range f.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 || s.Type == elf.SHT_NOBITS {
			placed[i] = &table{addr: addr}
			continue
		}
		b, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		addr = (addr + 63) &^ 63
		placed[i] = &table{addr: addr, b: append([]byte(nil), b...)}
		addr += uint64(len(b)) + 64
		if s.Flags&elf.SHF_EXECINSTR != 0 {
			r.text = append(r.text, placed[i])
		}
		r.sections[s.Name] = placed[i]
	}
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	at := make([]uint64, len(symbols)+1)
	for i, s := range symbols {
		switch {
		case s.Section == elf.SHN_UNDEF:
			addr += 64
			at[i+1] = addr
			r.names[addr] = s.Name
		case int(s.Section) < len(placed):
			at[i+1] = placed[s.Section].addr + s.Value
			if elf.ST_TYPE(s.Info) != elf.STT_SECTION && s.Name != "" {
				r.names[at[i+1]] = s.Name
			}
		}
	}
	for _, s := range f.Sections {
		if s.Type != elf.SHT_RELA || placed[s.Info] == nil || len(placed[s.Info].b) == 0 {
			continue
		}
		data, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		to := placed[s.Info]
		for ; len(data) >= 24; data = data[24:] {
			off := binary.LittleEndian.Uint64(data)
			info := binary.LittleEndian.Uint64(data[8:])
			v := at[info>>32] + binary.LittleEndian.Uint64(data[16:])
			switch elf.R_X86_64(info & 0xffffffff) {
			case elf.R_X86_64_PC32, elf.R_X86_64_PLT32:
				binary.LittleEndian.PutUint32(to.b[off:], uint32(v-to.addr-off))
			case elf.R_X86_64_PC64:
				binary.LittleEndian.PutUint64(to.b[off:], v-to.addr-off)
			case elf.R_X86_64_64:
				binary.LittleEndian.PutUint64(to.b[off:], v)
			case elf.R_X86_64_32, elf.R_X86_64_32S:
				binary.LittleEndian.PutUint32(to.b[off:], uint32(v))
			}
		}
	}
	return r
}

// TestModuleFacts holds the branches of modules against what the compiler and
// objtool wrote down of them: each site is a branch of its class, and no
// other is.
func TestModuleFacts(t *testing.T) {
	testutil.Slow(t) // under QEMU's user mode
	t.Parallel()
	for _, version := range kernels {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			var sites, total [8]int
			files := modules(t, version)
			for _, name := range files {
				r := relocate(t, name)
				resolve := func(addr uint64) (string, bool) { name, ok := r.names[addr]; return name, ok }
				facts := new(Facts)
				for name, s := range r.sections {
					if err := facts.AddSection(name, s.b, s.addr, r.exec, resolve, r.bytes); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
				var got [8]int
				for _, s := range r.text {
					if s == r.sections[".altinstr_replacement"] {
						continue
					}
					for _, b := range Branches(s.b, s.addr, resolve, facts, r.bytes) {
						switch b.Class {
						case ClassRetpoline:
							got[0]++
							if b.Pending == "" && len(facts.RetpolineSites) > 0 || b.Register == "" {
								t.Errorf("%s: %+v", name, b)
							}
						case ClassReturn, ClassReturnThunk:
							got[1]++
						case ClassStaticKey:
							got[2]++
						case ClassStaticCall:
							got[3]++
						case ClassParavirt:
							got[4]++
						}
					}
				}
				want := [8]int{len(facts.RetpolineSites), got[1], len(facts.StaticKeys), len(facts.StaticCalls), got[4]}
				if len(facts.RetpolineSites) == 0 {
					// Assembler files of 5.10 that objtool did not see:
					// their calls stay as they are.
					want[0] = got[0]
				}
				if n := len(facts.ReturnSites); n > 0 {
					want[1] = n
				}
				if n := len(facts.Paravirt); n > 0 {
					want[4] = n
				}
				if got != want {
					t.Errorf("%s: %v branches of retpolines, returns, static keys, static calls, paravirt; %v sites",
						filepath.Base(name), got, want)
				}
				for i := range got {
					total[i] += got[i]
				}
				sites[0] += len(facts.Alternatives)
				sites[1] += len(facts.CallSites)
			}
			t.Logf("%d modules: %v retpolines, returns, static keys, static calls, paravirt;"+
				" %d alternatives, %d call sites", len(files), total[:5], sites[0], sites[1])
		})
	}
}

// TestKernelFacts does so for a kernel image, which has no symbols.
func TestKernelFacts(t *testing.T) {
	t.Parallel()
	testutil.Slow(t)
	for _, version := range kernels {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			f, err := elf.Open(vmlinux(t, version))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			r := &relocated{sections: make(map[string]*table)}
			steps := make(map[uint64]Step)
			for _, s := range f.Sections {
				if s.Type != elf.SHT_PROGBITS {
					continue
				}
				if s.Flags&elf.SHF_EXECINSTR == 0 && !strings.HasSuffix(s.Name, "_sites") && s.Name != ".altinstructions" &&
					s.Name != ".parainstructions" && s.Name != ".ibt_endbr_seal" {
					continue
				}
				b, err := s.Data()
				if err != nil {
					t.Fatal(err)
				}
				r.sections[s.Name] = &table{addr: s.Addr, b: b}
				if s.Flags&elf.SHF_EXECINSTR != 0 {
					r.text = append(r.text, r.sections[s.Name])
					for step := range Scan(b, s.Addr) {
						if step.Kind != Other || step.special != nothing {
							steps[step.Addr] = step
						}
					}
				}
			}
			var facts Facts
			for name, s := range r.sections {
				if err := facts.AddSection(name, s.b, s.addr, r.exec, nil, r.bytes); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			named := 0
			for _, list := range facts.alternatives {
				for _, a := range list {
					switch branches := a.Direct || branching(r.bytes(a.Addr)[:a.Len]) || branching(r.bytes(a.Replacement)[:a.ReplacementLen]); {
					case a.old || !branches:
					case strings.HasPrefix(a.feature(), "feature "):
						t.Errorf("a branch at %#x is replaced by %s, which has no name", a.Addr, a.feature())
					default:
						named++
					}
				}
			}
			if named > 0 { // older kernels number some features otherwise
				t.Logf("%s: %d alternatives with branches, each with the name of its feature", version, named)
			}
			is := func(what string, sites map[uint64]string, allowed int, kinds ...Kind) {
				t.Helper()
				wrong := 0
				for addr := range sites {
					ok := false
					for _, kind := range kinds {
						ok = ok || steps[addr].Kind == kind && steps[addr].Len > 0
					}
					if !ok {
						wrong++
						t.Logf("%s at %#x: % x", what, addr, r.bytes(addr)[:8])
					}
				}
				t.Logf("%d %s, %d wrong", len(sites), what, wrong)
				if wrong > allowed {
					t.Errorf("%d %s of %d are none", wrong, what, len(sites))
				}
			}
			is("retpoline sites", facts.RetpolineSites, 0, CallDirect, JumpDirect, JumpCond)
			is("return sites", facts.ReturnSites, 0, JumpDirect, JumpCond, Return)
			is("call sites", facts.CallSites, 0, CallDirect)
			is("paravirt sites", facts.Paravirt, 0, CallIndirect, JumpIndirect)
			t.Logf("%d alternatives, %d sealed", len(facts.Alternatives), len(facts.Sealed))
			if len(facts.RetpolineSites) == 0 || len(facts.Alternatives) == 0 {
				t.Error("no sites")
			}
			retpolines, returns := 0, 0
			for _, s := range r.text {
				for b := range EachBranch(s.b, s.addr, nil, &facts, r.bytes) {
					switch {
					case b.Class == ClassRetpoline && b.Register != "":
						retpolines++
					case b.Returns() && facts.ReturnSites[b.Addr] != "":
						returns++
					}
				}
			}
			if retpolines != len(facts.RetpolineSites) || returns != len(facts.ReturnSites) {
				t.Errorf("%d retpolines, %d returns", retpolines, returns)
			}
		})
	}
}

// branching tells whether code has a branch.
func branching(code []byte) bool {
	for step := range Scan(code, 0) {
		switch step.Kind {
		case CallDirect, CallIndirect, JumpDirect, JumpIndirect, JumpCond, Return:
			return true
		}
	}
	return false
}

func FuzzAlternatives(f *testing.F) {
	s := &table{addr: tableAt}
	f.Add(s.rel(textAt+0x10).rel(textAt+0x8000).u16(3*32+16).u16(0).u8(5, 5).b, uint64(tableAt))
	s = &table{addr: tableAt}
	f.Add(s.rel(textAt+0x10).rel(textAt+0x8000).u16(3*32+16).u8(5, 5).b, uint64(tableAt))
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) {
		all, err := Alternatives(data, addr, inText)
		if err == nil && len(all)*12 > len(data) {
			t.Fatalf("%d entries in %d bytes", len(all), len(data))
		}
		fuzzSection(t, ".altinstructions", data, addr)
	})
}

func FuzzJumpTable(f *testing.F) {
	s := &table{addr: tableAt}
	f.Add(s.rel(textAt+0x10).rel(textAt+0x100).u64(0x78|1).b, uint64(tableAt))
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) { fuzzSection(t, "__jump_table", data, addr) })
}

func FuzzStaticCallSites(f *testing.F) {
	s := &table{addr: tableAt}
	f.Add(s.rel(textAt+0x20).rel(tableAt+0x91).b, uint64(tableAt))
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) { fuzzSection(t, ".static_call_sites", data, addr) })
}

func FuzzRelative(f *testing.F) {
	s := &table{addr: tableAt}
	f.Add(s.rel(textAt+0x20).b, uint64(tableAt))
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) { fuzzSection(t, ".retpoline_sites", data, addr) })
}

func FuzzParainstructions(f *testing.F) {
	s := &table{addr: tableAt}
	f.Add(s.u64(textAt+0x30).u8(7, 6, 0, 0, 0, 0, 0, 0).u64(textAt+0x36).u8(8, 6).b, uint64(tableAt))
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) { fuzzSection(t, ".parainstructions", data, addr) })
}

// fuzzSection reads a section and uses what it says.
func fuzzSection(t *testing.T, name string, data []byte, addr uint64) {
	var f Facts
	text := make([]byte, 0x10000)
	bytes := func(addr uint64) []byte {
		if !inText(addr) {
			return nil
		}
		return text[addr-textAt:]
	}
	if err := f.AddSection(name, data, addr, inText, resolve, bytes); err != nil {
		return
	}
	for _, m := range []map[uint64]string{f.StaticKeys, f.StaticCalls, f.Alternatives, f.RetpolineSites, f.Paravirt} {
		for addr := range m {
			if !inText(addr) {
				t.Fatalf("site at %#x", addr)
			}
		}
	}
	Branches(text[:256], textAt, resolve, &f, nil)
}
