package xdppath

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/codeflow"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/ksym"
)

// DriverRoots finds the roots of a driver that has no device to read: in its
// data the net_device_ops that have an ndo_xdp_xmit, in its code what it gives
// to netif_napi_add. Where neither can be read it goes by the names that
// drivers use, and Why says so. module is the name of a module, or the prefix
// of the functions of a driver that is built in ("veth").
//
// It returns an error when it finds no ndo_xdp_xmit and no poll.
func DriverRoots(k *kernel.Kernel, module string) ([]Root, error) {
	types, err := k.Types()
	if err != nil {
		return nil, err
	}
	d := &driverCode{kernel: k, types: codeflow.NewTypes(types, hints), name: module, symbols: moduleSymbols(k, module)}
	d.values = codeflow.NewValues(k, d.types)
	var roots []Root
	roots = merge(roots, d.opsRoots())
	roots = merge(roots, d.napiRoots())
	named := func(stage functions.Stage, per functions.Per, why string, fits func(string) bool) {
		if slices.ContainsFunc(roots, func(r Root) bool { return r.Stage == stage && r.Per == per }) {
			return
		}
		for _, s := range d.symbols {
			if s.Text() && fits(functions.Source(s.Name)) && !strings.Contains(s.Name, ".cold") {
				roots = merge(roots, []Root{{Function: s.Name, Addr: s.Addr, Stage: stage, Per: per, Why: why}})
			}
		}
	}
	named(functions.StageTransmit, functions.PerBulk, "named like an ndo_xdp_xmit of "+module, func(name string) bool {
		return strings.HasSuffix(name, "ndo_xdp_xmit") || strings.HasSuffix(name, "_xdp_xmit")
	})
	named(functions.StageReceive, functions.PerPoll, "named like a NAPI poll of "+module, func(name string) bool {
		return strings.HasSuffix(name, "_poll") || strings.HasSuffix(name, "_napi_poll")
	})
	if len(roots) == 0 {
		return nil, fmt.Errorf("find roots of driver %s: no ndo_xdp_xmit and no NAPI poll in its symbols", module)
	}
	return merge(roots, CoreRoots(k)), nil
}

// maxModuleSymbols bounds the symbols of one module.
const maxModuleSymbols = 1 << 16

// prefixes are those of the functions of drivers that do not call them by
// their own name.
var prefixes = map[string]string{"virtio_net": "virtnet", "xen_netfront": "xennet", "hv_netvsc": "netvsc"}

// moduleSymbols are the symbols of a module by address. The table has no list
// of them, so they are found as neighbors of one that every module has. Of a
// driver built into the kernel they are those around the ones called like it.
func moduleSymbols(k *kernel.Kernel, module string) []ksym.Symbol {
	module = strings.ReplaceAll(module, "-", "_")
	if own := k.Symbols.Module(module); module != "" && len(own) > 0 {
		return own[:min(len(own), maxModuleSymbols)]
	}
	prefix := cmp.Or(prefixes[module], module)
	var anchors []ksym.Symbol
	for _, name := range []string{"__this_module", "init_module", "cleanup_module"} {
		for _, s := range k.Symbols.All(name) {
			if s.Module == module {
				anchors = append(anchors, s)
			}
		}
	}
	belongs := func(s ksym.Symbol) bool { return s.Module == module }
	if len(anchors) == 0 {
		// Built in, or a file whose symbols have no module.
		belongs = func(s ksym.Symbol) bool {
			return s.Module == "" || s.Module == module
		}
		for _, suffix := range []string{
			"_netdev_ops", "_poll", "_xdp_xmit", "_ndo_xdp_xmit", "_xdp", "_open", "_netdev", "_init",
		} {
			anchors = append(anchors, k.Symbols.All(prefix+suffix)...)
		}
	}
	seen := make(map[uint64]bool)
	var out []ksym.Symbol
	for _, a := range anchors {
		builtin := a.Module == ""
		for _, down := range []bool{false, true} {
			addr, miss := a.Addr, 0
			for range maxModuleSymbols {
				s, _, ok := k.Symbols.Find(addr)
				if !ok || !belongs(s) {
					break
				}
				all := k.Symbols.At(s.Addr)
				if builtin {
					// Names that do not begin like the driver's are not
					// its own; a few may lie between.
					all = slices.DeleteFunc(all, func(s ksym.Symbol) bool { return !strings.HasPrefix(s.Name, prefix+"_") })
					if miss++; len(all) > 0 {
						miss = 0
					}
					if miss > 64 {
						break
					}
				}
				if !seen[s.Addr] {
					seen[s.Addr] = true
					out = append(out, all...)
				}
				if down {
					addr = s.Addr - 1
				} else {
					if s.Size == 0 {
						break
					}
					addr = s.Addr + s.Size
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b ksym.Symbol) int {
		return cmp.Or(cmp.Compare(a.Addr, b.Addr), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// driverCode is a driver whose code and data are read.
type driverCode struct {
	kernel  *kernel.Kernel
	types   *codeflow.Types
	values  *codeflow.Values
	name    string
	symbols []ksym.Symbol // by address
}

// symbol is the name of the function that begins at addr, or "".
func (d *driverCode) symbol(addr uint64) string {
	name, _ := d.kernel.Symbols.Starts(addr)
	return name
}

// opsRoots reads what may be a net_device_ops. It is one when its ndo_open and
// ndo_start_xmit, which no device does without, are functions.
func (d *driverCode) opsRoots() []Root {
	size := d.types.Size(d.types.Struct("net_device_ops"))
	open, ok1 := d.types.Offset("net_device_ops", "ndo_open")
	start, ok2 := d.types.Offset("net_device_ops", "ndo_start_xmit")
	xmit, ok3 := d.types.Offset("net_device_ops", "ndo_xdp_xmit")
	setup, ok4 := d.types.Offset("net_device_ops", "ndo_bpf")
	if size <= 0 || !ok1 || !ok2 || !ok3 || !ok4 {
		return nil
	}
	function := func(addr uint64) (ksym.Symbol, bool) {
		p, err := codeflow.ReadWord(d.kernel.Text, addr, 8)
		if err != nil || p == 0 {
			return ksym.Symbol{}, false
		}
		s, off, ok := d.kernel.Symbols.Find(p)
		return s, ok && off == 0 && s.Text()
	}
	var out []Root
	for _, o := range append(d.opsData(uint64(size)), d.opsStores()...) {
		if _, ok := function(o.addr + uint64(start)); !ok {
			continue
		}
		if _, ok := function(o.addr + uint64(open)); !ok {
			continue
		}
		if f, ok := function(o.addr + uint64(xmit)); ok {
			out = merge(out, []Root{{Function: f.Name, Addr: f.Addr, Stage: functions.StageTransmit,
				Per: functions.PerBulk,
				Why: "net_device_ops.ndo_xdp_xmit " + o.where + " of " + d.name}})
		}
		if f, ok := function(o.addr + uint64(setup)); ok {
			out = merge(out, []Root{{Function: f.Name, Addr: f.Addr, Stage: functions.StageReceive,
				Per: functions.PerRare,
				Why: "net_device_ops.ndo_bpf " + o.where + " of " + d.name}})
		}
	}
	return out
}

// ops may be a net_device_ops.
type ops struct {
	addr  uint64
	where string
}

// opsData are the symbols of data that are long enough.
func (d *driverCode) opsData(size uint64) []ops {
	var out []ops
	for _, s := range d.symbols {
		if !s.Text() && (s.Size == 0 || s.Size >= size) {
			out = append(out, ops{s.Addr, "in " + s.Name})
		}
	}
	return out
}

// opsStores are what functions store into net_device.netdev_ops, for kernels
// that have no symbols of data.
func (d *driverCode) opsStores() []ops {
	off, ok := d.types.Offset("net_device", "netdev_ops")
	device := d.types.Struct("net_device")
	if !ok || device == nil {
		return nil
	}
	var out []ops
	d.eachFunction(func(inst branch.Inst) bool { _, _, ok := d.values.StoredAt(nil, inst, off); return ok },
		func(name string, inst branch.Inst, s *codeflow.State) {
			base, value, ok := d.values.StoredAt(s, inst, off)
			if !ok || base.PointsTo() != device {
				return
			}
			if addr, ok := value.Address(); ok && addr != 0 {
				out = append(out, ops{addr, "that " + name + " sets"})
			}
		})
	return out
}

// eachFunction follows the values of those functions that have an instruction
// which fits, and calls at for each of their instructions.
func (d *driverCode) eachFunction(
	fits func(branch.Inst) bool, at func(name string, inst branch.Inst, s *codeflow.State),
) {
	read := 0
	for _, f := range d.symbols {
		if !f.Text() || f.Size == 0 || read > maxText {
			continue
		}
		code, err := d.kernel.Code(f)
		if err != nil {
			continue
		}
		read += len(code)
		insts := instructions(d.kernel, code, f.Addr)
		if !slices.ContainsFunc(insts, fits) {
			continue
		}
		g := codeflow.NewGraph(insts, f.Addr, codeflow.Knowledge{
			Leaves: func(addr uint64) bool { return addr-f.Addr >= uint64(len(code)) },
		})
		d.values.Flow(g, d.values.Entry(f.Name, f.Module, codeflow.Arguments{}), func(_ int, inst branch.Inst, s *codeflow.State) {
			at(f.Name, inst, s)
		})
	}
}

// napiRoots finds what is given to netif_napi_add*, whose third argument is
// the poll.
func (d *driverCode) napiRoots() []Root {
	var out []Root
	adds := func(inst branch.Inst) bool {
		return inst.Kind == branch.CallDirect && addsNAPI(d.symbol(inst.Target))
	}
	d.eachFunction(adds, func(name string, inst branch.Inst, s *codeflow.State) {
		poll, ok := d.values.Argument(s, 2).Address()
		if !adds(inst) || !ok {
			return
		}
		f, off, ok := d.kernel.Symbols.Find(poll)
		if !ok || off != 0 || !f.Text() {
			return
		}
		add := d.symbol(inst.Target)
		root := Root{Function: f.Name, Addr: f.Addr, Stage: functions.StageReceive, Per: functions.PerPoll,
			Why: fmt.Sprintf("given to %s by %s of %s", add, name, d.name)}
		if strings.Contains(add, "_tx") || StageOf(f.Name) == functions.StageCompletion {
			root.Stage = functions.StageCompletion
		}
		out = merge(out, []Root{root})
	})
	return out
}

func addsNAPI(name string) bool {
	return strings.HasPrefix(name, "netif_napi_add") || strings.HasPrefix(name, "netif_tx_napi_add") ||
		strings.HasPrefix(name, "netif_threaded_napi_add")
}
