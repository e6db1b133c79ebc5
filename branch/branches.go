package branch

import (
	"encoding/binary"
	"iter"
	"strings"
)

// Branches classifies every call, jump and return of the x86-64 function that
// begins at addr, in order, and adds the places where facts say that the
// kernel switches one in.
//
// resolve names targets; follow gives the first bytes of code that it has no
// name for (32 are enough), and of thunks, whose symbol does not tell what
// stands there. Each may be nil, and follow may return nil. facts are those of
// a file, whose code was not patched; of live text, which was, they may be nil
// or have only static keys and calls.
func Branches(code []byte, addr uint64, resolve Resolver, facts *Facts, follow Follow) []Branch {
	var out []Branch
	for b := range EachBranch(code, addr, resolve, facts, follow) {
		out = append(out, *b)
	}
	return out
}

// EachBranch yields what [Branches] returns, one at a time and in memory that
// the next one takes.
func EachBranch(code []byte, addr uint64, resolve Resolver, facts *Facts, follow Follow) iter.Seq[*Branch] {
	return NewClassifier(resolve, facts, follow).EachBranch(code, addr)
}

// Classifier classifies the branches of many functions and reads each thunk once: for
// totals of whole kernels. It is not safe for concurrent use.
type Classifier struct {
	addr, end uint64 // of the function
	resolve   Resolver
	facts     *Facts
	follow    Follow
	// thunks are what follow found, by address.
	thunks map[uint64]Thunk
}

// NewClassifier takes what [Branches] takes.
func NewClassifier(resolve Resolver, facts *Facts, follow Follow) *Classifier {
	if facts == nil {
		facts = new(Facts)
	}
	return &Classifier{resolve: resolve, facts: facts, follow: follow, thunks: make(map[uint64]Thunk)}
}

// EachBranch yields what [Branches] returns of the function that begins at addr, one at
// a time and in memory that the next one takes.
func (c *Classifier) EachBranch(code []byte, addr uint64) iter.Seq[*Branch] {
	return func(yield func(*Branch) bool) {
		c.addr, c.end = addr, addr+uint64(len(code))
		facts := c.facts
		var (
			b        Branch
			switches = len(facts.Alternatives)+len(facts.StaticKeys)+len(facts.StaticCalls) > 0
			fenced   bool   // lfence came before, with at most padding between
			until    uint64 // the end of the alternative that the code is in
			inside   string // what will stand there
		)
		for step := range Scan(code, addr) {
			ok := step.Kind != Other || step.special == far
			if ok {
				b = Branch{}
				ok = c.branch(&b, &step, code, fenced)
			}
			if switches {
				if what, found := facts.Alternatives[step.Addr]; found {
					until, inside = step.Addr+facts.length(step.Addr, step.Len), what
					if !ok && facts.brings(step.Addr) {
						b, ok = Branch{Class: ClassAlternative, Nop: true}, true
					}
				}
				// Static calls of nothing are a nop or a 5-byte xor.
				if !ok && (step.special == pad || step.Len == 5) {
					b, ok = c.switched(step.Addr)
				}
			}
			if ok {
				b.Addr, b.Offset = step.Addr, step.Addr-addr
				if step.Addr < until {
					c.pending(&b, inside)
				}
				if !yield(&b) {
					return
				}
			}
			if step.special != pad {
				fenced = step.special == lfence
			}
		}
	}
}

// branch classifies an instruction of code, which begins at c.addr; it returns false when the
// instruction is no branch.
func (c *Classifier) branch(b *Branch, step *Step, code []byte, fenced bool) bool {
	before, text := code[:step.Addr-c.addr], code[step.Addr-c.addr:][:step.Len]
	switch {
	case step.special == far:
		b.Class, b.Jump = ClassFar, true
		// lcall is ff /3.
		if modrm, ok := groupByte(text); ok && modrm>>3&7 == 3 {
			b.Jump = false
		}
		return true
	case step.Kind == Return:
		b.Class, b.Jump = ClassReturn, true
	case step.Kind == CallDirect:
		c.direct(b, step)
		c.checked(b, before)
	case step.Kind == JumpDirect, step.Kind == JumpCond:
		b.Jump, b.Conditional = true, step.Kind == JumpCond
		c.direct(b, step)
		c.checked(b, before)
	case step.Kind == CallIndirect, step.Kind == JumpIndirect:
		b.Jump = step.Kind == JumpIndirect
		b.Register = step.Register()
		switch {
		case b.Register == "":
			b.Class = ClassMemory
		case fenced:
			b.Class = ClassLfence
		default:
			b.Class = ClassRegister
		}
		c.checked(b, before)
		if b.Slot = slot(text, step); b.Slot != 0 {
			b.Name = c.resolve.within(b.Slot)
			if pvOps(b.Name) {
				b.Class = ClassParavirt
			}
		}
	default:
		return false
	}
	c.annotated(b, step.Addr)
	return true
}

// pvOps tells the tables of operations that a hypervisor replaces. Those of spin locks are one of their own since Linux 7.2.
func pvOps(name string) bool { return name == "pv_ops" || name == "pv_ops_lock" }

// direct classifies a branch whose target is in the instruction.
func (c *Classifier) direct(b *Branch, step *Step) {
	b.Target = step.Target
	b.Class = ClassDirect
	if b.Conditional {
		b.Class = ClassConditional
	}
	if step.Target < c.addr || step.Target >= c.end || step.Target == c.addr && !b.Jump {
		c.outside(b)
	}
}

// checked adds the check of CFI that the code in front of a branch is. Only indirect branches
// have one, so a direct branch behind it goes to a thunk, also to one without a symbol.
func (c *Classifier) checked(b *Branch, before []byte) {
	if b.Class != ClassDirect && b.Class != ClassTailCall && !b.Indirect() || b.Conditional {
		return
	}
	check, n := checkBefore(before)
	if check == CheckNone || b.Register != "" && b.Register != checkedRegister {
		return
	}
	b.Check, b.CheckLen = check, uint64(n)
	if b.Indirect() {
		return
	}
	b.Class, b.Register = ClassRetpoline, checkedRegister
	if check == CheckParanoid {
		b.Class = ClassITS
	}
}

// outside classifies a direct branch out of the function.
func (c *Classifier) outside(b *Branch) {
	b.Name = c.resolve.lookup(b.Target)
	if b.Jump && ReturnThunk(b.Name) {
		b.Class = returnClass(b.Name)
		return
	}
	if class := thunkClass(b.Name); class != "" {
		b.Class = class
		switch class {
		case ClassRetpoline, ClassITS, ClassCallDepth:
			b.Register = thunkRegister(b.Name)
		}
		if class == ClassRetpoline {
			c.body(b)
		}
		return
	}
	if b.Name != "" {
		if b.Jump && !strings.HasSuffix(b.Name, ".cold") {
			b.Class = ClassTailCall
		}
		return
	}
	if b.Jump && !b.Conditional {
		c.intoProgram(b)
	}
	if c.follow == nil || b.Class == ClassTailCall || b.Conditional {
		return
	}
	code := c.follow(b.Target)
	if !b.Jump && counts(code) {
		// The counting stands right in front of the function, after
		// the first part of its padding.
		for n := uint64(9); n <= 32; n++ {
			if name := c.resolve.lookup(b.Target + n); name != "" {
				b.Class, b.Name = ClassCallDepth, name
				return
			}
		}
	}
	if c.resolve.within(b.Target) != "" && !endsCheck(code) {
		return // it comes back into the middle of a function, as a .cold part does
	}
	if thunk := c.thunk(b.Target, code); thunk.Kind == ThunkITS {
		b.Class, b.Register = ClassITS, thunk.Register
	}
}

// body corrects the class of a branch to a retpoline thunk by what is
// there. Code that was not patched says nothing of that.
func (c *Classifier) body(b *Branch) {
	if c.follow == nil || len(c.facts.RetpolineSites) > 0 {
		return
	}
	if _, ok := c.facts.Alternatives[b.Target]; ok {
		return
	}
	switch c.thunk(b.Target, nil).Kind {
	case ThunkLfence:
		b.Class = ClassLfence
	case ThunkPlain:
		b.Class = ClassRegister
	case ThunkITS:
		b.Class = ClassITS
	case ThunkCallDepth:
		b.Class = ClassCallDepth
	}
}

// thunk names the thunk at addr, whose bytes are code if the caller has them.
func (c *Classifier) thunk(addr uint64, code []byte) Thunk {
	if t, ok := c.thunks[addr]; ok {
		return t
	}
	if code == nil {
		code = c.follow(addr)
	}
	t := NameIndirectThunk(code, addr, c.resolve)
	c.thunks[addr] = t
	return t
}

// prologue is how far behind a BPF program's start a tail call may enter it:
// X86_TAIL_CALL_OFFSET is 11 to 23 bytes from Linux 5.5 to 7.2.
const prologue = 32

// intoProgram recognizes the direct tail call of the BPF JIT.
func (c *Classifier) intoProgram(b *Branch) {
	for n := uint64(1); n <= prologue; n++ {
		if name := c.resolve.lookup(b.Target - n); name != "" {
			if strings.HasPrefix(name, "bpf_prog_") {
				b.Class, b.Name = ClassTailCall, name
			}
			return
		}
	}
}

// annotated adds what facts say of the instruction's address.
func (c *Classifier) annotated(b *Branch, addr uint64) {
	if fact, ok := c.facts.StaticCalls[addr]; ok {
		b.Class, b.Fact = ClassStaticCall, fact
	}
	if fact, ok := c.facts.StaticKeys[addr]; ok {
		b.Class, b.Fact = ClassStaticKey, fact
	}
	if fact, ok := c.facts.Paravirt[addr]; ok {
		b.Fact = fact
		if b.Class == ClassMemory {
			b.Class = ClassParavirt
		}
		b.Pending = "a direct call, or the operation itself"
	}
	// Images without symbols have no names for thunks, but lists of sites.
	plain := b.Class == ClassDirect || b.Class == ClassConditional || b.Class == ClassTailCall
	if _, ok := c.facts.RetpolineSites[addr]; ok && (b.Class == ClassRetpoline || plain) {
		b.Class = ClassRetpoline
		if b.Register == "" && c.follow != nil {
			b.Register = c.thunk(b.Target, nil).Register
		}
		b.Pending = pendingRetpoline(*b)
	}
	if _, ok := c.facts.ReturnSites[addr]; ok && (b.Returns() || plain && b.Jump) {
		if plain {
			b.Class = ClassReturnThunk
		}
		b.Pending = "ret, or jmp to the return thunk that the CPU needs"
	}
}

// pendingRetpoline is what apply_retpolines of arch/x86/kernel/alternative.c
// makes of a site.
func pendingRetpoline(b Branch) string {
	op, reg := "call", b.Register
	if b.Jump {
		op = "jmp"
	}
	if reg == "" {
		reg = "reg"
	}
	const without = " without retpolines, with lfence before it or through an ITS or call-depth thunk," +
		" as the CPU needs; stays with retpolines"
	return op + " *%" + reg + without
}

// switched is a branch that stands at a nop or at an instruction that takes
// its place, by facts.
func (c *Classifier) switched(addr uint64) (Branch, bool) {
	b := Branch{Nop: true}
	if fact, ok := c.facts.StaticKeys[addr]; ok {
		b.Class, b.Fact, b.Jump = ClassStaticKey, fact, true
		return b, true
	}
	if fact, ok := c.facts.StaticCalls[addr]; ok {
		b.Class, b.Fact = ClassStaticCall, fact
		return b, true
	}
	return b, false
}

// pending says of a branch inside an alternative what will stand there.
func (c *Classifier) pending(b *Branch, what string) {
	switch b.Class {
	case ClassDirect, ClassConditional, ClassTailCall:
		b.Class = ClassAlternative
	case ClassMemory:
		if strings.HasPrefix(what, "direct call") {
			b.Class = ClassParavirt
		}
	case ClassStaticKey, ClassStaticCall:
		return
	}
	if b.Pending != "" {
		what = b.Pending + "; " + what
	}
	b.Pending = what
}

// counts tells whether code begins with "sarq $5" on a per-CPU variable, with
// the address absolute or relative to rip.
func counts(code []byte) bool {
	if len(code) < 9 || code[0] != 0x65 || code[1] != 0x48 || code[2] != 0xc1 {
		return false
	}
	return code[3] == 0x3d && code[8] == 5 || len(code) > 9 && code[3] == 0x3c && code[4] == 0x25 && code[9] == 5
}

// groupByte is the ModRM byte of an instruction of opcode ff.
func groupByte(text []byte) (byte, bool) {
	for i, b := range text {
		switch {
		case b == 0xff && i+1 < len(text):
			return text[i+1], true
		case shapes[oneByte[b]&127]&prefix == 0:
			return 0, false
		}
	}
	return 0, false
}

// slot is the fixed address that "call *sym(%rip)" or "call *sym" reads.
func slot(text []byte, step *Step) uint64 {
	modrm, ok := groupByte(text)
	if !ok || modrm>>6 != 0 || len(text) < 6 || text[0] == 0x64 || text[0] == 0x65 {
		return 0
	}
	disp := uint64(int32(binary.LittleEndian.Uint32(text[len(text)-4:])))
	switch {
	case modrm&7 == 5:
		return step.Addr + uint64(step.Len) + disp
	case modrm&7 == 4 && text[len(text)-5] == 0x25: // no base, no index
		return disp
	}
	return 0
}
