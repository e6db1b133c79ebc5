package list

import (
	"fmt"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

const mountinfo = `22 1 0:21 / /proc rw,nosuid - proc proc rw
301 30 0:4 net:[4026532281] /run/netns/blue rw shared:210 - nsfs nsfs rw
302 30 0:4 net:[4026532390] /run/docker/netns/a\040b rw - nsfs nsfs rw
303 30 0:4 mnt:[4026532391] /run/snapd/ns/x.mnt rw - nsfs nsfs rw
304 30 0:4 net:[x] /run/netns/y rw - nsfs nsfs rw
short line
`

func TestMountedNamespaces(t *testing.T) {
	t.Parallel()
	got := mountedNamespaces(mountinfo)
	want := map[uint64]string{4026532281: "/run/netns/blue", 4026532390: "/run/docker/netns/a b"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestBPFMounts(t *testing.T) {
	t.Parallel()
	const text = mountinfo + `44 23 0:22 /fs/bpf /sys/fs/bpf rw - sysfs sysfs rw
45 44 0:39 / /sys/fs/bpf rw,relatime shared:3 - bpf bpf rw,mode=700
46 44 0:40 / /run/my\040bpf rw,relatime - bpf none rw
45 44 0:39 / /sys/fs/bpf rw,relatime - bpf bpf rw
47 - bpf
`
	if got, want := fmt.Sprintf("%q", bpfMounts(text)), `["/sys/fs/bpf" "/run/my bpf"]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func FuzzMountedNamespaces(f *testing.F) {
	f.Add(mountinfo)
	f.Fuzz(func(t *testing.T, text string) {
		testutil.Allocates(t, 1<<20+32*uint64(len(text)), func() { mountedNamespaces(text); bpfMounts(text) })
	})
}

func TestFdinfoField(t *testing.T) {
	t.Parallel()
	const text = "pos:\t0\nflags:\t02000002\nprog_type:\t6\nprog_id:\t241\n"
	for name, want := range map[string]string{"prog_id": "241 true", "link_id": "0 false", "prog": "0 false", "prog_type": "6 true"} {
		n, ok := fdinfoField(text, name)
		if got := fmt.Sprint(n, ok); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if n, ok := fdinfoField("prog_id: -1", "prog_id"); ok {
		t.Error(n)
	}
}

// Names that others chose are safe on a terminal, and in a record.
func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"eth0": "eth0", "a\x1b[2Jb": "a?[2Jb", "\xff": "?", "a\nb": "a?b"} {
		if got := clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// A libxdp dispatcher has up to ten parts; prog10 would come after prog9.
func TestCompareSlots(t *testing.T) {
	t.Parallel()
	if compareSlots("prog2", "prog10") >= 0 || compareSlots("prog1", "prog2") >= 0 || compareSlots("prog3", "prog3") != 0 {
		t.Error("out of order")
	}
}

// What a namespace is called: the own one nothing, then its name, its mount, a process.
func TestNames(t *testing.T) {
	t.Parallel()
	all := make(namespaces)
	all.add(2, "/proc/7/ns/net", "process 7 (x)", rankProcess)
	all.add(2, "/run/netns/blue", "blue", rankNamed)
	all.add(3, "/proc/8/ns/net", "process 8 (y)", rankProcess)
	all.add(1, ownNamespace, "", rankOwn)
	for range 2 * maxPaths {
		all.add(3, "/proc/9/ns/net", "process 9 (z)", rankProcess)
	}
	said := ""
	for _, n := range all.sorted() {
		said += fmt.Sprintf("%d %q %d; ", n.inode, n.name, len(n.paths))
	}
	if want := `1 "" 1; 2 "blue" 2; 3 "process 8 (y)" 8; `; said != want {
		t.Errorf("%s, want %s", said, want)
	}
}
