package header

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Sum is the ones' complement sum of the 16-bit words of b (RFC 1071), which may have an
// odd length: as if a zero followed. It is not inverted.
func Sum(b []byte) uint16 {
	// The sum is the same in either byte order, but for the order of its own bytes.
	var sum, carry uint64
	for len(b) >= 32 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[24:]), carry)
		b = b[32:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), carry)
		b = b[8:]
	}
	var last uint64
	for i := range b {
		last |= uint64(b[i]) << (8 * i)
	}
	sum, carry = bits.Add64(sum, last, carry)
	sum, carry = bits.Add64(sum, 0, carry)
	return bits.ReverseBytes16(fold(sum>>32 + sum&0xffffffff + carry))
}

// fold adds what is above 16 bits to what is below.
func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// Add adds two sums: that of a pseudo header and that of what follows.
func Add(a, b uint16) uint16 { return fold(uint64(a) + uint64(b)) }

// Checksum is the Internet checksum over b: the sum inverted. Over bytes that have a
// right checksum in them it is 0.
func Checksum(b []byte) uint16 { return ^Sum(b) }

// Change is what a checksum must take in when bytes that it covers change: the sum of
// ~m + m' over changed words (RFC 1624, equation 3). The zero value is no change. Changes
// add up by [Change.Plus].
type Change uint16

// Replace is the change from one word to another.
func Replace(from, to uint16) Change { return Change(Add(^from, to)) }

// ReplaceBytes is the change from some bytes to as many others, which begin at an even
// offset of what the checksum covers.
func ReplaceBytes(from, to []byte) Change { return Change(Add(^Sum(from), Sum(to))) }

// Plus is both changes.
func (c Change) Plus(o Change) Change { return Change(Add(uint16(c), uint16(o))) }

// Apply returns a checksum with the change.
func (c Change) Apply(checksum uint16) uint16 {
	if c == 0 {
		return checksum
	}
	return ^Add(^checksum, uint16(c))
}

// apply changes a checksum where it lies.
func (c Change) apply(field []byte) {
	binary.BigEndian.PutUint16(field, c.Apply(binary.BigEndian.Uint16(field)))
}

// pseudo is the sum of a pseudo header (RFC 768, RFC 8200 section 8.1). addresses are both.
func pseudo(addresses []byte, protocol uint8, length int) uint16 {
	return fold(uint64(Sum(addresses)) + uint64(protocol) + uint64(uint32(length)))
}

// setWord writes a word of a header whose checksum is at field.
func setWord(word, field []byte, to uint16) {
	c := Replace(binary.BigEndian.Uint16(word), to)
	binary.BigEndian.PutUint16(word, to)
	c.apply(field)
}

// setAddress writes an address of a header and returns the change. An address of the other
// family is a bug and panics.
func setAddress(field []byte, to netip.Addr) Change {
	if len(field) == 4 {
		b := to.As4()
		before, after := ^binary.BigEndian.Uint32(field), binary.BigEndian.Uint32(b[:])
		binary.BigEndian.PutUint32(field, after)
		return Change(fold(uint64(before>>16) + uint64(before&0xffff) + uint64(after>>16) + uint64(after&0xffff)))
	}
	if !to.Is6() {
		panic("header: an IPv4 address for IPv6")
	}
	b := to.As16()
	c := ReplaceBytes(field, b[:])
	copy(field, b[:])
	return c
}
