package main

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/listen"
	"github.com/unthunk/unthunk/internal/tax"
)

// Open files: BPF programs, maps and links, sockets, namespaces. Each number is what a run
// was seen to need at a time, and a tenth more.
const (
	anyFiles   = 32
	chainFiles = 64 // of one chain
	moreFiles  = 24 // of each other chain
	// fillFiles is while the BPF dispatcher is filled with 48 programs, each with its link.
	fillFiles = 192
	// progFiles is with a program of the user's, of 60 maps, which each round opens anew.
	progFiles = 512
)

// openFiles is how many files a verb may have open at a time.
func openFiles(cmd *cobra.Command) uint64 {
	values := func(flag string) []string {
		values, _ := cmd.Flags().GetStringSlice(flag) // none without that flag
		return values
	}
	if prog := cmd.Flags().Lookup("prog"); prog != nil && prog.Changed {
		return progFiles
	}
	count := func(flag string) uint64 { return max(uint64(len(values(flag))), 1) }
	switch verbOf(cmd) {
	case "bench":
		return chainFiles + moreFiles*(count("scenario")*count("operation")-1)
	case "tax":
		return priceFiles(tax.Plan{Pairs: values("pair")})
	case "agent":
		return chainFiles + moreFiles
	case "run", "unthunk":
		return priceFiles(tax.Plan{})
	case "profile":
		return callFiles()
	case "fleet ingest":
		if cmd.Flags().Lookup("listen").Changed {
			return anyFiles + listen.Connections
		}
	}
	return anyFiles
}

// priceFiles is how many files a plan of prices may have open at a time.
func priceFiles(p tax.Plan) uint64 {
	if p.FillsDispatcher() {
		return fillFiles
	}
	return chainFiles
}

// callFiles is [priceFiles] of one indirect call, as [tax.CallPrice] prices it.
func callFiles() uint64 { return priceFiles(tax.Plan{Pairs: []string{tax.Thunk}}) }

// checkFileLimit refuses what would run out of open files: what fails then is often a
// library's question whether the kernel has some feature, and its answer would be that it
// has not. With very few the runtime of Go ends in a stack trace.
func checkFileLimit(need uint64) error {
	limit := fileLimit()
	if limit >= need {
		return nil
	}
	return &feature.Missing{
		Feature: fmt.Sprintf("room for %d open files", need),
		Help:    fmt.Sprintf("the limit is %d: raise it with ulimit -n %d", limit, need),
	}
}

// fileLimit is the limit of open files of this process. The runtime of Go has raised it
// to the hard one.
func fileLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return ^uint64(0)
	}
	return limit.Cur
}

// explain turns what the kernel refuses to any program here into a [feature.Missing].
func explain(err error) error {
	const refused = "the kernel was built without it, or a seccomp filter refuses it"
	switch {
	case errors.Is(err, unix.EMFILE):
		return &feature.Missing{
			Feature: "room for more open files",
			Help:    fmt.Sprintf("the limit is %d: raise it with ulimit -n", fileLimit()), Err: err,
		}
	case (errors.Is(err, unix.ENOSYS) || errors.Is(err, ebpf.ErrNotSupported)) && !hasBPF():
		// A library that asks in vain for a feature says that the kernel is too old for it.
		return &feature.Missing{Feature: "the system call bpf", Help: refused, Err: unix.ENOSYS}
	case errors.Is(err, unix.ENOSYS) && feature.AsMissing(err) == nil:
		return &feature.Missing{Feature: "a system call", Help: refused, Err: err}
	}
	return err
}

// hasBPF says whether the kernel has the system call bpf. It knows no command of that
// number.
func hasBPF() bool {
	_, _, errno := unix.Syscall(unix.SYS_BPF, 1<<30, 0, 0)
	return errno != unix.ENOSYS
}
