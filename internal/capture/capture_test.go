package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/unthunk/unthunk/datapath"
	"github.com/unthunk/unthunk/filter"
	"github.com/unthunk/unthunk/internal/device"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

// pair makes two connected devices that can send: until a device's carrier was noticed,
// the kernel drops what it sends without a word.
func pair(t *testing.T, lab *netlab.Namespace) (a, b netlab.Device) {
	t.Helper()
	a, b = veth.Pair(t, lab, "cap0", "cap1")
	if err := lab.Do(func() error { return device.AwaitUp(t.Context(), a.Index, b.Index) }); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// captured runs a capture in a namespace while f runs.
func captured(
	ctx context.Context, t *testing.T, lab *netlab.Namespace, opts Options, dev string, f func(),
) (r Result, file []byte, err error) {
	t.Helper()
	var c *Capture
	errOpen := lab.Do(func() (err error) {
		if opts.Device, err = device.Named(dev); err != nil {
			return err
		}
		c, err = Open(opts)
		return err
	})
	if errOpen != nil {
		t.Fatal(errOpen)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	done := make(chan struct{})
	var b bytes.Buffer
	go func() {
		defer close(done)
		r, err = c.Run(ctx, &b)
	}()
	f()
	<-done
	return r, b.Bytes(), err
}

// frames are those of a pcap file, and the lengths they had.
func frames(t *testing.T, file []byte) (frames [][]byte, lengths []uint32) {
	t.Helper()
	header := datapath.PcapHeader()
	if !bytes.HasPrefix(file, header) {
		t.Fatalf("%d bytes without the header of a pcap file", len(file))
	}
	for file = file[len(header):]; len(file) > 0; {
		kept := binary.NativeEndian.Uint32(file[8:])
		at := time.Unix(int64(binary.NativeEndian.Uint32(file)), int64(binary.NativeEndian.Uint32(file[4:])))
		if since := time.Since(at); since < 0 || since > time.Minute {
			t.Errorf("a packet of %v", at)
		}
		lengths = append(lengths, binary.NativeEndian.Uint32(file[12:]))
		frames = append(frames, file[16:16+kept])
		file = file[16+kept:]
	}
	return frames, lengths
}

// What a device receives is in the file, bytes and tags as they were, in order; what it
// sends is not.
func TestRun(t *testing.T) {
	lab := veth.Namespace(t)
	a, b := pair(t, lab)
	plain, long := veth.Frame(t, 60), veth.Frame(t, 1500)
	tagged := append(append(bytes.Clone(plain[:12]), 0x81, 0, 0, 5), plain[12:]...)
	opts := Options{Duration: 300 * time.Millisecond}
	r, file, err := captured(t.Context(), t, lab, opts, "cap1", func() {
		veth.Send(t, lab, a.Index, plain, tagged, long)
		veth.Send(t, lab, b.Index, plain) // not received by cap1
	})
	if err != nil {
		t.Fatal(err)
	}
	got, lengths := frames(t, file)
	want := [][]byte{plain, tagged, long}
	if len(got) != len(want) || r.Packets != 3 || r.Bytes != len(plain)+len(tagged)+len(long) || r.Dropped+r.Merged+r.Cut+r.Unmatched != 0 {
		t.Fatalf("%d frames, %+v", len(got), r)
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) || int(lengths[i]) != len(want[i]) {
			t.Errorf("frame %d: %x of %d, want %x", i, got[i], lengths[i], want[i])
		}
	}
	if r.Took < opts.Duration || r.Took > 20*opts.Duration {
		t.Errorf("it took %v", r.Took)
	}
}

// A filter sees the frame with its tag, snaplen cuts after it, packets end it.
func TestOptions(t *testing.T) {
	lab := veth.Namespace(t)
	a, _ := pair(t, lab)
	plain := veth.Frame(t, 60)
	tagged := append(append(bytes.Clone(plain[:12]), 0x81, 0, 0, 5), plain[12:]...)
	program, err := filter.Compile("vlan 5")
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{Duration: time.Minute, Filter: program, Snaplen: 18, Packets: 2}
	r, file, err := captured(t.Context(), t, lab, opts, "cap1", func() {
		veth.Send(t, lab, a.Index, plain, tagged, plain, tagged, tagged)
	})
	got, lengths := frames(t, file)
	if err != nil || len(got) != 2 || !bytes.Equal(got[1], tagged[:18]) || int(lengths[1]) != len(tagged) {
		t.Fatalf("%x, %v, %+v: %v", got, lengths, r, err)
	}
	if !r.Full || r.Packets != 2 || r.Unmatched != 2 || r.Cut != 2 || r.Took > 30*time.Second {
		t.Errorf("%+v", r)
	}
}

// A signal ends it with what it has; a device that goes away is an error.
func TestEnds(t *testing.T) {
	lab := veth.Namespace(t)
	a, _ := pair(t, lab)
	ctx, cancel := context.WithCancel(t.Context())
	r, file, err := captured(ctx, t, lab, Options{Duration: time.Minute}, "cap1", func() {
		veth.Send(t, lab, a.Index, veth.Frame(t, 60))
		time.Sleep(200 * time.Millisecond)
		cancel()
	})
	if got, _ := frames(t, file); err != nil || len(got) != 1 || r.Took > 30*time.Second {
		t.Errorf("%d frames, %+v, %v", len(got), r, err)
	}
	_, _, err = captured(t.Context(), t, lab, Options{Duration: time.Minute}, "cap1", func() {
		lab.Do(func() error {
			l, err := netlink.LinkByName("cap1")
			if err == nil {
				err = netlink.LinkDel(l)
			}
			return err
		})
	})
	if err == nil || !strings.Contains(err.Error(), "cap1 went down or away") {
		t.Errorf("a device that is gone: %v", err)
	}
}

// A packet that is larger than any that the device receives was merged of several.
func TestMerged(t *testing.T) {
	t.Parallel()
	r := runner{c: &Capture{opts: Options{Device: device.Device{MTU: 600}}}}
	if err := r.packet(packet{data: make([]byte, 700), length: 700}); err != nil || r.Merged != 1 || r.Packets != 0 {
		t.Errorf("%+v, %v", r.Result, err)
	}
}

func TestPromiscuous(t *testing.T) {
	lab := veth.Namespace(t)
	pair(t, lab)
	on := func() (on int) {
		lab.Do(func() error {
			l, err := netlink.LinkByName("cap1")
			if err == nil {
				on = l.Attrs().Promisc
			}
			return err
		})
		return on
	}
	captured(t.Context(), t, lab, Options{Duration: 10 * time.Millisecond}, "cap1", func() {
		if on() != 0 {
			t.Error("promiscuous without being asked")
		}
	})
	captured(t.Context(), t, lab, Options{Duration: 100 * time.Millisecond, Promiscuous: true}, "cap1", func() {
		if on() == 0 {
			t.Error("not promiscuous")
		}
	})
	if on() != 0 {
		t.Error("still promiscuous")
	}
}

// Each packet of a burst is in the file or is counted as dropped.
func TestBurst(t *testing.T) {
	lab := veth.Namespace(t)
	a, b := pair(t, lab)
	if err := b.EnableGRO(); err != nil { // redirected frames need a NAPI
		t.Fatal(err)
	}
	source := veth.Source(t, a.Index)
	const sent = 200_000
	all := false
	r, file, err := captured(t.Context(), t, lab, Options{Duration: 3 * time.Second}, "cap1", func() {
		all = veth.Burst(t, lab, source, sent)
	})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := frames(t, file)
	seen := r.Packets + r.Dropped
	if len(got) != r.Packets || seen > sent || seen == 0 || all && seen < sent || r.Merged+r.Unmatched+r.Cut != 0 {
		t.Errorf("%d frames, %+v, of %d, all sent: %v", len(got), r, sent, all)
	}
}
