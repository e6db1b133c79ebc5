package usercall

import "unsafe"

// Code is machine code as it stands in memory, from Addr on. It may run on past the
// end of what it is read for.
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
