package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
)

// rights are the capabilities of a verb. It drops all others at its start.
type rights struct {
	// keeps are the capabilities, of which an option or a part may need some only: what
	// lacks one says so.
	keeps []feature.Capability
	// about says what they are for, in its help.
	about string
	// reads says that the user names files or folders to read.
	reads bool
}

// rightsOf are the rights of a verb with the flags that were given.
func rightsOf(cmd *cobra.Command) rights {
	given := func(flag string) bool { f := cmd.Flags().Lookup(flag); return f != nil && f.Changed }
	chain := []feature.Capability{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN}
	devices := []feature.Capability{unix.CAP_NET_ADMIN, unix.CAP_BPF, unix.CAP_PERFMON}
	code := []feature.Capability{unix.CAP_SYSLOG, unix.CAP_BPF, unix.CAP_PERFMON}
	guests := []feature.Capability{ // QEMU and apt run as other users
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID,
	}
	onDevices := given("in") || given("out")
	switch verbOf(cmd) {
	case "run", "unthunk":
		return rights{
			keeps: slices.Concat(chain, code),
			about: "CAP_SYS_ADMIN for a network namespace, CAP_NET_ADMIN; CAP_SYSLOG for prices and stages.",
		}
	case "tax":
		return rights{
			keeps: slices.Concat(chain, code), reads: given("prog"),
			about: "CAP_SYS_ADMIN for a network namespace, CAP_NET_ADMIN, CAP_SYSLOG for kernel symbols.",
		}
	case "bench":
		r := rights{
			keeps: append(chain, unix.CAP_NET_RAW, unix.CAP_IPC_LOCK),
			about: "CAP_SYS_ADMIN for a network namespace, CAP_NET_ADMIN; redirect-xsk: CAP_NET_RAW, CAP_IPC_LOCK; " +
				"with --in: CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON; with --prog: CAP_SYSLOG for what a live program " +
				"calls, and to see whether the program is in the BPF dispatcher.",
		}
		switch {
		case onDevices:
			r.keeps = devices
		case given("prog"):
			r.keeps, r.reads = slices.Concat(chain, code), true
		}
		return r
	case "profile":
		r := rights{
			keeps: slices.Concat(chain, code),
			about: "CAP_SYS_ADMIN for a network namespace, CAP_NET_ADMIN, CAP_SYSLOG for kernel symbols; " +
				"with --in: CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON, CAP_SYSLOG, and CAP_SYS_ADMIN for the price of an indirect call.",
		}
		if onDevices {
			// The price of an indirect call comes from a chain of its own.
			r.keeps = slices.Concat(devices, chain, code)
		}
		r.reads = given("prog")
		return r
	case "xray":
		r := rights{
			keeps: slices.Concat(chain, code, []feature.Capability{unix.CAP_SYS_RAWIO}), reads: given("root") || given("prog"),
			about: "CAP_SYSLOG for kernel symbols, CAP_BPF, CAP_PERFMON for kernel memory (or CAP_SYS_RAWIO for /proc/kcore); " +
				"CAP_SYS_ADMIN and CAP_NET_ADMIN for the veth that stands for a device where --dev is not given; " +
				"with --root: none.",
		}
		switch {
		case given("root"):
			r.keeps = nil
		case given("dev"):
			r.keeps = append(code, unix.CAP_NET_ADMIN, unix.CAP_SYS_RAWIO)
		}
		return r
	case "agent":
		return rights{
			keeps: slices.Concat(chain, code), reads: true,
			about: "CAP_SYS_ADMIN for network namespaces, programs, maps and links; CAP_NET_ADMIN for XDP programs on devices of its " +
				"own; CAP_SYSLOG for kernel symbols; CAP_BPF, CAP_PERFMON for kernel memory.",
		}
	case "check":
		return rights{
			keeps: append(code, unix.CAP_SYS_ADMIN),
			about: "none; CAP_SYSLOG, CAP_BPF, CAP_PERFMON for what is read from kernel memory, CAP_SYS_ADMIN for settings " +
				"and links of BPF.",
		}
	case "drivers":
		r := rights{
			reads: true,
			about: "none; with --what-if those of tax, unless --prices has the prices.",
		}
		if given("what-if") && !given("prices") {
			r.keeps = slices.Concat(chain, code)
		}
		return r
	case "prog list":
		return rights{
			keeps: append(code, unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH),
			about: "none; CAP_SYS_ADMIN for programs, maps, links and other namespaces, CAP_SYS_PTRACE for where other processes " +
				"are and, with CAP_DAC_READ_SEARCH, what they have open, CAP_SYSLOG, CAP_BPF, CAP_PERFMON for the BPF dispatcher.",
		}
	case "prog xray":
		return rights{
			keeps: slices.Concat(chain, code), reads: true,
			about: "CAP_SYSLOG, CAP_BPF, CAP_PERFMON for code; CAP_NET_ADMIN to load an object file; CAP_SYS_ADMIN for programs that " +
				"run, names of maps and lines of the source; with --price: those of tax.",
		}
	case "prog cost", "prog diff":
		symbols := "the calls in their code"
		if verbOf(cmd) == "prog cost" {
			symbols = "ns of --lines"
		}
		return rights{
			keeps: []feature.Capability{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN, unix.CAP_SYSLOG},
			reads: true,
			about: "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON; CAP_SYS_ADMIN for programs by id or device, and their maps, and for the network " +
				"namespace of a program that changes what stays; CAP_SYSLOG for " + symbols +
				", and for what a live program calls.",
		}
	case "prog watch":
		return rights{
			keeps: append(code, unix.CAP_SYS_ADMIN), reads: true,
			about: "CAP_SYS_ADMIN for programs that run, and for --stats; CAP_SYSLOG for kernel symbols; CAP_BPF, CAP_PERFMON for " +
				"samples.",
		}
	case "prog record":
		return rights{keeps: []feature.Capability{unix.CAP_NET_RAW}, about: "CAP_NET_RAW."}
	case "forward":
		return rights{
			keeps: []feature.Capability{
				unix.CAP_NET_ADMIN, unix.CAP_BPF, unix.CAP_NET_RAW, unix.CAP_IPC_LOCK, unix.CAP_PERFMON,
			},
			about: "CAP_NET_ADMIN, CAP_BPF; engine afxdp: CAP_NET_RAW, and CAP_IPC_LOCK for memory above the limit of " +
				"locked memory; --filter and engine xdp: CAP_PERFMON.",
			reads: given("bpf") || given("filter-file") || given("metrics-config"),
		}
	case rssGuard:
		return rights{keeps: []feature.Capability{unix.CAP_NET_ADMIN}, about: "CAP_NET_ADMIN."}
	case "gate":
		keeps := slices.Clone(guests)
		if given("maps-from") {
			keeps = append(keeps, unix.CAP_SYS_ADMIN, unix.CAP_BPF)
		}
		return rights{
			keeps: keeps,
			about: "none. As root: CAP_SETUID, CAP_SETGID, CAP_KILL, CAP_CHOWN, CAP_FOWNER and CAP_DAC_OVERRIDE to run QEMU and " +
				"apt as other users; with --maps-from: CAP_SYS_ADMIN, CAP_BPF.",
			reads: true,
		}
	case "lab":
		return rights{
			keeps: slices.Concat(chain, code, guests),
			about: "none. As root: CAP_SETUID, CAP_SETGID, CAP_KILL, CAP_CHOWN, CAP_FOWNER and CAP_DAC_OVERRIDE to run QEMU and " +
				"apt as other users; those of tax for the price in ns; with --maps-from: CAP_SYS_ADMIN.",
			reads: true,
		}
	}
	if verbOf(cmd) == "fleet ingest" {
		return rights{
			keeps: []feature.Capability{unix.CAP_DAC_OVERRIDE}, reads: true,
			about: "none; as root CAP_DAC_OVERRIDE for a store of another user.",
		}
	}
	return rights{about: "none.", reads: true}
}

// keep is all that a verb keeps. Root needs capabilities to read and write files of other
// users, as a record in the home folder of who runs sudo.
func (r rights) keep(cmd *cobra.Command) []feature.Capability {
	keep := slices.Clone(r.keeps)
	if r.reads {
		keep = append(keep, unix.CAP_DAC_READ_SEARCH)
	}
	for _, flag := range filesOut {
		if f := cmd.Flags().Lookup(flag); f != nil && f.Changed {
			return append(keep, unix.CAP_DAC_OVERRIDE, unix.CAP_CHOWN)
		}
	}
	if verbOf(cmd) == "man" {
		keep = append(keep, unix.CAP_DAC_OVERRIDE, unix.CAP_CHOWN)
	}
	return keep
}

// dropRights makes each verb drop the capabilities that it does not need, by limit, as
// soon as its flags are known and right.
func dropRights(s std, stdout io.Writer, root *cobra.Command, limit func([]feature.Capability) error) {
	check := root.PersistentPreRunE
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		// Hidden is what lab runs in its guests, and what has the rights of a verb that started it.
		if err := check(cmd, args); err != nil || cmd.Hidden && verbOf(cmd) != rssGuard {
			return err
		}
		if err := errors.Join(checkOutput(cmd, stdout), checkFileLimit(openFiles(cmd))); err != nil {
			return err
		}
		if err := limit(rightsOf(cmd).keep(cmd)); err != nil {
			fmt.Fprintf(s.err, "warning: all rights are kept: %v\n", oneLine(err))
		}
		return nil
	}
}

// tellRights adds to the help of each verb which capabilities it needs.
func tellRights(root *cobra.Command) {
	for _, cmd := range verbs(root) {
		if cmd.Hidden || grouping(cmd) {
			continue
		}
		if cmd.Long == "" {
			cmd.Long = cmd.Short + "."
		}
		cmd.Long = strings.TrimRight(cmd.Long, "\n") + "\n\nCapabilities: " + rightsOf(cmd).about
	}
}
