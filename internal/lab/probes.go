package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/bpf/count"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/xdppath"
	"github.com/unthunk/unthunk/ktext"
)

// probes are the kprobes on the path of a packet, with their counters.
type probes struct {
	*count.Counters
	kernel *kernel.Kernel
	// sites are those of probes by number; walked are the functions, by address, that
	// were searched for sites.
	sites  map[int]site
	walked map[uint64]bool
	// stamp is how many instructions the indirect branch of a time stamp takes.
	stamp int
	// parts of the chain are told apart; nil when all count together.
	parts map[work]string
	// uncounted are sites that cannot be probed.
	uncounted []string
}

// site is an indirect branch with the instructions that it takes, read before a kprobe
// stands there.
type site struct {
	xdppath.Site
	executed int
}

// work is what an interface does: its NAPI poll, or the transmission of frames that were
// redirected to it.
type work struct {
	ifindex   int
	transmits bool
}

// sender sends a slot and returns how many packets that were.
type sender func() (packets uint64, err error)

// placeProbes puts a probe at each indirect branch of the path of an interface, and at the
// functions that are counted. What the branches enter when a slot is sent is on the path
// too: the functions of the DMA setup are found so.
func placeProbes(
	ctx context.Context, lab *netlab.Namespace, ifindex int, parts map[work]string, send sender,
) (p *probes, err error) {
	p = &probes{sites: make(map[int]site), walked: make(map[uint64]bool), parts: parts}
	if p.kernel, err = kernel.OpenLive(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.Counters, err = count.New(); err != nil {
		return p, err
	}
	for _, name := range functions.Names(functions.Counted) {
		if s, ok := p.kernel.Symbols.Lookup(name); ok && s.Text() {
			if err := p.Add(count.Place{Function: name}); err != nil {
				return p, err
			}
		}
	}
	if p.stamp, err = stamp(ctx, p.kernel); err != nil {
		return p, err
	}
	var roots []xdppath.Root
	if err := lab.Do(func() (err error) { roots, err = xdppath.LiveRoots(p.kernel, ifindex); return err }); err != nil {
		return p, err
	}
	roots = append(roots, generator(p.kernel)...)
	for len(roots) > 0 && len(p.walked) < maxWalked {
		inv, err := xdppath.Walk(ctx, p.kernel, roots)
		if err != nil {
			return p, err
		}
		p.add(inv)
		if roots, err = p.entered(send); err != nil {
			return p, err
		}
	}
	slices.Sort(p.uncounted)
	return p, nil
}

// maxWalked bounds the functions of a path.
const maxWalked = 1 << 14

// stamp is how many instructions the indirect branch takes that each bpf_ktime_get_ns
// (kernel/bpf/helpers.c) goes through to the clock source; 0 where the kernel reads that
// directly, as Linux 7.2 does. No kprobe can stand there.
func stamp(ctx context.Context, k *kernel.Kernel) (int, error) {
	const function = "ktime_get_mono_fast_ns"
	s, ok := k.Symbols.Lookup(function)
	if !ok || !s.Text() {
		return 0, nil
	}
	inv, err := xdppath.Walk(ctx, k, []xdppath.Root{{Function: s.Name, Addr: s.Addr,
		Stage: functions.StageReceive, Per: functions.PerBulk}})
	if err != nil {
		return 0, err
	}
	for _, site := range inv.Sites {
		if site.Function == function && site.Always {
			return executed(k.Text, site), nil
		}
	}
	return 0, nil
}

// generator are the functions that make frames.
func generator(k *kernel.Kernel) (roots []xdppath.Root) {
	for _, name := range functions.Names(functions.Generator) {
		for _, s := range k.Functions(name) {
			roots = append(roots, xdppath.Root{
				Function: s.Name, Addr: s.Addr, Stage: functions.StageReceive, Per: functions.PerBulk,
				Why: "it generates frames",
			})
		}
	}
	return roots
}

// add counts at the indirect branches of functions that were not walked before.
func (p *probes) add(inv *xdppath.Inventory) {
	for _, f := range inv.Functions {
		p.walked[f.Addr] = true
	}
	for _, s := range inv.Sites {
		// Code of BPF programs and of the dispatcher cannot be probed.
		if strings.HasPrefix(s.Function, "bpf_dispatcher_xdp") || strings.HasPrefix(s.Function, "bpf_prog_") ||
			strings.HasPrefix(s.Function, "0x") {
			continue
		}
		n := executed(p.kernel.Text, s)
		at, err := probeAt(p.kernel, s)
		if err == nil && slices.Contains(p.Places, at) {
			continue
		}
		if err == nil {
			err = p.Add(at)
		}
		if err != nil {
			p.uncounted = append(p.uncounted, at.String())
			continue
		}
		p.sites[len(p.Places)-1] = site{s, n}
	}
}

// entered are functions that are entered when a slot is sent, and were not walked.
func (p *probes) entered(send sender) (roots []xdppath.Root, err error) {
	hits, _, err := p.during(send)
	if err != nil {
		return nil, err
	}
	for h := range hits {
		f, off, ok := p.kernel.Symbols.Find(h.target)
		site, isSite := p.sites[h.probe]
		if !isSite || !ok || off != 0 || !f.Text() || p.walked[f.Addr] {
			continue
		}
		p.walked[f.Addr] = true
		roots = append(roots, xdppath.Root{Function: f.Name, Addr: f.Addr, Stage: site.Stage, Per: site.Per, Why: "a packet enters it"})
	}
	// Two boots must place the same counters in the same order.
	slices.SortFunc(roots, func(a, b xdppath.Root) int { return cmp.Compare(a.Addr, b.Addr) })
	return roots, nil
}

// Close takes the counters away.
func (p *probes) Close() error {
	var err error
	if p.Counters != nil {
		err = p.Counters.Close()
	}
	return errors.Join(err, p.kernel.Close())
}

// probeAt is where to count an indirect branch. That is its own place except for a call with
// a prefix, "cs call __x86_indirect_thunk_r10", as compilers write those of r8 to r15: a
// kprobe there would return one byte early and crash the kernel, as int3_emulate_call in
// arch/x86/include/asm/text-patching.h takes each call for 5 bytes long (seen with Linux
// 6.1 and 6.12). The instruction before is as good when it always runs on into the call.
func probeAt(k *kernel.Kernel, s xdppath.Site) (count.Place, error) {
	at := count.Place{Function: s.Function, Offset: s.Offset, Register: register(k.Text, s)}
	call, err := k.Read(s.Addr, 2)
	if err != nil {
		return at, fmt.Errorf("read %v: %w", at, err)
	}
	const csPrefix, callRel32 = 0x2e, 0xe8
	if call[0] != csPrefix || call[1] != callRel32 {
		return at, nil
	}
	f, _, ok := k.Symbols.Find(s.Addr)
	if !ok || f.Size == 0 || f.Size > kernel.MaxFunction {
		return at, fmt.Errorf("count at %v: a kprobe cannot stand on a call with a prefix", at)
	}
	code, err := k.Code(f)
	if err != nil {
		return at, fmt.Errorf("read %s: %w", f.Name, err)
	}
	var before branch.Inst
	for inst := range branch.Decode(code, f.Addr) {
		switch inst.Kind {
		case branch.JumpDirect, branch.JumpCond:
			if inst.Target == s.Addr {
				return at, fmt.Errorf("count at %v: a kprobe cannot stand on a call with a prefix, and jumps lead to this one", at)
			}
		}
		if inst.Addr+uint64(inst.Len) == s.Addr {
			before = inst
		}
	}
	if before.Len == 0 || before.Kind != branch.Other {
		return at, fmt.Errorf("count at %v: a kprobe cannot stand on a call with a prefix, nor before this one", at)
	}
	at.Offset -= uint64(before.Len)
	if r, ok := before.Asm.Args[0].(x86asm.Reg); ok && strings.HasPrefix(strings.ToLower(r.String()), at.Register) {
		at.Register = "" // it is loaded only here
	}
	return at, nil
}

// register is the one that holds a site's target: of its thunk, or of the branch that
// the kernel made of it.
func register(text ktext.Source, s xdppath.Site) string {
	if i := strings.LastIndexByte(s.Thunk, '_'); i >= 0 {
		return s.Thunk[i+1:]
	}
	var code [8]byte
	if text.ReadAddr(code[:], s.Addr) != nil {
		return ""
	}
	for step := range branch.Scan(code[:], s.Addr) {
		return step.Register()
	}
	return ""
}
