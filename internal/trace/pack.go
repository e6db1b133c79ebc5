package trace

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Packed is a [Window] that takes a hundredth of the memory: packets go the same ways again and again.
type Packed struct {
	addrs []uint64
	order []byte // compressed
}

// Pack makes a window small.
func (w *Window) Pack() (*Packed, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("pack window: %w", err)
	}
	order := make([]byte, 0, 4*len(w.Order))
	for _, at := range w.Order {
		order = binary.LittleEndian.AppendUint32(order, at)
	}
	return &Packed{w.Addrs, z.EncodeAll(order, nil)}, nil
}

// Size is what it takes, in bytes.
func (p *Packed) Size() int { return 8*len(p.addrs) + len(p.order) }

// Unpack makes the window again.
func (p *Packed) Unpack() (*Window, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(4*maxWindow))
	if err != nil {
		return nil, fmt.Errorf("unpack window: %w", err)
	}
	defer z.Close()
	order, err := z.DecodeAll(p.order, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack window: %w", err)
	}
	w := &Window{Addrs: p.addrs, Order: make([]uint32, len(order)/4)}
	for i := range w.Order {
		w.Order[i] = binary.LittleEndian.Uint32(order[4*i:])
	}
	return w, nil
}
