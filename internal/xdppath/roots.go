package xdppath

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/arch/x86/x86asm"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/ksym"
)

// CoreRoots are the functions of the XDP core that the path goes through and
// that this kernel has: softirq and NAPI, the redirect helpers, enqueueing and
// flushing of devmap, cpumap and xskmap, giving frames back, page_pool, and
// the DMA API.
func CoreRoots(k *kernel.Kernel) (out []Root) {
	for _, f := range functions.With(functions.Root) {
		for _, n := range f.Names() {
			for _, s := range k.Functions(n.Name) {
				if s.Module == "" && !slices.ContainsFunc(out, func(r Root) bool { return r.Addr == s.Addr }) {
					out = append(out, Root{Function: s.Name, Addr: s.Addr, Stage: rootStage(f), Per: f.Per, Why: f.What})
				}
			}
		}
	}
	return out
}

// Bounds on lists of the live kernel, which may change while they are read.
const (
	maxDevices = 1 << 16
	maxNAPIs   = 1 << 12
)

// memory reads structs of the live kernel by the names of BTF.
type memory struct {
	kernel *kernel.Kernel
	types  *types
	err    error // the first
}

// at is the offset of a member.
func (m *memory) at(name, path string) uint64 {
	off, ok := m.types.offset(name, path)
	if !ok && m.err == nil {
		m.err = fmt.Errorf("find %s.%s: not in BTF", name, path)
	}
	return uint64(off)
}

// word reads a number of size bytes at addr.
func (m *memory) word(addr uint64, size int) uint64 {
	if m.err != nil {
		return 0
	}
	n, err := readWord(m.kernel.Text, addr, size)
	if err != nil {
		m.err = err
	}
	return n
}

// pointer reads a member that is a pointer.
func (m *memory) pointer(addr uint64, name, path string) uint64 {
	return m.word(addr+m.at(name, path), 8)
}

// list calls f for the objects of a list whose head is at addr until f
// returns false. It gives up after limit objects.
func (m *memory) list(head, member uint64, limit int, f func(obj uint64) bool) {
	next := m.word(head, 8)
	for range limit {
		if m.err != nil || next == 0 || next == head || !f(next-member) {
			return
		}
		next = m.word(next, 8)
	}
	if m.err == nil {
		m.err = fmt.Errorf("read list at %#x: more than %d long", head, limit)
	}
}

// function makes a root of a pointer to a function; nil when it is 0.
func (m *memory) function(addr uint64, r Root) []Root {
	if addr == 0 {
		return nil
	}
	r.Addr = addr
	if s, off, ok := m.kernel.Symbols.Find(addr); ok && off == 0 {
		r.Function = s.Name
	} else {
		r.Function = fmt.Sprintf("%#x", addr)
	}
	return []Root{r}
}

// LiveRoots reads the net_device of an interface in the calling thread's
// network namespace through BTF. The roots are ndo_xdp_xmit and ndo_bpf of its
// netdev_ops, the poll of its NAPI instances, its XDP program, and
// [CoreRoots]. A veth without XDP program and GRO has no NAPI.
//
// It returns a [feature.Missing] without BTF or a live kernel.
// Requires at least Linux 5.14.
func LiveRoots(k *kernel.Kernel, ifindex int) ([]Root, error) {
	if !k.Live {
		return nil, &feature.Missing{Feature: "the live kernel's memory", Help: "name the driver instead of a device"}
	}
	types, err := k.Types()
	if err != nil {
		return nil, err
	}
	m := &memory{kernel: k, types: newTypes(types)}
	dev, err := m.device(ifindex)
	if err != nil {
		return nil, fmt.Errorf("find interface %d in kernel memory: %w", ifindex, err)
	}
	roots, err := m.deviceRoots(dev)
	if err != nil {
		return nil, fmt.Errorf("read interface %d in kernel memory: %w", ifindex, err)
	}
	return merge(roots, CoreRoots(k)), nil
}

// merge appends the roots of b that a lacks.
func merge(a, b []Root) []Root {
	for _, r := range b {
		if !slices.ContainsFunc(a, func(x Root) bool { return x.Addr == r.Addr }) {
			a = append(a, r)
		}
	}
	return a
}

// device finds the net_device of an interface in the list of the calling
// thread's namespace.
func (m *memory) device(ifindex int) (uint64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	task, err := currentTask()
	if err != nil {
		return 0, err
	}
	ns := m.pointer(m.pointer(task, "task_struct", "nsproxy"), "nsproxy", "net_ns")
	var dev uint64
	index := m.at("net_device", "ifindex")
	m.list(ns+m.at("net", "dev_base_head"), m.at("net_device", "dev_list"), maxDevices, func(d uint64) bool {
		if m.word(d+index, 4) == uint64(uint32(ifindex)) {
			dev = d
		}
		return dev == 0
	})
	if m.err == nil && dev == 0 {
		return 0, syscall.ENODEV
	}
	return dev, m.err
}

func (m *memory) deviceRoots(dev uint64) ([]Root, error) {
	var b [16]byte // IFNAMSIZ
	if err := m.kernel.Text.ReadAddr(b[:], dev+m.at("net_device", "name")); err != nil {
		return nil, err
	}
	text, _, _ := bytes.Cut(b[:], []byte{0})
	name := string(text)
	objects := []object{{"net_device", dev}}
	if off, ok := m.types.offset("net_device", "dev.parent"); ok {
		if parent := m.word(dev+uint64(off), 8); parent != 0 {
			objects = append(objects, object{"device", parent})
		}
	}
	var polls []Root
	count := make(map[uint64]int)
	m.list(dev+m.at("net_device", "napi_list"), m.at("napi_struct", "dev_list"), maxNAPIs, func(n uint64) bool {
		objects = append(objects, object{"napi_struct", n})
		poll := m.pointer(n, "napi_struct", "poll")
		if count[poll]++; count[poll] == 1 {
			polls = append(polls, m.function(poll, Root{Stage: StageReceive, Per: PerPoll, Why: "napi_struct.poll of " + name})...)
		}
		return true
	})
	for i, p := range polls {
		if n := count[p.Addr]; n > 1 {
			polls[i].Why += fmt.Sprintf(" (%d instances)", n)
		}
	}
	roots := polls
	ops := m.pointer(dev, "net_device", "netdev_ops")
	if m.err == nil && ops == 0 {
		return nil, errors.New("it has no netdev_ops")
	}
	roots = append(roots, m.function(m.pointer(ops, "net_device_ops", "ndo_xdp_xmit"),
		Root{Stage: StageTransmit, Per: PerBulk, Why: "net_device_ops.ndo_xdp_xmit of " + name})...)
	roots = append(roots, m.function(m.pointer(ops, "net_device_ops", "ndo_bpf"),
		Root{Stage: StageReceive, Per: PerRare, Why: "net_device_ops.ndo_bpf of " + name})...)
	if m.err != nil {
		return nil, m.err
	}
	if prog := m.program(dev); prog != 0 {
		objects = append(objects, object{"bpf_prog", prog})
		addr := m.pointer(prog, "bpf_prog", "bpf_func")
		r := m.function(addr, Root{Stage: StageProgram, Per: PerPacket, Why: "the XDP program of " + name})
		// A program younger than the table has no symbol there, and its
		// end is not known.
		if _, _, ok := m.kernel.Symbols.Find(addr); ok {
			roots = append(roots, r...)
		}
	}
	if m.err != nil {
		return nil, m.err
	}
	for i := range roots {
		roots[i].objects = objects
	}
	return roots, nil
}

// program is the bpf_prog that a device's driver runs; 0 when there is none.
// Kernels before 5.9 have no xdp_state.
func (m *memory) program(dev uint64) uint64 {
	state, ok := m.types.offset("net_device", "xdp_state")
	size := m.types.size(m.types.structure("bpf_xdp_entity"))
	if !ok || size <= 0 || m.err != nil {
		return 0
	}
	const modeDriver = 1 // XDP_MODE_DRV of enum bpf_xdp_mode
	entity := dev + uint64(state) + modeDriver*uint64(size)
	if prog := m.pointer(entity, "bpf_xdp_entity", "prog"); prog != 0 {
		return prog
	}
	link := m.pointer(entity, "bpf_xdp_entity", "link")
	if link == 0 {
		return 0
	}
	return m.pointer(link, "bpf_xdp_link", "link.prog")
}

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
	w := &walker{kernel: k, types: newTypes(types), values: make(map[value]*value), returns: make(branch.Returns)}
	syms := w.moduleSymbols(module)
	var roots []Root
	roots = merge(roots, w.opsRoots(syms, module))
	roots = merge(roots, w.napiRoots(syms, module))
	named := func(stage Stage, per Per, why string, fits func(string) bool) {
		if slices.ContainsFunc(roots, func(r Root) bool { return r.Stage == stage && r.Per == per }) {
			return
		}
		for _, s := range syms {
			if s.Text() && fits(functions.Source(s.Name)) && !strings.Contains(s.Name, ".cold") {
				roots = merge(roots, []Root{{Function: s.Name, Addr: s.Addr, Stage: stage, Per: per, Why: why}})
			}
		}
	}
	named(StageTransmit, PerBulk, "named like an ndo_xdp_xmit of "+module, func(name string) bool {
		return strings.HasSuffix(name, "ndo_xdp_xmit") || strings.HasSuffix(name, "_xdp_xmit")
	})
	named(StageReceive, PerPoll, "named like a NAPI poll of "+module, func(name string) bool {
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
// of them, so they are found as neighbours of one that every module has. Of a
// driver built into the kernel they are those around the ones called like it.
func (w *walker) moduleSymbols(module string) []ksym.Symbol {
	module = strings.ReplaceAll(module, "-", "_")
	if own := w.kernel.Symbols.Module(module); module != "" && len(own) > 0 {
		return own[:min(len(own), maxModuleSymbols)]
	}
	prefix := cmp.Or(prefixes[module], module)
	var anchors []ksym.Symbol
	for _, name := range []string{"__this_module", "init_module", "cleanup_module"} {
		for _, s := range w.kernel.Symbols.All(name) {
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
		for _, suffix := range []string{"_netdev_ops", "_poll", "_xdp_xmit", "_ndo_xdp_xmit", "_xdp", "_open", "_netdev", "_init"} {
			anchors = append(anchors, w.kernel.Symbols.All(prefix+suffix)...)
		}
	}
	seen := make(map[uint64]bool)
	var out []ksym.Symbol
	for _, a := range anchors {
		builtin := a.Module == ""
		for _, down := range []bool{false, true} {
			addr, miss := a.Addr, 0
			for range maxModuleSymbols {
				s, _, ok := w.kernel.Symbols.Find(addr)
				if !ok || !belongs(s) {
					break
				}
				all := w.kernel.Symbols.At(s.Addr)
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

// opsRoots reads what may be a net_device_ops. It is one when its ndo_open and
// ndo_start_xmit, which no device does without, are functions.
func (w *walker) opsRoots(syms []ksym.Symbol, module string) []Root {
	size := w.types.size(w.types.structure("net_device_ops"))
	open, ok1 := w.types.offset("net_device_ops", "ndo_open")
	start, ok2 := w.types.offset("net_device_ops", "ndo_start_xmit")
	xmit, ok3 := w.types.offset("net_device_ops", "ndo_xdp_xmit")
	setup, ok4 := w.types.offset("net_device_ops", "ndo_bpf")
	if size <= 0 || !ok1 || !ok2 || !ok3 || !ok4 {
		return nil
	}
	function := func(addr uint64) (ksym.Symbol, bool) {
		p, err := w.pointer(addr)
		if err != nil || p == 0 {
			return ksym.Symbol{}, false
		}
		s, off, ok := w.kernel.Symbols.Find(p)
		return s, ok && off == 0 && s.Text()
	}
	var out []Root
	for _, o := range append(w.opsData(syms, uint64(size)), w.opsStores(syms)...) {
		if _, ok := function(o.addr + uint64(start)); !ok {
			continue
		}
		if _, ok := function(o.addr + uint64(open)); !ok {
			continue
		}
		if f, ok := function(o.addr + uint64(xmit)); ok {
			out = merge(out, []Root{{Function: f.Name, Addr: f.Addr, Stage: StageTransmit, Per: PerBulk,
				Why: "net_device_ops.ndo_xdp_xmit " + o.where + " of " + module}})
		}
		if f, ok := function(o.addr + uint64(setup)); ok {
			out = merge(out, []Root{{Function: f.Name, Addr: f.Addr, Stage: StageReceive, Per: PerRare,
				Why: "net_device_ops.ndo_bpf " + o.where + " of " + module}})
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
func (w *walker) opsData(syms []ksym.Symbol, size uint64) []ops {
	var out []ops
	for _, s := range syms {
		if !s.Text() && (s.Size == 0 || s.Size >= size) {
			out = append(out, ops{s.Addr, "in " + s.Name})
		}
	}
	return out
}

// opsStores are what functions store into net_device.netdev_ops, for kernels
// that have no symbols of data.
func (w *walker) opsStores(syms []ksym.Symbol) []ops {
	off, ok := w.types.offset("net_device", "netdev_ops")
	device := w.types.structure("net_device")
	if !ok || device == nil {
		return nil
	}
	stores := func(inst branch.Inst) (x86asm.Mem, bool) {
		m, ok := inst.Asm.Args[0].(x86asm.Mem)
		return m, ok && inst.Asm.Op == x86asm.MOV && inst.Asm.MemBytes == 8 && m.Disp == off
	}
	var out []ops
	w.eachFunction(syms, func(inst branch.Inst) bool { _, ok := stores(inst); return ok },
		func(name string, inst branch.Inst, st *state) {
			m, ok := stores(inst)
			if !ok {
				return
			}
			r, ok := register(m.Base)
			if !ok || st.regs[r] == nil || st.regs[r].elem != device {
				return
			}
			if v := w.read(st, inst.Asm.Args[1], inst); v != nil && v.op == opNumber && v.n != 0 {
				out = append(out, ops{v.n, "that " + name + " sets"})
			}
		})
	return out
}

// eachFunction follows the values of those functions that have an instruction
// which fits, and calls at for each of their instructions.
func (w *walker) eachFunction(syms []ksym.Symbol, fits func(branch.Inst) bool, at func(name string, inst branch.Inst, st *state)) {
	for _, s := range syms {
		if !s.Text() || s.Size == 0 || w.text > maxText {
			continue
		}
		code, err := w.bytes(s)
		if err != nil {
			continue
		}
		insts := slices.Collect(branch.Decode(code, s.Addr))
		if !slices.ContainsFunc(insts, fits) {
			continue
		}
		never := func(uint64) bool { return false }
		g := newGraph(insts, s.Addr, shapes{
			leaves: func(addr uint64) bool { return addr-s.Addr >= uint64(len(code)) },
			cold:   never, dead: never, outOfLine: never,
			key: func(uint64) (uint64, bool) { return 0, false },
		})
		w.flow(g, w.entry(s.Name, [6]*value{}), func(_, i int, st *state) { at(s.Name, insts[i], st) })
	}
}

// napiRoots finds what is given to netif_napi_add*, whose third argument is
// the poll.
func (w *walker) napiRoots(syms []ksym.Symbol, module string) []Root {
	var out []Root
	adds := func(inst branch.Inst) bool {
		return inst.Kind == branch.CallDirect && addsNAPI(w.symbol(inst.Target))
	}
	w.eachFunction(syms, adds, func(name string, inst branch.Inst, st *state) {
		poll := st.regs[regDX]
		if !adds(inst) || poll == nil || poll.op != opNumber {
			return
		}
		f, off, ok := w.kernel.Symbols.Find(poll.n)
		if !ok || off != 0 || !f.Text() {
			return
		}
		add := w.symbol(inst.Target)
		root := Root{Function: f.Name, Addr: f.Addr, Stage: StageReceive, Per: PerPoll,
			Why: fmt.Sprintf("given to %s by %s of %s", add, name, module)}
		if strings.Contains(add, "_tx") || StageOf(f.Name) == StageCompletion {
			root.Stage = StageCompletion
		}
		out = merge(out, []Root{root})
	})
	return out
}

func addsNAPI(name string) bool {
	return strings.HasPrefix(name, "netif_napi_add") || strings.HasPrefix(name, "netif_tx_napi_add") || strings.HasPrefix(name, "netif_threaded_napi_add")
}
