package prog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/unthunk/unthunk/internal/testutil"
)

// capture is a pcap of frames; one that is nil is cut to 20 bytes.
func capture(t testing.TB, link layers.LinkType, frames ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	if err := w.WriteFileHeader(65535, link); err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		ci := gopacket.CaptureInfo{CaptureLength: len(f), Length: len(f)}
		if f == nil {
			f, ci = make([]byte, 20), gopacket.CaptureInfo{CaptureLength: 20, Length: 1500}
		}
		if err := w.WritePacket(ci, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// captureNg is a pcapng of frames.
func captureNg(t testing.TB, link layers.LinkType, frames ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, link)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if err := w.WritePacket(gopacket.CaptureInfo{CaptureLength: len(f), Length: len(f)}, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// frame is one of n bytes that say which it is.
func frame(n, number int) []byte {
	f := bytes.Repeat([]byte{byte(number)}, n)
	binary.BigEndian.PutUint32(f, uint32(number))
	return f
}

func TestReadPackets(t *testing.T) {
	t.Parallel()
	a, b := frame(60, 1), frame(1514, 2)
	for name, test := range map[string]struct {
		file []byte
		want Packets
		err  string
	}{
		"pcap":   {capture(t, layers.LinkTypeEthernet, a, b), Packets{Frames: [][]byte{a, b}, Seen: 2}, ""},
		"pcapng": {captureNg(t, layers.LinkTypeEthernet, b, a), Packets{Frames: [][]byte{b, a}, Seen: 2}, ""},
		"lengths": {
			capture(t, layers.LinkTypeEthernet, nil, a, frame(13, 1), frame(MaxFrame+1, 1)),
			Packets{Frames: [][]byte{a}, Seen: 1, Cut: 1, Short: 1, Long: 1}, "",
		},
		"none":    {capture(t, layers.LinkTypeEthernet), Packets{}, "no packet can be replayed: the file has none"},
		"all cut": {capture(t, layers.LinkTypeEthernet, nil), Packets{}, "no packet can be replayed: 1 cut short by the capture"},
		"empty":   {nil, Packets{}, "not a capture: the file has fewer than 4 bytes"},
		"text":    {[]byte("hello, world, this is a text"), Packets{}, "neither pcap nor pcapng"},
		"header":  {capture(t, layers.LinkTypeEthernet)[:10], Packets{}, "the file ends in the middle of it"},
		"middle":  {capture(t, layers.LinkTypeEthernet, a)[:60], Packets{}, "packet 1: the file ends in the middle of it"},
		"gzip":    {[]byte{0x1f, 0x8b, 8, 0}, Packets{}, "packed by gzip"},
		"zstd":    {[]byte{0x28, 0xb5, 0x2f, 0xfd}, Packets{}, "packed by zstd"},
		"wifi":    {capture(t, layers.LinkTypeIEEE802_11, a), Packets{}, "802.11 (105): only Ethernet can be replayed"},
		"cooked":  {captureNg(t, layers.LinkTypeLinuxSLL, a), Packets{}, "only Ethernet can be replayed"},
	} {
		p, err := ReadPackets(bytes.NewReader(test.file), 0)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: error %v, want %q", name, err, test.err)
			}
			continue
		}
		if err != nil || p.Seen != test.want.Seen || p.Cut != test.want.Cut || p.Short != test.want.Short || p.Long != test.want.Long {
			t.Errorf("%s: %+v (%v), want %+v", name, p, err, test.want)
			continue
		}
		for i := range test.want.Frames {
			if !bytes.Equal(p.Frames[i], test.want.Frames[i]) {
				t.Errorf("%s: frame %d is %x", name, i, p.Frames[i])
			}
		}
	}
	if _, err := ReadPackets(nil, MaxPackets+1); err == nil {
		t.Error("too many packets: no error")
	}
}

// Interfaces are kept while a section lasts: those between packets are counted together.
func TestReadPacketsInterfaces(t *testing.T) {
	t.Parallel()
	file := captureNg(t, layers.LinkTypeEthernet, frame(60, 1))
	at := bytes.LastIndex(file, []byte{6, 0, 0, 0, 0x5c, 0, 0, 0}) // the packet's block
	if at < 0 {
		t.Fatal("the capture has no block of a packet")
	}
	packet := file[at:]
	described := []byte{1, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0, 0, 20, 0, 0, 0}
	many := slices.Clone(file)
	for range 5 {
		many = append(append(many, bytes.Repeat(described, 20_000)...), packet...)
	}
	if _, err := ReadPackets(bytes.NewReader(many), 0); err == nil || !strings.Contains(err.Error(), "more than 65536 interfaces") {
		t.Errorf("100 000 interfaces: %v", err)
	}
	if p, err := ReadPackets(bytes.NewReader(many[:len(file)+3*(20_000*len(described)+len(packet))]), 0); err != nil || p.Seen != 4 {
		t.Errorf("60 000 interfaces: %v, %v", p, err)
	}
}

// The sample of a long file is uniform, in the order of the file, and the same each time.
func TestSample(t *testing.T) {
	t.Parallel()
	const all, most = 20000, 1000
	var frames [][]byte
	for i := range all {
		frames = append(frames, frame(60+i%40, i))
	}
	file := capture(t, layers.LinkTypeEthernet, frames...)
	p, err := ReadPackets(bytes.NewReader(file), most)
	if err != nil || len(p.Frames) != most || p.Seen != all {
		t.Fatalf("%d of %d packets (%v)", len(p.Frames), p.Seen, err)
	}
	var quarters [4]int
	last := -1
	for _, f := range p.Frames {
		number := int(binary.BigEndian.Uint32(f))
		if number <= last || len(f) != 60+number%40 {
			t.Fatalf("frame %d of %d bytes after frame %d", number, len(f), last)
		}
		last = number
		quarters[4*number/all]++
	}
	for i, n := range quarters {
		if n < most/4-70 || n > most/4+70 { // five standard deviations
			t.Errorf("quarter %d of the file has %d of %d packets", i, n, most)
		}
	}
	again, err := ReadPackets(bytes.NewReader(file), most)
	if err != nil || fmt.Sprint(again.Frames) != fmt.Sprint(p.Frames) {
		t.Errorf("another sample the second time (%v)", err)
	}
}

// Made packets are what they are called, with right checksums and lengths.
func TestMakePackets(t *testing.T) {
	t.Parallel()
	for _, name := range MadeNames() {
		for _, text := range []string{name, "vlan-" + name, name + ":700", "vlan-" + name + ":3520", name + ":65535"} {
			p, err := MakePackets(text)
			if strings.Contains(text, "arp:") {
				if err == nil {
					t.Errorf("%s: no error", text)
				}
				continue
			}
			if err != nil || len(p.Frames) != 1 || p.Seen != 1 {
				t.Errorf("%s: %+v, %v", text, p, err)
				continue
			}
			f := p.Frames[0]
			if want := map[bool]int{true: 700}[strings.HasSuffix(text, ":700")]; len(f) < 60 || want > 0 && len(f) != want {
				t.Errorf("%s: %d bytes", text, len(f))
			}
			decoded := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
			if e := decoded.ErrorLayer(); e != nil {
				t.Errorf("%s: %v", text, e.Error())
			}
			for _, l := range decoded.Layers() {
				if l, ok := l.(interface {
					SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
				}); ok {
					if err := l.SetNetworkLayerForChecksum(decoded.NetworkLayer()); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err, wrong := decoded.VerifyChecksums(); err != nil || len(wrong) > 0 {
				t.Errorf("%s: checksums %v (%v)", text, wrong, err)
			}
			if vlan := decoded.Layer(layers.LayerTypeDot1Q) != nil; vlan != strings.HasPrefix(text, "vlan-") {
				t.Errorf("%s: VLAN %v", text, vlan)
			}
			tcp, ok := decoded.TransportLayer().(*layers.TCP)
			if ok != strings.Contains(text, "tcp") || ok && tcp.SYN != strings.Contains(text, "syn") {
				t.Errorf("%s: TCP %v", text, ok)
			}
		}
	}
	for text, want := range map[string]string{
		"udp5": "not one of", "udp4:59": "59 bytes are not within 60", "udp4:65536": "not within 60 … 65535", "udp4:x": "its size is no number",
		"": "not one of", "udp4,": "not one of", strings.Repeat("udp4,", 1024) + "udp4": "more than 1024",
	} {
		if _, err := MakePackets(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: error %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]bool{"udp4": true, "vlan-arp,x": true, "tcp6:100": true, "p.pcap": false, "": false} {
		if IsMade(text) != want {
			t.Errorf("%q is a list of made packets: %v", text, !want)
		}
	}
}

func TestFlow(t *testing.T) {
	t.Parallel()
	p, err := MakePackets("udp4,tcp-syn6,vlan-icmp4,arp")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"udp 192.0.2.1:40000 > 198.51.100.2:53", "tcp [2001:db8::1]:40000 > [2001:db8::2]:443",
		"icmpv4 192.0.2.1 > 198.51.100.2", "type 0x806",
	} {
		if got := Flow(p.Frames[i]); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What is in fragments can be left out, and is counted, also where the file has more than are kept.
func TestOneBuffer(t *testing.T) {
	t.Parallel()
	var frames [][]byte
	for i := range 100 {
		frames = append(frames, frame([]int{MaxBuffer, MaxBuffer + 1}[i%2], i))
	}
	p, err := ReadPackets(bytes.NewReader(capture(t, layers.LinkTypeEthernet, frames...)), 40)
	if err != nil {
		t.Fatal(err)
	}
	short, err := p.OneBuffer("for a test")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(short.Frames); n == 0 || n >= 40 || short.Seen != 50 || short.Fragmented != 50 || p.Seen != 100 || len(p.Frames) != 40 {
		t.Errorf("%d of %d packets in one buffer, %d not; %d of %d packets", n, short.Seen, short.Fragmented, len(p.Frames), p.Seen)
	}
	for _, f := range short.Frames {
		if len(f) > MaxBuffer {
			t.Errorf("a frame of %d bytes", len(f))
		}
	}
	if got, want := short.LeftOut(), "50 above 3520 bytes, for a test"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if again, err := short.OneBuffer("again"); err != nil || again != short {
		t.Errorf("of packets in one buffer: %v, %v", again, err)
	}
	sampled := &Packets{Frames: [][]byte{frame(60, 1)}, Seen: 5, inFragments: 2} // none of the two is in the sample
	if rest, err := sampled.OneBuffer("for a test"); err != nil || rest.Seen != 3 || rest.Fragmented != 2 || len(rest.Frames) != 1 {
		t.Errorf("%+v (%v), want 3 packets, and 2 that are left out", rest, err)
	}
	if _, err := made(t, "udp4:9000").OneBuffer("for a test"); err == nil ||
		err.Error() != "no packet can be replayed: 1 above 3520 bytes, for a test" {
		t.Errorf("none is left: %v", err)
	}
}

// A sample has a limit in bytes, and stays one of all packets.
func TestReservoirBytes(t *testing.T) {
	t.Parallel()
	s := reservoir{most: 1000, mostBytes: 50_000, random: rand.New(rand.NewPCG(1, 2))}
	for i := range 1000 {
		s.add(frame(1000, i))
	}
	late := 0
	for _, k := range s.kept {
		if k.number >= 500 {
			late++
		}
	}
	if len(s.kept) != 50 || s.bytes != 50_000 || s.seen != 1000 || late < 10 || late > 40 {
		t.Errorf("%d of %d packets kept, %d bytes, %d of the second half", len(s.kept), s.seen, s.bytes, late)
	}
}

// Nothing that a file holds makes reading panic, take much memory, or give a frame that cannot be replayed.
func FuzzReadPackets(f *testing.F) {
	f.Add(capture(f, layers.LinkTypeEthernet, frame(60, 1), nil, frame(100, 2)))
	f.Add(captureNg(f, layers.LinkTypeEthernet, frame(60, 1), frame(100, 2)))
	f.Add(capture(f, layers.LinkTypeIEEE802_11, frame(60, 1)))
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	f.Fuzz(func(t *testing.T, file []byte) {
		var p *Packets
		testutil.Allocates(t, 4<<20+16*uint64(len(file)), func() {
			var err error
			if p, err = ReadPackets(bytes.NewReader(file), 64); err != nil && strings.ContainsAny(err.Error(), "\n") {
				t.Errorf("an error of several lines: %q", err)
			}
		})
		if p == nil {
			return
		}
		if len(p.Frames) == 0 || len(p.Frames) > 64 || p.Seen < len(p.Frames) {
			t.Errorf("%d of %d frames", len(p.Frames), p.Seen)
		}
		for _, frame := range p.Frames {
			if len(frame) < 14 || len(frame) > MaxFrame {
				t.Errorf("a frame of %d bytes", len(frame))
			}
			_ = Flow(frame)
		}
	})
}
