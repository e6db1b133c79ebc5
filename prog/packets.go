package prog

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/unthunk/unthunk/internal/bpf/replay"
)

// DefaultPackets is how many packets [ReadPackets] keeps of a file that has more.
const DefaultPackets = 16384

// MaxPackets is the largest number of packets that can be asked for.
const MaxPackets = 1 << 18

const (
	// MaxFrame is the longest frame that is replayed, in bytes: the last byte that helpers of BPF reach.
	MaxFrame = replay.MaxFragmented
	// MaxBuffer is how many bytes of a frame fit into one buffer: a page beside the headroom. Longer frames are in
	// fragments, for programs that are loaded for them (xdp.frags).
	MaxBuffer = replay.MaxPacket
)

// maxSample is how many bytes the packets of a sample have together.
const maxSample = 512 << 20

// Packets are Ethernet frames.
type Packets struct {
	// Frames are without the frame check sequence.
	Frames [][]byte
	// Seen is how many the file had that could be replayed. Frames is a uniform sample of them when there
	// are fewer.
	Seen int
	// Cut were left out because the capture does not have all their bytes, Short because they have no whole
	// Ethernet header, Long because they are above MaxFrame.
	Cut, Short, Long int
	// Fragmented were left out by [Packets.OneBuffer].
	Fragmented int
	// inFragments is how many of Seen are above MaxBuffer, why says why they were left out.
	inFragments int
	why         string
}

// maxGap is how many bytes of a file are read without a packet before it is refused: a pcapng file can
// have blocks without end that hold none, which its reader remembers.
const maxGap = 4 << 20

// maxInterfaces is how many interfaces a section of pcapng may have: its reader keeps them all.
const maxInterfaces = 1 << 16

// ReadPackets reads pcap or pcapng with Ethernet frames, from begin to end, and keeps at most most frames
// (0 is [DefaultPackets]): a uniform sample in the order of the file, the same one each time.
func ReadPackets(r io.Reader, most int) (*Packets, error) {
	most = cmp.Or(most, DefaultPackets)
	if most < 1 || most > MaxPackets {
		return nil, fmt.Errorf("%d packets are not within 1 … %d", most, MaxPackets)
	}
	gap := &gapReader{r: r}
	next, err := openCapture(gap)
	if err != nil {
		return nil, err
	}
	s := reservoir{most: most, mostBytes: maxSample, random: rand.New(rand.NewPCG(1, 2))}
	var p Packets
	for {
		gap.read = 0
		frame, ci, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("packet %d: %w", s.seen+p.Cut+p.Short+p.Long+1, plainEOF(err))
		}
		switch {
		case ci.CaptureLength < ci.Length:
			p.Cut++
		case len(frame) < replay.MinPacket:
			p.Short++
		case len(frame) > MaxFrame:
			p.Long++
		default:
			if isInFragments(frame) {
				p.inFragments++
			}
			s.add(frame)
		}
	}
	p.Frames, p.Seen = s.frames(), s.seen
	if len(p.Frames) == 0 {
		return nil, p.none()
	}
	return &p, nil
}

func (p *Packets) none() error {
	return fmt.Errorf("no packet can be replayed: %s", cmp.Or(p.LeftOut(), "the file has none"))
}

func isInFragments(frame []byte) bool { return len(frame) > MaxBuffer }

// anyInFragments tells whether a packet is in fragments: one of the frames, or one that the sample does not have.
func (p *Packets) anyInFragments() bool {
	return p.inFragments > 0 || slices.ContainsFunc(p.Frames, isInFragments)
}

// OneBuffer are the packets of at most MaxBuffer bytes. why says in words why the others, which are in fragments, are
// left out. It is an error when none is left.
func (p *Packets) OneBuffer(why string) (*Packets, error) {
	if !p.anyInFragments() {
		return p, nil
	}
	short := *p
	short.Frames = slices.DeleteFunc(slices.Clone(p.Frames), isInFragments)
	short.Fragmented, short.inFragments, short.why = max(p.inFragments, len(p.Frames)-len(short.Frames)), 0, why
	short.Seen = max(p.Seen-short.Fragmented, len(short.Frames))
	if len(short.Frames) == 0 {
		return nil, short.none()
	}
	return &short, nil
}

// LeftOut says which packets of the file cannot be replayed; empty when all can.
func (p *Packets) LeftOut() string {
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{
		{p.Cut, "cut short by the capture"},
		{p.Short, fmt.Sprintf("under %d bytes", replay.MinPacket)},
		{p.Long, fmt.Sprintf("above %d bytes", MaxFrame)},
		{p.Fragmented, fmt.Sprintf("above %d bytes, %s", MaxBuffer, p.why)},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.what))
		}
	}
	out := ""
	for i, part := range parts {
		if i > 0 {
			out += ", "
		}
		out += part
	}
	return out
}

// plainEOF says in plain words that a file ends in the middle of a packet.
func plainEOF(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file ends in the middle of it")
	}
	return err
}

// openCapture tells pcap from pcapng and returns what reads the next packet. The frame is valid until the
// next call.
func openCapture(r io.Reader) (func() ([]byte, gopacket.CaptureInfo, error), error) {
	buffered := bufio.NewReaderSize(r, 1<<16)
	magic, err := buffered.Peek(4)
	if len(magic) < 4 {
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, errors.New("not a capture: the file has fewer than 4 bytes")
	}
	switch {
	case magic[0] == 0x1f && magic[1] == 0x8b:
		return nil, errors.New("the file is packed by gzip: unpack it first")
	case binary.BigEndian.Uint32(magic) == 0x28b52ffd:
		return nil, errors.New("the file is packed by zstd: unpack it first")
	case binary.BigEndian.Uint32(magic) == 0x0a0d0d0a: // the first block of pcapng
		return openNg(buffered)
	}
	capture, err := pcapgo.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("neither pcap nor pcapng: %w", plainEOF(err))
	}
	if err := ethernet(capture.LinkType()); err != nil {
		return nil, err
	}
	return capture.ZeroCopyReadPacketData, nil
}

func openNg(r io.Reader) (func() ([]byte, gopacket.CaptureInfo, error), error) {
	capture, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
	if err != nil {
		return nil, fmt.Errorf("not pcapng: %w", plainEOF(err))
	}
	return func() ([]byte, gopacket.CaptureInfo, error) {
		frame, ci, err := capture.ZeroCopyReadPacketData()
		if err != nil {
			return nil, ci, err
		}
		if capture.NInterfaces() > maxInterfaces {
			return nil, ci, fmt.Errorf("more than %d interfaces", maxInterfaces)
		}
		link, _ := ci.AncillaryData[0].(layers.LinkType)
		return frame, ci, ethernet(link)
	}, nil
}

// ethernet refuses other link types by name.
func ethernet(link layers.LinkType) error {
	if link == layers.LinkTypeEthernet {
		return nil
	}
	return fmt.Errorf("frames of link type %v (%d): only Ethernet can be replayed", link, uint32(link))
}

// gapReader fails when more is read than a packet can need.
type gapReader struct {
	r    io.Reader
	read int
}

func (g *gapReader) Read(b []byte) (int, error) {
	if g.read > maxGap {
		return 0, fmt.Errorf("%d MiB without a packet", maxGap>>20)
	}
	n, err := g.r.Read(b)
	g.read += n
	return n, err
}

// reservoir keeps a uniform sample of what is added (reservoir sampling: Vitter, 1985, algorithm R).
type reservoir struct {
	most   int // packets, mostBytes together
	seen   int
	random *rand.Rand
	kept   []numbered
	// bytes are those of what is kept, mostBytes what they may be.
	bytes, mostBytes int
}

type numbered struct {
	number int
	frame  []byte
}

func (s *reservoir) add(frame []byte) {
	at := len(s.kept)
	if at == s.most {
		if at = s.random.IntN(s.seen + 1); at >= s.most {
			s.seen++
			return
		}
	} else {
		s.kept = append(s.kept, numbered{})
	}
	s.bytes += len(frame) - len(s.kept[at].frame)
	s.kept[at] = numbered{s.seen, append(s.kept[at].frame[:0], frame...)}
	s.seen++
	for s.bytes > s.mostBytes { // any of them: the rest is uniform too
		at, last := s.random.IntN(len(s.kept)), len(s.kept)-1
		s.bytes -= len(s.kept[at].frame)
		s.kept[at] = s.kept[last]
		s.kept, s.most = s.kept[:last], last
	}
}

// frames are those of the sample in the order of the file.
func (s *reservoir) frames() [][]byte {
	slices.SortFunc(s.kept, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
	frames := make([][]byte, len(s.kept))
	for i, k := range s.kept {
		frames[i] = k.frame
	}
	return frames
}
