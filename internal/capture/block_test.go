package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// testBlock is one as the kernel writes it: packets of data, the first with a VLAN tag.
func testBlock(data ...[]byte) []byte {
	word, half := binary.NativeEndian.PutUint32, binary.NativeEndian.PutUint16
	block := make([]byte, blockHeader)
	word(block[offsetPackets:], uint32(len(data)))
	word(block[offsetFirst:], blockHeader)
	for i, d := range data {
		h := make([]byte, packetHeader+len(d))
		copy(h[packetHeader:], d)
		h = append(h, make([]byte, -len(h)&7)...)
		word(h[packetSeconds:], 7)
		word(h[packetNanos:], uint32(i))
		word(h[packetKept:], uint32(len(d)))
		word(h[packetLength:], uint32(len(d)))
		half(h[packetMAC:], packetHeader)
		if i == 0 {
			word(h[packetStatus:], unix.TP_STATUS_VLAN_VALID|unix.TP_STATUS_VLAN_TPID_VALID)
			word(h[packetVLAN:], 0x2005)
			half(h[packetVLANType:], unix.ETH_P_8021AD)
		}
		if i < len(data)-1 {
			word(h[packetNext:], uint32(len(h)))
		}
		block = append(block, h...)
	}
	return block
}

func TestPackets(t *testing.T) {
	t.Parallel()
	first, second := []byte("destin\x00source\x08\x00data"), []byte("abc")
	var got [][]byte
	var lengths []int
	err := packets(testBlock(first, second), func(p packet) error {
		frame, length := p.frame(nil)
		got, lengths = append(got, frame), append(lengths, length)
		if p.at.Unix() != 7 || p.at.Nanosecond() != len(got)-1 {
			t.Errorf("at %v", p.at)
		}
		return nil
	})
	tagged := []byte("destin\x00sourc\x88\xa8\x20\x05e\x08\x00data")
	if err != nil || len(got) != 2 || !bytes.Equal(got[0], tagged) || string(got[1]) != "abc" || lengths[0] != len(tagged) || lengths[1] != 3 {
		t.Errorf("%q, %v, %v", got, lengths, err)
	}
	for name, breaks := range map[string]func(b []byte) []byte{
		"cut":       func(b []byte) []byte { return b[:len(b)-8] },
		"no header": func(b []byte) []byte { return b[:blockHeader-1] },
		"first":     func(b []byte) []byte { binary.NativeEndian.PutUint32(b[offsetFirst:], 4); return b },
		"far":       func(b []byte) []byte { binary.NativeEndian.PutUint32(b[offsetFirst:], 1<<31); return b },
		"next":      func(b []byte) []byte { binary.NativeEndian.PutUint32(b[blockHeader:], 1<<31); return b },
		"kept":      func(b []byte) []byte { binary.NativeEndian.PutUint32(b[blockHeader+packetKept:], 1<<31); return b },
		"mac":       func(b []byte) []byte { binary.NativeEndian.PutUint16(b[blockHeader+packetMAC:], 2); return b },
	} {
		if err := packets(breaks(testBlock(first, second)), func(packet) error { return nil }); !errors.Is(err, errBlock) {
			t.Errorf("%s: %v", name, err)
		}
	}
	stop := errors.New("stop")
	if err := packets(testBlock(first), func(packet) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func FuzzPackets(f *testing.F) {
	f.Add(testBlock([]byte("destin\x00source\x08\x00data"), []byte("abc")))
	f.Add(testBlock())
	f.Fuzz(func(t *testing.T, block []byte) {
		n := 0
		packets(block, func(p packet) error {
			frame, _ := p.frame(nil)
			if n++; len(frame) > len(block)+4 {
				t.Errorf("a frame of %d bytes in a block of %d", len(frame), len(block))
			}
			return nil
		})
		if n > len(block) { // each header takes room, but a packet may overlap another
			t.Errorf("%d packets in %d bytes", n, len(block))
		}
	})
}
