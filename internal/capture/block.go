package capture

import (
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// Offsets in a block and in the header of a packet in it: struct tpacket_block_desc with
// struct tpacket_hdr_v1, and struct tpacket3_hdr, of linux/if_packet.h.
const (
	offsetStatus  = 8
	offsetPackets = 12
	offsetFirst   = 16
	blockHeader   = 48

	packetNext     = 0
	packetSeconds  = 4
	packetNanos    = 8
	packetKept     = 12
	packetLength   = 16
	packetStatus   = 20
	packetMAC      = 24
	packetVLAN     = 32
	packetVLANType = 36
	packetHeader   = 48
)

// packet is one in a block.
type packet struct {
	at time.Time
	// data are its bytes as the kernel keeps them, length how many it had.
	data   []byte
	length int
	// tagged says that the kernel took a VLAN tag out: its type and value.
	tagged       bool
	tagType, tag uint16
}

// errBlock says that a block is not as the kernel writes them.
var errBlock = errors.New("a block of the ring is broken")

// packets calls f for each packet of a block. Their bytes are the block's.
func packets(block []byte, f func(packet) error) error {
	if len(block) < blockHeader {
		return errBlock
	}
	word := binary.NativeEndian.Uint32
	at := int64(word(block[offsetFirst:]))
	for range word(block[offsetPackets:]) {
		if at < blockHeader || at+packetHeader > int64(len(block)) {
			return errBlock
		}
		h := block[at:]
		kept, mac := int64(word(h[packetKept:])), int64(binary.NativeEndian.Uint16(h[packetMAC:]))
		if mac < packetHeader || mac+kept > int64(len(h)) {
			return errBlock
		}
		status := word(h[packetStatus:])
		p := packet{
			at:   time.Unix(int64(word(h[packetSeconds:])), int64(word(h[packetNanos:]))),
			data: h[mac : mac+kept], length: int(word(h[packetLength:])),
		}
		if status&unix.TP_STATUS_VLAN_VALID != 0 {
			p.tagged, p.tag, p.tagType = true, uint16(word(h[packetVLAN:])), unix.ETH_P_8021Q
			if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
				p.tagType = binary.NativeEndian.Uint16(h[packetVLANType:])
			}
		}
		if err := f(p); err != nil {
			return err
		}
		next := int64(word(h[packetNext:]))
		if next == 0 { // the last one
			return nil
		}
		at += next
	}
	return nil
}

// addresses is how many bytes of an Ethernet header stand before the tag.
const addresses = 12

// frame is the packet as it came from the wire, with the VLAN tag that the kernel took out,
// in buf.
func (p packet) frame(buf []byte) (frame []byte, length int) {
	if !p.tagged || len(p.data) < addresses {
		return p.data, p.length
	}
	buf = append(buf[:0], p.data[:addresses]...)
	buf = binary.BigEndian.AppendUint16(buf, p.tagType)
	buf = binary.BigEndian.AppendUint16(buf, p.tag)
	return append(buf, p.data[addresses:]...), p.length + 4
}
