// Package gate counts, in a test of Go, the instructions that an XDP program takes a packet on a kernel of one's choice.
//
// [Run] boots the kernel in QEMU, without KVM and without root, with a clock that counts instructions. It loads the program
// there, runs each packet by itself, and returns how many instructions the program executes for it. The numbers are the
// same to the digit on each machine, however busy it is: a test may demand that they stay what they are.
//
// The guest's first process is the test binary itself: importing this package is all that takes, and no function of the
// test runs in the guest. Requires QEMU for this machine's architecture, 7.2 or later, and a kernel of Linux 5.18 or later with BTF.
package gate
