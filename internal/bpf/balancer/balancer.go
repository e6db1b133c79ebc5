// Package balancer holds a small load balancer, in two versions of its source: the user's
// program of docs/prog.md.
package balancer

import "bytes"

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel before balancer.bpf.c -- -O2 -g -Wall -Werror -I../headers
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel after after.bpf.c -- -O2 -g -Wall -Werror -I../headers

// Before is the object that jumps to the handler of a protocol by an index that the packet
// decides.
func Before() []byte { return bytes.Clone(_BeforeBytes) }

// After is the object that jumps there by a constant index.
func After() []byte { return bytes.Clone(_AfterBytes) }
