package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/header"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
	"github.com/unthunk/unthunk/xsk"
)

// span is two pairs of veths, left - in and out - right, whose inner ends have ports.
type span struct {
	*netlab.Namespace
	left, in, out, right netlab.Device
	arrived              func() []byte // the next frame at right
}

func newSpan(t *testing.T, mtu int) *span {
	t.Helper()
	s := &span{Namespace: veth.Namespace(t)}
	s.left, s.in = veth.Pair(t, s.Namespace, "left", "in")
	s.out, s.right = veth.Pair(t, s.Namespace, "out", "right")
	for _, d := range []netlab.Device{s.left, s.in, s.out, s.right} {
		if err := d.SetMTU(mtu); err != nil {
			t.Fatal(err)
		}
	}
	s.arrived = veth.Listen(t, s.Namespace, s.right.Index)
	return s
}

// run opens ports on both inner ends and forwards by a program until the test ends.
func (s *span) run(t *testing.T, c xsk.Config, o xsk.Options, attach xsk.ProgramOptions, program Program) *Datapath {
	t.Helper()
	u := newUMEM(t, c)
	var sockets []*xsk.Socket
	a, b := o, o
	a.Interface, b.Interface = s.in.Index, s.out.Index
	err := s.Do(func() (err error) {
		sockets, err = xsk.OpenAll(t.Context(), u, []xsk.Options{a, b})
		return err
	})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	d := newDatapath(t, Config{UMEM: u, Ports: []Port{NewXSK(sockets[0]), NewXSK(sockets[1])}, Program: program})
	var p *xsk.Program
	attach.Sockets = sockets[:1]
	err = s.Do(func() (err error) {
		p, err = xsk.Attach(s.in.Index, attach)
		return err
	})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	stop := start(d)
	t.Cleanup(func() {
		if err := errors.Join(stop(), p.Close()); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Frames of one to six buffers go through a program that looks into each part, writes over bytes
// of the last, cuts a trailer and puts a VLAN tag in front; each byte arrives, in as many parts.
func TestGatherEndToEnd(t *testing.T) {
	s := newSpan(t, 9000)
	var key [8]byte
	rand.NewChaCha8([32]byte{1}).Read(key[:])
	parts := make(map[int]int)
	d := s.run(t, xsk.Config{Frames: 1024, FrameSize: 2048}, xsk.Options{MultiBuffer: true}, xsk.ProgramOptions{MultiBuffer: true},
		func(frames []Frame, actions []Action) {
			for i := range frames {
				f := &frames[i]
				parts[f.Parts()]++
				last := f.Part(f.Parts() - 1)
				if len(last) < 16 || !f.AdjustTail(-4) || !f.AdjustHead(-header.VLANLen) {
					continue
				}
				copy(last[len(last)-12:], key[:])
				copy(f.Data[:12], f.Data[4:16])
				binary.BigEndian.PutUint32(f.Data[12:], header.TypeVLAN<<16|42)
				actions[i] = Redirect(1)
			}
		})
	rng := rand.NewChaCha8([32]byte{2})
	sizes := []int{60, 1514, 1900, 3000, 4000, 6000, 9000}
	for _, size := range sizes {
		frame := make([]byte, size)
		rng.Read(frame)
		copy(frame, veth.Frame(t, 60))
		veth.Send(t, s.Namespace, s.left.Index, frame)
		want := append(bytes.Clone(frame[:12]), 0x81, 0, 0, 42)
		want = append(want, frame[12:size-4]...)
		copy(want[len(want)-8:], key[:])
		got := s.arrived()
		// A packet socket has the tag beside the frame.
		if len(got) == len(want)-4 {
			got = append(append(bytes.Clone(got[:12]), want[12:16]...), got[12:]...)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("of %d bytes %d arrived, which are not the %d sent", size, len(got), len(want))
		}
	}
	testutil.Eventually(t, "all transmitted", func() bool { return d.Counters(nil)[1].Transmitted == uint64(len(sizes)) })
	if parts[1] == 0 || parts[2] == 0 || parts[6] == 0 {
		t.Errorf("frames by parts: %v", parts)
	}
}

// The device's hash of a flow reaches the program.
func TestMetadataReachesProgram(t *testing.T) {
	s := newSpan(t, 1500)
	hashes := make(map[uint32]int)
	d := s.run(t, xsk.Config{Frames: 1024, RxMetadata: true}, xsk.Options{}, xsk.ProgramOptions{Metadata: true},
		func(frames []Frame, _ []Action) {
			for i := range frames {
				if m, ok := frames[i].RxMetadata(); ok && m.HasHash {
					hashes[m.Hash]++
				}
			}
		})
	for i := range 12 {
		frame := veth.Frame(t, 60)
		frame[35] = byte(i % 3) // the source port
		veth.Send(t, s.Namespace, s.left.Index, frame)
	}
	testutil.Eventually(t, "all received", func() bool { return d.Counters(nil)[0].Received == 12 })
	if len(hashes) != 3 {
		t.Errorf("hashes %v, want four of each of three flows", hashes)
	}
}

// A translator of addresses: the kernel, which checks what is left of the checksums, hands the
// datagram to the socket of the new address and port.
func TestRewriteReachesSocket(t *testing.T) {
	s := newSpan(t, 1500)
	to := netip.MustParseAddrPort("10.9.0.2:4321")
	receive, hardware := listenUDP(t, s, to)
	s.run(t, xsk.Config{Frames: 1024}, xsk.Options{}, xsk.ProgramOptions{}, func(frames []Frame, actions []Action) {
		for i := range frames {
			eth, _ := header.ParseEthernet(frames[i].Data)
			_, payload := eth.Payload()
			ip, ok := header.ParseIPv4(payload)
			if !ok {
				continue
			}
			udp, ok := header.ParseUDP(ip.Payload())
			if !ok {
				continue
			}
			udp.Update(ip.SetDestination(to.Addr()))
			udp.SetDestinationPort(to.Port())
			ip.SetTTL(7)
			copy(eth.Destination(), hardware)
			actions[i] = Redirect(1)
		}
	})
	for size := 60; size < 1500; size += 301 {
		frame := veth.Frame(t, size)
		ip, _ := header.ParseIPv4(frame[header.EthernetLen:])
		udp, _ := header.ParseUDP(ip.Payload())
		for i := range udp.Payload() {
			udp.Payload()[i] = byte(i * size)
		}
		ip.SetSource(netip.MustParseAddr("10.9.0.1"))
		udp.SetChecksum(ip.Pseudo(header.ProtocolUDP, udp.Len()))
		veth.Send(t, s.Namespace, s.left.Index, frame)
		if got := receive(); !bytes.Equal(got, udp.Payload()) {
			t.Fatalf("of %d bytes %d arrived", len(udp.Payload()), len(got))
		}
	}
}

// listenUDP opens a UDP socket on an address that it gives the device right. receive returns the
// next payload; nil when none comes in 5 s. hardware is the device's address.
func listenUDP(t *testing.T, s *span, at netip.AddrPort) (receive func() []byte, hardware net.HardwareAddr) {
	t.Helper()
	fd := -1
	err := s.Do(func() (err error) {
		l, err := netlink.LinkByIndex(s.right.Index)
		if err != nil {
			return err
		}
		hardware = l.Attrs().HardwareAddr
		network := &net.IPNet{IP: at.Addr().AsSlice(), Mask: net.CIDRMask(24, 32)}
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: network}); err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		wait := unix.NsecToTimeval(5e9)
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() []byte {
		buf := make([]byte, 1<<16)
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return nil
			}
			return buf[:n]
		}
	}, hardware
}
