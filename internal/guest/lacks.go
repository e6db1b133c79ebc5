package guest

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// signs are what a kernel, or the runtime of Go, prints where an option is missing.
var signs = []struct{ text, option string }{
	{"VFS: Unable to mount root fs", "CONFIG_BLK_DEV_INITRD"}, // init/do_mounts.c
	{"Failed to execute /init (error -8)", "CONFIG_BINFMT_ELF"},
	{"epollcreate failed with 38", "CONFIG_EPOLL"}, // runtime/netpoll_epoll.go of Go
	{"eventfd failed with 38", "CONFIG_EVENTFD"},
}

// futex is what the runtime of Go prints where there are no futexes (runtime/os_linux.go).
var futex = regexp.MustCompile(`futexwakeup addr=[^\n]* returned -38`)

// explain adds to an error what the console says that a kernel lacks.
func (k *Kernel) explain(console string, err error) error {
	var lacks []string
	for _, s := range signs {
		if strings.Contains(console, s.text) {
			lacks = append(lacks, s.option)
		}
	}
	if futex.MatchString(console) {
		lacks = append(lacks, "CONFIG_FUTEX")
	}
	for _, part := range []string{PartBoot, PartCount} {
		for _, option := range partOptions(part) {
			if strings.Contains(console, lacksPrefix+option+":") && !slices.Contains(lacks, option) {
				lacks = append(lacks, option)
			}
		}
	}
	by := "by what it printed"
	if len(lacks) == 0 {
		lacks, by = k.which("", PartBoot), "by "+k.Config
	}
	if len(lacks) == 0 {
		return err
	}
	return &Lacking{Release: k.Release, Options: lacks, By: by, Err: err}
}

// lacksPrefix is what /init prints before an option that is missing, and a colon behind it.
const lacksPrefix = "init: the kernel lacks "

// Lacks is a [Lacking] around err, why a command failed in a guest, when what failed there says
// that its kernel lacks options; err itself otherwise.
func (r Report) Lacks(err error) error {
	var lacks []string
	for _, result := range r.Results {
		for _, option := range result.Lacks {
			// A guest's kernel is another's: it names only what it can mean.
			if known(option) && !slices.Contains(lacks, option) {
				lacks = append(lacks, option)
			}
		}
	}
	by := "by what failed in the guest"
	if len(lacks) == 0 {
		lacks, by = r.absent, r.absentBy
	}
	if len(lacks) == 0 || err == nil {
		return err
	}
	return &Lacking{Options: lacks, By: by, Err: err}
}

// lacks tries, in a guest in which a command has failed, what counting stands on.
func lacks() (options []string) {
	files := []struct{ path, option string }{
		{"/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"},
		{"/proc/sys/net/core/bpf_jit_enable", "CONFIG_BPF_JIT"},
		{"/proc/self/ns/net", "CONFIG_NET_NS"},
		{"/proc/kallsyms", "CONFIG_KALLSYMS"},
		{"/proc/sys/kernel/perf_event_paranoid", "CONFIG_PERF_EVENTS"},
		{"/sys/bus/event_source/devices/kprobe", "CONFIG_KPROBE_EVENTS"},
	}
	for _, f := range files {
		if _, err := os.Stat(f.path); errors.Is(err, fs.ErrNotExist) {
			options = append(options, f.option)
		}
	}
	// A command that there is not is EINVAL where there is the system call.
	if _, _, errno := unix.Syscall(unix.SYS_BPF, 1<<30, 0, 0); errno == unix.ENOSYS {
		options = append(options, "CONFIG_BPF_SYSCALL")
	}
	return append(options, lacksVeth()...)
}

// lacksVeth tries to make a pair of veth devices.
func lacksVeth() []string {
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lacks0", HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 1, 1}}, PeerName: "lacks1"}
	switch err := netlink.LinkAdd(pair); {
	case err == nil:
		_ = netlink.LinkDel(pair)
	case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPROTONOSUPPORT):
		return []string{"CONFIG_NET"}
	case errors.Is(err, unix.EOPNOTSUPP):
		return []string{"CONFIG_VETH"}
	}
	return nil
}
