// Package progcode reads the code that the JIT made of a loaded BPF program: each branch
// that leaves it, indirect or not, what is called there, which map is looked into, and the
// source line it comes from.
//
// The kernel gives two forms of a program: its machine code, and the BPF instructions that
// the verifier left of it, with map ids in place of descriptors. The JIT keeps their order,
// and each direct call there has the address of its function here: so the calls of both are
// paired one by one, and a stretch where they do not agree is left unpaired, not guessed.
// Which map a register holds at a call is followed through the BPF instructions.
package progcode
