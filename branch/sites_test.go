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
