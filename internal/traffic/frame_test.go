package traffic

import "testing"

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
