package main

import (
	"cmp"
	"context"
	"errors"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/program"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/xray"
)

// xrayFlags are what the user typed.
type xrayFlags struct {
	dev, fn, asm   string
	root, driver   string
	counts         string
	row            string
	dot, rare, all bool
	prog           string
	target         targetFlags
	output         outputFlags
}

func newXray(s std) *cobra.Command {
	var f xrayFlags
	cmd := &cobra.Command{
		Use:   "xray",
		Short: "List the indirect branches on the redirect path of this kernel",
		Long: `List the indirect branches on the redirect path of this kernel: where each stands
in memory now, what it calls, how often it runs. The path begins at a device: the
poll of its NAPI and its ndo_xdp_xmit, as they are in the live net_device.
Without --dev that is a veth with an XDP program, in a namespace of its own.

--func lists the calls and returns of one function, --asm shows its code, with what each
instruction of a thunk is there for: __x86_indirect_thunk_rax is a function too.
--all counts the branches of the whole kernel. --prog puts a program of yours on that veth:
what it calls is on the path too.

The path is what code may do. --counts takes a record of lab of the same kernel, and
says beside each branch how often a packet really executed it.`,
		Example: `  unthunk xray
  unthunk xray --asm __x86_indirect_thunk_rax
  unthunk xray --dev eth0 --rare --save before.json
  unthunk xray --root DIR --counts lab.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runXray(cmd.Context(), s, cmd, f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.dev, "dev", "", "the path of `DEV`")
	fl.StringVar(&f.root, "root", "", "not the running kernel: that of a package unpacked in `DIR`")
	fl.StringVar(&f.driver, "driver", "", "the path of driver `NAME`: with --root, veth without it")
	fl.StringVar(&f.prog, "prog", "",
		"the path of a veth with a program of yours: `TARGET` is an object file, a pinned program, id:N or dev:DEV; nothing is sent")
	f.target.add(fl, false)
	fl.StringVar(&f.counts, "counts", "", "show how often each branch was executed, from `FILE` of lab --save")
	fl.StringVar(&f.row, "row", "", "with --counts, those of the row `NAME` (default: that of 16 frames a batch)")
	fl.StringVar(&f.fn, "func", "", "every call, return and jump out of `FUNCTION`")
	fl.StringVar(&f.asm, "asm", "", "the code of `FUNCTION`, annotated")
	fl.BoolVar(&f.all, "all", false, "count the branches of the whole kernel")
	fl.BoolVar(&f.rare, "rare", false, "also show branches of errors and slow paths")
	fl.BoolVar(&f.dot, "dot", false, "print the call graph, for Graphviz, and nothing else")
	f.output.add(cmd)
	return cmd
}

func runXray(ctx context.Context, s std, cmd *cobra.Command, f xrayFlags) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	if f.fn != "" || f.asm != "" || f.all {
		return f.showCode(ctx, s)
	}
	p, err := f.readPath(ctx, s)
	if err != nil {
		return err
	}
	if f.counts != "" { // now that the kernel is not in memory any more: each may take all that a verb has
		counts, err := reading(ctx, f.loadCounts)
		if err != nil {
			return err
		}
		_, err = reading(ctx, func() (_ any, err error) { return nil, xray.AddCounts(p.doc, p.driver, counts, f.row) })
		switch {
		case errors.Is(err, errInterrupted):
			return err
		case err != nil:
			return usagef("--counts %s: %v", f.counts, err)
		}
		p.doc.Settings["counts"] = f.counts
	}
	return f.output.publishRead(ctx, s, p.doc, func(s std) error {
		if f.dot {
			return report.Dot(s.out, p.graph)
		}
		return report.Xray(s.out, textOptions(s.out), p.doc, p.title, f.rare)
	})
}

// xrayPath is what xray shows of a path: none of it is of the kernel's code and tables.
type xrayPath struct {
	doc           *record.Document[record.SiteRow]
	driver, title string
	graph         *record.CallGraph // with --dot
}

// readPath opens the kernel, reads the path in it, and closes it.
func (f *xrayFlags) readPath(ctx context.Context, s std) (*xrayPath, error) {
	k, err := f.open(ctx)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	path, name, err := f.read(ctx, s, k)
	if err != nil {
		return nil, err
	}
	p := &xrayPath{doc: record.New[record.SiteRow]("xray", path.Host()), driver: path.Driver, title: path.Title}
	p.doc.Settings = map[string]string{"version": buildVersion(), "path": cmp.Or(f.dev, f.driver, name, xray.DefaultDriver)}
	path.Record(p.doc)
	if f.dot {
		p.graph = path.Graph(p.doc.Rows)
	}
	return p, nil
}

// read reads the path that the flags name. name is that of a program of the user's.
func (f *xrayFlags) read(ctx context.Context, s std, k *kernel.Kernel) (path *xray.Path, name string, err error) {
	if f.prog == "" {
		path, err = readKernel(ctx, k, func() (*xray.Path, error) { return xray.Read(ctx, k, f.dev, f.driver) })
		return path, "", err
	}
	opened, err := f.target.open(ctx, s, f.prog)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	path, err = xray.ReadProgram(ctx, k, opened.Program, opened.Name)
	return path, opened.Name, err
}

// loadCounts reads the record of lab that the flags name.
func (f xrayFlags) loadCounts() (*record.Lab, error) {
	saved, err := record.Load(f.counts)
	if err != nil {
		return nil, err
	}
	if saved.Lab() == nil {
		return nil, usagef("--counts %s is a record of %s: give one of lab", f.counts, saved.Kind)
	}
	return saved.Lab(), nil
}

// showCode writes what is asked for of a function, or of the whole kernel.
func (f xrayFlags) showCode(ctx context.Context, s std) error {
	k, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer k.Close()
	if f.all {
		totals, err := readKernel(ctx, k, func() (*record.Code, error) { return xray.Totals(ctx, k) })
		if err != nil {
			return err
		}
		return f.output.publishRead(ctx, s, totals, func(s std) error { return report.Totals(s.out, textOptions(s.out), totals) })
	}
	doc, err := readKernel(ctx, k, func() (*record.Code, error) { return f.code(k) })
	if err != nil {
		return err
	}
	return f.output.publishRead(ctx, s, doc, func(s std) error {
		if f.asm != "" {
			return report.Asm(s.out, textOptions(s.out), doc)
		}
		return report.Branches(s.out, textOptions(s.out), doc)
	})
}

// code is the code of a function, or the branches out of it.
func (f *xrayFlags) code(k *kernel.Kernel) (*record.Code, error) {
	name := cmp.Or(f.asm, f.fn)
	fn, err := xray.ReadFunction(k, name)
	switch {
	case err != nil:
		return nil, nearFunction(err, k, name)
	case f.asm != "":
		return fn.Listing(), nil
	}
	return fn.BranchList(), nil
}

// open opens the kernel that the flags name, and puts a driver on it when the path is
// read.
func (f xrayFlags) open(ctx context.Context) (*kernel.Kernel, error) {
	if f.root == "" {
		return kernel.OpenLive()
	}
	driver := f.driver
	if driver == "" && !f.all && f.fn == "" && f.asm == "" {
		driver = xray.DefaultDriver
	}
	// Most of the memory is the packed kernel, 12 MB, and the unpacked one, 58 MB, in
	// which the collector has nothing to look at: a collection takes 1 ms, and doing
	// it early keeps the packed one from lasting to the end.
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	return reading(ctx, func() (*kernel.Kernel, error) { return kernel.OpenTree(ctx, f.root, driver) })
}

// readKernel returns what read does, of a kernel in files as soon as ctx ends: others may have
// made them so that reading takes long. What is read of the running kernel holds programs
// and devices, which it takes away when ctx ends.
func readKernel[T any](ctx context.Context, k *kernel.Kernel, read func() (T, error)) (T, error) {
	if k.Live {
		return read()
	}
	return reading(ctx, read)
}

// check refuses flags that do not go together.
func (f xrayFlags) check(cmd *cobra.Command) error {
	var views []string
	for _, name := range []string{"func", "asm", "all", "dot"} {
		if cmd.Flags().Changed(name) {
			views = append(views, "--"+name)
		}
	}
	if len(views) > 1 {
		return usagef("%s are two outputs: choose one", strings.Join(views[:2], " and "))
	}
	if f.dev != "" && (f.root != "" || f.driver != "") {
		return usagef("--dev is of the running kernel: it does not go with --root and --driver")
	}
	if f.prog != "" {
		for _, name := range []string{"dev", "root", "driver", "func", "asm", "all", "counts"} {
			if cmd.Flags().Changed(name) {
				return usagef("--%s does not go with --prog, which is read on a veth of its own", name)
			}
		}
		if _, err := program.Parse(f.prog); err != nil {
			return usageError{err}
		}
	}
	for _, name := range targetFlagNames {
		if f.prog == "" && cmd.Flags().Changed(name) {
			return usagef("--%s goes with --prog", name)
		}
	}
	if f.counts == "" && f.row != "" {
		return usagef("--row goes with --counts")
	}
	if f.counts != "" {
		if err := checkFiles([]string{f.counts}, outFile{"save", f.output.save}); err != nil {
			return err
		}
	}
	if len(views) == 1 {
		if views[0] != "--dot" && f.counts != "" {
			return usagef("--counts does not go with %s", views[0])
		}
		if views[0] != "--dot" && f.dev != "" {
			return usagef("--dev does not go with %s, which is of the whole kernel", views[0])
		}
		if f.output.save != "" {
			return usagef("--save does not go with %s: no verb reads what it shows", views[0])
		}
		if f.output.json && views[0] == "--dot" {
			return usagef("--json and --dot are two outputs: choose one")
		}
	}
	return f.output.check()
}
