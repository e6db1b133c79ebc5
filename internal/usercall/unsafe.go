package usercall

import "unsafe"

// Code is machine code in memory, from Addr on. It may reach past the end of the loop or
// the thunk.
type Code struct {
	Bytes []byte
	Addr  uint64
}

// Loop is the loop that makes the calls.
func (k Kind) Loop() Code { return Code{bytesAt(k.code, 160), uint64(k.code)} }

// Thunk is what the loop calls in place of the target. It is empty where there is no
// thunk.
func (k Kind) Thunk() Code {
	if k.thunk == 0 {
		return Code{}
	}
	return Code{bytesAt(k.thunk, 32), uint64(k.thunk)}
}

// bytesAt is memory of the program's text, which does not move.
func bytesAt(addr uintptr, n int) []byte {
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&addr))), n)
}
