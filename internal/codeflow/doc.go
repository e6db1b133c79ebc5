// Package codeflow follows control and values through one function of a kernel:
// its blocks and loops, and what its registers hold by the types of BTF.
//
// It reads code of x86-64 and of arm64.
package codeflow
