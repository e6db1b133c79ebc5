package xsk

import (
	"encoding/binary"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil/veth"
)

func TestTXMetadataChecksum(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 8, TxMetadata: true, SoftwareChecksum: true})
	s := w.open(t, u, Options{Interface: w.near.Index})
	f := veth.Frame(t, 60)
	d := Desc{Addr: 2048 + TxMetadataSize, Len: uint32(len(f))}
	// The pseudo header's sum in the field, as for CHECKSUM_PARTIAL.
	binary.BigEndian.PutUint16(f[40:], fold(pseudoHeader(f)))
	want := ^fold(sum(f[34:]))
	copy(u.Bytes()[d.Addr:], f)
	if err := u.SetTxMetadata(&d, TxMetadata{Checksum: true, ChecksumStart: 34, ChecksumOffset: 6}); err != nil {
		t.Fatal(err)
	}
	s.TX.Put([]Desc{d})
	if err := s.Kick(); err != nil {
		t.Fatal(err)
	}
	got := w.receive(t)
	if sum := binary.BigEndian.Uint16(got[40:]); sum != want {
		t.Errorf("checksum %#x, want %#x", sum, want)
	}
	complete(t, s, 1)
}

func sum(b []byte) (n uint32) {
	for i := 0; i+1 < len(b); i += 2 {
		n += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	return n
}

func fold(n uint32) uint16 {
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return uint16(n)
}

func pseudoHeader(f []byte) uint32 {
	return sum(f[26:34]) + 17 + uint32(binary.BigEndian.Uint16(f[38:]))
}
