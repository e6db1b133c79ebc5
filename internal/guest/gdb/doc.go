// Package gdb speaks the remote protocol of gdb with the stub in QEMU: breakpoints, memory,
// commands of QEMU's monitor. The protocol is "Appendix E, Remote Serial Protocol" of gdb's
// manual; what QEMU answers was tried with 7.2 and 10.0.
package gdb
