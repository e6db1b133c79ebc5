package xsk

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// Chunks whose driver would cut the frames of an MTU are known, whatever their size is.
func TestCut(t *testing.T) {
	for _, tt := range []struct {
		driver string
		mtu    int
		c      Config
		room   int // that a frame has in a chunk
		cut    bool
	}{
		{"igb", 1500, Config{FrameSize: 2048}, 1024, true},
		{"igc", 1500, Config{FrameSize: 2048}, 1024, true},
		{"igb", 1000, Config{FrameSize: 2048}, 1024, false},
		{"igb", 1003, Config{FrameSize: 2048}, 1024, true},
		{"igb", 1500, Config{FrameSize: 4096}, 3072, false},
		{"igb", 3050, Config{FrameSize: 4096}, 3072, false},
		{"igb", 3051, Config{FrameSize: 4096}, 3072, true},
		{"igb", 1500, Config{FrameSize: 3000, Unaligned: true}, 2048, false},
		{"igb", 1500, Config{FrameSize: 4096, Headroom: 2304}, 1024, true},
		{"igb", 1700, Config{FrameSize: 2304, Unaligned: true}, 2048, false},
		{"igb", 9000, Config{FrameSize: 2304, Unaligned: true}, 2048, true},
		{"igb", 1500, Config{FrameSize: 2048, Headroom: 768}, 1024, true},
		{"igb", 1002, Config{FrameSize: 2048, Headroom: 768}, 1024, false},
		{"virtio_net", 1500, Config{FrameSize: 2048, Headroom: 768}, 1024, false}, // the bind tells
		{"virtio_net", 1500, Config{FrameSize: 2048}, 1792, false},
		{"", 1500, Config{FrameSize: 2048}, 1792, false},
	} {
		if room := receives(tt.driver, tt.c.capacity()); room != tt.room {
			t.Errorf("%s receives %d bytes into %+v, want %d", tt.driver, room, tt.c, tt.room)
		}
		err := checkCut(tt.driver, tt.mtu, tt.c)
		if (err != nil) != tt.cut {
			t.Errorf("%s, MTU %d, %+v: %v", tt.driver, tt.mtu, tt.c, err)
		}
	}
	err := checkCut("igb", 1500, Config{FrameSize: 2048})
	if want := "use chunks of 4096 bytes and an MTU of at most 3050"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// A zero-copy bind that the kernel refuses says what is wrong, for all causes that Linux has.
func TestRefusal(t *testing.T) {
	c := Config{FrameSize: 4096}
	for _, tt := range []struct {
		n    nic
		err  error
		o    Options
		want string
	}{
		{nic{"a", "veth", 1500, 1}, unix.EOPNOTSUPP, Options{}, "its driver is veth; its driver lacks it; use copy mode"},
		{nic{"a", "igb", 9000, 1}, unix.EOPNOTSUPP, Options{MultiBuffer: true}, "none with frames of several buffers"},
		{nic{"a", "virtio_net", 1500, 1}, unix.EINVAL, Options{}, "only with iommu_platform=on and queue_reset=on"},
		{nic{"a", "ice", 3815, 1}, unix.EINVAL, Options{}, "its MTU of 3815 does not fit into chunks of 4096 bytes"},
		{nic{"a", "ice", 3814, 1}, unix.EINVAL, Options{}, "its driver is ice; use copy mode"},
		{nic{"a", "", 0, 0}, unix.ENOMEM, Options{}, "cannot allocate memory): use copy mode"},
	} {
		err := tt.n.refusal(tt.err, tt.o, c, false)
		if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %q in one line", err, tt.want)
		}
		if !errors.Is(err, ErrNoZeroCopy) || !errors.Is(err, tt.err) || feature.AsMissing(err) == nil {
			t.Errorf("%v is no %v, no %v, or not missing", err, ErrNoZeroCopy, tt.err)
		}
	}
}

// Of a socket in copy mode it can be known why; where zero copy is required, that is the error.
func TestWhyCopy(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 16})
	all := []Options{{Interface: w.near.Index}, {Interface: w.far.Index}}
	openAll := func(all []Options) (sockets []*Socket, err error) {
		err = w.Do(func() (err error) { sockets, err = OpenAll(t.Context(), u, all); return err })
		return sockets, err
	}
	sockets, err := openAll(all)
	if err != nil {
		t.Fatal(err)
	}
	if why := sockets[0].WhyCopy(); !errors.Is(why, ErrNoZeroCopy) || !strings.Contains(why.Error(), "zero-copy AF_XDP on near is missing") {
		t.Errorf("copy mode, as %v", why)
	}
	for _, s := range sockets {
		// The second joins the first, for its cause.
		if why := s.WhyCopy(); s.Mode() != Copy || s.Options().Mode != Auto || why != sockets[0].WhyCopy() {
			t.Errorf("%v mode, asked for as %v, as %v", s.Mode(), s.Options().Mode, why)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	all[0].Mode = Copy
	sockets, err = openAll(all[:1])
	if err != nil {
		t.Fatal(err)
	}
	if why := sockets[0].WhyCopy(); why != nil {
		t.Errorf("copy mode was asked for, and is there as %v", why)
	}
	sockets[0].Close()
	if sockets, err = openAll(all); err != nil {
		t.Fatal(err)
	}
	if why := sockets[1].WhyCopy(); why != errJoined {
		t.Errorf("in copy mode with a socket for which it was asked, as %v", why)
	}
	for _, s := range sockets {
		s.Close()
	}
	all[0].Mode, all[1].Mode = ZeroCopy, ZeroCopy
	if sockets, err = openAll(all); !errors.Is(err, ErrNoZeroCopy) || sockets != nil {
		t.Errorf("%v, %v, want %v", sockets, err, ErrNoZeroCopy)
	}
	all[0].Mode, all[1].Queue = Auto, 7
	if sockets, err = openAll(all); err == nil || !strings.Contains(err.Error(), "no such queue: far has 1") || sockets != nil {
		t.Errorf("%v, %v, want that there is no such queue", sockets, err)
	}
	// Nothing is left open: the UMEM can be closed.
}

// Where zero copy is not to be had for now, what was asked for stays known.
func TestBusy(t *testing.T) {
	w := newWire(t)
	u := fakeUMEM(t, Config{Frames: 16})
	why := errors.New("busy")
	var s *Socket
	err := w.Do(func() (err error) {
		s, err = u.openCopy(Options{Interface: w.near.Index}.withDefaults(), why)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Mode() != Copy || s.Options().Mode != Auto || s.WhyCopy() != why {
		t.Errorf("%v mode, asked for as %v, as %v", s.Mode(), s.Options().Mode, s.WhyCopy())
	}
	for _, tt := range []struct {
		mode   Mode
		shared bool
		retry  bool // of OpenAll, in copy mode
	}{{ZeroCopy, true, true}, {ZeroCopy, false, false}, {Copy, true, false}} {
		err := s.bindError(unix.EBUSY, nic{}, tt.mode, tt.shared)
		if _, retry := errors.AsType[busyZeroCopy](err); retry != tt.retry || !errors.Is(err, unix.EBUSY) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// Kicks that the driver has not answered are not repeated, but for one in 65.
func TestKickWaits(t *testing.T) {
	driver, user := pair(t, 1<<32-2)
	driver, user = user, driver
	tx := TX{ring: user}
	var k kicked
	kick := func() (made bool) {
		if k.waits(&tx) {
			return false
		}
		k.done(&tx)
		return true
	}
	for range 2 {
		if !kick() {
			t.Error("a kick of an empty ring was left out")
		}
	}
	tx.put(make([]Desc, 3))
	if !kick() {
		t.Error("the first kick was left out")
	}
	tx.put(make([]Desc, 1))
	for i := range 2 * (maxLeft + 1) {
		if made, want := kick(), i%(maxLeft+1) == maxLeft; made != want {
			t.Fatalf("kick %d of a driver that does not answer: made %v, want %v", i, made, want)
		}
	}
	driver.take(make([]Desc, 2))
	if !kick() {
		t.Error("the driver has answered, and the next kick was left out")
	}
	driver.take(make([]Desc, 2))
	for range 2 {
		if !kick() {
			t.Error("the ring is empty, and a kick was left out")
		}
	}
}
