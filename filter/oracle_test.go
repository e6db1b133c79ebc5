package filter

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/internal/testutil"
)

// expressionsEnv names the environment variable that says how many random expressions
// are compared with libpcap's, as make filters does.
const expressionsEnv = "UNTHUNK_EXPRESSIONS"

// TestAgainstTcpdump compares with libpcap which frames an expression matches: what
// was compiled here, interpreted, and of each tenth the XDP program made of it. The
// optimizer of libpcap is left out: it leaves out loads, so that frames that are too
// short for them may match.
func TestAgainstTcpdump(t *testing.T) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		testutil.Missing(t, "tcpdump")
	}
	count := 200
	if s := os.Getenv(expressionsEnv); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil || count < 1 {
			t.Fatalf("%s=%s: must be a number of expressions", expressionsEnv, s)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty.pcap") // says that the frames are Ethernet's
	if err := os.WriteFile(empty, datapath.PcapHeader(), 0o600); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	expressions := []string{
		"ether proto 0", "ether proto 100", "not ether proto 100", "ether proto 1500", "ether proto 1501",
		"vlan and ether proto 66",
		"ether proto 0x06", "ether proto 0xf0", "ether proto 0xfe", "ether proto 0xe0",
		"ether proto 0x809b", "ether proto 0x80f3",
		"ip6 src net 2001::/16", "ip6 net ::/0", "net 0.0.0.0/0",
	}
	for len(expressions) < count {
		expressions = append(expressions, randomExpression(rng, 3))
	}
	fixed := oracleFrames(t, rng)
	verdicts, differ, both := 0, 0, 0
	for i, e := range expressions {
		ours, err := Compile(e)
		if err != nil {
			t.Errorf("%s: %v", e, err)
			continue
		}
		// tcpdump drops its rights to read the file, if it may.
		out, err := exec.Command("tcpdump", "-Z", "root", "-r", empty, "-O", "-ddd", e).Output()
		if err != nil {
			t.Errorf("tcpdump -ddd %q: %v", e, err)
			continue
		}
		theirs, err := Compile(string(out))
		if err != nil {
			t.Errorf("%s: %v in %s", e, err, out)
			continue
		}
		all := slices.Clip(fixed)
		for range 50 {
			all = append(all, randomFrame(rng))
		}
		v, err := compareVerdicts(ours, theirs, all)
		if err != nil {
			t.Errorf("%s: %v", e, err)
			differ++
		}
		verdicts += len(all)
		if v > 0 && v < len(all) {
			both++
		}
		if i == 0 || i%10 == 0 && os.Geteuid() == 0 {
			t.Run("XDP", func(t *testing.T) { // without root the first one says that it is left out
				testutil.Root(t)
				xdpVerdicts(t, e, ours, theirs, all)
			})
		}
	}
	t.Logf("%d of %d expressions differ in %d verdicts; %d match some frames only", differ, len(expressions), verdicts,
		both)
	if both < len(expressions)/2 {
		t.Errorf("only %d of %d expressions match some frames and not others", both, len(expressions))
	}
}

// compareVerdicts returns how many frames two programs match, or the first that only
// one of them does.
func compareVerdicts(ours, theirs []bpf.Instruction, all [][]byte) (matches int, err error) {
	a, err := bpf.NewVM(ours)
	if err != nil {
		return 0, err
	}
	b, err := bpf.NewVM(theirs)
	if err != nil {
		return 0, fmt.Errorf("tcpdump's: %w", err)
	}
	for _, f := range all {
		got, err1 := a.Run(f)
		want, err2 := b.Run(f)
		if err1 != nil || err2 != nil || (got > 0) != (want > 0) {
			return 0, fmt.Errorf("match of % x is %d (%v), and tcpdump's %d (%v)", f, got, err1, want, err2)
		}
		if got > 0 {
			matches++
		}
	}
	return matches, nil
}

// xdpVerdicts compares the XDP program in the kernel with libpcap's, for frames that
// XDP sees.
func xdpVerdicts(t *testing.T, name string, ours, theirs []bpf.Instruction, all [][]byte) {
	run := runner(t, ours)
	vm, err := bpf.NewVM(theirs)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if len(f) < 15 {
			continue // the kernel's test run wants more than an Ethernet header
		}
		want, err := vm.Run(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := run(f); got != (want > 0) {
			t.Errorf("%s: match of % x is %v, and tcpdump's %d", name, f, got, want)
			return
		}
	}
}

// llcs are headers of LLC, of IPX without one, and of SNAP.
var llcs = [][]byte{
	{0x06, 0x06, 3}, {0xf0, 0xf0, 3}, {0xfe, 0xfe, 3}, {0xe0, 0xe0, 3}, {0xff, 0xff, 0},
	{0x42, 0x42, 3}, {0x64, 0, 3}, {0, 0, 0},
	{0xaa, 0xaa, 3, 8, 0, 7, 0x80, 0x9b}, {0xaa, 0xaa, 3, 0, 0, 0, 0x80, 0xf3}, {0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x37},
}

// oracleFrames are those of the other tests, and each of them with lengths and LLC
// headers in place of what it was, and cut.
func oracleFrames(t testing.TB, rng *rand.Rand) (all [][]byte) {
	named := frames(t)
	for _, name := range slices.Sorted(maps.Keys(named)) {
		f := named[name]
		all = append(all, f, f[:rng.IntN(len(f)+1)])
		for _, llc := range llcs {
			f := append([]byte(nil), f...)
			binary.BigEndian.PutUint16(f[12:], uint16(rng.IntN(1600)))
			copy(f[min(14, len(f)):], llc)
			all = append(all, f)
		}
	}
	return all
}

// What the expressions ask for and the frames have.
var (
	someMACs     = []string{"02:00:00:00:00:01", "02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb"}
	someTypes    = []int{typeIP, typeIP6, typeARP, typeRARP, 0x8137, 0x809b, 0x80f3, 0x88f7, typeOld, 1500, 1501, 0x600}
	someSAPs     = []int{0, 6, 0x42, 0x64, 0xaa, 0xe0, 0xf0, 0xfe, 0xff, 0x106}
	someVLANs    = []int{0, 5, 6, 7, 4095}
	someNumbers  = []int{0, 1, 2, 6, 17, 44, 47, 50, 51, 58, 132, 200, 255}
	someIPs      = []string{"192.0.2.1", "192.0.2.2", "192.0.2.7", "10.1.2.3", "224.0.0.251", "255.255.255.255"}
	someIP6s     = []string{"2001::1", "2001::2", "2001:db8:0:1::9", "fe80::1", "ff02::fb", "::"}
	somePorts    = []int{0, 9, 22, 53, 54, 443, 65535}
	someMasks    = []string{"", " & 1", " & 2", "&0x0f", " & 0x1fff", " & 0xf0", " & 0xffffffff"}
	someValues   = []string{"0", "1", "2", "9", "0x45", "63", "64", "192", "0x800", "65535", "0xc0000201"}
	someLengths  = []int{0, 14, 30, 34, 54, 60, 64, 80, 1514}
	someNetworks = []string{
		"192.0.2.0/24", "192.0.2.0/30", "192.0.0.0/9", "10", "10.1", "192.0.2", "224.0.0.0/4", "0.0.0.0/0", "192.0.2.1/32",
	}
	someNetworks6 = []string{
		"2001::/16", "2001:db8::/32", "2001:db8:0:1::/64", "fe80::/10", "ff00::/8", "::/0", "2001::/127", "::/1",
	}
)

// randomFrame has up to three VLAN tags, and a header of IP, IPv6, ARP or LLC, or
// nothing that is known; it may be cut anywhere.
func randomFrame(rng *rand.Rand) []byte {
	chance := func(n int) bool { return rng.IntN(n) == 0 }
	word := func(v int) []byte { return []byte{byte(v >> 8), byte(v)} }
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	f := append(mac(one(rng, someMACs)), mac(one(rng, someMACs))...)
	for range rng.IntN(4) * rng.IntN(2) {
		f = append(append(f, word(one(rng, []int{typeVLAN, typeVLAN, typeQinQ, typeOld}))...),
			word(one(rng, someVLANs)|rng.IntN(16)<<12)...)
	}
	ports := append(append(word(one(rng, somePorts)), word(one(rng, somePorts))...), noise(20)...)
	switch rng.IntN(8) {
	case 0, 1, 2:
		options := rng.IntN(11) * rng.IntN(2)
		ip := append([]byte{byte(0x45 + options), 0, 0, 60, 1, 2, 0, 0, 64, byte(one(rng, someNumbers)), 0, 0}, noise(8)...)
		if chance(3) {
			copy(ip[6:], word(rng.IntN(1<<16)))
		}
		if chance(20) {
			ip[0] = byte(rng.Uint32())
		}
		for at := 12; at < 20; at += 4 {
			if !chance(8) {
				copy(ip[at:], netip.MustParseAddr(one(rng, someIPs)).AsSlice())
			}
		}
		f = append(append(append(append(f, word(typeIP)...), ip...), noise(4*options)...), ports...)
	case 3, 4, 5:
		ip := append([]byte{0x60, 0, 0, 0, 0, 30, byte(one(rng, someNumbers)), 64}, noise(32)...)
		for at := 8; at < 40; at += 16 {
			if !chance(8) {
				copy(ip[at:], netip.MustParseAddr(one(rng, someIP6s)).AsSlice())
			}
		}
		f = append(append(f, word(typeIP6)...), ip...)
		if chance(4) {
			f = append(f, byte(one(rng, someNumbers)), 0, 0, 0, 0, 0, 0, 1)
		}
		f = append(f, ports...)
	case 6:
		arp := noise(28)
		for _, at := range []int{14, 24} {
			copy(arp[at:], netip.MustParseAddr(one(rng, someIPs)).AsSlice())
		}
		f = append(append(f, word(one(rng, []int{typeARP, typeRARP}))...), arp...)
	default:
		f = append(append(append(f, word(one(rng, someTypes))...), one(rng, llcs)...), noise(30)...)
		if chance(2) {
			copy(f[len(f)-30-len(llcs[0]):], noise(3))
		}
	}
	if chance(3) {
		f = f[:rng.IntN(len(f)+1)]
	}
	return f
}

func mac(s string) []byte {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func one[T any](rng *rand.Rand, of []T) T { return of[rng.IntN(len(of))] }

// randomExpression is one that Compile and libpcap both take.
func randomExpression(rng *rand.Rand, depth int) string {
	pick := func(words ...string) string { return one(rng, words) }
	if depth > 0 {
		switch rng.IntN(6) {
		case 0:
			return pick("not ", "! ", "!") + "(" + randomExpression(rng, depth-1) + ")"
		case 1:
			return "(" + randomExpression(rng, depth-1) + ")" + pick(" and ", " && ", "&&") + randomExpression(rng, depth-1)
		case 2:
			return randomExpression(rng, depth-1) + pick(" or ", " || ", "||") + "(" + randomExpression(rng, depth-1) + ")"
		case 3: // both bind as tight: from left to right
			return randomPrimitive(rng) + pick(" or ", " and ") + pick("", "not ") + randomPrimitive(rng) +
				pick(" or ", " and ") + randomPrimitive(rng)
		}
	}
	return randomPrimitive(rng)
}

func randomPrimitive(rng *rand.Rand) string {
	pick := func(words ...string) string { return one(rng, words) }
	port := func() string { return strconv.Itoa(one(rng, somePorts)) }
	dir := pick("", "src ", "dst ")
	switch rng.IntN(14) {
	case 0:
		return pick("ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "esp", "ah")
	case 1:
		if rng.IntN(2) == 0 {
			return "vlan"
		}
		return fmt.Sprintf("vlan %d", one(rng, someVLANs))
	case 2:
		return pick("", "tcp ", "udp ", "sctp ") + dir + "port " + port() + pick("", " or "+port())
	case 3:
		from := rng.IntN(60)
		return fmt.Sprintf("%s%sportrange %d-%d", pick("", "tcp ", "udp ", "sctp "), dir, from, from+rng.IntN(500))
	case 4:
		return pick("", "ip ", "arp ", "rarp ") + dir + "host " + one(rng, someIPs) + pick("", " or "+one(rng, someIPs))
	case 5:
		return pick("", "ip ", "arp ", "rarp ") + dir + "net " + one(rng, someNetworks)
	case 6:
		return pick("", "ip6 ") + dir + "host " + one(rng, someIP6s)
	case 7:
		return pick("", "ip6 ") + dir + "net " + one(rng, someNetworks6)
	case 8:
		return pick("ether broadcast", "ether multicast", "ether "+dir+"host "+one(rng, someMACs))
	case 9:
		n := one(rng, []int{rng.IntN(1501), rng.IntN(1 << 16), one(rng, someTypes), one(rng, someSAPs)})
		return fmt.Sprintf(pick("ether proto %d", "ether proto 0x%x"), n)
	case 10:
		return fmt.Sprintf("%sproto %d", pick("ip ", "ip6 ", ""), one(rng, someNumbers))
	case 11:
		return pick("less ", "greater ", "len > ", "len != ", "len<=") + strconv.Itoa(one(rng, someLengths))
	case 12:
		return pick("src ", "dst ") + pick(someIPs...)
	}
	size := pick("", ":1", ":2", ":4")
	at := pick("ether", "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "igmp")
	return fmt.Sprintf("%s[%d%s]%s", at, rng.IntN(30), size, one(rng, someMasks)) +
		pick(" = ", " != ", " > ", " < ", " >= ", "<=", "==") + one(rng, someValues)
}
