package experiment

import "encoding/binary"

// Sizes of the memory area, those of an AF_XDP socket's UMEM as xsk users set them.
const (
	// Chunk is the room for a frame, Headroom what is free before it
	// (XDP_PACKET_HEADROOM), in bytes.
	Chunk    = 2048
	Headroom = 256
	// Chunks of 2 KiB are 8 MiB: more than a core's own caches hold.
	Chunks = 4096
)

const (
	ports  = 8
	routes = 1024 // slots of the table, a power of 2
)

const (
	etherLen = 14 // Ethernet header, bytes
	ipLen    = 20 // IPv4 header without options, bytes
)

// Desc is where a frame lies in the area and its length in bytes, as a struct
// xdp_desc says it.
type Desc struct {
	Addr    uint64
	Len     uint32
	Options uint32
}

// packet is a frame on its way through the steps.
type packet struct {
	desc Desc
	data []byte // the frame
	dst  uint32 // IPv4 destination
	slot *route
	out  *port
	drop bool
}

// route is where frames to an address go: a slot of the devmap, and the DSCP and
// ECN byte they are marked with. The zero address is an empty slot.
type route struct {
	dst  uint32
	dev  uint8
	mark uint8
}

// port is an output.
type port struct {
	up            bool
	frames, bytes uint64
	ring          [Chunks]Desc // what was transmitted, wrapping
	produced      uint32
}

// core holds what one core redirects with.
type core struct {
	umem   []byte
	routes [routes]route
	devmap [ports]uint8 // index of a port, or none
	ports  [ports]port
	// fill are the chunks returned, wrapping.
	fill    [Chunks]uint64
	given   uint32
	dropped uint64
}

const none = 0xff

// The steps. Each returns false for a frame to drop, in which case the frame is
// returned and no other step sees it. All but give and count are called in this
// order in every way.

// take finds the frame's bytes.
func (c *core) take(p *packet) bool {
	end := p.desc.Addr + uint64(p.desc.Len)
	if p.desc.Len < etherLen+ipLen || end > uint64(len(c.umem)) || end < p.desc.Addr {
		return false
	}
	p.data = c.umem[p.desc.Addr:end]
	return true
}

// ether lets IPv4 pass.
func (c *core) ether(p *packet) bool {
	return binary.BigEndian.Uint16(p.data[12:]) == 0x0800
}

// header lets headers without options pass.
func (c *core) header(p *packet) bool {
	p.dst = binary.BigEndian.Uint32(p.data[etherLen+16:])
	return p.data[etherLen] == 0x45
}

// length holds the packet's length against the frame's.
func (c *core) length(p *packet) bool {
	n := int(binary.BigEndian.Uint16(p.data[etherLen+2:]))
	return n >= ipLen && n <= len(p.data)-etherLen
}

// checksum is right when all words add up to 0xffff (RFC 1071), so when their sum is
// a multiple of it: 1<<16 is 1 modulo 0xffff, and a header is never all 0.
func (c *core) checksum(p *packet) bool {
	h := p.data[etherLen : etherLen+ipLen]
	sum := uint64(binary.BigEndian.Uint32(h)) + uint64(binary.BigEndian.Uint32(h[4:])) +
		uint64(binary.BigEndian.Uint32(h[8:])) + uint64(binary.BigEndian.Uint32(h[12:])) +
		uint64(binary.BigEndian.Uint32(h[16:]))
	return sum%0xffff == 0
}

// lookup finds the route in a hash table.
func (c *core) lookup(p *packet) bool {
	for i := hash(p.dst); ; i++ {
		r := &c.routes[i%routes]
		if r.dst == p.dst {
			p.slot = r
			return p.dst != 0
		}
		if r.dst == 0 {
			return false
		}
	}
}

// hash is a multiplicative one (Knuth, 6.4).
func hash(dst uint32) uint32 { return dst * 2654435769 >> 22 }

// device finds the port that is in the devmap.
func (c *core) device(p *packet) bool {
	i := c.devmap[p.slot.dev%ports]
	if i == none {
		return false
	}
	p.out = &c.ports[i%ports]
	return p.out.up
}

// mark writes the route's DSCP and ECN byte and corrects the checksum for it
// (RFC 1624). It finds them written from a frame's second round on.
func (c *core) mark(p *packet) bool {
	h := p.data[etherLen : etherLen+ipLen]
	sum := uint32(^binary.BigEndian.Uint16(h[10:])) + uint32(^uint16(h[1])) + uint32(p.slot.mark)
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
	h[1] = p.slot.mark
	return true
}

// swap exchanges the Ethernet addresses.
func (c *core) swap(p *packet) bool {
	h := p.data[:12]
	a, b := binary.LittleEndian.Uint64(h), binary.LittleEndian.Uint32(h[8:])
	dst, src := a&0xffffffffffff, a>>48|uint64(b)<<16
	binary.LittleEndian.PutUint64(h, src|dst<<48)
	binary.LittleEndian.PutUint32(h[8:], uint32(dst>>16))
	return true
}

// count adds the frame to its port's.
func (c *core) count(p *packet) bool {
	p.out.frames++
	p.out.bytes += uint64(p.desc.Len)
	return true
}

// transmit puts the frame on its port's ring.
func (c *core) transmit(p *packet) bool {
	p.out.ring[p.out.produced%Chunks] = p.desc
	p.out.produced++
	return true
}

// give gives the chunk back, of a dropped frame too.
func (c *core) give(p *packet) bool {
	c.fill[c.given%Chunks] = p.desc.Addr &^ (Chunk - 1)
	c.given++
	return true
}
