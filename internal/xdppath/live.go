package xdppath

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"syscall"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/codeflow"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// Bounds on lists of the live kernel, which may change while they are read.
const (
	maxDevices = 1 << 16
	maxNAPIs   = 1 << 12
)

// memory reads structs of the live kernel by the names of BTF.
type memory struct {
	kernel *kernel.Kernel
	types  *codeflow.Types
	err    error // the first
}

// at is the offset of a member.
func (m *memory) at(name, path string) uint64 {
	off, ok := m.types.Offset(name, path)
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
	n, err := codeflow.ReadWord(m.kernel.Text, addr, size)
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
	m := &memory{kernel: k, types: codeflow.NewTypes(types, hints)}
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

// NAPIStates returns where the state words of an interface's NAPI instances are (napi_struct.state), in the calling
// thread's network namespace. The interface must stay while they are in use.
func NAPIStates(k *kernel.Kernel, ifindex int) (words []uint64, err error) {
	m, all, err := napis(k, ifindex)
	if err != nil {
		return nil, err
	}
	state := m.at("napi_struct", "state")
	for _, n := range all {
		words = append(words, n+state)
	}
	return words, m.err
}

// NAPIs returns where the NAPI instances of an interface are (struct napi_struct), in the calling
// thread's network namespace. They go with the interface, and with its queues.
func NAPIs(k *kernel.Kernel, ifindex int) ([]uint64, error) {
	_, all, err := napis(k, ifindex)
	return all, err
}

func napis(k *kernel.Kernel, ifindex int) (m *memory, all []uint64, err error) {
	if !k.Live {
		return nil, nil, &feature.Missing{Feature: "the live kernel's memory"}
	}
	types, err := k.Types()
	if err != nil {
		return nil, nil, err
	}
	m = &memory{kernel: k, types: codeflow.NewTypes(types, hints)}
	dev, err := m.device(ifindex)
	if err != nil {
		return nil, nil, fmt.Errorf("find interface %d in kernel memory: %w", ifindex, err)
	}
	m.list(dev+m.at("net_device", "napi_list"), m.at("napi_struct", "dev_list"), maxNAPIs, func(n uint64) bool {
		all = append(all, n)
		return true
	})
	if m.err == nil && len(all) == 0 {
		m.err = errors.New("it has no NAPI")
	}
	if m.err != nil {
		return nil, nil, fmt.Errorf("read interface %d in kernel memory: %w", ifindex, m.err)
	}
	return m, all, nil
}

func (m *memory) deviceRoots(dev uint64) ([]Root, error) {
	var b [16]byte // IFNAMSIZ
	if err := m.kernel.Text.ReadAddr(b[:], dev+m.at("net_device", "name")); err != nil {
		return nil, err
	}
	text, _, _ := bytes.Cut(b[:], []byte{0})
	name := string(text)
	objects := []codeflow.Object{{Struct: "net_device", Addr: dev}}
	if off, ok := m.types.Offset("net_device", "dev.parent"); ok {
		if parent := m.word(dev+uint64(off), 8); parent != 0 {
			objects = append(objects, codeflow.Object{Struct: "device", Addr: parent})
		}
	}
	var polls []Root
	count := make(map[uint64]int)
	m.list(dev+m.at("net_device", "napi_list"), m.at("napi_struct", "dev_list"), maxNAPIs, func(n uint64) bool {
		objects = append(objects, codeflow.Object{Struct: "napi_struct", Addr: n})
		poll := m.pointer(n, "napi_struct", "poll")
		if count[poll]++; count[poll] == 1 {
			root := Root{Stage: functions.StageReceive, Per: functions.PerPoll, Why: "napi_struct.poll of " + name}
			polls = append(polls, m.function(poll, root)...)
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
		Root{Stage: functions.StageTransmit, Per: functions.PerBulk, Why: "net_device_ops.ndo_xdp_xmit of " + name})...)
	roots = append(roots, m.function(m.pointer(ops, "net_device_ops", "ndo_bpf"),
		Root{Stage: functions.StageReceive, Per: functions.PerRare, Why: "net_device_ops.ndo_bpf of " + name})...)
	if m.err != nil {
		return nil, m.err
	}
	if prog := m.program(dev); prog != 0 {
		objects = append(objects, codeflow.Object{Struct: "bpf_prog", Addr: prog})
		addr := m.pointer(prog, "bpf_prog", "bpf_func")
		r := m.function(addr, Root{Stage: functions.StageProgram, Per: functions.PerPacket,
			Why: "the XDP program of " + name})
		// A program younger than the table has no symbol of its own: its name and its
		// end are not known.
		if _, off, ok := m.kernel.Symbols.Find(addr); ok && off == 0 {
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
	state, ok := m.types.Offset("net_device", "xdp_state")
	size := m.types.Size(m.types.Struct("bpf_xdp_entity"))
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
