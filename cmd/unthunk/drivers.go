package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/driver"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/ktext"
)

func newDrivers(s std) *cobra.Command {
	var o outputFlags
	cmd := &cobra.Command{
		Use:   "drivers [DIR|FILE…]",
		Short: "Who has done what of the plan: memory, bulks and indirect calls by driver",
		Long: `Read the modules of network drivers and say what each does for a redirected
packet: whether it has ndo_xdp_xmit, keeps memory mapped, maps and syncs for DMA,
gives frames back in bulk, and how many indirect branches its polls and its
ndo_xdp_xmit reach. Those with most left to do come first.

DIR is a kernel package unpacked in a folder, or a folder of modules; FILE a
module. Without either it is the running kernel's modules. It needs no root.`,
		Example: `  unthunk drivers
  unthunk drivers ~/linux-image-6.12 --save drivers.json`,
		RunE: func(cmd *cobra.Command, args []string) error { return runDrivers(cmd.Context(), s, o, args) },
	}
	o.add(cmd)
	return cmd
}

func runDrivers(ctx context.Context, s std, o outputFlags, args []string) error {
	if err := o.check(); err != nil {
		return err
	}
	work, err := driverFiles(args)
	if err != nil {
		return err
	}
	doc := record.New[record.DriverRow]("drivers", host.Identify(host.Options{}))
	doc.Settings = map[string]string{"version": buildVersion()}
	if err := inspect(ctx, doc, work); err != nil {
		return err
	}
	if len(doc.Rows) == 0 {
		return fmt.Errorf("none of %d modules runs XDP programs", len(work))
	}
	slices.SortFunc(doc.Rows, func(a, b record.DriverRow) int {
		return cmp.Or(
			cmp.Compare(len(b.Left()), len(a.Left())),
			cmp.Compare(b.Poll.Indirect+b.Transmit.Indirect, a.Poll.Indirect+a.Transmit.Indirect),
			strings.Compare(a.Name, b.Name), strings.Compare(a.Release, b.Release))
	})
	return o.publish(s, doc, func() error { return report.Drivers(s.out, textOptions(s.out), doc) })
}

// driverFile is a module to look at, and the types of its kernel. asked is set
// when the user named the file.
type driverFile struct {
	path  string
	types *btf.Spec
	asked bool
}

// driverFiles finds the modules of what the user named.
func driverFiles(args []string) (work []driverFile, err error) {
	if len(args) == 0 {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return nil, fmt.Errorf("find running kernel: %w", err)
		}
		dir := filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:]))
		if _, err := os.Stat(dir); err != nil {
			return nil, &feature.Missing{Feature: dir, Help: "name a kernel package's folder, or modules"}
		}
		types, _ := btf.LoadKernelSpec() // without them names are gone by
		return moduleFiles(dir, types)
	}
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, fmt.Errorf("find modules: %w", err)
		}
		if !info.IsDir() {
			work = append(work, driverFile{path: arg, asked: true})
			continue
		}
		dir, types := arg, (*btf.Spec)(nil)
		if tree, err := ktext.OpenTree(arg); err == nil && tree.Vmlinuz != "" {
			if types, err = kernel.FileTypes(tree.Vmlinuz); err != nil {
				return nil, err
			}
		}
		files, err := moduleFiles(dir, types)
		if err != nil {
			return nil, err
		}
		work = append(work, files...)
	}
	return work, nil
}

// moduleFiles are the modules under dir: those of network drivers when it is that
// of a whole kernel.
func moduleFiles(dir string, types *btf.Spec) (work []driverFile, err error) {
	var all, net []driverFile
	if to, err := filepath.EvalSymlinks(dir); err == nil { // WalkDir follows no link
		dir = to
	}
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if _, ok := ktext.ModuleName(path); ok {
			f := driverFile{path: path, types: types}
			all = append(all, f)
			if strings.Contains(path, "/drivers/net/") {
				net = append(net, f)
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("find modules: %w", err)
	case len(all) == 0:
		return nil, fmt.Errorf("no modules (*.ko, *.ko.xz, …) in %s", dir)
	case len(net) > 0:
		return net, nil
	}
	return all, nil
}

// inspect reads modules on all CPUs. One that cannot be read is a warning, unless
// the user named it.
func inspect(ctx context.Context, doc *record.Document[record.DriverRow], work []driverFile) error {
	var (
		mu    sync.Mutex
		group sync.WaitGroup
		errs  = make([]error, len(work))
		next  = make(chan int)
	)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := range next {
				row, err := inspectFile(work[i])
				errs[i] = err
				if err == nil {
					mu.Lock()
					doc.Rows = append(doc.Rows, *row)
					mu.Unlock()
				}
			}
		})
	}
	for i := range work {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	group.Wait()
	if ctx.Err() != nil {
		return errStopped
	}
	for i, err := range errs {
		switch {
		case err == nil, errors.Is(err, driver.ErrNotXDP) && !work[i].asked:
		case work[i].asked:
			return fmt.Errorf("%s: %w", work[i].path, err)
		default:
			doc.Warnings = append(doc.Warnings, record.Warning{Text: err.Error()})
		}
	}
	return nil
}

func inspectFile(f driverFile) (*record.DriverRow, error) {
	img, err := ktext.OpenFile(f.path)
	if err != nil {
		return nil, err
	}
	return driver.Inspect(img, f.types)
}
