package xsk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// A veth knows the hash of the skb that a frame was, as the kernel computes it: the same for a flow,
// another for another. With a filter, without one, and in chunks that begin anywhere.
func TestRxMetadata(t *testing.T) {
	for name, c := range map[string]Config{
		"aligned": {Frames: 64, RxMetadata: true}, "unaligned": {Frames: 64, FrameSize: 3000, Headroom: 16, Unaligned: true, RxMetadata: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t)
			u := fakeUMEM(t, c)
			s := w.open(t, u, Options{Interface: w.near.Index})
			fill(t, s, 32)
			options := ProgramOptions{Metadata: true}
			if c.Unaligned {
				options.Claim = asm.Instructions{
					asm.LoadMem(asm.R4, asm.R2, 0, asm.Byte),
					asm.JEq.Imm(asm.R4, 77, PassLabel),
					asm.Ja.Label(ClaimLabel),
				}
			}
			p := attachMetadata(t, w, options)
			if err := p.Add(s); err != nil {
				t.Fatal(err)
			}
			frame := veth.Frame(t, 80)
			other := bytes.Clone(frame)
			other[35]++ // the source port
			w.send(t, frame)
			w.send(t, other)
			w.send(t, frame)
			var hashes []uint32
			for _, d := range take(t, s, 3) {
				m, ok := u.RxMetadata(d.Addr)
				if !ok || !m.HasHash || m.Hash == 0 || m.HasVLAN {
					t.Fatalf("%+v, %v: want a hash", m, ok)
				}
				hashes = append(hashes, m.Hash)
			}
			if hashes[0] != hashes[2] || hashes[0] == hashes[1] {
				t.Errorf("hashes %#x: want one for each flow", hashes)
			}
			if got := u.Data(Desc{Addr: u.Base(0) + uint64(KernelHeadroom+c.Headroom), Len: 80}); !bytes.Equal(got, frame) {
				t.Errorf("the first chunk has %x, want %x", got, frame)
			}
		})
	}
}

// attachMetadata attaches a program that asks for metadata; the test is skipped where the kernel or
// veth's driver has none.
func attachMetadata(t *testing.T, w *wire, o ProgramOptions) *Program {
	t.Helper()
	var p *Program
	err := w.Do(func() (err error) {
		p, err = Attach(w.near.Index, o)
		return err
	})
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// A tag that the stack would have a device insert is metadata of a veth.
func TestRxMetadataVLAN(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 64, RxMetadata: true})
	s := w.open(t, u, Options{Interface: w.near.Index})
	fill(t, s, 32)
	if err := attachMetadata(t, w, ProgramOptions{Metadata: true}).Add(s); err != nil {
		t.Fatal(err)
	}
	// A VLAN device leaves the tag to the veth.
	tagged := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "tagged", ParentIndex: w.far.Index}, VlanId: 42}
	err := w.Do(func() error {
		if err := netlink.LinkAdd(tagged); err != nil {
			return err
		}
		return netlink.LinkSetUp(tagged)
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = &feature.Missing{Feature: "VLAN devices", Config: "CONFIG_VLAN_8021Q", Err: err}
	}
	if err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
	veth.Send(t, w.Namespace, tagged.Index, veth.Frame(t, 60))
	m, ok := u.RxMetadata(take(t, s, 1)[0].Addr)
	if !ok || !m.HasVLAN || m.VLANType != 0x8100 || m.VLANTag != 42 {
		t.Errorf("%+v, %v: want tag 42", m, ok)
	}
}

// What a chunk holds of a frame before is not taken for the metadata of a frame that has none, and
// what was not asked for is not there.
func TestNoRxMetadata(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 64, RxMetadata: true})
	s := w.open(t, u, Options{Interface: w.near.Index})
	for at := 0; at+4 < len(u.Bytes()); at += 4 {
		binary.NativeEndian.PutUint32(u.Bytes()[at:], rxMetadataThere|knownHash)
	}
	fill(t, s, 32)
	w.attach(t, w.near.Index, ProgramOptions{}, s)
	w.send(t, veth.Frame(t, 60))
	if m, ok := u.RxMetadata(take(t, s, 1)[0].Addr); ok {
		t.Errorf("%+v of a program that asks for none", m)
	}
	for _, addr := range []uint64{0, rxMetadataSize - 1, u.size, 1 << 60} {
		if _, ok := u.RxMetadata(addr); ok {
			t.Errorf("metadata of a frame at %#x", addr)
		}
	}
	without := fakeUMEM(t, Config{Frames: 4})
	binary.NativeEndian.PutUint32(without.Bytes()[256-rxMetadataSize:], rxMetadataThere)
	if _, ok := without.RxMetadata(256); ok {
		t.Error("metadata in a UMEM without")
	}
}

// Generic mode has no device to ask: the program is refused, and says so.
func TestRxMetadataGeneric(t *testing.T) {
	w := newWire(t)
	err := w.Do(func() error {
		p, err := Attach(w.near.Index, ProgramOptions{Metadata: true, Generic: true})
		if err == nil {
			p.Close()
		}
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "generic mode") {
		t.Errorf("%v, want generic mode refused", err)
	}
}
