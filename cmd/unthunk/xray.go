package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/spf13/cobra"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/host"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report"
	"github.com/unthunk/unthunk/internal/xdppath"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
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
	live, err := f.open()
	if err != nil {
		return err
	}
	defer live.close()
	switch {
	case f.asm != "":
		return f.showCode(s, live)
	case f.fn != "":
		return f.showFunction(s, live)
	case f.all:
		return f.showTotals(s, live)
	}
	inv, of, err := f.walk(ctx, live)
	if err != nil {
		return err
	}
	fp := host.Identify(ctx)
	if !live.live { // nothing of this machine is in it
		fp = host.Fingerprint{Kernel: live.release}
	}
	doc := newDocument[record.SiteRow]("xray", fp)
	doc.Settings = map[string]string{"version": buildVersion(), "path": cmp.Or(f.dev, f.driver, "veth")}
	if !live.live {
		if n := dropParavirt(inv); n > 0 {
			doc.Warnings = append(doc.Warnings, record.Warning{Text: fmt.Sprintf("%d calls through pv_ops are left out: the kernel patches them to direct code when it boots", n)})
		}
	}
	doc.Rows, doc.Partial = siteRows(inv)
	doc.Code = thunkCode(live, doc.Rows, fp)
	return f.output.publish(s, doc, func() error {
		if f.dot {
			calls := make(map[string][]string)
			for _, fn := range inv.Functions {
				calls[fn.Name] = fn.Calls
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

// kernelCode is that of the running kernel or of one in a folder.
type kernelCode struct {
	table *ksym.Table
	text  ktext.Source
	types func() (*btf.Spec, error)
	live  bool
	// release is that of the kernel in a folder.
	release string
	close   func() error
}

func (l *kernelCode) name() string {
	if l.live {
		return "the running kernel"
	}
	return "Linux " + l.release
}

// open reads the kernel that the flags name.
func (f xrayFlags) open() (*kernelCode, error) {
	if f.root != "" {
		driver := f.driver
		if driver == "" && !f.all && f.fn == "" && f.asm == "" {
			driver = "veth"
		}
		return openRoot(f.root, driver)
	}
	table, err := ksym.Live()
	if err != nil {
		return nil, err
	}
	text, err := openMemory()
	if err != nil {
		return nil, err
	}
	types := func() (*btf.Spec, error) {
		types, err := btf.LoadKernelSpec()
		if err != nil {
			return nil, &feature.Missing{Feature: "BTF", Config: "CONFIG_DEBUG_INFO_BTF"}
		}
		return types, nil
	}
	return &kernelCode{table: table, text: text, types: types, live: true, close: text.Close}, nil
}

// memory is that of the running kernel.
type memory interface {
	ktext.Source
	Close() error
}

// openMemory reads the running kernel through BPF, or /proc/kcore where BPF cannot.
func openMemory() (memory, error) {
	live, err := ktext.OpenLive()
	if err == nil {
		return live, nil
	}
	if core, errCore := ktext.OpenKcore(); errCore == nil {
		return core, nil
	}
	return nil, err
}

// openRoot reads the kernel in a folder, and the module of a driver unless that is
// empty or built in.
func openRoot(dir, driver string) (*kernelCode, error) {
	tree, err := ktext.OpenTree(dir)
	if err != nil {
		return nil, err
	}
	if tree.Vmlinuz == "" {
		return nil, fmt.Errorf("find kernel in %s: it has modules and no vmlinuz", dir)
	}
	img, err := ktext.OpenFile(tree.Vmlinuz)
	if err != nil {
		return nil, err
	}
	if img.Table.Len() == 0 {
		return nil, fmt.Errorf("open %s: it has no symbols, and none could be recovered", tree.Vmlinuz)
	}
	if module, ok := tree.Modules[strings.ReplaceAll(driver, "-", "_")]; ok {
		if img, err = ktext.OpenModule(module, img); err != nil {
			return nil, err
		}
	}
	types := func() (*btf.Spec, error) {
		if img.BTF == nil {
			return nil, nil // calls stay without names
		}
		types, err := btf.LoadSpecFromReader(bytes.NewReader(img.BTF))
		if err != nil {
			return nil, fmt.Errorf("read types of %s: %w", tree.Vmlinuz, err)
		}
		return types, nil
	}
	return &kernelCode{table: img.Table, text: img, types: types, release: tree.Release, close: func() error { return nil }}, nil
}

// follow is the first bytes at addr.
func (l *kernelCode) follow(addr uint64) []byte {
	b := make([]byte, 32)
	if l.text.ReadAddr(b, addr) != nil {
		return nil
	}
	return b
}

// maxFunction is the most that is read of one function, in bytes.
const maxFunction = 1 << 20

// function reads the code of the function called name.
func (l *kernelCode) function(name string) (ksym.Symbol, []byte, error) {
	s, ok := l.table.Lookup(name)
	if !ok || !s.Text() {
		return s, nil, fmt.Errorf("this kernel has no function %s", name)
	}
	code := make([]byte, min(cmp.Or(s.Size, 64), maxFunction))
	return s, code, l.text.ReadAddr(code, s.Addr)
}

func (f xrayFlags) showCode(s std, live *kernelCode) error {
	symbol, code, err := live.function(f.asm)
	if err != nil {
		return err
	}
	return report.Asm(s.out, textOptions(s.out), symbol.Name, branch.Annotate(code, symbol.Addr, live.table.Starts, nil))
}

func (f xrayFlags) showFunction(s std, live *kernelCode) error {
	symbol, code, err := live.function(f.fn)
	if err != nil {
		return err
	}
	return report.Branches(s.out, textOptions(s.out), symbol.Name, branch.Branches(code, symbol.Addr, live.table.Starts, nil, live.follow))
}

// showTotals counts the branches of the kernel's text; modules and BPF programs
// are left out.
func (f xrayFlags) showTotals(s std, live *kernelCode) error {
	start, ok := live.table.Lookup("_stext")
	end, ok2 := live.table.Lookup("_etext")
	if !ok || !ok2 || end.Addr <= start.Addr || end.Addr-start.Addr > 1<<30 {
		return errors.New("count branches: no bounds of the kernel's text")
	}
	text := make([]byte, end.Addr-start.Addr)
	if err := live.text.ReadAddr(text, start.Addr); err != nil {
		return err
	}
	var functions []ksym.Symbol
	for addr := start.Addr; addr < end.Addr; {
		symbol, off, ok := live.table.Find(addr)
		next := symbol.Addr + symbol.Size
		if !ok || off != 0 || next <= addr || next > end.Addr {
			addr++
			continue
		}
		functions = append(functions, symbol)
		addr = next
	}
	counts := live.count(functions, text, start.Addr)
	return report.Totals(s.out, textOptions(s.out), len(functions), len(text), counts, live.live)
}

// count counts the branches of functions on all CPUs. text begins at addr.
func (l *kernelCode) count(functions []ksym.Symbol, text []byte, addr uint64) map[branch.Class]int {
	var (
		mu     sync.Mutex
		group  sync.WaitGroup
		counts = make(map[branch.Class]int)
	)
	for part := range slices.Chunk(functions, max(1, len(functions)/(4*runtime.GOMAXPROCS(0)))) {
		group.Go(func() {
			own := make(map[branch.Class]int)
			for _, f := range part {
				code := text[f.Addr-addr:][:f.Size]
				for b := range branch.EachBranch(code, f.Addr, l.table.Starts, nil, l.follow) {
					own[b.Class]++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for class, n := range own {
				counts[class] += n
			}
		})
	}
	group.Wait()
	return counts
}

// walk reads the path of the device, or of a veth of our own.
func (f xrayFlags) walk(ctx context.Context, live *kernelCode) (inv *xdppath.Inventory, of string, err error) {
	types, err := live.types()
	if err != nil {
		return nil, "", err
	}
	code := xdppath.Code{Text: live.text, Table: live.table, Types: types, Live: live.live}
	if f.root != "" || f.driver != "" {
		driver := cmp.Or(f.driver, "veth")
		roots, err := xdppath.DriverRoots(code, driver)
		if err != nil {
			return nil, "", err
		}
		inv, err := walkFrom(ctx, code, roots)
		return inv, fmt.Sprintf("The path of %s in %s", driver, live.name()) + rootsOf(inv, driver), err
	}
	if f.dev == "" {
		err = ownVeth(func(ifindex int) (err error) {
			inv, err = walk(ctx, code, ifindex)
			return err
		})
		return inv, "The path of a veth with an XDP program" + rootsOf(inv, ownDevice), err
	}
	dev, err := net.InterfaceByName(f.dev)
	if err != nil {
		return nil, "", fmt.Errorf("find interface %s: %w", f.dev, err)
	}
	inv, err = walk(ctx, code, dev.Index)
	return inv, fmt.Sprintf("The path of %s (%s)", f.dev, host.Driver(f.dev)) + rootsOf(inv, f.dev), err
}

func walk(ctx context.Context, code xdppath.Code, ifindex int) (*xdppath.Inventory, error) {
	roots, err := xdppath.LiveRoots(code, ifindex)
	if err != nil {
		return nil, err
	}
	return walkFrom(ctx, code, roots)
}

func walkFrom(ctx context.Context, code xdppath.Code, roots []xdppath.Root) (*xdppath.Inventory, error) {
	// The page pool and the DMA API are on the path of those that call them,
	// which they do directly.
	roots = slices.DeleteFunc(roots, func(r xdppath.Root) bool { return r.Stage == xdppath.StageDMA || r.Stage == xdppath.StagePagePool })
	return xdppath.Walk(ctx, code, roots)
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
	inv.Sites = slices.DeleteFunc(inv.Sites, func(s xdppath.Site) bool { return strings.HasPrefix(s.Calls, "pv_ops") })
	return before - len(inv.Sites)
}

// siteRows are the rows of an inventory, and the functions that are in it in part.
func siteRows(inv *xdppath.Inventory) ([]record.SiteRow, []record.PartialFunction) {
	rows := []record.SiteRow{}
	seen := make(map[string]int)
	for _, site := range inv.Sites {
		row := record.SiteRow{
			Function: site.Function, Offset: site.Offset, Kind: string(site.Kind), Jump: site.Jump, Thunk: site.Thunk,
			Stage: string(site.Stage), Sure: string(site.Sure), Targets: site.Targets,
			Per: string(site.Per), Always: site.Always, Via: site.Via,
		}
		what := "unknown"
		if site.Calls != "" {
			row.Calls = &site.Calls
			steps := strings.Split(site.Calls, " → ")
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
