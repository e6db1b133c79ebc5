package usercall

// The loops of code_amd64.s: n calls, the i-th to targets[i], and the sum of what
// the functions add.
func callDirect(targets *uintptr, n int) uint64
func callIndirect(targets *uintptr, n int) uint64
func callRetpoline(targets *uintptr, n int) uint64
func callLfence(targets *uintptr, n int) uint64

// addresses writes where the eight functions begin, the four loops in the order
// above, and the thunks of the last two.
func addresses(to *[14]uintptr)

func functions() []uintptr {
	var a [14]uintptr
	addresses(&a)
	return a[:8]
}

func loops() []Kind {
	var a [14]uintptr
	addresses(&a)
	return []Kind{
		{Name: "direct", loop: callDirect, code: a[8]},
		{Name: "indirect", loop: callIndirect, code: a[9]},
		{Name: "retpoline", loop: callRetpoline, code: a[10], thunk: a[12]},
		{Name: "lfence", loop: callLfence, code: a[11], thunk: a[13]},
	}
}
