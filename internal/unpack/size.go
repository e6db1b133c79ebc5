package unpack

import (
	"bytes"
	"encoding/binary"

	"github.com/klauspost/compress/zstd"
)

// sizes is the room that packed data of size bytes unpacks to, as far as its head and its
// tail say, and the most that it may unpack to. The room is larger than that when the data
// says of itself that it unpacks to more than limit.
func sizes(head, tail []byte, size, limit int) (room, most int) {
	unsaid := min(maxUnsaid, limit)
	said := said(head, tail)
	switch {
	case said > uint64(limit):
		return limit + 1, limit
	case said > 0:
		return int(said), max(int(said), unsaid)
	}
	// The kernel's build appends the size to formats that do not have it. It is no
	// promise: of what is packed by itself these bytes are something else.
	if appended := int(appended(tail)); appended >= size && appended <= min(16*size, limit) {
		return appended, max(appended, unsaid)
	}
	return min(8*size, unsaid), unsaid // modules become five times as large
}

// appended are the last four bytes of b.
func appended(b []byte) uint64 {
	if len(b) < 4 {
		return 0
	}
	return uint64(binary.LittleEndian.Uint32(b[len(b)-4:]))
}

// said is what packed data says that it unpacks to; 0 when it does not say.
func said(head, tail []byte) uint64 {
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		return appended(tail) // ISIZE of RFC 1952
	case bytes.HasPrefix(head, xzMagic):
		return saidByXz(tail)
	case bytes.HasPrefix(head, zstdMagic):
		var h zstd.Header
		if h.Decode(head) == nil && h.HasFCS {
			return h.FrameContentSize
		}
	case bytes.HasPrefix(head, lzmaMagic) && len(head) >= 13:
		if size := binary.LittleEndian.Uint64(head[5:]); size != 1<<64-1 {
			return size
		}
	}
	return 0
}

// saidByXz is the sum of the sizes in the index of an .xz file, which the size that the
// kernel's build appends may follow: sections 2.1.2 and 4 of the format's description.
func saidByXz(b []byte) (sum uint64) {
	const footer = 12
	if len(b) > 4 && !bytes.HasSuffix(b, []byte("YZ")) {
		b = b[:len(b)-4]
	}
	if len(b) < 2*footer || !bytes.HasSuffix(b, []byte("YZ")) {
		return 0
	}
	size := 4 * (1 + uint64(binary.LittleEndian.Uint32(b[len(b)-8:])))
	if size > uint64(len(b)-2*footer) {
		return 0
	}
	index := b[len(b)-footer-int(size) : len(b)-footer]
	next := func() uint64 {
		v, n := binary.Uvarint(index)
		if n <= 0 { // no number: nothing follows it
			index = nil
			return 0
		}
		index = index[n:]
		return v
	}
	if next() != 0 { // what the index begins with
		return 0
	}
	for blocks := next(); blocks > 0 && len(index) > 4; blocks-- {
		next() // packed
		if sum += next(); sum > 1<<40 {
			break
		}
	}
	return sum
}
