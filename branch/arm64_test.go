package branch

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/testutil"
)

func words(w ...uint32) []byte {
	var b []byte
	for _, w := range w {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func TestDecodeARM64(t *testing.T) {
	for _, tt := range []struct {
		word uint32
		kind Kind
		text string
		pad  bool
	}{
		{0x94000002, CallDirect, "bl 0x1008", false},
		{0x17ffffff, JumpDirect, "b 0xffc", false},
		{0x54000040, JumpCond, "b.eq 0x1008", false},
		{0x54ffffeb, JumpCond, "b.lt 0xffc", false},
		{0xb4000040, JumpCond, "cbz x0, 0x1008", false},
		{0x35ffffe1, JumpCond, "cbnz w1, 0xffc", false},
		{0x36080040, JumpCond, "tbz w0, #1, 0x1008", false},
		{0xb7f80040, JumpCond, "tbnz x0, #63, 0x1008", false},
		{0xd61f0200, JumpIndirect, "br x16", false},
		{0xd63f0100, CallIndirect, "blr x8", false},
		{0xd65f03c0, Return, "ret", false},
		{0xd65f0020, Return, "ret x1", false},
		{0xd71f0901, JumpIndirect, "braa x8, x1", false},
		{0xd61f0d1f, JumpIndirect, "brabz x8", false},
		{0xd73f0901, CallIndirect, "blraa x8, x1", false},
		{0xd63f091f, CallIndirect, "blraaz x8", false},
		{0xd65f0bff, Return, "retaa", false},
		{0xd65f0fff, Return, "retab", false},
		{0xd69f03e0, Other, "eret", false},
		{0xd69f0bff, Other, "eretaa", false},
		{0xd503245f, Other, "bti c", true},
		{0xd503249f, Other, "bti j", true},
		{0xd50324df, Other, "bti jc", true},
		{0xd503241f, Other, "bti", true},
		{0xd503233f, Other, "paciasp", true},
		{0xd50323bf, Other, "autiasp", false},
		{0xd503201f, Other, "nop", false},
		{0xd4210000, Trap, "brk #0x800", false},
		{0xd50330ff, Fence, "sb", false},
		{0, Trap, "udf #0x0", false},
		{0xd61f0201, Bad, ".inst 0xd61f0201", false},
		{0xf8220061, Other, ".inst 0xf8220061", false}, // ldadd x2, x1, [x3]
		{0xd4000002, Other, ".inst 0xd4000002", false}, // hvc #0
		{0xffffffff, Bad, ".inst 0xffffffff", false},
	} {
		for inst := range DecodeARM64(words(tt.word), 0x1000) {
			if got := inst.String(); inst.Kind != tt.kind || inst.Len != 4 || got != tt.text || inst.Endbr() != tt.pad {
				t.Errorf("%08x: kind %d, %q, %v; want kind %d, %q", tt.word, inst.Kind, got, inst.Endbr(), tt.kind, tt.text)
			}
		}
	}
	n := 0
	for inst := range DecodeARM64([]byte{0x1f, 0x20, 0x03, 0xd5, 0, 0}, 0) {
		n += inst.Len
	}
	if n != 6 {
		t.Errorf("%d bytes", n)
	}
}

func TestBranchesARM64(t *testing.T) {
	const base = 0xffff800080100000
	resolve := func(addr uint64) (string, bool) {
		name, ok := map[uint64]string{
			base + 0x1000: "xdp_return_frame",
			base + 0x2000: "bpf_dispatcher_xdp_func",
		}[addr]
		return name, ok
	}
	code := words(
		0xd503233f, // 0 paciasp
		0x94000000|(0x1000-4)/4,
		0x94000000|(0x2000-8)/4,
		0x14000000|(0x1000-12)/4,
		0xb4000040, // 16 cbz
		0xd63f0100, // 20 blr x8
		0xd73f0901, // 24 blraa x8, x1
		0xd61f0200, // 28 br x16
		0xd503201f, // 32 nop, static key
		0xd65f0bff, // 36 retaa
		0xd69f03e0, // 40 eret
	)
	facts := &Facts{StaticKeys: map[uint64]string{base + 32: "b"}}
	want := []Branch{
		{Offset: 4, Class: ClassDirect, Target: base + 0x1000, Name: "xdp_return_frame"},
		{Offset: 8, Class: ClassDispatcher, Target: base + 0x2000, Name: "bpf_dispatcher_xdp_func"},
		{Offset: 12, Class: ClassTailCall, Jump: true, Target: base + 0x1000, Name: "xdp_return_frame"},
		{Offset: 16, Class: ClassConditional, Jump: true, Conditional: true, Target: base + 24},
		{Offset: 20, Class: ClassRegister, Register: "x8"},
		{Offset: 24, Class: ClassRegister, Register: "x8", Signed: true},
		{Offset: 28, Class: ClassRegister, Jump: true, Register: "x16"},
		{Offset: 32, Class: ClassStaticKey, Jump: true, Nop: true, Fact: "b"},
		{Offset: 36, Class: ClassReturn, Jump: true, Signed: true},
		{Offset: 40, Class: ClassFar, Jump: true},
	}
	for i := range want {
		want[i].Addr = base + want[i].Offset
	}
	if diff := cmp.Diff(want, BranchesARM64(code, base, resolve, facts)); diff != "" {
		t.Error(diff)
	}
}

// The check that clang puts in front of an indirect call on arm64 is told from what only looks like it.
func TestKCFIARM64(t *testing.T) {
	check := []uint32{0xb85fc110, 0x728acf11, 0x72a24691, 0x6b11021f, 0x54000040, 0xd4304500} // of x8
	for _, test := range []struct {
		name   string
		change map[int]uint32
		branch uint32
		want   Check
	}{
		{"call", nil, 0xd63f0100, CheckKCFIARM64},
		{"tail call", nil, 0xd61f0100, CheckKCFIARM64},
		{"of another register", nil, 0xd63f0120, CheckNone},
		{"a warning's trap", map[int]uint32{5: 0xd4210000}, 0xd63f0100, CheckNone},
		{"jumps farther", map[int]uint32{4: 0x54000060}, 0xd63f0100, CheckNone},
		{"loads from behind the start", map[int]uint32{0: 0xb8404110}, 0xd63f0100, CheckNone},
	} {
		list := append(slices.Clone(check), test.branch)
		for i, w := range test.change {
			list[i] = w
		}
		sites, _ := SitesARM64(words(list...), 0x1000)
		if len(sites) != 1 || sites[0].Check != test.want || test.want != CheckNone && (sites[0].CheckLen != 24 || sites[0].Offset != 24) {
			t.Errorf("%s: %+v, want %q", test.name, sites, test.want)
		}
	}
	if n, loads := CheckKCFIARM64.Instructions(), CheckKCFIARM64.Loads(); n != 5 || loads != 1 {
		t.Errorf("%d instructions, %d loads", n, loads)
	}
	sites, _ := SitesARM64(words(check[1:]...), 0x1000)
	if len(sites) != 0 {
		t.Errorf("no branch: %+v", sites)
	}
}

// TestARM64AgainstObjdump disassembles words of the branch space and of all
// others, by any objdump that knows arm64.
func TestARM64AgainstObjdump(t *testing.T) {
	tool := ""
	for _, name := range []string{"aarch64-linux-gnu-objdump", "llvm-objdump"} {
		if path, err := exec.LookPath(name); err == nil {
			tool = path
			break
		}
	}
	if tool == "" {
		testutil.Missing(t, "an objdump for arm64")
	}
	r := rand.New(rand.NewPCG(1, 2))
	var list []uint32
	// All that begins with d6 and d7 and has the shape of a branch.
	for n := range uint32(16) {
		for key := range uint32(4) {
			for _, rn := range []uint32{0, 8, 16, 30, 31} {
				for _, rm := range []uint32{0, 1, 30, 31} {
					list = append(list, 0xd61f0000|n<<21|key<<10|rn<<5|rm)
				}
			}
		}
	}
	for range 20000 {
		top := []uint32{
			0x14, 0x17, 0x94, 0x97, 0x54, 0x34, 0x35, 0xb4, 0xb5, 0x36, 0x37, 0xb6, 0xb7, 0xd6, 0xd7, 0xd4, 0xd5, 0x00,
		}
		list = append(list, top[r.IntN(len(top))]<<24|r.Uint32N(1<<24), r.Uint32())
	}
	var code []byte
	for _, w := range list {
		if w>>24 == 0x54 && w>>4&1 != 0 { // bc.cond is younger than most tools
			w &^= 1 << 4
		}
		code = binary.LittleEndian.AppendUint32(code, w)
	}
	const addr = 0x40000000 // targets may lie in front of it
	args := []string{"-d", "-z"}
	if strings.Contains(filepath.Base(tool), "llvm") {
		args = append(args, "--mattr=+v8.5a,+pauth")
	}
	compareARM64(t, tool, append(args, armELF(t, code, addr)), code, addr)
}

func compareARM64(t *testing.T, tool string, args []string, code []byte, addr uint64) {
	t.Helper()
	theirs := make(map[uint64]string)
	out, err := exec.Command(tool, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(out) {
		// "40000000: 00 00 00 14  \tb\t0x40000000 <x>", "40000000:\td503201f \tnop"
		at, rest, ok := strings.Cut(strings.TrimSpace(string(line)), ":")
		a, err := strconv.ParseUint(at, 16, 64)
		if !ok || err != nil {
			continue
		}
		parts := strings.SplitN(strings.TrimLeft(rest, "\t "), "\t", 2)
		if len(parts) == 2 {
			theirs[a] = strings.TrimSpace(parts[1])
		}
	}
	if len(theirs) < len(code)/8 {
		t.Fatalf("read %d instructions", len(theirs))
	}
	branches, far, wrong := 0, 0, 0
	ours := make(map[uint64]Branch)
	for _, b := range BranchesARM64(code, addr, nil, nil) {
		ours[b.Addr] = b
	}
	for inst := range DecodeARM64(code, addr) {
		text := theirs[inst.Addr]
		op, rest, _ := strings.Cut(strings.ReplaceAll(text, "\t", " "), " ")
		kind := Other
		switch {
		case op == "b":
			kind = JumpDirect
		case op == "bl":
			kind = CallDirect
		case strings.HasPrefix(op, "b."), op == "cbz", op == "cbnz", op == "tbz", op == "tbnz":
			kind = JumpCond
		case strings.HasPrefix(op, "blr"):
			kind = CallIndirect
		case op == "br", op == "braa", op == "brab", op == "braaz", op == "brabz":
			kind = JumpIndirect
		case op == "ret", op == "retaa", op == "retab":
			kind = Return
		case strings.HasPrefix(op, "eret"):
			far++
			if ours[inst.Addr].Class != ClassFar {
				wrong++
				t.Errorf("%#x: %s is not far", inst.Addr, text)
			}
		}
		got := inst.Kind
		switch got {
		case Trap, Fence, Bad:
			got = Other
		}
		if kind != Other {
			branches++
		}
		bad := got != kind
		if b, ok := ours[inst.Addr]; ok != (kind != Other || strings.HasPrefix(op, "eret")) {
			bad = true
		} else if b.Register != "" && !strings.HasPrefix(rest+",", b.Register+",") {
			bad = true
		}
		if inst.Target != 0 && !strings.Contains(rest, strings.TrimPrefix(fmt.Sprintf("%#x", inst.Target), "0x")) {
			bad = true
		}
		if bad {
			if wrong++; wrong < 20 {
				t.Errorf("%#x: %s, ours %s of kind %d", inst.Addr, text, inst, inst.Kind)
			}
		}
	}
	t.Logf("%d words, %d branches, %d far, %d wrong", len(theirs), branches, far, wrong)
}

// armELF writes an executable for arm64 with one section of code.
func armELF(t *testing.T, code []byte, addr uint64) string {
	t.Helper()
	names := "\x00.text\x00.shstrtab\x00"
	const header = 64
	var b bytes.Buffer
	write := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_AARCH64), Version: 1, Entry: addr,
		Shoff: uint64(header + len(code) + len(names)), Ehsize: header, Shentsize: 64, Shnum: 3, Shstrndx: 2}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	write(h)
	b.Write(code)
	b.WriteString(names)
	write(elf.Section64{})
	write(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR),
		Addr: addr, Off: header, Size: uint64(len(code)), Addralign: 4})
	write(elf.Section64{
		Name: 7, Type: uint32(elf.SHT_STRTAB), Off: uint64(header + len(code)), Size: uint64(len(names)), Addralign: 1,
	})
	name := filepath.Join(t.TempDir(), "arm64")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func FuzzDecodeARM64(f *testing.F) {
	f.Add(words(0xd63f0100, 0xd65f03c0, 0xd503245f, 0x94000002), uint64(0xffff800080100000))
	f.Add([]byte{1, 2, 3}, ^uint64(0))
	f.Fuzz(func(t *testing.T, code []byte, addr uint64) {
		n := 0
		for inst := range DecodeARM64(code, addr) {
			if inst.Len < 1 || inst.Len > 4 || inst.Addr != addr+uint64(n) {
				t.Fatalf("%d bytes at %#x, %d in", inst.Len, inst.Addr, n)
			}
			_, _ = inst.Text(resolve), inst.Endbr()
			n += inst.Len
		}
		if n != len(code) {
			t.Fatalf("decoded %d of %d bytes", n, len(code))
		}
		for _, b := range BranchesARM64(code, addr, resolve, nil) {
			if b.Offset+4 > uint64(len(code)) || b.Class == "" {
				t.Fatalf("%+v in %d bytes", b, len(code))
			}
		}
	})
}
