package branch_test

import (
	"fmt"

	"github.com/unthunk/unthunk/branch"
)

// A function that calls through a retpoline, calls a register, and returns
// through a thunk, as the kernel has it at 0xffffffff81000000.
var (
	function = []byte("\xf3\x0f\x1e\xfa" + // endbr64
		"\xe8\xf7\xff\x1f\x00" + // call __x86_indirect_thunk_rax
		"\x48\x8b\x47\x08" + // mov 0x8(%rdi),%rax
		"\xff\xd0" + // call *%rax
		"\xff\x57\x10" + // call *0x10(%rdi)
		"\x74\x02" + // je, to the jump at the end
		"\x66\x90" + // nop
		"\xe9\xe5\x0f\x20\x00") // jmp its_return_thunk
	addr = uint64(0xffffffff81000000)
)

// resolve names thunks. The symbols of a kernel are in package ksym.
func resolve(addr uint64) (string, bool) {
	switch addr {
	case 0xffffffff81000000:
		return "f", true
	case 0xffffffff81200000:
		return "__x86_indirect_thunk_rax", true
	case 0xffffffff81201000:
		return "its_return_thunk", true
	}
	return "", false
}

func ExampleEachBranch() {
	for b := range branch.EachBranch(function, addr, resolve, nil, nil) {
		fmt.Printf("+%#04x %-24s %s\n", b.Offset, b.Name, b.Class)
	}
	// Output:
	// +0x0004 __x86_indirect_thunk_rax retpoline
	// +0x000d                          indirect-register
	// +0x000f                          indirect-memory
	// +0x0012                          conditional
	// +0x0016 its_return_thunk         return-thunk
}

func ExampleBranches() {
	indirect := 0
	for _, b := range branch.Branches(function, addr, resolve, nil, nil) {
		if b.Indirect() {
			indirect++
		}
	}
	fmt.Println(indirect, "indirect branches")
	// Output:
	// 3 indirect branches
}

// The section __jump_table says where static keys are: a nop that is a jump when its key is on.
func ExampleFacts_AddSection() {
	var facts branch.Facts
	data := []byte("\x14\x00\x00\xff" + "\x12\x00\x00\xff" + "\xf8\x0f\x00\x00\x00\x00\x00\x00")
	text := func(at uint64) bool { return at >= addr && at < addr+uint64(len(function)) }
	if err := facts.AddSection("__jump_table", data, 0xffffffff82000000, text, resolve, nil); err != nil {
		fmt.Println(err)
		return
	}
	for _, b := range branch.Branches(function, addr, resolve, &facts, nil) {
		if b.Class == branch.ClassStaticKey {
			fmt.Printf("+%#x nop=%v %s\n", b.Offset, b.Nop, b.Fact)
		}
	}
	// Output:
	// +0x14 nop=true jmp 0xffffffff81000016
}

func ExampleSites() {
	sites, returns := branch.Sites(function, addr, resolve, nil)
	for _, s := range sites {
		fmt.Printf("+%#04x %-24s %s\n", s.Offset, s.Thunk, s.Kind)
	}
	fmt.Println(returns)
	// Output:
	// +0x0004 __x86_indirect_thunk_rax thunk
	// +0x000d                          register
	// +0x000f                          memory
	// map[its_return_thunk:1]
}

func ExampleAnnotate() {
	for _, line := range branch.Annotate(function, addr, resolve, nil) {
		if line.Note != "" {
			fmt.Printf("%-35s %s\n", line.Text, line.Note)
		}
	}
	// Output:
	// endbr64                             indirect branches may come here
	// call __x86_indirect_thunk_rax       indirect call through a retpoline: target in rax
	// call *%rax                          indirect call: target in rax, predicted by the CPU
	// call *0x10(%rdi)                    indirect call: target read from memory, predicted by the CPU
	// jmp its_return_thunk                return through its_return_thunk: a ret in the upper half of a cache line
}

func ExampleDecode() {
	for inst := range branch.Decode(function, addr) {
		fmt.Printf("%#x %s\n", inst.Addr, inst.Text(resolve))
	}
	// Output:
	// 0xffffffff81000000 endbr64
	// 0xffffffff81000004 call __x86_indirect_thunk_rax
	// 0xffffffff81000009 mov 0x8(%rdi),%rax
	// 0xffffffff8100000d call *%rax
	// 0xffffffff8100000f callq *0x10(%rdi)
	// 0xffffffff81000012 je 0xffffffff81000016
	// 0xffffffff81000014 data16 nop
	// 0xffffffff81000016 jmp its_return_thunk
}

func ExampleScan() {
	indirect := 0
	for step := range branch.Scan(function, addr) {
		if step.Kind == branch.CallIndirect {
			fmt.Printf("%d bytes, register %q\n", step.Len, step.Register())
			indirect++
		}
	}
	fmt.Println(indirect, "indirect calls")
	// Output:
	// 2 bytes, register "rax"
	// 3 bytes, register ""
	// 2 indirect calls
}

// A retpoline that returns through a return thunk.
func ExampleNameIndirectThunk() {
	code := []byte("\xe8\x01\x00\x00\x00" + // call 1f
		"\xcc" + // int3
		"\x48\x89\x04\x24" + // 1: mov %rax,(%rsp)
		"\xe9\xf1\x0f\x00\x00") // jmp its_return_thunk
	thunk := branch.NameIndirectThunk(code, 0xffffffff81200000, resolve)
	fmt.Println(thunk.Kind, thunk.Register, thunk.Capture, thunk.Return)
	// Output:
	// retpoline rax int3 its_return_thunk
}

func ExampleNameReturnThunk() {
	fmt.Println(branch.NameReturnThunk([]byte("\xc3\xcc"), 0xffffffff81201000, resolve))
	fmt.Println(branch.NameReturnThunk([]byte("\xc3\xcc"), 0xffffffff81202000, nil))
	// Output:
	// ITS return thunk
	// plain ret
}

func ExampleBranchesARM64() {
	code := []byte("\x5f\x24\x03\xd5" + // bti c
		"\x20\x00\x3f\xd6" + // blr x1
		"\xc0\x03\x5f\xd6") // ret
	for _, b := range branch.BranchesARM64(code, 0xffff800080000000, nil, nil) {
		fmt.Printf("+%#x %s %s\n", b.Offset, b.Class, b.Register)
	}
	// Output:
	// +0x4 indirect-register x1
	// +0x8 return
}

// One entry of __jump_table: the nop at f+0x14 jumps to f+0x16 when the key is on.
func ExampleJumpTable() {
	const table = 0xffffffff82000000
	data := []byte("\x14\x00\x00\xff" + "\x12\x00\x00\xff" + "\xf8\x0f\x00\x00\x00\x00\x00\x00")
	text := func(at uint64) bool { return at >= addr && at < addr+uint64(len(function)) }
	jumps, err := branch.JumpTable(data, table, text)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, j := range jumps {
		fmt.Printf("%#x to %#x, key %#x\n", j.Addr, j.Target, j.Key)
	}
	// Output:
	// 0xffffffff81000014 to 0xffffffff81000016, key 0xffffffff82001000
}
