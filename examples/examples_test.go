// Package examples builds the programs of its folders and runs them between the devices of a
// namespace.
package examples

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/header"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// built is where the programs are.
var built string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "examples")
	if err != nil {
		panic(err)
	}
	if out, err := exec.Command("go", "build", "-o", dir, "./...").CombinedOutput(); err != nil {
		panic(string(out))
	}
	built = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// process is a running example.
type process struct {
	*exec.Cmd
	name   string
	output bytes.Buffer
	ended  chan error
}

// run starts an example in a namespace and, with a device, waits until its XDP program is there.
func run(t *testing.T, lab *netlab.Namespace, device, name string, args ...string) *process {
	t.Helper()
	return start(t, lab, device, name, exec.Command(filepath.Join(built, name), args...))
}

func start(t *testing.T, lab *netlab.Namespace, device, name string, command *exec.Cmd) *process {
	t.Helper()
	testutil.Root(t)
	p := &process{Cmd: command, name: name, ended: make(chan error, 1)}
	p.Stdout, p.Stderr = &p.output, &p.output
	if err := lab.Do(p.Start); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.Wait() }()
	t.Cleanup(func() { p.Process.Kill() })
	if device == "" {
		return p
	}
	testutil.Eventually(t, name+" has its program on "+device, func() bool {
		select {
		case err := <-p.ended:
			t.Fatalf("%s: %v\n%s", name, err, p.output.String())
		default:
		}
		l := link(t, lab, device)
		return l.Xdp != nil && l.Xdp.Attached
	})
	return p
}

// end waits for an example, after the signal of service managers if it is to have one, and returns what it said.
func (p *process) end(t *testing.T, terminate bool) string {
	t.Helper()
	if terminate {
		if err := p.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-p.ended:
		if err != nil {
			t.Fatalf("%s: %v\n%s", p.name, err, p.output.String())
		}
	case <-time.After(time.Minute):
		t.Fatalf("%s does not end", p.name)
	}
	return p.output.String()
}

func link(t *testing.T, lab *netlab.Namespace, name string) (attrs *netlink.LinkAttrs) {
	t.Helper()
	err := lab.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err == nil {
			attrs = l.Attrs()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return attrs
}

// number is what a pattern matches of an output.
func number(t *testing.T, output, pattern string) int {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(output)
	if m == nil {
		t.Fatalf("%q has no %s", output, pattern)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The kernel resolves the responder's address and gets its pings answered, each with the bytes that
// it sent; what is for another address the stack gets.
func TestResponder(t *testing.T) {
	lab := veth.Namespace(t)
	near, far := veth.Pair(t, lab, "near", "far")
	network := &net.IPNet{IP: net.IPv4(10, 9, 0, 1), Mask: net.CIDRMask(24, 32)}
	fd := -1
	err := lab.Do(func() error {
		l, err := netlink.LinkByIndex(far.Index)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: network}); err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP); err != nil {
			return err
		}
		wait := unix.NsecToTimeval(int64(10 * time.Second))
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	p := run(t, lab, "near", "responder", "near", "10.9.0.2")
	const pings = 5
	for i := range pings {
		echo := make([]byte, 8+i*300)
		echo[0], echo[5], echo[7] = header.ICMPEcho, 77, byte(i)
		for j := range echo[8:] {
			echo[8+j] = byte(i + j)
		}
		header.ICMP(echo).SetChecksum(0)
		if err := unix.Sendto(fd, echo, 0, &unix.SockaddrInet4{Addr: [4]byte{10, 9, 0, 2}}); err != nil {
			t.Fatal(err)
		}
		reply := readICMP(t, fd)
		if reply.Type() != header.ICMPEchoReply || reply.ID() != 77 || reply.Sequence() != uint16(i) || !reply.ChecksumValid(0) ||
			!bytes.Equal(reply.Payload(), echo[8:]) {
			t.Errorf("ping %d: %x", i, reply)
		}
	}
	var neighbors []netlink.Neigh
	err = lab.Do(func() (err error) {
		neighbors, err = netlink.NeighList(far.Index, netlink.FAMILY_V4)
		return err
	})
	if err != nil || len(neighbors) != 1 || neighbors[0].HardwareAddr.String() != link(t, lab, near.Name).HardwareAddr.String() {
		t.Errorf("neighbors %v, %v: want one, at near's address", neighbors, err)
	}
	before := link(t, lab, "near").Statistics.RxPackets
	veth.Send(t, lab, far.Index, veth.Frame(t, 60)) // no request
	testutil.Eventually(t, "the frame arrives", func() bool { return link(t, lab, "near").Statistics.RxPackets > before })
	// An ARP request, and perhaps another to a neighbor that went stale.
	if answers := number(t, p.end(t, true), `(\d+) answers`); answers < pings+1 || answers > pings+3 {
		t.Errorf("%d answers to %d pings", answers, pings)
	}
}

// readICMP reads from a raw socket.
func readICMP(t *testing.T, fd int) header.ICMP {
	t.Helper()
	for {
		b := make([]byte, 2000)
		n, _, err := unix.Recvfrom(fd, b, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("no reply: %v", err)
		}
		ip, ok := header.ParseIPv4(b[:n])
		if !ok {
			t.Fatalf("not IPv4: %x", b[:n])
		}
		if m, ok := header.ParseICMP(ip.Payload()); ok {
			return m
		}
	}
}

// Flows are spread over three devices evenly, and each flow goes by one.
func TestBalancer(t *testing.T) {
	lab := veth.Namespace(t)
	gen, _ := veth.Pair(t, lab, "gen", "in")
	var receive []func() []byte
	for _, name := range []string{"1", "2", "3"} {
		_, sink := veth.Pair(t, lab, "out"+name, "sink"+name)
		receive = append(receive, veth.Listen(t, lab, sink.Index))
	}
	p := run(t, lab, "in", "balancer", "in", "out1", "out2", "out3")
	const flows, frames = 300, 2
	var all [][]byte
	for i := range flows {
		f := veth.Frame(t, 60)
		binary.BigEndian.PutUint16(f[34:], uint16(1000+i))
		all = append(all, f)
	}
	for range frames {
		veth.Send(t, lab, gen.Index, all...)
	}
	sent := func() (n uint64) {
		for _, name := range []string{"sink1", "sink2", "sink3"} {
			n += link(t, lab, name).Statistics.RxPackets
		}
		return n
	}
	testutil.Eventually(t, "all arrive", func() bool { return sent() == flows*frames })
	output := p.end(t, true)
	for i, r := range receive {
		seen := make(map[uint16]int)
		n := number(t, output, `out`+strconv.Itoa(i+1)+`: (\d+) frames`)
		// A fair die's 300 throws: 100 ± 5 × 8.2.
		if n%frames != 0 || n < 59*frames || n > 141*frames {
			t.Errorf("%d of %d frames by output %d", n, flows*frames, i+1)
		}
		for range n {
			seen[binary.BigEndian.Uint16(r()[34:])]++
		}
		for port, times := range seen {
			if times != frames {
				t.Errorf("flow %d: %d frames of %d by output %d", port, times, frames, i+1)
			}
		}
	}
}

// What is over the rate is dropped, and each frame counted.
func TestMeter(t *testing.T) {
	lab := veth.Namespace(t)
	gen, _ := veth.Pair(t, lab, "gen", "in")
	veth.Pair(t, lab, "out", "sink")
	p := run(t, lab, "in", "meter", "in", "out", "2")
	const frames = 500
	veth.Send(t, lab, gen.Index, slices.Repeat([][]byte{veth.Frame(t, 60)}, frames)...)
	testutil.Eventually(t, "all received", func() bool { return link(t, lab, "in").Statistics.RxPackets == frames })
	output := p.end(t, true)
	passed, dropped := number(t, output, `(\d+) frames sent`), number(t, output, `(\d+) dropped`)
	// A second's worth at once, and 2 a second for as long as it took: 249 s for all.
	if passed < 2 || dropped == 0 || passed+dropped != frames || uint64(passed) != link(t, lab, "sink").Statistics.RxPackets {
		t.Errorf("%d passed, %d dropped, %d arrived of %d", passed, dropped, link(t, lab, "sink").Statistics.RxPackets, frames)
	}
}

// Frames of the generator go through the forwarder to the sink; the device between counts as many.
func TestGeneratorForwarderSink(t *testing.T) {
	lab := veth.Namespace(t)
	veth.Pair(t, lab, "gen", "in")
	veth.Pair(t, lab, "out", "end")
	sink := run(t, lab, "end", "sink", "end")
	forwarder := run(t, lab, "in", "forwarder", "in", "out")
	const frames = 2000
	begin := time.Now()
	said := run(t, lab, "", "generator", "gen", "10000", strconv.Itoa(frames)).end(t, false)
	if took := time.Since(begin); took < frames*time.Second/10000 {
		t.Errorf("%d frames at 10000 a second in %v", frames, took)
	}
	if n := number(t, said, `(\d+) frames in`); n != frames {
		t.Errorf("generator: %s", said)
	}
	testutil.Eventually(t, "all at the sink's device", func() bool { return link(t, lab, "end").Statistics.RxPackets == frames })
	// The counters of the input, and then those of the output.
	if n := number(t, forwarder.end(t, true), `Accepted:.* Accepted:(\d+)`); n != frames {
		t.Errorf("the forwarder transmitted %d of %d", n, frames)
	}
	if n := number(t, sink.end(t, true), `(\d+) frames in all`); n != frames {
		t.Errorf("%d of %d frames at the sink", n, frames)
	}
}

// tcpdump reads what was captured, and finds no wrong checksum.
func TestCapture(t *testing.T) {
	lab := veth.Namespace(t)
	veth.Pair(t, lab, "gen", "in")
	file := filepath.Join(t.TempDir(), "captured.pcap")
	p := run(t, lab, "in", "capture", "in", file)
	const frames = 300
	run(t, lab, "", "generator", "gen", "100000", strconv.Itoa(frames)).end(t, false)
	testutil.Eventually(t, "all at the device", func() bool { return link(t, lab, "in").Statistics.RxPackets == frames })
	if n := number(t, p.end(t, true), `(\d+) frames in`); n != frames {
		t.Errorf("%d of %d frames captured", n, frames)
	}
	if _, err := exec.LookPath("tcpdump"); err != nil {
		testutil.Missing(t, "tcpdump")
	}
	out, err := exec.CommandContext(t.Context(), "tcpdump", "-vnr", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(out), "198.18.0.1.9 > 198.19.0.1.9"); n != frames || strings.Contains(string(out), "bad cksum") {
		t.Errorf("tcpdump reads %d frames of %d:\n%.500s", n, frames, out)
	}
}

// Without its arguments an example says how it is used.
func TestUsage(t *testing.T) {
	folders, err := filepath.Glob("*/main.go")
	if err != nil || len(folders) < 7 {
		t.Fatalf("%d examples, %v", len(folders), err)
	}
	for _, main := range folders {
		name := filepath.Dir(main)
		out, err := exec.CommandContext(t.Context(), filepath.Join(built, name)).CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), "usage: "+name) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		f, err := os.Open(main)
		if err != nil {
			t.Fatal(err)
		}
		lines := 0
		for s := bufio.NewScanner(f); s.Scan(); lines++ {
		}
		f.Close()
		if lines > 100 {
			t.Errorf("%s has %d lines: an example is read in a minute", main, lines)
		}
	}
}
