package traffic

import (
	"encoding/binary"
	"slices"
	"testing"
)

func TestUDPFrame(t *testing.T) {
	for _, size := range []int{MinFrame, 60, 1514} {
		f, err := UDPFrame(size)
		if err != nil {
			t.Fatal(err)
		}
		if len(f) != size {
			t.Errorf("size %d: frame has %d bytes", size, len(f))
		}
		if f[12] != 8 || f[13] != 0 {
			t.Errorf("size %d: type %x %x is not IPv4", size, f[12], f[13])
		}
		if sum := checksum(f[14:34]); sum != 0 {
			t.Errorf("size %d: IPv4 header sums up to %#x, not 0", size, sum)
		}
		if got := int(f[16])<<8 | int(f[17]); got != size-14 {
			t.Errorf("size %d: IPv4 length is %d", size, got)
		}
	}
	for _, size := range []int{-1, 0, MinFrame - 1, MaxFrame + 1} {
		if _, err := UDPFrame(size); err == nil {
			t.Errorf("size %d: no error", size)
		}
	}
}

func TestUnknownFrame(t *testing.T) {
	f, err := UnknownFrame(60)
	if err != nil {
		t.Fatal(err)
	}
	if f[12] != 0x88 || f[13] != 0xb5 {
		t.Errorf("type is %x %x", f[12], f[13])
	}
	if _, err := UnknownFrame(1); err == nil {
		t.Error("no error for a frame of one byte")
	}
}

// Segments follow one another, and their checksums hold: a receiver merges them.
func TestTCPSegments(t *testing.T) {
	for _, payload := range []int{1, 6, 7, 1460} {
		frames, err := TCPSegments(3, payload)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range frames {
			if len(f) != 54+payload || f[23] != 6 {
				t.Errorf("%d bytes of protocol %d", len(f), f[23])
			}
			if sum := checksum(f[14:34]); sum != 0 {
				t.Errorf("IPv4 header sums up to %#x, not 0", sum)
			}
			length := len(f) - 34
			pseudo := append(slices.Clone(f[26:34]), 0, 6, byte(length>>8), byte(length))
			if sum := checksum(append(pseudo, f[34:]...)); sum != 0 {
				t.Errorf("TCP segment sums up to %#x, not 0", sum)
			}
			if got, want := binary.BigEndian.Uint32(f[38:]), uint32(1+i*payload); got != want {
				t.Errorf("sequence number %d, want %d", got, want)
			}
		}
	}
	for _, bad := range [][2]int{{0, 1}, {1, 0}, {1, 1461}} {
		if _, err := TCPSegments(bad[0], bad[1]); err == nil {
			t.Errorf("%d segments of %d bytes: no error", bad[0], bad[1])
		}
	}
}

func TestJumboFrame(t *testing.T) {
	f, err := JumboFrame(6000)
	if err != nil || len(f) != 6000 || checksum(f[14:34]) != 0 {
		t.Errorf("%d bytes, %v", len(f), err)
	}
	if _, err := JumboFrame(9015); err == nil {
		t.Error("no error for a frame of 9015 bytes")
	}
}
