package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/cilium/ebpf/link"
	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/xdppath"
	"github.com/unthunk/unthunk/ksym"
)

// xrayFlags are what the user typed.
type xrayFlags struct {
	dev, fn, asm   string
	root, driver   string
	dot, rare, all bool
	output         outputFlags
}

func newXray(s std) *cobra.Command {
	var f xrayFlags
	cmd := &cobra.Command{
		Use:   "xray",
		Short: "List the indirect branches on the redirect path of this kernel",
		Long: `List the indirect branches on the redirect path of this kernel: where each stands
in memory now, what it calls, how often it runs. The path begins at a device: the
poll of its NAPI and its ndo_xdp_xmit, as they stand in the live net_device.
Without --dev that is a veth with an XDP program, in a namespace of its own.

--func lists every branch of one function, --asm shows its code, with what each
instruction of a thunk is there for: __x86_indirect_thunk_rax is a function too.
--all counts the branches of the whole kernel.`,
		Example: `  unthunk xray
  unthunk xray --asm __x86_indirect_thunk_rax
  unthunk xray --dev eth0 --rare --save before.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runXray(cmd.Context(), s, cmd, f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.dev, "dev", "", "the path of `DEV`")
	fl.StringVar(&f.root, "root", "", "not the running kernel: that of a package unpacked in `DIR`")
	fl.StringVar(&f.driver, "driver", "", "the path of driver `NAME`: with --root, veth without it")
	fl.StringVar(&f.fn, "func", "", "every call, jump and return of `FUNCTION`")
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
	k, err := f.open()
	if err != nil {
		return err
	}
	defer k.Close()
	switch {
	case f.asm != "":
		return f.showCode(s, k)
	case f.fn != "":
		return f.showFunction(s, k)
	case f.all:
		return f.showTotals(ctx, s, k)
	}
	inv, of, err := f.walk(ctx, k)
	if err != nil {
		return err
	}
	fp := host.Identify()
	if !k.Live { // nothing of this machine is in it
		fp = host.Fingerprint{Kernel: k.Release}
	}
	doc := record.New[record.SiteRow]("xray", fp)
	doc.Settings = map[string]string{"version": buildVersion(), "path": cmp.Or(f.dev, f.driver, "veth")}
	if !k.Live {
		if n := dropParavirt(inv); n > 0 {
			doc.Warnings = append(doc.Warnings, record.Warning{Text: fmt.Sprintf("%d calls through pv_ops are left out: the kernel patches them to direct code when it boots", n)})
		}
	}
	doc.Rows, doc.Partial = siteRows(inv)
	doc.Code = thunkCode(k, doc.Rows, fp)
	return f.output.publish(s, doc, func() error {
		if f.dot {
			calls := make(map[string][]string)
			for _, fn := range inv.Functions {
				calls[fn.Name] = fn.Callees
			}
			return report.Dot(s.out, calls, doc.Rows)
		}
		return report.Xray(s.out, textOptions(s.out), doc, of, f.rare)
	})
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
	for _, name := range []string{"dev", "func", "asm", "root", "driver"} {
		if fl := cmd.Flags().Lookup(name); fl.Changed && fl.Value.String() == "" {
			return usagef("--%s is empty", name)
		}
	}
	if f.dev != "" && (f.root != "" || f.driver != "") {
		return usagef("--dev is of the running kernel: it does not go with --root and --driver")
	}
	if len(views) == 1 {
		if views[0] != "--dot" && f.dev != "" {
			return usagef("--dev does not go with %s, which is of the whole kernel", views[0])
		}
		if f.output.json || f.output.save != "" {
			return usagef("--json and --save do not go with %s", views[0])
		}
	}
	return f.output.check()
}

// open opens the kernel that the flags name.
func (f xrayFlags) open() (*kernel.Kernel, error) {
	if f.root == "" {
		return kernel.OpenLive()
	}
	driver := f.driver
	if driver == "" && !f.all && f.fn == "" && f.asm == "" {
		driver = "veth"
	}
	// Most of the memory is the packed kernel, 12 MB, and the unpacked one, 58 MB, in
	// which the collector has nothing to look at: a collection takes 1 ms, and doing
	// it early keeps the packed one from lasting to the end.
	debug.SetGCPercent(10)
	return kernel.OpenTree(f.root, driver)
}

// function reads the code of the function called name.
func function(k *kernel.Kernel, name string) (ksym.Symbol, []byte, error) {
	s, ok := k.Function(name)
	if !ok {
		return s, nil, fmt.Errorf("this kernel has no function %s", name)
	}
	code, err := k.Code(s)
	return s, code, err
}

func (f xrayFlags) showCode(s std, k *kernel.Kernel) error {
	symbol, code, err := function(k, f.asm)
	if err != nil {
		return err
	}
	return report.Asm(s.out, textOptions(s.out), symbol.Name, branch.Annotate(code, symbol.Addr, k.Symbols.Starts, nil))
}

func (f xrayFlags) showFunction(s std, k *kernel.Kernel) error {
	symbol, code, err := function(k, f.fn)
	if err != nil {
		return err
	}
	return report.Branches(s.out, textOptions(s.out), symbol.Name, branch.Branches(code, symbol.Addr, k.Symbols.Starts, nil, k.Follow))
}

// showTotals counts the branches of the kernel's text; modules and BPF programs
// are left out.
func (f xrayFlags) showTotals(ctx context.Context, s std, k *kernel.Kernel) error {
	totals, err := k.Totals(ctx)
	if err != nil {
		return err
	}
	return report.Totals(s.out, textOptions(s.out), totals, k.Live)
}

// walk reads the path of the device, or of a veth of our own.
func (f xrayFlags) walk(ctx context.Context, k *kernel.Kernel) (inv *xdppath.Inventory, of string, err error) {
	if f.root != "" || f.driver != "" {
		driver := cmp.Or(f.driver, "veth")
		roots, err := xdppath.DriverRoots(k, driver)
		if err != nil {
			return nil, "", err
		}
		inv, err := walkFrom(ctx, k, roots)
		return inv, fmt.Sprintf("The path of %s in %s", driver, k) + rootsOf(inv, driver), err
	}
	if f.dev == "" {
		err = ownVeth(func(ifindex int) (err error) {
			inv, err = walk(ctx, k, ifindex)
			return err
		})
		return inv, "The path of a veth with an XDP program" + rootsOf(inv, ownDevice), err
	}
	dev, err := net.InterfaceByName(f.dev)
	if err != nil {
		return nil, "", fmt.Errorf("find interface %s: %w", f.dev, err)
	}
	inv, err = walk(ctx, k, dev.Index)
	return inv, fmt.Sprintf("The path of %s (%s)", f.dev, host.Driver(f.dev)) + rootsOf(inv, f.dev), err
}

func walk(ctx context.Context, k *kernel.Kernel, ifindex int) (*xdppath.Inventory, error) {
	roots, err := xdppath.LiveRoots(k, ifindex)
	if err != nil {
		return nil, err
	}
	return walkFrom(ctx, k, roots)
}

func walkFrom(ctx context.Context, k *kernel.Kernel, roots []xdppath.Root) (*xdppath.Inventory, error) {
	// The page pool and the DMA API are on the path of those that call them,
	// which they do directly.
	roots = slices.DeleteFunc(roots, func(r xdppath.Root) bool { return r.Stage == xdppath.StageDMA || r.Stage == xdppath.StagePagePool })
	return xdppath.Walk(ctx, k, roots)
}

// ownVeth runs f in a namespace with a veth that has an XDP program.
func ownVeth(f func(ifindex int) error) error {
	if os.Geteuid() != 0 {
		return feature.Root(nil)
	}
	lab, err := netlab.New(0)
	if err != nil {
		return err
	}
	defer lab.Close()
	a, _, err := lab.VethPair(ownDevice, "xray1")
	if err != nil {
		return err
	}
	p, err := price.Load("nothing")
	if err != nil {
		return err
	}
	defer p.Close()
	if err := lab.Attach(p, a, link.XDPDriverMode); err != nil {
		return err
	}
	return lab.Do(func() error { return f(a) })
}

// ownDevice is the veth of ownVeth.
const ownDevice = "xray0"

// rootsOf names the functions of the device that the path begins at.
func rootsOf(inv *xdppath.Inventory, dev string) string {
	if inv == nil {
		return ""
	}
	var names []string
	for _, r := range inv.Roots {
		what, ok := strings.CutSuffix(r.Why, " of "+dev)
		if !ok {
			continue
		}
		if by, given := strings.CutPrefix(what, "given to "); given {
			what = "poll, given to " + by
		}
		names = append(names, fmt.Sprintf("%s is its %s", r.Function, what))
	}
	if len(names) == 0 {
		return "."
	}
	return ": " + strings.Join(names, ", ") + "."
}

// dropParavirt takes calls through pv_ops off an inventory of code that was not
// patched yet, and says how many they were.
func dropParavirt(inv *xdppath.Inventory) int {
	before := len(inv.Sites)
	inv.Sites = slices.DeleteFunc(inv.Sites, func(s xdppath.Site) bool { return strings.HasPrefix(s.Pointer, "pv_ops") })
	return before - len(inv.Sites)
}

// siteRows are the rows of an inventory, and the functions that are in it in part.
func siteRows(inv *xdppath.Inventory) ([]record.SiteRow, []record.PartialFunction) {
	rows := []record.SiteRow{}
	seen := make(map[string]int)
	for _, site := range inv.Sites {
		row := record.SiteRow{
			Function: site.Function, Offset: site.Offset, Kind: string(site.Kind), Jump: site.Jump, Thunk: site.Thunk,
			Stage: string(site.Stage), Sure: string(site.Confidence), Targets: site.Targets,
			Per: string(site.Per), Always: site.Always, Via: site.Via,
		}
		what := "unknown"
		if site.Pointer != "" {
			row.Calls = &site.Pointer
			steps := strings.Split(site.Pointer, " → ")
			what = steps[len(steps)-1]
		}
		row.Name = site.Function + "/" + what
		seen[row.Name]++
		if n := seen[row.Name]; n > 1 {
			row.Name += fmt.Sprintf("#%d", n)
		}
		rows = append(rows, row)
	}
	var partial []record.PartialFunction
	for _, fn := range inv.Functions {
		if fn.Partial != "" {
			partial = append(partial, record.PartialFunction{Name: fn.Name, Why: fn.Partial})
		}
	}
	return rows, partial
}
