package ktext

import "fmt"

// Source gives the bytes of code by virtual address.
type Source interface {
	// ReadAddr fills p with the bytes at addr. It either fills all of p
	// or returns an error.
	ReadAddr(p []byte, addr uint64) error
}

// Bytes is a Source of code held in memory.
type Bytes struct {
	// Addr is the virtual address of Code's first byte.
	Addr uint64
	Code []byte
}

// ReadAddr implements [Source].
func (b Bytes) ReadAddr(p []byte, addr uint64) error {
	off := addr - b.Addr
	if addr < b.Addr || off > uint64(len(b.Code)) || uint64(len(p)) > uint64(len(b.Code))-off {
		return fmt.Errorf("read code at %#x: outside of %#x+%#x", addr, b.Addr, len(b.Code))
	}
	copy(p, b.Code[off:])
	return nil
}
