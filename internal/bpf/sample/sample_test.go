package sample

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// XDP actions.
const (
	aborted = iota
	drop
	pass
	tx
)

// packet is an IPv4 packet of a protocol with 8 bytes behind its header, in a frame of 64
// bytes: from 198.51.100.1, port 1000, to 203.0.113.0 and a last byte, port 53.
func packet(protocol, last, ttl byte) []byte {
	b := make([]byte, 64)
	copy(b, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00")
	ip := b[14:34]
	copy(ip, []byte{0x45, 0, 0, 50, 0, 1, 0, 0, ttl, protocol, 0, 0, 198, 51, 100, 1, 203, 0, 113, last})
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip, 0))
	binary.BigEndian.PutUint16(b[34:], 1000)
	binary.BigEndian.PutUint16(b[36:], 53)
	binary.BigEndian.PutUint16(b[38:], 30)
	binary.BigEndian.PutUint16(b[40:], ^sum(b[34:64], pseudo(ip)))
	return b
}

// pseudo is the sum of what the checksum of UDP has of the IPv4 header.
func pseudo(ip []byte) uint32 { return uint32(sum(ip[12:20], uint32(ip[9])+30)) }

// sum is the Internet checksum (RFC 1071), not complemented.
func sum(b []byte, more uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		more += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for more > 0xffff {
		more = more&0xffff + more>>16
	}
	return uint16(more)
}

// ran is what a program makes of a packet: the action, and the packet afterwards.
func ran(t *testing.T, p *ebpf.Program, in []byte, repeat uint32) (action uint32, out []byte) {
	t.Helper()
	opts := &ebpf.RunOptions{Data: in, DataOut: make([]byte, 1024), Repeat: repeat}
	action, err := p.Run(opts)
	if err != nil {
		t.Fatal(err)
	}
	return action, opts.DataOut
}

func load(t *testing.T, name string) (*ebpf.Collection, *ebpf.Program) {
	t.Helper()
	testutil.Root(t)
	coll, p, err := Load(name)
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	return coll, p
}

// Each program does to a packet what its name says, and once only.
func TestActions(t *testing.T) {
	const udp, tcp, icmp6 = 17, 6, 58
	ipv6 := packet(udp, 0, 64)
	copy(ipv6[12:], "\x86\xdd\x60")
	ipv6[20] = icmp6
	for _, test := range []struct {
		program string
		in      []byte
		want    uint32
		grows   int
	}{
		{"pass", packet(udp, 0, 64), pass, 0},
		{"loop", packet(udp, 0, 64), drop, 0},
		{"encap", packet(udp, 0, 64), tx, 20},
		{"encap", ipv6, pass, 0},
		{"ttl", packet(udp, 0, 64), tx, 0},
		{"ttl", packet(udp, 0, 1), drop, 0},
		{"nat", packet(udp, 0, 64), tx, 0},
		{"nat", packet(tcp, 0, 64), pass, 0},
		{"tailcall", packet(udp, 0, 64), tx, 0},
		{"tailcall", packet(tcp, 0, 64), drop, 0},
		{"tailcall", ipv6, pass, 0},
		{"tailcall", packet(12, 0, 64), aborted, 0},
		{"tailconstant", packet(udp, 0, 64), drop, 0},
		{"twomaps", packet(udp, 0, 64), drop, 0}, // local is empty
		{"twomaps", packet(udp, 1, 64), tx, 0},   // backends is an array
		{"each", packet(udp, 0, 64), drop, 0},
		{"redirect", packet(udp, 0, 64), drop, 0}, // ports is empty
		{"steps", packet(udp, 0, 64), pass, 0},
	} {
		_, p := load(t, test.program)
		action, out := ran(t, p, test.in, 1)
		if action != test.want || len(out) != len(test.in)+test.grows {
			t.Errorf("%s: action %d with %d bytes, want %d with %d", test.program, action, len(out), test.want, len(test.in)+test.grows)
		}
	}
}

// Headers that were changed still have right sums.
func TestSums(t *testing.T) {
	const udp = 17
	for _, ttl := range []byte{2, 64, 255} {
		for _, program := range []string{"ttl", "encap", "nat"} {
			_, p := load(t, program)
			_, out := ran(t, p, packet(udp, ttl, ttl), 1)
			if got := sum(out[14:34], 0); got != 0xffff {
				t.Errorf("%s: the IPv4 header sums to %#x", program, got)
			}
			switch program {
			case "ttl":
				if out[22] != ttl-1 {
					t.Errorf("TTL %d became %d", ttl, out[22])
				}
			case "encap":
				if out[23] != 4 || sum(out[34:54], 0) != 0xffff || string(out[:14]) != string(packet(udp, ttl, ttl)[:14]) {
					t.Errorf("the packet in the packet is broken: % x", out)
				}
			case "nat":
				if got := sum(out[34:64], pseudo(out[14:34])); got != 0xffff {
					t.Errorf("nat: UDP sums to %#x", got)
				}
			}
		}
	}
}

// What a loop of BPF_PROG_TEST_RUN meets, which restores nothing: these programs end on
// another path than the first time.
func TestRepeated(t *testing.T) {
	for _, test := range []struct {
		program     string
		runs        uint32
		first, last uint32
	}{
		{"encap", 100, tx, drop}, {"ttl", 64, tx, drop},
	} {
		_, p := load(t, test.program)
		in := packet(17, 0, 64)
		if action, _ := ran(t, p, in, 1); action != test.first {
			t.Errorf("%s: action %d", test.program, action)
		}
		if action, _ := ran(t, p, in, test.runs); action != test.last {
			t.Errorf("%s: action %d after %d runs", test.program, action, test.runs)
		}
	}
	coll, nat := load(t, "nat")
	ran(t, nat, packet(17, 0, 64), 10)
	var flows int
	var key sampleFlow
	var value sampleTranslation
	for it := coll.Maps[sampleMapFlows].Iterate(); it.Next(&key, &value); {
		flows++
	}
	if flows < 2 { // each run rewrites what the next one gets
		t.Errorf("nat made %d flows of 10 runs of one packet", flows)
	}
}

// The turns of the loop can be set.
func TestTurns(t *testing.T) {
	testutil.Root(t)
	for _, turns := range []uint32{1, 8192} {
		spec, err := Spec()
		if err != nil {
			t.Fatal(err)
		}
		if err := spec.Variables[Turns].Set(turns); err != nil {
			t.Fatal(err)
		}
		coll, err := LoadOf(spec, "loop")
		if err != nil {
			testutil.SkipMissing(t, err)
			t.Fatal(err)
		}
		if action, _ := ran(t, coll.Programs["loop"], packet(17, 0, 64), 1); action != drop {
			t.Errorf("%d turns: action %d", turns, action)
		}
		coll.Close()
	}
}

func TestLoadUnknown(t *testing.T) {
	t.Parallel()
	spec, err := Spec()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOf(spec, "none"); err == nil || !strings.Contains(err.Error(), `no program "none"`) {
		t.Errorf("a program that is not there: %v", err)
	}
}
