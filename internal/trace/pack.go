package trace

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"
)

// Packed are windows of a log in a hundredth of the memory: packets go the same ways again and again.
type Packed struct {
	addrs   []uint64 // of the log
	order   []byte   // places in addrs of all windows, one behind the other, compressed
	lengths []int    // of the windows, in instructions
}

// Lengths are how many instructions each window has.
func (p *Packed) Lengths() []int { return p.lengths }

// Addrs are the addresses of the log, among them those of all windows, each once.
func (p *Packed) Addrs() []uint64 { return p.addrs }

// Size is what it takes, in bytes.
func (p *Packed) Size() int { return 8*len(p.addrs) + len(p.order) + 8*len(p.lengths) }

// Unpack joins the windows of length instructions, one behind the other. It ends with ctx.
func (p *Packed) Unpack(ctx context.Context, length int) (*Window, error) {
	n := 0
	for _, l := range p.lengths {
		if l == length {
			n += l
		}
	}
	w := &Window{Order: make([]uint32, 0, n)}
	z, err := zstd.NewReader(bytes.NewReader(p.order), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(packWindow))
	if err != nil {
		return nil, fmt.Errorf("unpack window: %w", err)
	}
	defer z.Close()
	const none = math.MaxUint32
	places := make([]uint32, len(p.addrs)) // in w.Addrs
	for i := range places {
		places[i] = none
	}
	piece := make([]byte, pieceSize)
	for _, l := range p.lengths {
		for left := 4 * l; left > 0; {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			some := piece[:min(left, len(piece))]
			if _, err := io.ReadFull(z, some); err != nil {
				return nil, fmt.Errorf("unpack window: %w", err)
			}
			left -= len(some)
			for ; l == length && len(some) > 0; some = some[4:] {
				at := binary.LittleEndian.Uint32(some)
				if places[at] == none {
					places[at] = uint32(len(w.Addrs))
					w.Addrs = append(w.Addrs, p.addrs[at])
				}
				w.Order = append(w.Order, places[at])
			}
		}
	}
	return w, nil
}

const (
	// packWindow is how far back the compression looks, in bytes: 7 packets in fragments, 300 others.
	packWindow = 1 << 20
	// pieceSize is how much is compressed or unpacked at a time, in bytes.
	pieceSize = 64 << 10
)

// packer compresses places as they come.
type packer struct {
	n     int // places so far
	piece []byte
	z     *zstd.Encoder
	out   bytes.Buffer
}

func newPacker() (*packer, error) {
	p := &packer{piece: make([]byte, 0, pieceSize)}
	z, err := zstd.NewWriter(&p.out, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(packWindow))
	if err != nil {
		return nil, fmt.Errorf("pack window: %w", err)
	}
	p.z = z
	return p, nil
}

// add takes a place. It returns how many bytes the packer has grown by.
func (p *packer) add(at uint32) (grown int, err error) {
	p.n++
	p.piece = binary.LittleEndian.AppendUint32(p.piece, at)
	if len(p.piece) < pieceSize {
		return 0, nil
	}
	before := p.out.Cap()
	if err := p.flush(); err != nil {
		return 0, err
	}
	return p.out.Cap() - before, nil
}

func (p *packer) flush() error {
	if _, err := p.z.Write(p.piece); err != nil {
		return fmt.Errorf("pack window: %w", err)
	}
	p.piece = p.piece[:0]
	return nil
}

// end returns what was taken, compressed.
func (p *packer) end() ([]byte, error) {
	if err := p.flush(); err != nil {
		return nil, err
	}
	if err := p.z.Close(); err != nil {
		return nil, fmt.Errorf("pack window: %w", err)
	}
	return bytes.Clone(p.out.Bytes()), nil
}

// reset begins anew.
func (p *packer) reset() {
	p.n, p.piece = 0, p.piece[:0]
	p.out.Reset()
	p.z.Reset(&p.out)
}
