package branch

import (
	"bufio"
	"bytes"
	"cmp"
	"debug/elf"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/guest/guesttest"
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
		{0xd50322df, Fence, "clearbhb", false},
		{0xd503229f, Fence, "csdb", false},
		{0, Trap, "udf #0x0", false},
		{0xd61f0201, Bad, ".inst 0xd61f0201", false},
		{0xf8220061, Other, ".inst 0xf8220061", false}, // ldadd x2, x1, [x3]
		{0xd4000002, Other, ".inst 0xd4000002", false}, // hvc #0
		{0x85804000, Other, ".inst 0x85804000", false}, // ldr z0, [x0], of SVE
		{0x04bf5820, Other, ".inst 0x04bf5820", false}, // rdsvl x0, #1, of SME
		{0x80800000, Other, ".inst 0x80800000", false}, // fmopa za0.s, …, of SME
		{0xce628020, Other, ".inst 0xce628020", false}, // sha512h q0, q1, v2.2d
		{0xffffffff, Other, ".inst 0xffffffff", false}, // of vectors
		{0x74000040, Bad, ".inst 0x74000040", false},   // cbgt w0, w0, of FEAT_CMPBR
		{0x02000000, Bad, ".inst 0x02000000", false},   // unallocated
		{0x66000000, Bad, ".inst 0x66000000", false},
		{0x00010000, Bad, ".inst 0x00010000", false}, // reserved
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
	if diff := gocmp.Diff(want, BranchesARM64(code, base, resolve, facts)); diff != "" {
		t.Error(diff)
	}
}

// What a JIT loads into the register of a call is its target, unless another register is loaded, or no number.
func TestConstantARM64(t *testing.T) {
	code := words(0x92800fea, 0xf2b0204a, 0xf2dfffea, 0xd63f0140) // movn x10, #0x7f; movk; movk; blr x10
	if got := ConstantARM64(code, 12); got != 0xffffffff8102ff80 {
		t.Errorf("%#x", got)
	}
	zero := words(0xd282000a, 0xf2a0002a, 0xd63f0140) // movz x10, #0x1000; movk x10, #1, lsl #16
	if got := ConstantARM64(zero, 8); got != 0x11000 {
		t.Errorf("%#x", got)
	}
	for name, test := range map[string]struct {
		code   []byte
		offset uint64
	}{
		"another register": {words(0xd282000b, 0xd63f0140), 4}, "no number": {words(0xf940000a, 0xd63f0140), 4},
		"no beginning": {words(0xf2a0002a, 0xd63f0140), 4}, "first": {words(0xd63f0140), 0}, "behind the end": {code, 16},
	} {
		if got := ConstantARM64(test.code, test.offset); got != 0 {
			t.Errorf("%s: %#x", name, got)
		}
	}
	far := words(0x5800004a, 0xd61f0140)
	if !TrampolineARM64(far, 4) || TrampolineARM64(far, 0) || TrampolineARM64(far, 8) || TrampolineARM64(words(0x5800006a, 0xd61f0140), 4) {
		t.Error("the way to a trampoline")
	}
}

// What veneers are made of is what aarch64_insn_gen_adr and aarch64_insn_gen_add_sub_imm make for get_plt_entry.
func TestVeneerARM64(t *testing.T) {
	const at, far = 0xffff80007a8e3780, 0xffffc39a9a2b4688
	for name, test := range map[string]struct {
		code []byte
		addr uint64
		want uint64 // 0 for no veneer
	}{
		"forward":    {words(0xb0000210, 0x911a2210, 0xd61f0200), at, 0xffff80007a924688},
		"backward":   {words(0xf0fffff0, 0x913ffe10, 0xd61f0200), at, 0xffff80007a8e2fff},
		"1.5 GB on":  {words(0xb02fffd0, 0x91000210, 0xd61f0200), at, 0xffff8000da8dc000},
		"bti":        {words(0xd503245f, 0xb0000210, 0x911a2210, 0xd61f0200), at + 0x87c, 0xffff80007a925688},
		"movn":       {words(0x92972ef0, 0xf2b34570, 0xf2d87350, 0xd61f0200), at, far},
		"bti, movn":  {words(0xd503245f, 0x92972ef0, 0xf2b34570, 0xf2d87350, 0xd61f0200), at, far},
		"x17":        {words(0xb0000211, 0x911a2231, 0xd61f0220), at, 0},
		"call":       {words(0xb0000210, 0x911a2210, 0xd63f0200), at, 0},
		"pages":      {words(0xb0000210, 0x915a2210, 0xd61f0200), at, 0}, // add of so many pages
		"adr":        {words(0x10000210, 0x911a2210, 0xd61f0200), at, 0},
		"loaded":     {words(0xb0000210, 0xf9400210, 0xd61f0200), at, 0},
		"movn alone": {words(0x92972ef0, 0xf2b34570, 0xd61f0200, 0), at, 0},
		"cut":        {words(0xb0000210, 0x911a2210), at, 0},
		"ld, far":    {words(0x58000090, 0x10000011, 0x8b110210, 0xd61f0200, 0xf7ffdfd4, 0xfff), 0xffff800008002028, 0xffff900000000000},
		"ld, cut":    {words(0x58000090, 0x10000011, 0x8b110210, 0xd61f0200, 0xf7ffdfd4), 0xffff800008002028, 0},
		"lld, far":   {words(0x58000050, 0xd61f0200, 0x9a2b4688, 0xffffc39a), at, far},
		"lld, bti":   {words(0xd503245f, 0x58000050, 0xd61f0200, 0x9a2b4688, 0xffffc39a), at, far},
		"lld, cut":   {words(0x58000050, 0xd61f0200, 0x9a2b4688), at, 0},
		"nothing":    {nil, at, 0},
	} {
		if got, ok := VeneerARM64(test.code, test.addr); got != test.want || ok != (test.want != 0) {
			t.Errorf("%s: %#x, %v; want %#x", name, got, ok, test.want)
		}
	}
}

// Around the erratum 843419 a load stands out of line, or an adrp of a module. What only looks so is a jump.
func TestDetourARM64(t *testing.T) {
	const at, target = 0xffff80007a000000, 0xffff80007a003f00
	back := func(from uint64) uint32 { return 0x14000000 | uint32((at+4-from)>>2)&(1<<26-1) }
	for name, test := range map[string]struct {
		code []byte
		want string // "" for no detour
	}{
		"load":            {words(0xf9400003, back(target+4)), "ldr x3, [x0]"},
		"store":           {words(0xb9000c41, back(target+4)), "str w1, [x2,#12]"},
		"adrp":            {words(0x90004000, 0x91000000, back(target+8)), "adrp x0, .+0x803000"},
		"adrp, odd page":  {words(0xb0004005, 0x910000a5, back(target+8)), "adrp x5, .+0x804000"},
		"elsewhere":       {words(0xf9400003, back(target)), ""},
		"not a load":      {words(0x8b020062, back(target+4)), ""},
		"call":            {words(0xf9400003, back(target+4)|1<<31), ""},
		"another add":     {words(0x90004000, 0x91000020, back(target+8)), ""},
		"a distance":      {words(0x90004000, 0x91000400, back(target+8)), ""},
		"adrp, elsewhere": {words(0x90004000, 0x91000000, back(target+4)), ""},
		"cut":             {words(0xf9400003), ""},
		"nothing":         {nil, ""},
	} {
		inst, ok := DetourARM64(test.code, target, at)
		if got := inst.Text(nil); ok != (test.want != "") || ok && (got != test.want || inst.Addr != at || inst.Kind != Other) {
			t.Errorf("%s: %+v %q, want %q", name, inst, got, test.want)
		}
	}
}

// Scan sees what Decode does, but for what only text tells.
func TestScanARM64(t *testing.T) {
	code := append(words(0xd503201f, 0xd503245f, 0x94000002, 0x54000040, 0xd63f0100, 0xd61f03c0, 0xd63f03e0, 0xd65f03c0, 0xd69f03e0,
		0xd50322df, 0xd4210000, 0x8b000000), 1, 2)
	want := []Step{
		{Kind: Other, special: pad}, {Kind: Other, special: pad}, {Kind: CallDirect, Target: 0x1010}, {Kind: JumpCond, Target: 0x1014},
		{Kind: CallIndirect, reg: firstARM64 + 8}, {Kind: JumpIndirect, reg: firstARM64 + 30}, {Kind: CallIndirect}, {Kind: Return},
		{Kind: Other, special: far}, {Kind: Fence}, {Kind: Trap}, {Kind: Other}, {Kind: Bad, Len: 2},
	}
	var got []Step
	for s := range ScanARM64(code, 0x1000) {
		got = append(got, s)
	}
	for i := range want {
		want[i].Addr, want[i].Len = 0x1000+4*uint64(i), cmp.Or(want[i].Len, 4)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if name := got[4].Register(); name != "x8" || !got[1].Nop() {
		t.Errorf("register %q", name)
	}
}

// What guards against speculation and checks targets has notes.
func TestAnnotatedARM64(t *testing.T) {
	want := []string{
		"indirect branches may come here", "CFI: loads the hash in front of the function", "the hash of the called prototype",
		"the hash of the called prototype", "are they equal", "over the trap where they are", "the trap of a wrong hash",
		"indirect call: target in x8, predicted by the CPU", "clears the branch history before indirect branches use it",
		"no value that is only predicted is used behind it", "nothing behind it is speculated", "", "return, predicted by the return stack (RSB)",
	}
	var got []string
	for line := range AnnotatedARM64(words(0xd503245f, 0xb85fc110, 0x728acf11, 0x72a24691, 0x6b11021f, 0x54000040, 0xd4304500, 0xd63f0100,
		0xd50322df, 0xd503229f, 0xd50330ff, 0xd503201f, 0xd65f03c0), 0x1000, nil, nil) {
		if got = append(got, line.Note); line.Indirect != strings.HasPrefix(line.Text, "blr") || len(line.Bytes) != 4 {
			t.Errorf("%+v", line)
		}
	}
	if diff := gocmp.Diff(want, got); diff != "" {
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
	code := withoutHints(words(list...))
	const addr = 0x40000000 // targets may lie in front of it
	args := []string{"-d", "-z"}
	if strings.Contains(filepath.Base(tool), "llvm") {
		args = append(args, llvmARM64)
	}
	compareARM64(t, tool, append(args, armELF(t, code, addr)), code, addr)
}

// llvmARM64 is the argument by which llvm-objdump knows branches with pointer authentication.
const llvmARM64 = "--mattr=+v8.5a,+pauth"

// withoutHints is code with b.cond in place of bc.cond, which is younger than most tools.
func withoutHints(code []byte) []byte {
	code = slices.Clone(code)
	for at := 0; at+4 <= len(code); at += 4 {
		if w := binary.LittleEndian.Uint32(code[at:]); w>>24 == 0x54 {
			binary.LittleEndian.PutUint32(code[at:], w&^(1<<4))
		}
	}
	return code
}

// compareARM64 disassembles a file whose code is at addr, and compares word by word.
func compareARM64(t *testing.T, tool string, args []string, code []byte, addr uint64) {
	t.Helper()
	cmd := exec.Command(tool, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read, branches, far, wrong := 0, 0, 0, 0
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		// "40000000: 00 00 00 14  \tb\t0x40000000 <x>", "40000000:\td503201f \tnop"
		at, rest, ok := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		a, err := strconv.ParseUint(at, 16, 64)
		if !ok || err != nil || a-addr >= uint64(len(code)) {
			continue
		}
		parts := strings.SplitN(strings.TrimLeft(rest, "\t "), "\t", 2)
		if len(parts) < 2 {
			continue
		}
		read++
		text := strings.ReplaceAll(strings.TrimSpace(parts[1]), "\t", " ")
		kind, isFar := flowOfARM64(text)
		if kind != Other {
			branches++
		}
		if isFar {
			far++
		}
		if !agreesARM64(code, int(a-addr), addr, text, kind, isFar) {
			if wrong++; wrong < 20 {
				t.Errorf("%#x: %s, ours %s", a, text, decodeARM64(binary.LittleEndian.Uint32(code[a-addr:]), a))
			}
		}
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	if read != len(code)/4 {
		t.Errorf("read %d instructions of %d", read, len(code)/4)
	}
	t.Logf("%d words, %d branches, %d far, %d wrong", read, branches, far, wrong)
}

// flowOfARM64 is what an instruction does to the flow of control by the text that a disassembler gives it. Far is eret.
func flowOfARM64(text string) (kind Kind, far bool) {
	op, _, _ := strings.Cut(text, " ")
	switch {
	case op == "b":
		return JumpDirect, false
	case op == "bl":
		return CallDirect, false
	case strings.HasPrefix(op, "b."), strings.HasPrefix(op, "bc."), op == "cbz", op == "cbnz", op == "tbz", op == "tbnz":
		return JumpCond, false
	case strings.HasPrefix(op, "blr"):
		return CallIndirect, false
	case op == "br", op == "braa", op == "brab", op == "braaz", op == "brabz":
		return JumpIndirect, false
	case op == "ret", op == "retaa", op == "retab":
		return Return, false
	}
	return Other, strings.HasPrefix(op, "eret")
}

// agreesARM64 tells whether the instruction at an offset is decoded, and classified, as the text says.
func agreesARM64(code []byte, offset int, addr uint64, text string, kind Kind, far bool) bool {
	w := binary.LittleEndian.Uint32(code[offset:])
	inst, b := decodeARM64(w, addr+uint64(offset)), branchARM64(flowARM64(w), code, offset, addr, nil, new(Facts))
	got := inst.Kind
	switch got {
	case Trap, Fence, Bad:
		got = Other
	}
	_, rest, _ := strings.Cut(text, " ")
	switch {
	case got != kind, (b.Class != "") != (kind != Other || far), far != (b.Class == ClassFar):
		return false
	case b.Register != "" && !strings.HasPrefix(rest+",", b.Register+","):
		return false
	}
	return inst.Target == 0 || strings.Contains(rest, strings.TrimPrefix(fmt.Sprintf("%#x", inst.Target), "0x"))
}

// arm64Kernels are those whose whole text is disassembled.
var arm64Kernels = []string{"debian:6.1-cloud-arm64", "debian:6.12-cloud-arm64", "debian:6.18-cloud-arm64", "debian:7.2-cloud-arm64",
	"debian:7.3-cloud-arm64"}

// textOfARM64 is the section .text of a kernel's image, which has its read-only data too.
// An Image is a program of EFI as well (arch/arm64/kernel/efi-header.S).
func textOfARM64(t testing.TB, kernel string) []byte {
	t.Helper()
	f, err := pe.Open(guesttest.Named(t, kernel).Image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	code, err := f.Section(".text").Data()
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// TestKernelARM64AgainstObjdump compares each word of the text of whole kernels: no branch is missing, and none invented.
func TestKernelARM64AgainstObjdump(t *testing.T) {
	testutil.Slow(t)
	tool, err := exec.LookPath("aarch64-linux-gnu-objdump")
	if err != nil {
		testutil.Missing(t, "an objdump for arm64")
	}
	for _, kernel := range arm64Kernels {
		t.Run(kernel, func(t *testing.T) {
			code := textOfARM64(t, kernel)
			const addr = 0x40000000
			name := filepath.Join(t.TempDir(), "text")
			if err := os.WriteFile(name, code, 0o600); err != nil {
				t.Fatal(err)
			}
			compareARM64(t, tool, []string{"-D", "-z", "-w", "-b", "binary", "-m", "aarch64",
				fmt.Sprintf("--adjust-vma=%#x", addr), name}, code, addr)
		})
	}
}

// TestKernelARM64AgainstLLVM is the same by another disassembler, of the oldest and the newest kernel.
func TestKernelARM64AgainstLLVM(t *testing.T) {
	testutil.Slow(t)
	tool, err := exec.LookPath("llvm-objdump")
	if err != nil {
		testutil.Missing(t, "llvm-objdump")
	}
	for _, kernel := range []string{arm64Kernels[0], arm64Kernels[len(arm64Kernels)-1]} {
		t.Run(kernel, func(t *testing.T) {
			code := withoutHints(textOfARM64(t, kernel))
			const addr = 0x40000000
			compareARM64(t, tool, []string{"-d", "-z", llvmARM64, armELF(t, code, addr)}, code, addr)
		})
	}
}

// BenchmarkKernelARM64 decodes the text of a whole kernel, by one core, and runs objdump on the same bytes.
func BenchmarkKernelARM64(b *testing.B) {
	code := textOfARM64(b, arm64Kernels[1])
	name := filepath.Join(b.TempDir(), "text")
	if err := os.WriteFile(name, code, 0o600); err != nil {
		b.Fatal(err)
	}
	for _, way := range []struct {
		name string
		do   func() int
	}{
		{"Scan", func() (n int) {
			for step := range ScanARM64(code, 0) {
				n += int(step.Kind)
			}
			return n
		}},
		{"EachBranch", func() (n int) {
			for branch := range EachBranchARM64(code, 0, nil, nil) {
				n += int(branch.Offset)
			}
			return n
		}},
		{"Decode", func() (n int) {
			for inst := range DecodeARM64(code, 0) {
				n += int(inst.Kind)
			}
			return n
		}},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.SetBytes(int64(len(code)))
			b.ReportAllocs()
			for b.Loop() {
				way.do()
			}
		})
	}
	b.Run("objdump", func(b *testing.B) {
		objdump, err := exec.LookPath("aarch64-linux-gnu-objdump")
		if err != nil {
			testutil.Missing(b, "an objdump for arm64")
		}
		b.SetBytes(int64(len(code)))
		for b.Loop() {
			if err := exec.Command(objdump, "-D", "-b", "binary", "-m", "aarch64", name).Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
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
		var steps []Inst
		for inst := range DecodeARM64(code, addr) {
			if inst.Len < 1 || inst.Len > 4 || inst.Addr != addr+uint64(n) {
				t.Fatalf("%d bytes at %#x, %d in", inst.Len, inst.Addr, n)
			}
			_, _ = inst.Text(resolve), inst.Endbr()
			n += inst.Len
			steps = append(steps, inst)
		}
		for s := range ScanARM64(code, addr) {
			inst := steps[0]
			steps = steps[1:]
			if s.Addr != inst.Addr || s.Len != inst.Len || s.Target != inst.Target || s.Kind != inst.Kind && inst.Kind != Bad {
				t.Fatalf("%+v, %+v", s, inst)
			}
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
