package prog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// minFrame is the shortest frame that is made: what Ethernet sends, without the frame check sequence.
const minFrame = 60

// maxMade is how many packets one list may make.
const maxMade = 1024

// MakePackets makes packets by name: udp4, tcp6, tcp-syn4, icmp6, arp, each with its size in bytes if it is
// not the shortest (udp4:1500) and in a VLAN if wanted (vlan-udp4). Several names have commas between them.
// Addresses are those for documentation (RFC 5737, RFC 3849), checksums are right.
func MakePackets(names string) (*Packets, error) {
	var p Packets
	for name := range strings.SplitSeq(names, ",") {
		frame, err := makePacket(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		if len(p.Frames) == maxMade {
			return nil, fmt.Errorf("more than %d packets", maxMade)
		}
		p.Frames = append(p.Frames, frame)
	}
	p.Seen = len(p.Frames)
	for _, frame := range p.Frames {
		if isInFragments(frame) {
			p.inFragments++
		}
	}
	return &p, nil
}

// MadeNames are the names that [MakePackets] knows, without vlan-.
func MadeNames() []string { return slices.Sorted(maps.Keys(makers())) }

// IsMade tells whether a text is a list for [MakePackets] rather than the name of a file.
func IsMade(text string) bool {
	first, _, _ := strings.Cut(text, ",")
	name, _, _ := strings.Cut(strings.TrimSpace(first), ":")
	_, known := makers()[strings.TrimPrefix(name, "vlan-")]
	return known
}

func makePacket(text string) ([]byte, error) {
	name, sizeText, sized := strings.Cut(text, ":")
	size := minFrame
	if sized {
		var err error
		if size, err = strconv.Atoi(sizeText); err != nil {
			return nil, fmt.Errorf("packet %.40q: its size is no number", text)
		}
	}
	plain, vlan := strings.CutPrefix(name, "vlan-")
	maker, known := makers()[plain]
	if !known {
		return nil, fmt.Errorf("packet %.40q is not one of %s, nor a file", name, strings.Join(MadeNames(), ", "))
	}
	headers, err := serialize(maker(), 0)
	if err != nil {
		return nil, err
	}
	least := len(headers) + 14
	if vlan {
		least += 4
	}
	most := MaxFrame
	if plain == "arp" {
		most = minFrame
	}
	if !sized {
		size = max(minFrame, least)
	}
	if low := max(minFrame, least); size < low || size > most {
		return nil, fmt.Errorf("packet %s: %d bytes are not within %d … %d", name, size, low, most)
	}
	return serialize(link(maker(), vlan), size-least)
}

// link puts the Ethernet header before a stack of layers.
func link(stack []gopacket.SerializableLayer, vlan bool) []gopacket.SerializableLayer {
	types := map[gopacket.LayerType]layers.EthernetType{
		layers.LayerTypeIPv4: layers.EthernetTypeIPv4, layers.LayerTypeIPv6: layers.EthernetTypeIPv6,
		layers.LayerTypeARP: layers.EthernetTypeARP,
	}
	inner := types[stack[0].LayerType()]
	eth := &layers.Ethernet{
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: inner,
	}
	if !vlan {
		return append([]gopacket.SerializableLayer{eth}, stack...)
	}
	eth.EthernetType = layers.EthernetTypeDot1Q
	return append([]gopacket.SerializableLayer{eth, &layers.Dot1Q{VLANIdentifier: 7, Type: inner}}, stack...)
}

// serialize makes the bytes, with payload bytes behind the last header. Ethernet pads short frames with zeros.
func serialize(stack []gopacket.SerializableLayer, payload int) ([]byte, error) {
	if _, isARP := stack[len(stack)-1].(*layers.ARP); !isARP {
		stack = append(stack, gopacket.Payload(make([]byte, payload)))
	}
	b := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, opts, stack...); err != nil {
		return nil, fmt.Errorf("make packet: %w", err)
	}
	return slices.Clone(b.Bytes()), nil
}

// makers make the layers above Ethernet, by name.
func makers() map[string]func() []gopacket.SerializableLayer {
	type stack = []gopacket.SerializableLayer
	ip4 := func(p layers.IPProtocol) *layers.IPv4 {
		return &layers.IPv4{
			Version: 4, TTL: 64, Protocol: p, SrcIP: net.IPv4(192, 0, 2, 1), DstIP: net.IPv4(198, 51, 100, 2),
		}
	}
	ip6 := func(p layers.IPProtocol) *layers.IPv6 {
		return &layers.IPv6{
			Version: 6, HopLimit: 64, NextHeader: p, SrcIP: net.ParseIP("2001:db8::1"), DstIP: net.ParseIP("2001:db8::2"),
		}
	}
	udp := func(ip gopacket.NetworkLayer) *layers.UDP {
		u := &layers.UDP{SrcPort: 40000, DstPort: 53}
		_ = u.SetNetworkLayerForChecksum(ip) // it knows both versions of IP
		return u
	}
	tcp := func(ip gopacket.NetworkLayer, syn bool) *layers.TCP {
		t := &layers.TCP{SrcPort: 40000, DstPort: 443, Seq: 1, Window: 64240, SYN: syn, ACK: !syn}
		if !syn {
			t.Ack = 1
		}
		_ = t.SetNetworkLayerForChecksum(ip)
		return t
	}
	return map[string]func() stack{
		"udp4":     func() stack { ip := ip4(layers.IPProtocolUDP); return stack{ip, udp(ip)} },
		"udp6":     func() stack { ip := ip6(layers.IPProtocolUDP); return stack{ip, udp(ip)} },
		"tcp4":     func() stack { ip := ip4(layers.IPProtocolTCP); return stack{ip, tcp(ip, false)} },
		"tcp6":     func() stack { ip := ip6(layers.IPProtocolTCP); return stack{ip, tcp(ip, false)} },
		"tcp-syn4": func() stack { ip := ip4(layers.IPProtocolTCP); return stack{ip, tcp(ip, true)} },
		"tcp-syn6": func() stack { ip := ip6(layers.IPProtocolTCP); return stack{ip, tcp(ip, true)} },
		"icmp4": func() stack {
			echo := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 1, Seq: 1}
			return stack{ip4(layers.IPProtocolICMPv4), echo}
		},
		"icmp6": func() stack {
			ip := ip6(layers.IPProtocolICMPv6)
			echo := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
			_ = echo.SetNetworkLayerForChecksum(ip)
			return stack{ip, echo, &layers.ICMPv6Echo{Identifier: 1, SeqNumber: 1}}
		},
		"arp": func() stack {
			return stack{&layers.ARP{
				AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
				Operation: layers.ARPRequest, SourceHwAddress: []byte{2, 0, 0, 0, 0, 1}, SourceProtAddress: []byte{192, 0, 2, 1},
				DstHwAddress: make([]byte, 6), DstProtAddress: []byte{192, 0, 2, 2},
			}}
		},
	}
}

// Flow names what a frame belongs to: "udp 192.0.2.1:40000 > 198.51.100.2:53"; of what has no ports, its
// protocol and addresses, and of what is not IP its Ethernet type.
func Flow(frame []byte) string {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	network := p.NetworkLayer()
	if network == nil {
		return "type 0x" + strconv.FormatUint(uint64(etherType(frame)), 16)
	}
	from, to := network.NetworkFlow().Endpoints()
	switch t := p.TransportLayer().(type) {
	case *layers.TCP:
		return fmt.Sprintf("tcp %s > %s", at(from, uint16(t.SrcPort)), at(to, uint16(t.DstPort)))
	case *layers.UDP:
		return fmt.Sprintf("udp %s > %s", at(from, uint16(t.SrcPort)), at(to, uint16(t.DstPort)))
	}
	return fmt.Sprintf("%s %s > %s", strings.ToLower(protocol(network)), from, to)
}

func at(address gopacket.Endpoint, port uint16) string {
	return net.JoinHostPort(address.String(), strconv.Itoa(int(port)))
}

func protocol(network gopacket.NetworkLayer) string {
	switch ip := network.(type) {
	case *layers.IPv4:
		return ip.Protocol.String()
	case *layers.IPv6:
		return ip.NextHeader.String()
	}
	return network.LayerType().String()
}

func etherType(frame []byte) uint16 {
	if len(frame) < 14 {
		return 0
	}
	return binary.BigEndian.Uint16(frame[12:])
}

var errNoPackets = errors.New("there are no packets")
