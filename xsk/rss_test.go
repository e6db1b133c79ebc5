package xsk

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/testutil/nics"
	"github.com/unthunk/unthunk/internal/testutil/veth"
)

// A veth has no table, and an interface that is not there none either.
func TestSetRSSMissing(t *testing.T) {
	lab := veth.Namespace(t)
	a, _, err := lab.VethPair("a", "b")
	if err != nil {
		t.Fatal(err)
	}
	for index, want := range map[int]string{a.Index: "an RSS table of a is missing", 1 << 20: "no such device"} {
		err := lab.Do(func() error { _, err := SetRSS(index, 1); return err })
		if err == nil || !strings.Contains(err.Error(), want) || (feature.AsMissing(err) != nil) != (index == a.Index) {
			t.Errorf("interface %d: %v, want %q", index, err, want)
		}
	}
}

// A table that the kernel cannot write now is still to be given back; one that the device refuses is not, nor that of a device
// which is gone.
func TestRSSCloseAgain(t *testing.T) {
	lab := veth.Namespace(t)
	a, _ := veth.Pair(t, lab, "a", "b")
	var fd int
	open := func() *RSS {
		t.Helper()
		err := lab.Do(func() (err error) {
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return &RSS{index: a.Index, before: []uint32{0}, fd: fd}
	}
	refused := open()
	if err := refused.Close(); !errors.Is(err, ErrRSSKept) || !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("a veth took a table: %v", err)
	}
	if err := refused.Close(); err != nil || refused.fd >= 0 {
		t.Errorf("%v, descriptor %d, want that it is closed", err, refused.fd)
	}
	r := open()
	r.fd = int(os.Stdin.Fd()) // no socket
	for range 2 {
		if err := r.Close(); err == nil || errors.Is(err, ErrRSSKept) {
			t.Errorf("closed by what is no socket: %v", err)
		}
	}
	r.fd = fd
	if err := lab.Do(func() error { return netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Index: a.Index}}) }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil || r.fd >= 0 {
			t.Errorf("%v, descriptor %d, want that it is closed", err, r.fd)
		}
	}
}

// tableOf is the table of a device in a namespace.
func tableOf(t *testing.T, lab *netlab.Namespace, ifindex int) (table []uint32) {
	t.Helper()
	err := lab.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		table, err = (&RSS{index: ifindex, fd: fd}).read()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// A device with two queues receives by the first alone while it is asked for, and by both again
// afterwards: the table that it had comes back.
func TestTwoQueuesRSS(t *testing.T) {
	w := nics.Take(t)
	set := func(queues int) (r *RSS, err error) {
		err = w.Do(func() (err error) { r, err = SetRSS(w.In.Index, queues); return err })
		return r, err
	}
	table := func() []uint32 { return tableOf(t, w.Namespace, w.In.Index) }
	own := table()
	if len(own) == 0 || slices.Max(own) != 1 {
		t.Fatalf("table %v, want one of two queues", own)
	}
	for _, queues := range []int{0, 3, len(own) + 1} {
		if _, err := set(queues); err == nil || !slices.Equal(table(), own) {
			t.Errorf("%d queues: %v, table %v", queues, err, table())
		}
	}
	one, err := set(1)
	if err != nil {
		t.Fatal(err)
	}
	first := table()
	if slices.Max(first) != 0 {
		t.Errorf("table %v, want the first queue alone", first)
	}
	two, err := set(2)
	if err != nil {
		t.Fatal(err)
	}
	for i, queue := range table() {
		if int(queue) != i%2 {
			t.Fatalf("table %v, want both in turn", table())
		}
	}
	for _, r := range []*RSS{two, two} {
		if err := r.Close(); err != nil || !slices.Equal(table(), first) {
			t.Errorf("%v, table %v, want the one before", err, table())
		}
	}
	if err := one.Close(); err != nil || !slices.Equal(table(), own) {
		t.Errorf("%v, table %v, want what it had", err, table())
	}
	changed, err := set(1)
	if err != nil {
		t.Fatal(err)
	}
	last, err := set(1)
	if err != nil {
		t.Fatal(err)
	}
	second := slices.Repeat([]uint32{1}, len(own))
	if err := changed.write(second); err != nil { // as ethtool does
		t.Fatal(err)
	}
	if err := changed.Close(); !errors.Is(err, ErrRSSKept) || !slices.Equal(table(), second) {
		t.Errorf("%v, table %v, want what was set since", err, table())
	}
	if err := errors.Join(last.write(own), last.Forget()); err != nil || !slices.Equal(table(), own) {
		t.Errorf("%v, table %v, want what it had", err, table())
	}
}
