package branch

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// code assembles functions of the tables at base.
type code struct {
	base uint64
	b    []byte
}

func (c *code) raw(b string) *code { c.b = append(c.b, b...); return c }

// rel appends an opcode and the distance to target.
func (c *code) rel(op string, target uint64) *code {
	c.raw(op)
	next := c.base + uint64(len(c.b)) + 4
	c.b = binary.LittleEndian.AppendUint32(c.b, uint32(target-next))
	return c
}

func TestSites(t *testing.T) {
	const (
		base = 0xffffffff8154bbf0
		its  = 0xffffffffc0100060
	)
	c := &code{base: base}
	c.raw("\xf3\x0f\x1e\xfa"). // 0 endbr64
					raw("\x0f\x01\xcb").                 // 4 stac
					rel("\xe8", at).                     // 7 call thunk
					rel("\x2e\xe8", 0xffffffff82204be0). // 12 cs call thunk
					rel("\xe9", at).                     // 18 jmp thunk
					rel("\x0f\x85", at).                 // 23 jne thunk
					rel("\xe8", 0xffffffff822051e0).     // 29 call its symbol
					rel("\xe8", its).                    // 34 call its page
					rel("\xe8", 0xffffffff81000000).     // 39 call a function
					raw("\x0f\xae\xe8\xff\xd0").         // 44 lfence; call *rax
					raw("\xff\xd0\x0f\x1f\x00").         // 49 call *rax
					raw("\xff\x10").                     // 54 call *(rax)
					raw("\xff\x24\xc5\x00\x00\x00\x81"). // 56 jmp *table(,rax,8)
					raw("\xeb\x00").                     // 63 jmp within
					rel("\xe9", 0xffffffff82205660).     // 65 jmp srso_return_thunk
					rel("\x0f\x84", 0xffffffff82205660). // 70 je srso_return_thunk
					raw("\xc3\xcc")                      // 76 ret
	follow := func(addr uint64) []byte {
		switch addr {
		case its:
			return []byte{0xff, 0xe0, 0xcc, 0xcc}
		case 0xffffffff81000000:
			return []byte{0x55, 0x48, 0x89, 0xe5}
		}
		return nil
	}
	sites, returns := Sites(c.b, base, resolve, follow)
	const rax = "__x86_indirect_thunk_rax"
	want := []Site{
		{Offset: 7, Kind: SiteThunk, Register: "rax", Thunk: rax, Target: at},
		{Offset: 12, Kind: SiteThunk, Register: "rcx", Thunk: "__x86_indirect_thunk_rcx", Target: 0xffffffff82204be0},
		{Offset: 18, Kind: SiteThunk, Jump: true, Register: "rax", Thunk: rax, Target: at},
		{Offset: 23, Kind: SiteThunk, Jump: true, Register: "rax", Thunk: rax, Target: at},
		{Offset: 29, Kind: SiteITS, Register: "rax", Thunk: "__x86_indirect_its_thunk_rax", Target: 0xffffffff822051e0},
		{Offset: 34, Kind: SiteITS, Register: "rax", Target: its},
		{Offset: 47, Kind: SiteLfence, Register: "rax"},
		{Offset: 49, Kind: SiteRegister, Register: "rax"},
		{Offset: 54, Kind: SiteMemory},
		{Offset: 56, Kind: SiteMemory, Jump: true},
	}
	if diff := cmp.Diff(want, sites); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Returns{"ret": 1, "srso_return_thunk": 2}, returns); diff != "" {
		t.Error(diff)
	}
}

// TestThunkInstructions counts by arch/x86/lib/retpoline.S of Linux 7.2.13.
func TestThunkInstructions(t *testing.T) {
	const (
		thunk = 0xffffffff82204bc0
		srso  = 0xffffffff82205660
		safe  = 0xffffffff82205640
		its   = 0xffffffff822057e0
	)
	for name, tt := range map[string]struct {
		code map[uint64]string
		want int
	}{
		"retpoline":       {map[uint64]string{thunk: "\xe8\x01\x00\x00\x00\xcc\x4c\x89\x1c\x24\xc3\xcc"}, 3},
		"retpoline, 4.15": {map[uint64]string{thunk: "\xe8\x07\x00\x00\x00\xf3\x90\x0f\xae\xe8\xeb\xf9\x48\x89\x04\x24\xc3"}, 3},
		"lfence":          {map[uint64]string{thunk: "\x0f\xae\xe8\xff\xe0\xcc"}, 2},
		"plain":           {map[uint64]string{thunk: "\x41\xff\xe3\xcc"}, 1},
		"paranoid ITS":    {map[uint64]string{thunk: "\x75\xfd\x41\xff\xe3\xcc"}, 2},
		"call depth":      {map[uint64]string{thunk: "\x65\x48\xc1\x3d\x07\x89\x90\x01\x05\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xc3"}, 4},
		"retpoline, its ret": {map[uint64]string{
			thunk: string((&code{base: thunk}).raw("\xe8\x01\x00\x00\x00\xcc\x4c\x89\x1c\x24").rel("\xe9", its).b),
			its:   "\xc3\xcc",
		}, 4},
		"retpoline, safe ret": {map[uint64]string{
			thunk: string((&code{base: thunk}).raw("\xe8\x01\x00\x00\x00\xcc\x4c\x89\x1c\x24").rel("\xe9", srso).b),
			srso:  string((&code{base: srso}).rel("\xe8", safe).raw("\x0f\x0b").b),
			safe:  "\x48\x8d\x64\x24\x08\xc3\xcc",
		}, 6},
		"a loop":    {map[uint64]string{thunk: "\xeb\xfe"}, 0},
		"two loops": {map[uint64]string{thunk: "\xeb\x02\xcc\xcc\xeb\xfa"}, 0},
		"a trap":    {map[uint64]string{thunk: "\x90\x0f\x0b"}, 0},
		"cut short": {map[uint64]string{thunk: "\x90\x90"}, 0},
		"no code":   {nil, 0},
	} {
		follow := func(addr uint64) []byte {
			for start, code := range tt.code {
				if addr >= start && addr < start+uint64(len(code)) {
					return []byte(code[addr-start:])
				}
			}
			return nil
		}
		if got := thunkInstructions(thunk, follow); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// TestSiteInstructions counts the instructions of branches as kernels write and patch them.
func TestSiteInstructions(t *testing.T) {
	const at, thunk = 0xffffffff81000000, 0xffffffff81000040
	retpoline := "\xe8\x01\x00\x00\x00\xcc\x48\x89\x04\x24\xc3" // call +1; int3; mov %rax,(%rsp); ret
	for name, tt := range map[string]struct {
		site, thunk string
		kind        SiteKind
		check       Check
		want        int
	}{
		"call of a retpoline":      {"\xe8", retpoline, SiteThunk, CheckNone, 4},
		"with a prefix":            {"\x2e\xe8", retpoline, SiteThunk, CheckNone, 4},
		"jump to a retpoline":      {"\xe9", retpoline, SiteThunk, CheckNone, 4},
		"conditional jump":         {"\x0f\x85", retpoline, SiteThunk, CheckNone, 4},
		"retpoline, return thunk":  {"\xe8", retpoline[:10] + "\xe9\x11\x00\x00\x00", SiteThunk, CheckNone, 6},
		"thunk that jumps":         {"\xe8", "\xff\xe0", SiteThunk, CheckNone, 2},
		"ITS thunk, paranoid":      {"\x2e\xe8", "\x75\xfd\x41\xff\xe3\xcc", SiteITS, CheckParanoid, 6},
		"retpoline behind kCFI":    {"\x2e\xe8", retpoline, SiteThunk, CheckKCFI, 7},
		"plain call, nop":          {"\xff\xd0\x0f\x1f\x00", "", SiteRegister, CheckNone, 2},
		"plain call of r10, nop":   {"\x41\xff\xd2\x0f\x1f\x00", "", SiteRegister, CheckNone, 2},
		"call filled by prefixes":  {"\x2e\x2e\x2e\xff\xd0", "", SiteRegister, CheckNone, 1},
		"a nop of something else":  {"\xff\xd0\x0f\x1f\x44\x00\x00", "", SiteRegister, CheckNone, 1},
		"plain jump":               {"\xff\xe0\xcc", "", SiteRegister, CheckNone, 1},
		"FineIBT":                  {callR11 + "\x0f\x1f\x00", "", SiteRegister, CheckFineIBT, 5},
		"paranoid FineIBT":         {"\x2e" + callR11, "", SiteRegister, CheckParanoid, 5},
		"cfi=off":                  {callR11 + "\x0f\x1f\x00", "", SiteRegister, CheckOff, 3},
		"call behind an lfence":    {"\xff\xd0", "", SiteLfence, CheckNone, 2},
		"thunk that is rubbish":    {"\xe8", "\x06", SiteThunk, CheckNone, 0},
		"thunk that runs on":       {"\xe8", "\xeb\xfe", SiteThunk, CheckNone, 0},
		"thunk that is not mapped": {"\xe8", "", SiteThunk, CheckNone, 0},
	} {
		text := make([]byte, 0x80)
		copy(text[0x60:], "\xe8\x01\x00\x00\x00\xcc\xc3") // a return thunk: call +1; int3; ret
		site := Site{Kind: tt.kind, Check: tt.check}
		if c := (&code{base: at}).raw(tt.site); tt.kind == SiteThunk || tt.kind == SiteITS {
			site.Target = thunk
			copy(text, c.rel("", thunk).b)
		} else {
			copy(text, c.b)
		}
		copy(text[thunk-at:], tt.thunk)
		follow := func(addr uint64) []byte {
			if addr-at >= uint64(len(text)) || tt.thunk == "" && addr == thunk {
				return nil
			}
			return text[addr-at:]
		}
		if got := site.Instructions(at, follow); got != tt.want {
			t.Errorf("%s: %d instructions, want %d", name, got, tt.want)
		}
	}
}
