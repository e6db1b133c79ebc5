package netlab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/testutil"
)

func TestMain(m *testing.M) { testutil.NoLeaks(m) }

func newLab(t *testing.T) *Namespace {
	t.Helper()
	testutil.Root(t)
	n, err := New(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestNamespaceIsPrivate(t *testing.T) {
	n := newLab(t)
	a, b, err := n.VethPair("unthunk0", "unthunk1")
	if err != nil {
		t.Fatal(err)
	}
	if a.Index == b.Index || a.Index <= 0 || b.Index <= 0 {
		t.Errorf("interface indices are %d and %d", a.Index, b.Index)
	}
	if _, err := net.InterfaceByName("unthunk0"); err == nil {
		t.Error("the device can be seen outside")
	}
	err = n.Do(func() error {
		// The loopback device and the pair.
		ifs, err := net.Interfaces()
		if err == nil && len(ifs) != 3 {
			err = fmt.Errorf("%d devices, want 3", len(ifs))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestCloseRemovesNamespace(t *testing.T) {
	n := newLab(t)
	if !held(t, n.Inode) {
		t.Fatal("no thread is in the namespace")
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for range 20_000 {
		if !held(t, n.Inode) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("a thread is still in the namespace 20 s after Close")
}

// held says whether a thread of this process is in a network namespace.
func held(t *testing.T, inode uint32) bool {
	t.Helper()
	paths, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil && uint32(st.Ino) == inode {
			return true
		}
	}
	return false
}

// The runtime never ends the main thread: a namespace must not be given to it.
func TestMainThreadIsNeverUsed(t *testing.T) {
	testutil.Root(t)
	for range 50 {
		n, err := New(0)
		if err != nil {
			t.Fatal(err)
		}
		err = n.Do(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("the namespace is on the main thread")
			}
			return nil
		})
		if err := errors.Join(err, n.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// Where IPv6 cannot be disabled, devices have no address of it: they send nothing that
// would be counted.
func TestWithoutAddresses(t *testing.T) {
	n := newLab(t)
	err := n.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("0"), 0)
	})
	if errors.Is(err, os.ErrNotExist) {
		testutil.Missing(t, "IPv6")
	}
	if err != nil {
		t.Fatal(err)
	}
	pair := func(without bool, a, b string) Device {
		n.withoutAddresses = without
		device, _, err := n.VethPair(a, b)
		if err != nil {
			t.Fatal(err)
		}
		return device
	}
	addresses := func(d Device) (count int) {
		err := n.Do(func() error {
			i, err := net.InterfaceByIndex(d.Index)
			if err != nil {
				return err
			}
			all, err := i.Addrs()
			count = len(all)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return count
	}
	// The second pair shows that the first one has had the time to get them.
	silent, other := pair(true, "unthunk0", "unthunk1"), pair(false, "unthunk2", "unthunk3")
	testutil.Eventually(t, "an address by default", func() bool { return addresses(other) > 0 })
	if count := addresses(silent); count != 0 {
		t.Errorf("a device without addresses has %d", count)
	}
}

func TestDoAfterClose(t *testing.T) {
	n := newLab(t)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Do: %v, want ErrClosed", err)
	}
	if err := n.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestNewRefusesCPU(t *testing.T) {
	testutil.Root(t)
	if n, err := New(1 << 15); err == nil {
		n.Close()
		t.Error("no error for a CPU that is not there")
	}
}

func TestThreadNAPI(t *testing.T) {
	n := newLab(t)
	name := fmt.Sprintf("u%d", os.Getpid())
	d, _, err := n.VethPair(name, name+"p")
	if err != nil {
		t.Fatal(err)
	}
	// Without NAPI there is no thread.
	if err := d.EnableGRO(); err != nil {
		t.Fatal(err)
	}
	if err := d.ThreadNAPI(t.Context(), 0); err != nil {
		testutil.SkipMissing(t, err)
		t.Fatal(err)
	}
}
