package datapath

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/unthunk/unthunk/xsk"
)

// Magic numbers of pcap files, by the unit of their times, and the one link type
// that is known here (draft-ietf-opsawg-pcap).
const (
	pcapMicro    = 0xa1b2c3d4
	pcapNano     = 0xa1b23c4d
	pcapEthernet = 1
)

// PcapReader is a port that receives the frames of a pcap file, as fast as it has
// chunks. Nothing can be transmitted on it: it takes no frames.
type PcapReader struct {
	r      *bufio.Reader
	order  binary.ByteOrder
	umem   *xsk.UMEM
	filled fifo[uint64]
	buf    []byte
	have   int // bytes in buf, of a frame that has no chunks yet
	done   error
	// Skipped is how many frames were empty or larger than MaxParts chunks hold.
	Skipped uint64
}

// NewPcapReader reads the header of a pcap file.
func NewPcapReader(u *xsk.UMEM, r io.Reader) (*PcapReader, error) {
	p := &PcapReader{r: bufio.NewReader(r), umem: u, filled: newFIFO[uint64](copiedRing)}
	p.buf = make([]byte, MaxParts*u.Capacity())
	var h [24]byte
	if _, err := io.ReadFull(p.r, h[:]); err != nil {
		return nil, fmt.Errorf("read header of pcap file: %w", err)
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if magic := order.Uint32(h[:]); magic == pcapMicro || magic == pcapNano {
			p.order = order
		}
	}
	if p.order == nil {
		return nil, errors.New("read header of pcap file: not a pcap file (pcapng is not read)")
	}
	if link := p.order.Uint32(h[20:]) & 0xffff; link != pcapEthernet {
		return nil, fmt.Errorf("read header of pcap file: link type %d is not Ethernet", link)
	}
	return p, nil
}

// FillSize implements [Port].
func (p *PcapReader) FillSize() int { return len(p.filled.entries) }

// Fill implements [Port].
func (p *PcapReader) Fill(chunks []uint64) int { return p.filled.put(chunks) }

// Receive implements [Port].
func (p *PcapReader) Receive(frames []xsk.Desc) (int, error) {
	capacity, n := p.umem.Capacity(), 0
	head := uint64(xsk.KernelHeadroom + p.umem.Config().Headroom)
	for p.next() {
		need := (p.have + capacity - 1) / capacity
		if need > p.filled.len() || n+need > len(frames) && n > 0 {
			break
		}
		if need > len(frames) {
			p.Skipped++
			p.have = 0
			continue
		}
		for at := 0; at < p.have; at += capacity {
			var chunk [1]uint64
			p.filled.take(chunk[:])
			d := xsk.Desc{Addr: p.umem.Base(chunk[0]) + head}
			d.Len = uint32(copy(p.umem.Bytes()[d.Addr:d.Addr+uint64(capacity)], p.buf[at:p.have]))
			if at+capacity < p.have {
				d.Options = xsk.Continued
			}
			frames[n] = d
			n++
		}
		p.have = 0
	}
	return n, nil
}

// next reads a frame into buf, unless one is there.
func (p *PcapReader) next() bool {
	for p.have == 0 && p.done == nil {
		var h [16]byte
		if _, err := io.ReadFull(p.r, h[:]); err != nil {
			p.done = err
			break
		}
		length := int64(p.order.Uint32(h[8:]))
		if length == 0 || length > int64(len(p.buf)) {
			p.Skipped++
			_, p.done = io.CopyN(io.Discard, p.r, length)
			continue
		}
		if _, p.done = io.ReadFull(p.r, p.buf[:length]); p.done == nil {
			p.have = int(length)
		}
	}
	return p.have > 0
}

// Done says whether the file is at its end, and the error if it ended otherwise
// than with a whole frame.
func (p *PcapReader) Done() (bool, error) {
	if p.done == nil || p.have > 0 {
		return false, nil
	}
	if p.done == io.EOF {
		return true, nil
	}
	return true, fmt.Errorf("read pcap file: %w", p.done)
}

// Transmit implements [Port].
func (p *PcapReader) Transmit([]xsk.Desc) (int, error) { return 0, ErrRefused }

// Flush implements [Port].
func (p *PcapReader) Flush() ([]uint64, error) { return nil, nil }

// Complete implements [Port].
func (p *PcapReader) Complete([]uint64) int { return 0 }

// Check implements [Port].
func (p *PcapReader) Check() error { return nil }

// FD implements [Port].
func (p *PcapReader) FD() int { return -1 }

// Close implements [Port].
func (p *PcapReader) Close() error { return nil }

// PcapWriter is a port that writes what is transmitted to a pcap file, with the
// time of the batch in ns. It receives nothing.
type PcapWriter struct {
	w    *bufio.Writer
	umem *xsk.UMEM
	done fifo[uint64]
	err  error
}

// NewPcapWriter writes the header of a pcap file.
func NewPcapWriter(u *xsk.UMEM, w io.Writer) (*PcapWriter, error) {
	p := &PcapWriter{w: bufio.NewWriterSize(w, 1<<16), umem: u, done: newFIFO[uint64](copiedRing)}
	if _, err := p.w.Write(PcapHeader()); err != nil {
		return nil, fmt.Errorf("write pcap file: %w", err)
	}
	return p, nil
}

// PcapHeader is the header of a pcap file of Ethernet frames with times in ns, in
// this machine's byte order.
func PcapHeader() []byte {
	h := make([]byte, 24)
	binary.NativeEndian.PutUint32(h, pcapNano)
	binary.NativeEndian.PutUint16(h[4:], 2)
	binary.NativeEndian.PutUint16(h[6:], 4)
	binary.NativeEndian.PutUint32(h[16:], 1<<18) // the longest frame, as in libpcap
	binary.NativeEndian.PutUint32(h[20:], pcapEthernet)
	return h
}

// PutPcapRecord writes the 16 bytes before a frame, of which kept of length bytes
// are in the file.
func PutPcapRecord(h []byte, at time.Time, kept, length int) {
	binary.NativeEndian.PutUint32(h[0:], uint32(at.Unix()))
	binary.NativeEndian.PutUint32(h[4:], uint32(at.Nanosecond()))
	binary.NativeEndian.PutUint32(h[8:], uint32(kept))
	binary.NativeEndian.PutUint32(h[12:], uint32(length))
}

// Transmit implements [Port].
func (p *PcapWriter) Transmit(frames []xsk.Desc) (int, error) {
	total, now := 0, time.Now()
	for total < len(frames) && p.err == nil {
		frame := frames[total:]
		frame = frame[:parts(frame)]
		if len(frame) > p.done.room() {
			break
		}
		length := 0
		for _, d := range frame {
			length += int(d.Len)
		}
		var h [16]byte
		PutPcapRecord(h[:], now, length, length)
		_, err := p.w.Write(h[:])
		for _, d := range frame {
			_, e := p.w.Write(p.umem.Data(d))
			err = errors.Join(err, e)
			p.done.push(d.Addr)
		}
		if err != nil {
			p.err = fmt.Errorf("write pcap file: %w", err)
		}
		total += len(frame)
	}
	return total, nil
}

// Flush leaves the rest to Close: files are written in large pieces.
func (p *PcapWriter) Flush() ([]uint64, error) { return nil, p.err }

// Complete implements [Port].
func (p *PcapWriter) Complete(chunks []uint64) int { return p.done.take(chunks) }

// FillSize implements [Port].
func (p *PcapWriter) FillSize() int { return 0 }

// Fill implements [Port].
func (p *PcapWriter) Fill([]uint64) int { return 0 }

// Receive implements [Port].
func (p *PcapWriter) Receive([]xsk.Desc) (int, error) { return 0, nil }

// Check implements [Port].
func (p *PcapWriter) Check() error { return p.err }

// FD implements [Port].
func (p *PcapWriter) FD() int { return -1 }

// Close writes what is left. The file stays the caller's.
func (p *PcapWriter) Close() error {
	if p.err != nil {
		return p.err
	}
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("write pcap file: %w", err)
	}
	return nil
}
