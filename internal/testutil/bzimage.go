package testutil

import "encoding/binary"

// BzImage is a file with the header of a bzImage (Documentation/arch/x86/boot.rst) whose release is
// that, and payload where a kernel is packed. No machine boots it.
func BzImage(release, payload string) []byte {
	const setup = 1024
	b := make([]byte, setup, setup+len(payload))
	le := binary.LittleEndian
	b[0x1f1] = 1 // sectors of setup, besides the first
	le.PutUint16(b[0x1fe:], 0xaa55)
	copy(b[0x202:], "HdrS")
	le.PutUint16(b[0x206:], 0x20f)
	le.PutUint16(b[0x20e:], 0x80) // kernel_version, from 0x200
	le.PutUint16(b[0x236:], 1)    // XLF_KERNEL_64
	le.PutUint32(b[0x24c:], uint32(len(payload)))
	copy(b[0x280:], release+" (maker@host) #1 SMP made up\x00")
	return append(b, payload...)
}
