package datapath

import "github.com/unthunk/unthunk/xsk"

// Frame is a received frame, as a program sees it.
type Frame struct {
	// Data is the frame, or its first part. It lies in the UMEM: what is written
	// to it is transmitted. It must not be kept after the program returns. To
	// make a frame longer or shorter there are AdjustHead and AdjustTail: what
	// is written to Data, Len and Port themselves changes nothing.
	Data []byte
	// Len is the whole frame's length in bytes; more than len(Data) when it has
	// several parts.
	Len uint32
	// Port is the number of the port it came from.
	Port uint16

	parts uint16
	place *place
}

// place says where a frame's descriptors are. Each element of a batch has one, which names the
// descriptor of the same number unless frames of several parts come before it.
type place struct {
	path  *Datapath
	first int // in path.descs
}

// newFrames makes the elements of batches.
func (d *Datapath) newFrames(n int) []Frame {
	frames, places := make([]Frame, n), make([]place, n)
	for i := range frames {
		places[i] = place{d, i}
		frames[i].place, frames[i].parts = &places[i], 1
	}
	return frames
}

// Parts is how many chunks the frame lies in.
func (f *Frame) Parts() int { return int(f.parts) }

// Part is a part of the frame: 0 is Data.
func (f *Frame) Part(i int) []byte {
	d := f.descs()[i]
	return f.place.path.mem[d.Addr : d.Addr+uint64(d.Len) : d.Addr+uint64(d.Len)]
}

func (f *Frame) descs() []xsk.Desc {
	return f.place.path.descs[f.place.first : f.place.first+int(f.parts)]
}

// minFrame is the least that a frame is cut to, in bytes: an Ethernet header.
const minFrame = 14

// AdjustHead moves the frame's beginning n bytes on; with n below 0 back, and what is
// there then is not written. It says whether there was room: in the chunk, where
// xsk.KernelHeadroom and the UMEM's own headroom are in front of what was received,
// or in the first part, of which 14 bytes must be left.
func (f *Frame) AdjustHead(n int) bool {
	path := f.place.path
	d := &f.descs()[0]
	room := int(d.Addr - path.umem.Base(d.Addr))
	if n < -room || n > 0 && n > int(d.Len)-minFrame {
		return false
	}
	d.Addr, d.Len = uint64(int(d.Addr)+n), uint32(int(d.Len)-n)
	f.Len = uint32(int(f.Len) - n)
	f.Data = f.Part(0)
	return true
}

// AdjustTail moves the frame's end n bytes on, and what is there then is not written; with n
// below 0 back. It says whether there was room: in the chunk of the last part, or in what the
// part holds, of which a byte must be left, and 14 of a frame in one part.
func (f *Frame) AdjustTail(n int) bool {
	path := f.place.path
	descs := f.descs()
	d := &descs[len(descs)-1]
	least := 1
	if len(descs) == 1 {
		least = minFrame
	}
	length := int(d.Len)
	if room := int(path.umem.Base(d.Addr) + path.size - d.Addr); n > room-length || n < 0 && n < least-length {
		return false
	}
	d.Len = uint32(int(d.Len) + n)
	f.Len = uint32(int(f.Len) + n)
	f.Data = f.Part(0)
	return true
}

// RxMetadata is what the device said about the frame, see [xsk.UMEM.RxMetadata]. It
// is of a frame as it was received: ask before AdjustHead.
func (f *Frame) RxMetadata() (xsk.RxMetadata, bool) {
	return f.place.path.umem.RxMetadata(f.descs()[0].Addr)
}

// SetTxMetadata asks something of the device that transmits the frame, see
// [xsk.UMEM.SetTxMetadata]. It lies right before the frame: call it after AdjustHead.
func (f *Frame) SetTxMetadata(m xsk.TxMetadata) error {
	return f.place.path.umem.SetTxMetadata(&f.descs()[0], m)
}
