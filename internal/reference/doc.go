// Package reference times fixed work beside what a run measures: work that no change of the kernel's redirect path
// moves. When it takes longer than in another run, the machine changed.
//
// There are four pieces of work, timed on the CPU under test between the slots of a round:
//
//   - [CoreClock]: a chain of multiplications, each of which waits for the one before. It is the clock of the core;
//     another thread on the same core hardly moves it.
//   - [KernelLoop]: a BPF program that calls nothing and keeps the core's units busy. Another thread on the same core
//     makes it up to twice as long.
//   - [NearWalk]: a walk through 128 KiB, each load of which waits for the one before: the L2 cache.
//   - [FarWalk]: the same through 64 MiB: the L3 cache, and memory beyond. It is left out where a cgroup or the machine
//     has less than 256 MiB for the process.
//
// Beside them a [Watch] notes how much of a round's time others had: the hypervisor, other tasks on that CPU, and
// tasks on the core's other thread.
package reference
