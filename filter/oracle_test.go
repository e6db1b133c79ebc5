package filter

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/internal/testutil"
)

// What an expression matches is what libpcap says. Its optimizer is left out: it
// leaves out loads, so that frames that are too short for them may match.
func TestAgainstTcpdump(t *testing.T) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		testutil.Missing(t, "tcpdump")
	}
	empty := filepath.Join(t.TempDir(), "empty.pcap") // says that the frames are Ethernet's
	if err := os.WriteFile(empty, datapath.PcapHeader(), 0o600); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	all := oracleFrames(t, rng)
	expressions := []string{
		"ether proto 0", "ether proto 100", "not ether proto 100", "ether proto 1500", "ether proto 1501",
		"vlan and ether proto 66",
		"ether proto 0x06", "ether proto 0xf0", "ether proto 0xfe", "ether proto 0xe0",
		"ether proto 0x809b", "ether proto 0x80f3",
	}
	for range 200 {
		expressions = append(expressions, randomExpression(rng, 3))
	}
	for _, e := range expressions {
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
		sameMatches(t, e, ours, theirs, all)
	}
}

func sameMatches(t *testing.T, name string, ours, theirs []bpf.Instruction, all map[string][]byte) {
	t.Helper()
	a, err := bpf.NewVM(ours)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	b, err := bpf.NewVM(theirs)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for which, f := range all {
		got, err1 := a.Run(f)
		want, err2 := b.Run(f)
		if err1 != nil || err2 != nil || (got > 0) != (want > 0) {
			t.Errorf("%s: match of %s (% x) is %d (%v), and tcpdump's %d (%v)", name, which, f, got, err1, want, err2)
			return
		}
	}
}

// oracleFrames are those of the other tests, and each of them with lengths and LLC
// headers in place of what it was.
func oracleFrames(t testing.TB, rng *rand.Rand) map[string][]byte {
	all := frames(t)
	for name, f := range frames(t) {
		for i, llc := range [][]byte{
			{0x06, 0x06, 3}, {0xf0, 0xf0, 3}, {0xfe, 0xfe, 3}, {0xe0, 0xe0, 3}, {0xff, 0xff, 0},
			{0x42, 0x42, 3}, {0x64, 0, 3}, {0, 0, 0},
			{0xaa, 0xaa, 3, 8, 0, 7, 0x80, 0x9b}, {0xaa, 0xaa, 3, 0, 0, 0, 0x80, 0xf3}, {0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x37},
		} {
			f := append([]byte(nil), f...)
			binary.BigEndian.PutUint16(f[12:], uint16(rng.IntN(1600)))
			copy(f[min(14, len(f)):], llc)
			all[fmt.Sprintf("%s with LLC %d", name, i)] = f
		}
		cut := f[:rng.IntN(len(f)+1)]
		all[name+" cut"] = cut
	}
	return all
}

func randomExpression(rng *rand.Rand, depth int) string {
	if depth > 0 {
		switch rng.IntN(5) {
		case 0:
			return "not (" + randomExpression(rng, depth-1) + ")"
		case 1:
			return "(" + randomExpression(rng, depth-1) + ") and " + randomExpression(rng, depth-1)
		case 2:
			return randomExpression(rng, depth-1) + " or (" + randomExpression(rng, depth-1) + ")"
		}
	}
	pick := func(words ...string) string { return words[rng.IntN(len(words))] }
	switch rng.IntN(9) {
	case 0:
		return pick("ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "vlan", "vlan 5", "vlan 6")
	case 1:
		return pick("", "tcp ", "udp ", "sctp ") + pick("", "src ", "dst ") + pick("port 9", "port 443", "portrange 5-60")
	case 2:
		return pick("", "ip ", "arp ") + pick("src ", "dst ", "") +
			pick("host 192.0.2.1", "host 192.0.2.7", "net 192.0.2.0/24", "net 10")
	case 3:
		return pick("", "ip6 ") + pick("src ", "dst ", "") + pick("host 2001::1", "net 2001::/16")
	case 4:
		return pick("ether host 02:00:00:00:00:01", "ether src 02:00:00:00:00:01", "ether broadcast", "ether multicast")
	case 5:
		return fmt.Sprintf("ether proto %d", []int{rng.IntN(1501), 0x800, 0x806, 0x86dd, 0x9100, 6, 0xe0}[rng.IntN(7)])
	case 6:
		return pick("ip proto ", "ip6 proto ") + pick("6", "17", "1", "58", "200")
	case 7:
		return pick("less ", "greater ", "len > ", "len != ") + pick("14", "30", "60", "80")
	}
	return pick("ip[8]", "tcp[13]", "udp[0:2]", "ether[0]", "ip[6:2] & 0x1fff", "ip6[6]", "icmp[0]", "tcp[13] & 2") +
		pick(" = ", " != ", " > ", " <= ") + pick("0", "2", "9", "63")
}
