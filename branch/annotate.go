package branch

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Line is one instruction of an annotated disassembly.
type Line struct {
	// Addr is the virtual address, Bytes the instruction.
	Addr  uint64
	Bytes []byte
	// Text is the instruction in GNU syntax.
	Text string
	// Indirect is set for an indirect branch, through a thunk or not.
	Indirect bool
	// Note says what a branch does, or what the instruction of a thunk is
	// there for; often empty.
	Note string
}

// Annotate disassembles the x86-64 function that begins at addr. Branches have
// a note that says how they are made, the instructions of the kernel's own
// thunks (retpolines, ITS, return thunks, the clearing of branch history, call
// depth accounting) one that says why speculation stops there. resolve and
// facts may be nil.
//
// What thunks do is said in arch/x86/lib/retpoline.S, arch/x86/entry/entry_64.S
// and Documentation/admin-guide/hw-vuln of Linux 7.2.
func Annotate(code []byte, addr uint64, resolve Resolver, facts *Facts) []Line {
	return slices.Collect(Annotated(code, addr, resolve, facts))
}

// Annotated is [Annotate], a line at a time: those of a long function take many times its memory.
func Annotated(code []byte, addr uint64, resolve Resolver, facts *Facts) iter.Seq[Line] {
	return func(yield func(Line) bool) {
		a := annotation{code, addr, resolve, facts, thunkRules(code, addr, resolve)}
		a.lines(EachBranch(code, addr, resolve, facts, nil), Decode(code, addr), yield)
	}
}

// AnnotatedARM64 is [Annotated] of an arm64 function. Of what guards against speculation there, the clearing of branch
// history, barriers and checks of CFI have notes (arch/arm64/kernel/entry.S of Linux 7.2).
func AnnotatedARM64(code []byte, addr uint64, resolve Resolver, facts *Facts) iter.Seq[Line] {
	return func(yield func(Line) bool) {
		a := annotation{code, addr, resolve, facts, nil}
		a.lines(EachBranchARM64(code, addr, resolve, facts), DecodeARM64(code, addr), yield)
	}
}

// annotation is a function whose lines are made.
type annotation struct {
	code    []byte
	addr    uint64
	resolve Resolver
	facts   *Facts
	rules   []rule
}

// lines yields the lines of the function's instructions.
func (a *annotation) lines(found iter.Seq[*Branch], insts iter.Seq[Inst], yield func(Line) bool) {
	branches := make(map[uint64]Branch)
	for b := range found {
		branches[b.Addr] = *b
	}
	checked := make(map[uint64]Check)
	for _, b := range branches {
		for at := b.Addr - b.CheckLen; at < b.Addr; at++ {
			checked[at] = b.Check
		}
	}
	end := a.addr + uint64(len(a.code))
	for inst := range insts {
		b, isBranch := branches[inst.Addr]
		line := Line{
			Addr:  inst.Addr,
			Bytes: a.code[inst.Addr-a.addr:][:inst.Len],
			Text:  plainSyntax(inst.Text(a.resolve)),
		}
		if isBranch {
			line.Note, line.Indirect = b.note(), b.Indirect()
		}
		switch inst.Kind {
		case CallDirect, JumpDirect, JumpCond:
			if inst.Target > a.addr && inst.Target < end {
				line.Text += fmt.Sprintf(" <+%#x>", inst.Target-a.addr)
			}
		}
		if note := a.note(inst, checked[inst.Addr], line, isBranch && b.Returns()); note != "" {
			line.Note = note
		}
		if !yield(line) {
			return
		}
	}
}

// note is that of an instruction which says more than what its branch does, or "".
func (a *annotation) note(inst Inst, checked Check, line Line, returns bool) string {
	facts := a.facts
	switch {
	case line.Note == "" && facts != nil && facts.Alternatives[inst.Addr] != "":
		return "not patched yet, becomes: " + facts.Alternatives[inst.Addr]
	case line.Note == "" && checked != CheckNone:
		return checked.note(line.Text)
	case line.Note == "" && inst.Endbr():
		if facts != nil && facts.Sealed[inst.Addr] != "" {
			return "not patched yet: becomes a nop, nothing calls this indirectly"
		}
		return "indirect branches may come here"
	case inst.raw == "ibhf":
		return "what branches went before it predicts none behind it"
	case inst.arm64 != 0:
		return noteARM64(inst.arm64)
	case len(a.rules) == 0:
		return ""
	}
	var note string
	note, a.rules = match(a.rules, line.Text, returns)
	return note
}

// noteARM64 says what an instruction is there for that guards against speculation.
func noteARM64(w uint32) string {
	switch w {
	case clearBHB:
		return "clears the branch history before indirect branches use it"
	case csdb:
		return "no value that is only predicted is used behind it"
	case sb:
		return "nothing behind it is speculated"
	}
	return ""
}

// note is the branch in words.
func (b Branch) note() string {
	op := "call"
	if b.Jump {
		op = "jump"
	}
	if b.Conditional && b.Indirect() {
		op = "conditional jump"
	}
	target := ": target in " + b.Register
	if b.Register == "" {
		target = ""
	}
	var s string
	switch b.Class {
	case ClassDirect:
		if !b.Jump {
			s = "direct call"
		}
	case ClassTailCall:
		s = "tail call: " + b.Name + " returns to this function's caller"
	case ClassRegister:
		s = "indirect " + op + target + ", predicted by the CPU"
	case ClassMemory:
		s = "indirect " + op + ": target read from memory, predicted by the CPU"
		if b.Name != "" {
			s = "indirect " + op + ": target read from " + b.Name + ", predicted by the CPU"
		}
	case ClassLfence:
		s = "indirect " + op + " behind lfence" + target
	case ClassRetpoline:
		s = "indirect " + op + " through a retpoline" + target
	case ClassITS:
		s = "indirect " + op + " through an ITS thunk" + target
	case ClassCallDepth:
		s = "indirect " + op + " through a retpoline that counts call depth" + target
		if !b.Indirect() {
			s = "direct call by way of the counting in front of " + b.Name
		}
	case ClassBHI:
		s = "clears the branch history before indirect branches use it"
	case ClassPoison:
		s = "clears the registers of arguments where the hash is wrong, so that nothing is speculated with them"
	case ClassUntrain:
		s = "untrains the prediction of the return thunk"
	case ClassReturn:
		s = "return, predicted by the return stack (RSB)"
	case ClassSRSO:
		s = "return through " + b.Name + ": mispredicted on purpose"
	case ClassReturnThunk:
		s = "return through the return thunk"
		if b.Name != "" {
			s = "return through " + b.Name + returnMeaning(b.Name)
		}
	case ClassStaticCall:
		s = "static call: patched when its target changes"
		if b.Fact != "" {
			s = "static call of " + b.Fact + ": patched when its target changes"
		}
		if b.Nop {
			s += "; calls nothing now"
		}
	case ClassStaticKey:
		s = "static key, on: " + b.Fact
		if b.Nop {
			s = "static key, off; when on: " + b.Fact
		}
	case ClassDispatcher:
		s = "BPF dispatcher: compares its way to a direct jump to the program"
	case ClassParavirt:
		s = "paravirtual operation"
		if b.Fact != "" {
			s += " " + b.Fact
		}
	case ClassAlternative:
		s = "differs by CPU"
	case ClassFar:
		s = "leaves the code segment or the kernel"
	}
	if b.Check.Preamble() {
		s += ", which is the preamble of the function, 16 bytes in front of it"
	}
	if b.Pending != "" {
		if s != "" {
			s += "; "
		}
		s += "not patched yet, becomes: " + b.Pending
	}
	return s
}

// note says what an instruction of the check is there for, by its text.
func (c Check) note(text string) string {
	op, _, _ := strings.Cut(strings.TrimPrefix(text, "cs "), " ")
	if c == CheckNone {
		return ""
	}
	if c == CheckOff && op != "jmp" {
		return "never run: cfi=off"
	}
	if c == CheckKCFIARM64 {
		return noteKCFIARM64(op)
	}
	switch op {
	case "mov", "movl":
		if c == CheckKCFI || c == CheckKCFIUDB {
			return "CFI: the hash of the called prototype, negated"
		}
		return "CFI: the hash of the called prototype"
	case "add", "addl":
		return "plus the hash in front of the function, loaded from its text"
	case "cmp", "cmpl":
		return "is it the hash in the preamble of the function, loaded from its text"
	case "lea", "sub":
		return "from the function to its preamble, 16 bytes in front of it"
	case "je":
		return "they are equal when that is 0"
	case "jne":
		if c == CheckKCFIUDB {
			return "if that is not 0, into the last byte of the test, with which it traps"
		}
		return "if not, into the last byte of the lea, with which it traps"
	case "ud2":
		return "the trap of a wrong hash"
	case "test", "testb":
		return "its last byte is the trap of a wrong hash"
	case "jmp":
		return "over the check, and the hash behind the jump: cfi=off"
	}
	return ""
}

// noteKCFIARM64 is that of an instruction of the check of arm64, by what it does.
func noteKCFIARM64(op string) string {
	switch op {
	case "ldur":
		return "CFI: loads the hash in front of the function"
	case "mov", "movk":
		return "the hash of the called prototype"
	case "cmp":
		return "are they equal"
	case "b.eq":
		return "over the trap where they are"
	case "brk":
		return "the trap of a wrong hash"
	}
	return ""
}

func returnMeaning(name string) string {
	switch name {
	case "its_return_thunk":
		return ": a ret in the upper half of a cache line"
	case warnThunk:
		return ": warns once that a return was not patched"
	case "retbleed_return_thunk", "zen_return_thunk":
		return ": a ret whose prediction is untrained on kernel entry"
	case "call_depth_return_thunk":
		return ": counts call depth and refills the RSB now and then"
	}
	return ""
}

// rule gives a note to the next instruction whose text begins with op. The op
// "return" is any return, also one through a return thunk, and nothing else is.
type rule struct{ op, note string }

// match finds the rule for an instruction, and the rules that are left. A rule
// serves one instruction; those before it are dropped with it.
func match(rules []rule, text string, returns bool) (string, []rule) {
	for i, r := range rules {
		if returns && r.op == "return" || !returns && strings.HasPrefix(text, r.op) {
			return r.note, rules[i+1:]
		}
	}
	return "", rules
}

const (
	straight = "stops straight-line speculation past the branch"
	// unused is the jump that some kernels begin the rest of a longer alternative with (arch/x86/kernel/alternative.c).
	unused  = "over the room that the retpoline would take; never executed"
	rsbTrap = "the trap: speculation that follows the RSB stops here"
	// upperHalf is where its_return_thunk and the ITS thunks stand.
	upperHalf = "the upper half of its 64-byte cache line, where ITS cannot choose its prediction"
	// aliased is what each of the first instructions of srso_alias_untrain_ret is.
	aliased = "shares its place in the branch predictor (BTB) with srso_alias_safe_ret:" +
		" a poisoned prediction there is evicted"
)

// thunkRules are the notes of the thunk that begins at addr, in order; nil when
// there is no thunk. Instructions that only some kernels have may be missing.
func thunkRules(code []byte, addr uint64, resolve Resolver) []rule {
	name := strings.TrimPrefix(resolve.lookup(addr), "__pi_")
	if strings.HasPrefix(name, "__cfi_") && len(code) >= PreambleLen {
		return preambleRules(code, addr)
	}
	if rules := namedRules(name); rules != nil {
		return rules
	}
	if name != "" && !strings.HasPrefix(name, "__x86_indirect_") && !ReturnThunk(name) {
		return nil
	}
	if ReturnThunk(name) { // up to Linux 6.5 its body was patched in place
		switch NameReturnThunk(code, addr, resolve) {
		case ReturnRetbleed:
			return namedRules("retbleed_return_thunk")
		case ReturnSRSO:
			return namedRules("srso_return_thunk")
		case ReturnCallDepth:
			return namedRules("call_depth_return_thunk")
		}
		return []rule{{"return", "returns to the caller, predicted by the RSB"}, {"int3", straight}}
	}
	thunk := NameIndirectThunk(code, addr, resolve)
	switch thunk.Kind {
	case ThunkRetpoline, ThunkCallDepth:
		return retpolineRules(thunk)
	case ThunkLfence:
		return []rule{
			{"lfence", "waits until the target in the register is known"},
			{"jmp *", "then jumps; a short window for a wrong prediction is left, which is why sysfs calls it vulnerable"},
			{"jmp 0x", unused},
			{"int3", straight},
		}
	case ThunkPlain:
		return []rule{
			{"jmp *", "an ordinary indirect jump: runs ahead to where the branch predictor says"},
			{"jmp 0x", unused},
			{"int3", straight},
		}
	case ThunkITS:
		return []rule{
			{"jmp", "an ordinary indirect jump, but in " + upperHalf},
			{"int3", straight},
		}
	}
	return nil
}

// preambleRules are the notes of what stands in front of a function for CFI.
func preambleRules(code []byte, addr uint64) []rule {
	at := len(code) - PreambleLen
	if _, ok := NamePreamble(code[at:], addr+uint64(at), nil); !ok {
		return []rule{{"mov", "the hash of the function's prototype: callers read it, nothing runs it"}}
	}
	return []rule{
		{"sub", "0 when the hash of the caller is the function's"},
		{"cmovne", "clears the argument where it is not: nothing is speculated with it"},
		{"j", "traps where it is not"},
	}
}

func retpolineRules(t Thunk) []rule {
	var rules []rule
	if t.Kind == ThunkCallDepth {
		rules = append(rules, rule{"sar", "counts the call: the shift saturates after 12 nested ones"})
	}
	rules = append(rules,
		rule{"call", "pushes the address of the trap: the return predictor (RSB) now says: return to the trap"})
	if t.Capture == "int3" {
		rules = append(rules, rule{"int3", rsbTrap})
	} else {
		rules = append(rules,
			rule{"pause", "the trap: speculation that follows the RSB spins from here"},
			rule{"lfence", "and waits here until it is thrown away"},
			rule{"jmp", "round and round in the trap"})
	}
	rules = append(rules, rule{"mov", "the real return address is overwritten by the target"})
	if t.Return == "ret" {
		return append(rules,
			rule{"return", "goes to the target; speculates to the trap"},
			rule{"int3", straight})
	}
	const through = "returns through the return thunk: goes to the target; what that speculates to is said there"
	return append(rules, rule{"return", through}, rule{"jmp", through})
}

// namedRules are those of thunks known by name.
func namedRules(name string) []rule {
	switch name {
	case "srso_return_thunk", "srso_alias_return_thunk":
		return []rule{
			{"call", "pushes the address of the trap behind it: the RSB now says: return to the trap"},
			{"ud2", "the trap: what the kernel's returns speculate to; never executed"},
		}
	case "srso_safe_ret":
		return []rule{
			{"lea", "drops the trap's address from the stack: the caller's is on top again"},
			{"return", "returns to the caller; speculates to the trap that the RSB holds"},
			{"int3", straight},
			{"int3", "ends the movabs of srso_untrain_ret"},
			{"lfence", "srso_untrain_ret goes on here: waits until the movabs is done"},
			{"call", "runs the safe ret, which returns to the caller of srso_untrain_ret"},
			{"ud2", "the trap of that call"},
		}
	case "srso_alias_safe_ret":
		return []rule{
			{"lea", "drops the trap's address from the stack: the caller's is on top again"},
			{"return", "returns to the caller; speculates to the trap that the RSB holds"},
			{"int3", straight},
		}
	case "srso_untrain_ret":
		return []rule{
			{"mov", "the bytes of srso_safe_ret, read as one movabs: evicts what was predicted for the ret in it"},
			{"lfence", "waits until that is done"},
			{"call", "runs the safe ret, which returns to this function's caller"},
			{"ud2", "the trap of that call"},
		}
	case "srso_alias_untrain_ret":
		return []rule{
			{"nop", aliased},
			{"xchg", aliased},
			{"data16", aliased},
			{"lfence", "waits until that is done"},
			{"return", "returns by the safe ret"},
		}
	case "retbleed_return_thunk", "zen_return_thunk":
		return []rule{
			{"return", "returns to the caller; what user space trained it to predict was evicted on kernel entry"},
			{"int3", straight},
			{"lfence", "retbleed_untrain_ret goes on here: waits until the eviction is done"},
			{"jmp", "executes the ret once: from now on it is predicted as a return"},
			{"int3", straight},
		}
	case "retbleed_untrain_ret", "zen_untrain_ret":
		return []rule{
			{"test", "the bytes of ret and int3, read as the end of a test: evicts what was predicted for the ret"},
			{"lfence", "waits until the eviction is done"},
			{"jmp", "executes the ret once: from now on it is predicted as a return"},
			{"int3", straight},
		}
	case "its_return_thunk":
		return []rule{
			{"return", "returns to the caller, from " + upperHalf},
			{"int3", straight},
		}
	case "call_depth_return_thunk":
		rules := []rule{
			{"shl", "counts the return: the result is 0 when the RSB may be about to run empty"},
			{"j", "if so, goes on to fill it"},
			{"return", "returns to the caller, predicted by the RSB"},
			{"int3", straight},
		}
		for range 16 { // RSB_RET_STUFF_LOOPS
			rules = append(rules,
				rule{"call", "puts the address of the trap behind it into the RSB"},
				rule{"int3", rsbTrap})
		}
		return append(rules,
			rule{"add", "drops those addresses from the stack; the RSB keeps them"},
			rule{"mov", "all ones: credits 12 calls before the next filling"},
			rule{"return", "returns to the caller; speculates to a trap"},
			rule{"int3", straight})
	case "__bhi_args", "__bhi_args_0", "__bhi_args_1", "__bhi_args_2", "__bhi_args_3", "__bhi_args_4", "__bhi_args_5",
		"__bhi_args_6", "__bhi_args_7":
		rules := []rule{{"jne", "traps where the hash is wrong"}}
		for range 7 {
			rules = append(rules, rule{"cmovne", "clears an argument where the hash is wrong: nothing is speculated with it"})
		}
		return append(rules, rule{"return", "to the function"}, rule{"int3", straight})
	case "clear_bhb_loop":
		return []rule{
			{"push", "sets up a frame for the unwinder"},
			{"mov %rsp", "sets up a frame for the unwinder"},
			{"mov $", "rounds of the outer loop"},
			{"call", "calls and returns in the loop keep the CPU's loop detector (LSD) from replaying it" +
				" without touching the history"},
			{"jmp", "to the end, when all calls have returned"},
			{"call", "one call deeper each round"},
			{"return", "and back"},
			{"mov $", "rounds of the inner loop"},
			{"jmp", "a taken branch: shifts older branches out of the history (BHB)"},
			{"sub", "counts the inner loop"},
			{"j", "a taken branch: shifts older branches out of the history (BHB)"},
			{"sub", "counts the outer loop"},
			{"j", "next round: one call deeper"},
			{"return", "and back"},
			{"lfence", "waits until the history is overwritten"},
			{"pop", "the frame again"},
		}
	}
	return nil
}
