package codeflow

import (
	"encoding/binary"

	"github.com/unthunk/unthunk/internal/kernel"
)

// StaticKeys reads where the nop of each static key that is off would jump to, by
// the nop's address. It returns nil for a kernel that has no table of them or
// hides it. The table is __jump_table of Linux 4.20 and later: two 32-bit distances, of the
// code and of its target, and a 64-bit one of the key.
func StaticKeys(k *kernel.Kernel) map[uint64]uint64 {
	start, ok1 := k.Symbols.Lookup("__start___jump_table")
	stop, ok2 := k.Symbols.Lookup("__stop___jump_table")
	if !ok1 || !ok2 || stop.Addr <= start.Addr || stop.Addr-start.Addr > 4<<20 {
		return nil
	}
	b := make([]byte, (stop.Addr-start.Addr)/16*16)
	if k.Text.ReadAddr(b, start.Addr) != nil {
		return nil
	}
	keys := make(map[uint64]uint64, len(b)/16)
	for i := 0; i < len(b); i += 16 {
		at := start.Addr + uint64(i)
		code := at + uint64(int64(int32(binary.LittleEndian.Uint32(b[i:]))))
		target := at + 4 + uint64(int64(int32(binary.LittleEndian.Uint32(b[i+4:]))))
		keys[code] = target
	}
	return keys
}
