package virtual

import (
	"encoding/binary"
	"strings"
)

// cpuid runs the instruction with subleaf 0.
func cpuid(leaf uint32) (eax, ebx, ecx, edx uint32)

// Signature is what the hypervisor of this machine says at CPUID leaf 0x40000000, which hypervisors
// reserve for themselves by setting bit 31 of leaf 1's ECX. It is empty on bare metal.
func Signature() string {
	if _, _, ecx, _ := cpuid(1); ecx>>31 == 0 {
		return ""
	}
	_, ebx, ecx, edx := cpuid(0x40000000)
	var b [12]byte
	binary.LittleEndian.PutUint32(b[0:], ebx)
	binary.LittleEndian.PutUint32(b[4:], ecx)
	binary.LittleEndian.PutUint32(b[8:], edx)
	return strings.Trim(string(b[:]), "\x00 ")
}
