package branch

import "iter"

// Step is one instruction as [Scan] sees it: how long it is and what it does
// to the flow of control, without its operands.
type Step struct {
	// Addr is the virtual address, Len the length in bytes.
	Addr uint64
	Len  int
	// Target is where a direct branch goes.
	Target uint64
	Kind   Kind

	// reg is the register of an indirect branch, from 1 for rax to 16 for
	// r15 and from 17 for x0 to 47 for x30; 0 when it goes through memory.
	reg     uint8
	special special
}

// special tells apart the instructions that matter next to branches.
type special uint8

const (
	nothing special = iota
	// pad only fills space: nop, endbr64 and bti.
	pad
	// lfence waits for every load before it.
	lfence
	// far leaves the code segment or the kernel: lcall, ljmp, lret, iret,
	// sysret, eret.
	far
)

// registers are named as reg counts, less one.
var registers = [16 + 31]string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
	"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
	"x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30"}

// firstARM64 is reg of x0.
const firstARM64 = 17

// Register is the register that an indirect branch takes its target from:
// "rax" or "x0". Empty for other instructions and when the target comes from memory.
func (s Step) Register() string {
	if s.reg == 0 {
		return ""
	}
	return registers[s.reg-1]
}

// Nop says whether the instruction only fills space: nop, endbr64 and bti.
func (s Step) Nop() bool { return s.special == pad }

// Scan yields the instructions of x86-64 code, the first byte of which is at
// addr, as [Decode] does and with the same boundaries, but with lengths and
// branches only: it takes a whole kernel's 17 MB in 0.1 s, Decode in more
// than 1 s.
func Scan(code []byte, addr uint64) iter.Seq[Step] {
	return func(yield func(Step) bool) {
		var step Step
		for len(code) > 0 {
			next(code, addr, &step)
			if !yield(step) {
				return
			}
			code, addr = code[step.Len:], addr+uint64(step.Len)
		}
	}
}

// next fills step with the first instruction of code, which is not empty.
func next(code []byte, addr uint64, step *Step) {
	if len(code) >= 16 {
		measure((*[16]byte)(code), step)
	} else {
		var window [16]byte
		copy(window[:], code)
		if measure(&window, step); step.Len > len(code) {
			step.bad()
		}
	}
	step.Addr = addr
	switch step.Kind {
	case CallDirect, JumpDirect, JumpCond:
		step.Target += addr + uint64(step.Len)
	}
}

// bad makes step one byte that does not decode.
func (s *Step) bad() { *s = Step{Len: 1, Kind: Bad} }

// What follows an opcode.
const (
	// modrm is a ModRM byte with its SIB byte and displacement.
	modrm = 1 << iota
	imm8
	// immz is 4 bytes, 2 with an operand size prefix.
	immz
	// irregular is more than a shape: a branch, or a length that depends on
	// the ModRM byte.
	irregular
	// prefix is a legacy prefix or REX.
	prefix
	// undefined raises #UD in 64-bit mode.
	undefined
)

// shapes are what the letters of the opcode maps stand for.
var shapes = [128]uint8{
	'-': 0,
	'm': modrm,
	'M': modrm | irregular,
	'i': imm8,
	'I': modrm | imm8,
	'J': modrm | imm8 | irregular,
	'z': immz,
	'Z': modrm | immz,
	'K': modrm | immz | irregular,
	's': irregular,
	'p': prefix,
	'u': undefined,
}

// oneByte and twoByte are the opcode maps, one letter an opcode, 16 a line:
// Intel SDM volume 2, appendix A; AMD APM volume 3, appendix A.
const (
	oneByte = "" +
		"mmmmizuummmmizus" + // 00: arithmetic; 0f
		"mmmmizuummmmizuu" +
		"mmmmizpummmmizpu" +
		"mmmmizpummmmizpu" +
		"pppppppppppppppp" + // 40: REX
		"----------------" + // 50: push, pop
		"uusmppppzZiI----" + // 60: EVEX, movslq, push, imul
		"ssssssssssssssss" + // 70: jcc
		"IZuImmmmmmmmmMms" + // 80: arithmetic, mov, lea, pop or XOP
		"s---------u-----" + // 90: nop or pause, xchg
		"ssss----iz------" + // a0: mov to and from an address, test
		"iiiiiiiissssssss" + // b0: mov
		"IIssssJKs-ssssus" + // c0: shifts, ret, VEX, mov, enter, lret, int
		"mmmmuus-mmmmmmmm" + // d0: shifts, udb, x87
		"ssssiiiissus----" + // e0: loop, call, jmp
		"p-pp--MM------MM" //   f0: lock, rep, test, call, jmp
	twoByte = "" +
		"mmmmu--s--usum-I" + // 00: sysret, ud2, 3DNow!
		"mmmmmmmmmmmmmmMM" + // 10: endbr, nop
		"ssssuuuummmmmmmm" + // 20: mov of control registers
		"-----su-susuuuuu" + // 30: sysexit, 0f38, 0f3a
		"mmmmmmmmmmmmmmmm" +
		"mmmmmmmmmmmmmmmm" +
		"mmmmmmmmmmmmmmmm" +
		"IIIImmm-mmuummmm" + // 70: shifts, emms
		"ssssssssssssssss" + // 80: jcc
		"mmmmmmmmmmmmmmmm" +
		"---mImmm---mImMm" + // a0: shifts, lfence
		"mmmmmmmmmMImmmmm" + // b0: ud1
		"mmImIIIm--------" + // c0
		"mmmmmmmmmmmmmmmm" +
		"mmmmmmmmmmmmmmmm" +
		"mmmmmmmmmmmmmmmM" //   f0: ud0
)

// Prefixes seen before an opcode.
const (
	sawSize = 1 << iota // 66
	sawAddr             // 67
	sawRepne
	sawRep
	sawLock
)

// measure fills s with the instruction that p begins with. Target is relative to the
// end of the instruction. p may end in bytes that are not code: the caller
// compares the length.
func measure(p *[16]byte, s *Step) {
	var (
		i    uint
		saw  uint8
		rex  byte
		b    = p[0]
		form uint8
	)
	*s = Step{}
	// Prefixes. A REX that no opcode follows has no effect.
	for {
		form = shapes[oneByte[b]&127]
		if form&prefix == 0 {
			break
		}
		switch {
		case b&0xf0 == 0x40:
			rex = b
		case b == 0x66:
			saw |= sawSize
			rex = 0
		case b == 0x67:
			saw |= sawAddr
			rex = 0
		case b == 0xf2:
			saw = saw&^sawRep | sawRepne
			rex = 0
		case b == 0xf3:
			saw = saw&^sawRepne | sawRep
			rex = 0
		case b == 0xf0:
			saw |= sawLock
			rex = 0
		default: // segments, branch hints, notrack
			rex = 0
		}
		i++
		if i == 15 {
			s.bad()
			return
		}
		b = p[i&15]
	}
	i++

	var (
		op      = b
		escaped bool // 0f came before the opcode
		rexW    = rex&8 != 0
		size16  = saw&sawSize != 0 && !rexW
	)
	if form&irregular != 0 && form&modrm == 0 {
		switch op {
		case 0x0f:
			op = p[i&15]
			i++
			escaped = true
			form = shapes[twoByte[op]&127]
			if form&irregular == 0 || form&modrm != 0 {
				break
			}
			switch {
			case op&0xf0 == 0x80:
				s.Kind, s.Target = JumpCond, rel32(p, i)
				i += 4
			case op == 0x38:
				i++
				form = modrm
			case op == 0x3a:
				i++
				form = modrm | imm8
			case op&0xfc == 0x20:
				i++ // the ModRM byte names registers whatever its mode
			case op == 0x0b:
				s.Kind = Trap
			case op == 0x07 || op == 0x35:
				s.special = far
			}
		case 0xe8:
			s.Kind, s.Target = CallDirect, rel32(p, i)
			i += 4
		case 0xe9:
			s.Kind, s.Target = JumpDirect, rel32(p, i)
			i += 4
		case 0xeb:
			s.Kind, s.Target = JumpDirect, uint64(int8(p[i&15]))
			i++
			if i == 2 && overHash(p) {
				s.Target -= hashLen
				i += hashLen
			}
		case 0xe0, 0xe1, 0xe2, 0xe3,
			0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77,
			0x78, 0x79, 0x7a, 0x7b, 0x7c, 0x7d, 0x7e, 0x7f:
			s.Kind, s.Target = JumpCond, uint64(int8(p[i&15]))
			i++
		case 0xc3:
			s.Kind = Return
		case 0xc2:
			s.Kind = Return
			i += 2
		case 0xcb:
			s.Kind, s.special = Return, far
		case 0xca:
			s.Kind, s.special = Return, far
			i += 2
		case 0xcf:
			s.special = far
		case 0xcc, 0xd6:
			s.Kind = Trap
		case 0xcd:
			s.Kind = Trap
			i++
		case 0xc8:
			i += 3
		case 0x90:
			switch {
			case saw&sawRep != 0:
				s.Kind = Fence
			case rex&1 == 0:
				s.special = pad
			}
		case 0xa0, 0xa1, 0xa2, 0xa3:
			i += 8
			if saw&sawAddr != 0 {
				i -= 4
			}
		case 0xb8, 0xb9, 0xba, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf:
			switch {
			case rexW:
				i += 8
			case size16:
				i += 2
			default:
				i += 4
			}
		case 0xc4, 0xc5, 0x62, 0x8f:
			form = vector(p, &i, op)
			if form&undefined == 0 && form&prefix == 0 && (saw&^sawAddr != 0 || rex != 0) {
				form = undefined
			}
		}
	}
	if form&undefined != 0 {
		s.bad()
		return
	}
	if form&modrm != 0 {
		m := p[i&15]
		if form&irregular != 0 {
			form = s.group(p, i, op, escaped, saw, rex, form)
		}
		i++
		mode, rm := m>>6, m&7
		if mode != 3 {
			if rm == 4 {
				if mode == 0 && p[i&15]&7 == 5 {
					i += 4
				}
				i++
			}
			switch mode {
			case 0:
				if rm == 5 {
					i += 4
				}
			case 1:
				i++
			case 2:
				i += 4
			}
		}
	}
	if form&imm8 != 0 {
		i++
	}
	if form&immz != 0 {
		i += 4
		if size16 {
			i -= 2
		}
	}
	if form&undefined != 0 || i > 15 {
		s.bad()
		return
	}
	s.Len = int(i)
}

// group settles an opcode that means several things by its ModRM byte, which
// is at p[i].
func (s *Step) group(p *[16]byte, i uint, op byte, escaped bool, saw uint8, rex byte, form uint8) uint8 {
	m := p[i&15]
	mode, reg := m>>6, m>>3&7
	if escaped {
		switch op {
		case 0x1e:
			switch {
			case saw&sawRep != 0 && (m == 0xfa || m == 0xfb):
				s.special = pad
			case saw&sawRep != 0 && rex&8 != 0 && m == 0xf8: // ibhf
				s.Kind = Fence
			}
		case 0x1f:
			s.special = pad
		case 0xae:
			if mode == 3 && reg == 5 && saw == 0 {
				s.Kind, s.special = Fence, lfence
			}
		case 0xb9, 0xff:
			s.Kind = Trap
		}
		return form
	}
	switch op {
	case 0x8d:
		if mode == 3 {
			form = undefined
		}
	case 0xc6, 0xc7:
		switch {
		case op == 0xc7 && m == 0xf8: // xbegin
			s.Kind, s.Target = JumpCond, rel32(p, i+1)
			if saw&sawSize != 0 && rex&8 == 0 {
				s.Target = uint64(int16(s.Target))
			}
		case reg != 0 && m != 0xf8:
			form = undefined
		}
	case 0xf6:
		if reg < 2 {
			form |= imm8
		}
	case 0xf7:
		if reg < 2 {
			form |= immz
		}
	case 0xfe:
		if reg > 1 {
			form = undefined
		}
	case 0xff:
		switch reg {
		case 2:
			s.Kind = CallIndirect
		case 4:
			s.Kind = JumpIndirect
		case 3, 5:
			s.special = far
			if mode == 3 {
				form = undefined
			}
		case 7:
			form = undefined
		}
		if mode == 3 && (reg == 2 || reg == 4) {
			s.reg = m&7 + rex&1*8 + 1
		}
	}
	return form
}

// vector reads what follows the first byte of a VEX, EVEX or XOP prefix, or
// of pop, and moves i behind the opcode. The prefix bit in its answer says
// that it was pop.
func vector(p *[16]byte, i *uint, op byte) uint8 {
	var table byte
	switch op {
	case 0xc5:
		table = 1
		*i++
	case 0xc4:
		table = p[*i&15] & 0x1f
		*i += 2
		if table == 0 || table > 3 {
			return undefined
		}
	case 0x62:
		table = p[*i&15] & 7
		*i += 3
		if table == 0 || table == 4 || table == 7 {
			return undefined
		}
	case 0x8f:
		if p[*i&15]>>3&7 == 0 {
			return modrm | prefix
		}
		table = p[*i&15] & 0x1f
		*i += 2
		switch table {
		case 8:
			*i++
			return modrm | imm8
		case 9:
			*i++
			return modrm
		case 10:
			*i++
			return modrm | immz
		}
		return undefined
	}
	opcode := p[*i&15]
	*i++
	switch {
	case table == 3:
		return modrm | imm8
	case table == 1 && opcode == 0x77 && op != 0x62: // vzeroupper
		return 0
	case table == 1:
		return modrm | shapes[twoByte[opcode]&127]&imm8
	}
	return modrm
}

// rel32 is the displacement at p[i].
func rel32(p *[16]byte, i uint) uint64 {
	return uint64(int32(uint32(p[i&15]) | uint32(p[(i+1)&15])<<8 | uint32(p[(i+2)&15])<<16 | uint32(p[(i+3)&15])<<24))
}
