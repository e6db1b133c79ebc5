// Package tax prices indirect calls inside the running kernel: pairs of
// experiments that differ in one indirect branch, interleaved. The function pairs is
// the table of them.
//
// Four kinds of experiment are known: two BPF programs that time their own work
// (programs.go); one XDP program called by the kernel inside and outside of the BPF
// dispatcher (fill.go); a redirect chain with and without something (onchain.go); a
// function called in user space (user.go). Before anything is timed, the code of both
// sides is read and decoded: a branch that is not there has no price.
package tax
