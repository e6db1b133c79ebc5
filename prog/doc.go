// Package prog measures what an XDP program costs a packet, on packets that one chooses.
//
// BPF_PROG_TEST_RUN with a repeat, and what is built on it (bpftool prog run, Program.Benchmark of
// cilium/ebpf), runs a program many times on one packet that it never restores: a program that pushes a
// header runs out of room after a few runs, and what is timed is its error path. Here each run gets its
// packet back, byte for byte, and what comes out of it is compared with a single run: where it differs
// there is no number. The same packets go through a program that does nothing, in turn with the other; a
// cost is the difference of the two.
//
// [Bench] is one line in a test of Go. [Replay] is what it is made of.
//
// Programs run in the network namespace of the calling thread. What one changes there by functions of the kernel stays, as
// connections that bpf_ct_insert_entry makes: nothing here holds it back. Who does not want that calls from a thread of a
// namespace of its own, as the command does (unthunk prog cost).
//
// Requires at least Linux 5.18, a JIT, and CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
package prog
