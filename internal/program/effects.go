package program

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/ksym"
)

// Effects are what a program may do in a run that stays when the run, the program and its maps are gone: the functions
// of the kernel that do it, by name, sorted.
type Effects struct {
	// Stays are functions that change what a network namespace has, or of which nothing is known.
	Stays []string
	// Beyond are functions that change what no network namespace holds, or that have no name.
	Beyond []string
}

// Effects tells what the program may do, its parts and what they reach by tail calls, also in code that does not run. What a live
// program calls takes CAP_SYSLOG, and kernel.kptr_restrict below 2: a [feature.Missing] says so where the kernel hides it.
func (o *Opened) Effects(ctx context.Context) (Effects, error) {
	called := map[string]bool{}
	var err error
	if o.Live {
		err = o.callsOfLive(ctx, called)
	} else {
		o.callsOfObject(called)
	}
	var e Effects
	for _, name := range slices.Sorted(maps.Keys(called)) {
		switch {
		case beyond(name):
			e.Beyond = append(e.Beyond, name)
		case !harmless(name):
			e.Stays = append(e.Stays, name)
		}
	}
	return e, err
}

// nameless is a call of which only a number or an address is known.
const nameless = "a function of the kernel that has no name here"

// genSyncookie is the helper that notes in a listening socket that a SYN cookie was sent (tcp_synq_overflow).
const genSyncookie = "bpf_tcp_gen_syncookie"

// sockmapUpdate is what a program with a map of sockets may do: it may put sockets of the namespace into the map, which has them
// behave otherwise (may_update_sockmap in kernel/bpf/verifier.c).
const sockmapUpdate = "bpf_map_update_elem of sockets"

// helpers are those of XDP that change what stays, as Linux 6.18 has them (bpf_base_func_proto, xdp_func_proto), but for
// bpf_trace_printk and bpf_trace_vprintk, which write into the kernel's trace.
var helpers = map[asm.BuiltinFunc]string{
	asm.FnTcpGenSyncookie: genSyncookie, asm.FnSendSignal: "bpf_send_signal", asm.FnSendSignalThread: "bpf_send_signal_thread",
}

// callsOfObject notes what programs of an object call.
func (o *Opened) callsOfObject(called map[string]bool) {
	var n namer
	for _, p := range o.Spec.Programs {
		for i := range p.Instructions {
			switch ins := &p.Instructions[i]; {
			// The library gives a kfunc this constant until it knows its number. One that has a number has any name.
			case ins.IsKfuncCall() && ins.Constant == -1 && ins.Reference() != "":
				called[ins.Reference()] = true
			case ins.IsKfuncCall():
				called[cmp.Or(n.byNumber(ins), nameless)] = true
			case ins.IsBuiltinCall():
				if name := helpers[asm.BuiltinFunc(ins.Constant)]; name != "" {
					called[name] = true
				}
			}
		}
	}
	for _, m := range o.Spec.Maps {
		noteSockets(m.Type, called)
	}
}

func noteSockets(kind ebpf.MapType, called map[string]bool) {
	if kind == ebpf.SockMap || kind == ebpf.SockHash {
		called[sockmapUpdate] = true
	}
}

// callsOfLive notes what a live program calls, with what it reaches.
func (o *Opened) callsOfLive(ctx context.Context, called map[string]bool) error {
	reached, err := o.reach(ctx, o.Name)
	if err != nil {
		return err
	}
	defer reached.Close()
	for _, m := range reached.maps {
		noteSockets(m.m.Type(), called)
	}
	var n namer
	if err := n.note(o.Program, called); err != nil {
		return err
	}
	ids := slices.Collect(maps.Keys(reached.programs))
	for _, part := range o.Parts {
		ids = append(ids, part.ID)
	}
	for _, id := range ids {
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just ended
		}
		if err != nil {
			return fmt.Errorf("open program %d: %w", id, err)
		}
		if err := errors.Join(n.note(p, called), p.Close()); err != nil {
			return err
		}
	}
	return nil
}

// namer names what programs call. What it needs is read when it is first needed.
type namer struct {
	readSymbols, readTypes bool
	symbols                *ksym.Table
	unreadable             error     // why there are no symbols
	types                  *btf.Spec // nil where the kernel has none
	base                   uint64    // of __bpf_call_base
}

// note notes what a loaded program calls.
func (n *namer) note(p *ebpf.Program, called map[string]bool) error {
	info, err := kernel.ProgramInfo(p)
	if err != nil {
		return fmt.Errorf("read about a program: %w", err)
	}
	insns, err := kernel.Instructions(info)
	if err != nil {
		return fmt.Errorf("read the instructions of program %s: %w", info.Name, err)
	}
	for i := range insns {
		ins := &insns[i]
		// Of all calls a tail call alone keeps its number (bpf_insn_prepare_dump in kernel/bpf/syscall.c).
		if !ins.IsKfuncCall() && (!ins.IsBuiltinCall() || asm.BuiltinFunc(ins.Constant) == asm.FnTailCall) {
			continue
		}
		name, err := n.name(ins)
		if err != nil {
			return fmt.Errorf("name what program %s calls: %w", info.Name, err)
		}
		if ins.IsKfuncCall() || name == nameless || slices.Contains(slices.Collect(maps.Values(helpers)), name) {
			called[name] = true
		}
	}
	return nil
}

// name is what an instruction of a loaded program calls: an address, counted from __bpf_call_base, or the number of a
// kfunc in the kernel's BTF where the JIT reaches addresses that are further away (fixup_kfunc_call in
// kernel/bpf/verifier.c). It is 0 where the kernel hides addresses.
func (n *namer) name(ins *asm.Instruction) (string, error) {
	if ins.Constant == 0 {
		return "", &feature.Missing{
			Feature: "access to the addresses of the functions that a live program calls",
			Help:    "it takes CAP_SYSLOG, and kernel.kptr_restrict below 2 (sysctl kernel.kptr_restrict=1)",
		}
	}
	if !n.readSymbols {
		n.readSymbols = true
		if n.symbols, n.unreadable = ksym.Live(); n.unreadable == nil {
			base, _ := n.symbols.Lookup("__bpf_call_base")
			n.base = base.Addr
		}
	}
	if n.unreadable != nil {
		return "", n.unreadable // an address that is taken for a number has a wrong name
	}
	if n.base != 0 {
		if name, ok := n.symbols.Starts(n.base + uint64(int64(int32(ins.Constant)))); ok {
			return name, nil
		}
	}
	if name := n.byNumber(ins); name != "" && ins.IsKfuncCall() {
		return name, nil
	}
	return nameless, nil
}

// byNumber is what the kernel's BTF calls the function that a kfunc call has the number of; empty for one of a module, and where
// there is none.
func (n *namer) byNumber(ins *asm.Instruction) string {
	if ins.Offset != 0 || ins.Constant <= 0 || ins.Constant > math.MaxInt32 {
		return ""
	}
	if !n.readTypes {
		n.readTypes = true
		if types, err := btf.LoadKernelSpec(); err == nil {
			n.types = types
		}
	}
	if n.types == nil {
		return ""
	}
	t, err := n.types.TypeByID(btf.TypeID(ins.Constant))
	if err != nil {
		return ""
	}
	f, ok := t.(*btf.Func)
	if !ok {
		return ""
	}
	return f.Name
}

// beyond says whether a function that XDP programs may call reaches what no network namespace holds: processes, or all of the
// machine. One that has no name may.
func beyond(name string) bool {
	return slices.Contains([]string{nameless, "bpf_send_signal", "bpf_send_signal_thread", "bpf_send_signal_task", "crash_kexec"}, name) ||
		strings.HasPrefix(name, "bpf_task_work_")
}

// harmless says whether a kfunc that XDP programs may call changes nothing but the packet, the run, the program and its
// maps. One that is not listed may. Listed are those that Linux 6.18 registers for XDP and for programs of all types
// (kernel/bpf/helpers.c and others, net/core/filter.c, net/xfrm/xfrm_state_bpf.c), but for these: a lookup of a connection
// gives write access to its mark (_nf_conntrack_btf_struct_access), an allocation evicts another one from a table that is
// full (early_drop), and a lookup of a flow makes it live longer (flow_offload_refresh).
func harmless(name string) bool {
	return slices.Contains(harmlessNames, name) ||
		slices.ContainsFunc(harmlessPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

var harmlessPrefixes = []string{
	"bpf_arena_", "bpf_copy_from_user_", "bpf_cpumask_", "bpf_crypto_", "bpf_dynptr_", "bpf_iter_", "bpf_list_", "bpf_local_irq_",
	"bpf_obj_", "bpf_percpu_obj_", "bpf_preempt_", "bpf_probe_read_", "bpf_rbtree_", "bpf_rcu_read_", "bpf_refcount_", "bpf_res_spin_",
	"bpf_stream_", "bpf_timer_", "bpf_wq_", "bpf_xdp_metadata_rx_",
}

var harmlessNames = []string{
	"__bpf_trap", "bpf_cast_to_kern_ctx", "bpf_cgroup_acquire", "bpf_cgroup_ancestor", "bpf_cgroup_from_id", "bpf_cgroup_read_xattr",
	"bpf_cgroup_release", "bpf_ct_release", "bpf_ct_set_status", "bpf_ct_set_timeout", "bpf_get_kmem_cache", "bpf_map_sum_elem_count",
	"bpf_rdonly_cast", "bpf_strcasecmp", "bpf_strchr", "bpf_strchrnul", "bpf_strcmp", "bpf_strcspn", "bpf_strlen", "bpf_strncasecmp",
	"bpf_strnchr", "bpf_strnlen", "bpf_strnstr", "bpf_strrchr", "bpf_strspn", "bpf_strstr", "bpf_task_acquire", "bpf_task_from_pid",
	"bpf_task_from_vpid", "bpf_task_get_cgroup1", "bpf_task_release", "bpf_task_under_cgroup", "bpf_throw", "bpf_xdp_get_xfrm_state",
	"bpf_xdp_pull_data", "bpf_xdp_xfrm_state_release",
}
