// Package ktext reads the bytes of kernel code.
//
// [Live] sees the text as it is in memory: alternatives, static calls,
// return thunks and retpoline call sites as they were patched at boot. It
// needs root and Linux 5.14.
package ktext
