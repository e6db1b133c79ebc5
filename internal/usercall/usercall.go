// Package usercall times what this CPU charges for one call of a small function
// in user space, by the way the call is made. Prices of the kernel are compared with it.
//
// All loops load the target of each call from a table, also where they do not
// use it, so that only the branch differs.
package usercall

import (
	"math/rand/v2"
	"time"
)

// Kind is a way to call.
type Kind struct {
	// Name is "direct", "indirect" (call *%rax), "retpoline" or "lfence"
	// (lfence; jmp *%rax). The last two are reached by a direct call, as the
	// kernel's thunks are.
	Name string
	// Varying calls eight functions in an order that no predictor can learn;
	// else one is called.
	Varying bool

	loop  func(targets *uintptr, n int) uint64
	table []uintptr
	// code and thunk are where the loop and its thunk begin; thunk is 0
	// without one.
	code, thunk uintptr
}

// MaxCalls is the most calls one loop makes: a loop cannot be preempted.
const MaxCalls = 4096

// Kinds lists all kinds, direct first. It is empty on other architectures than x86-64.
func Kinds() []Kind {
	loops := loops()
	if len(loops) == 0 {
		return nil
	}
	functions := functions()
	fixed := make([]uintptr, MaxCalls)
	varying := make([]uintptr, MaxCalls)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range fixed {
		fixed[i], varying[i] = functions[0], functions[r.IntN(len(functions))]
	}
	var kinds []Kind
	for _, k := range loops {
		k.table = fixed
		kinds = append(kinds, k)
		if k.Name != "direct" {
			k.Varying, k.table = true, varying
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// Call makes n calls, MaxCalls at most, and returns the sum of the numbers of the
// functions called, from 1.
func (k Kind) Call(n int) uint64 { return k.loop(&k.table[0], min(n, MaxCalls)) }

// Want is what Call returns.
func (k Kind) Want(n int) uint64 {
	sum := uint64(0)
	for _, target := range k.table[:min(n, MaxCalls)] {
		for i, f := range functions() {
			if f == target {
				sum += uint64(i + 1)
			}
		}
	}
	return sum
}

// Ns is the time of one call in ns, the loop around it included, over n calls.
func (k Kind) Ns(n int) float64 {
	n = min(n, MaxCalls)
	begin := time.Now()
	k.Call(n)
	return float64(time.Since(begin)) / float64(n)
}
