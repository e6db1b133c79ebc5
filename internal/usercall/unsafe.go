package usercall

import "unsafe"

// Code is the loop and the thunk as they stand in memory, with their addresses;
// thunk is empty where there is none. Each may run on past its end.
func (k Kind) Code() (loop []byte, at uint64, thunk []byte, thunkAt uint64) {
	if k.thunk != 0 {
		thunk = bytesAt(k.thunk, 32)
	}
	return bytesAt(k.code, 160), uint64(k.code), thunk, uint64(k.thunk)
}

// bytesAt is memory of the program's text, which does not move.
func bytesAt(addr uintptr, n int) []byte {
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&addr))), n)
}
