// Package tax prices indirect calls inside the running kernel: pairs of
// experiments that differ in one indirect branch, interleaved. [Pairs] is the
// table of them.
//
// Four kinds of experiment are known: two BPF programs that time their own work
// (programs); one XDP program called by the kernel inside and outside of the BPF
// dispatcher (dispatcher); a redirect chain with and without something (chain);
// a function called in user space (user). Before anything is timed, the code of
// both sides is read and decoded: a branch that is not there has no price.
package tax
