package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/arch/x86/x86asm"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/bpf/count"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/netlab"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/xdppath"
	"github.com/unthunk/unthunk/ksym"
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
	// known are those of them that need not be walked again, as all that they reach was.
	known map[uint64]bool
	// before is the code as it is without probes.
	before *unprobed
	// beyond is set while functions beyond the redirect path are searched.
	beyond bool
	// limited are functions that the path calls, that were not searched and that a packet beyond it goes through, by
	// address: see [functions.Limit].
	limited map[uint64]xdppath.Function
	// types are those of the kernel, nil where nobody has read them yet.
	types *btf.Spec
	// stamp is how many instructions the indirect branch of a time stamp takes.
	stamp int
	// parts of the chain are told apart; nil when all count together.
	parts map[work]string
	// calls are functions of system calls whose work is a part.
	calls []string
	// uncounted are sites that cannot be probed.
	uncounted []string
}

// site is an indirect branch with the instructions that it takes, read before a kprobe
// stands there.
type site struct {
	xdppath.Site
	executed int
	// beyond says that it was found beyond the redirect path.
	beyond bool
}

// work is what an interface does: its NAPI poll, or the transmission of frames that were
// redirected to it; or what is done in system calls.
type work struct {
	ifindex   int
	transmits bool
	called    bool
}

// sender sends a slot and returns how many packets that were.
type sender func() (packets uint64, err error)

// newProbes are probes of which none is placed yet. parts may be nil.
func newProbes(parts map[work]string) *probes {
	return &probes{
		sites: make(map[int]site), walked: make(map[uint64]bool), known: make(map[uint64]bool),
		limited: make(map[uint64]xdppath.Function), parts: parts,
	}
}

// read opens the kernel, when that was not done. Its symbols are read once: that is 600 million instructions.
func (p *probes) read() (err error) {
	if p.kernel != nil {
		return nil
	}
	if p.kernel, err = kernel.OpenLive(); err != nil {
		return err
	}
	if p.types != nil {
		p.kernel.UseTypes(p.types)
	}
	p.before = &unprobed{Source: p.kernel.Text, breakpoint: []byte{0xcc}, was: make(map[uint64][]byte)}
	if p.kernel.Arch == "arm64" {
		p.before.breakpoint = []byte{0x80, 0x00, 0x20, 0xd4} // brk #4
	}
	p.kernel.Text = p.before
	return nil
}

// unprobed is code as it is without kprobes, each of which puts a breakpoint over its first byte, on arm64 its only
// four: a walk that is made when some functions have probes would follow what a breakpoint left of an instruction.
type unprobed struct {
	ktext.Source
	breakpoint []byte
	was        map[uint64][]byte // as long as the breakpoint
}

func (u *unprobed) ReadAddr(b []byte, addr uint64) error {
	if err := u.Source.ReadAddr(b, addr); err != nil {
		return err
	}
	for i, c := range b {
		if c != u.breakpoint[0] || !bytes.HasPrefix(b[i:], u.breakpoint) {
			continue
		}
		if was, ok := u.was[addr+uint64(i)]; ok {
			copy(b[i:], was)
		}
	}
	return nil
}

// put counts at a place, which is at addr.
func (p *probes) put(place count.Place, addr uint64) error {
	code := make([]byte, len(p.before.breakpoint))
	readable := p.kernel.Text.ReadAddr(code, addr) == nil
	if err := p.Add(place); err != nil {
		return err
	}
	if readable {
		p.before.was[addr] = code
	}
	return nil
}

// open reads the kernel and counts the functions that are counted on every path, when that was not done.
func (p *probes) open(ctx context.Context) (err error) {
	if p.Counters != nil {
		return nil
	}
	if err := p.read(); err != nil {
		return err
	}
	// Probes run too seldom here to be worth it that the kernel makes jumps of them, for which it decodes each function.
	if err := os.WriteFile("/proc/sys/debug/kprobes-optimization", []byte("0"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep probes as they are: %w", err)
	}
	// Each probe that goes waits for RCU, some 40 ms that QEMU goes through tick by tick.
	if err := os.WriteFile("/sys/kernel/rcu_expedited", []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("hurry RCU: %w", err)
	}
	types, err := p.kernel.Types()
	if err != nil {
		return err
	}
	if p.Counters, err = count.New(types, p.calls...); err != nil {
		return err
	}
	for _, f := range functions.With(functions.Counted) {
		if p.parts == nil && (f.Stage == functions.StageDMA || f.Stage == "" || f.DMA != "") { // IOMMUs are of no stage
			continue // a veth does no DMA
		}
		for _, n := range f.Names() {
			if s, ok := p.kernel.Symbols.Lookup(n.Name); ok && s.Text() {
				if entry := entryOf(p.kernel, s); p.put(entry, s.Addr+entry.Offset) == nil {
					continue
				}
				if err := p.put(count.Place{Function: s.Name}, s.Addr); err != nil { // where the kernel refuses that one
					return err
				}
			}
		}
	}
	p.stamp, err = stamp(ctx, p.kernel)
	return err
}

// follow puts a probe at each indirect branch of the path of an interface that has none
// yet. What the branches enter when a slot is sent is on the path too: the functions of
// the DMA setup are found so. With beyond it follows the path into the network stack and the
// scheduler.
func (p *probes) follow(ctx context.Context, lab *netlab.Namespace, ifindex int, beyond bool, send sender) error {
	if err := p.open(ctx); err != nil {
		return err
	}
	var all []xdppath.Root
	if err := lab.Do(func() (err error) { all, err = xdppath.LiveRoots(p.kernel, ifindex); return err }); err != nil {
		return err
	}
	all = append(all, p.named(functions.Generator)...)
	if beyond {
		all = append(all, p.named(functions.Sends)...)
	}
	var roots []xdppath.Root
	for _, r := range all {
		if !p.walked[r.Addr] {
			roots = append(roots, r)
		}
	}
	p.beyond = beyond
	for len(p.walked) < maxWalked {
		if beyond {
			roots = append(roots, p.behind()...)
		}
		if len(roots) > 0 {
			inv, err := xdppath.WalkOn(ctx, p.kernel, roots, p.known)
			if err != nil {
				return err
			}
			p.add(inv, roots)
		}
		var err error
		if roots, err = p.entered(send); err != nil {
			return err
		}
		if len(roots) == 0 && (!beyond || len(p.limited) == 0) {
			break
		}
	}
	slices.Sort(p.uncounted)
	return nil
}

// goesOn tells whether a packet that leaves the redirect path goes through a function there.
func goesOn(name string) bool {
	why := functions.Limit(name)
	return why == functions.StackLimit || why == functions.SchedulerLimit || strings.HasPrefix(name, "security_")
}

// behind are the functions beyond the path that were not searched yet.
func (p *probes) behind() (roots []xdppath.Root) {
	for addr, f := range p.limited {
		per := f.Per
		if per == "" {
			per = functions.PerBulk
		}
		roots = append(roots, xdppath.Root{Function: f.Name, Addr: addr, Stage: functions.StageStack, Per: per, Why: "it is beyond the path"})
	}
	clear(p.limited)
	slices.SortFunc(roots, func(a, b xdppath.Root) int { return cmp.Compare(a.Addr, b.Addr) })
	return roots
}

// maxWalked bounds the functions of a path.
const maxWalked = 1 << 14

// stamp is how many instructions the indirect branch takes that each bpf_ktime_get_ns
// (kernel/bpf/helpers.c) goes through to the clock source; 0 where the kernel reads that
// directly, as Linux 7.2 does. No kprobe can stand there.
func stamp(ctx context.Context, k *kernel.Kernel) (int, error) {
	s, ok := k.Symbols.Lookup(record.StampFunction)
	if !ok || !s.Text() {
		return 0, nil
	}
	inv, err := xdppath.Walk(ctx, k, []xdppath.Root{{Function: s.Name, Addr: s.Addr,
		Stage: functions.StageReceive, Per: functions.PerBulk}})
	if err != nil {
		return 0, err
	}
	for _, site := range inv.Sites {
		if site.Function == record.StampFunction && site.Always {
			if s, ok := k.Symbols.Lookup("read_tsc"); ok && site.Check.Preamble() { // guests have that clock
				preamble, _ := k.Preamble(s.Addr)
				return site.Instructions + preamble.Instructions, nil
			}
			return site.Instructions, nil
		}
	}
	return 0, nil
}

// named are the functions with a role.
func (p *probes) named(role functions.Role) (roots []xdppath.Root) {
	for _, name := range functions.Names(role) {
		for _, s := range p.kernel.Functions(name) {
			roots = append(roots, xdppath.Root{
				Function: s.Name, Addr: s.Addr, Stage: functions.StageReceive, Per: functions.PerBulk,
				Why: "it generates frames",
			})
		}
	}
	return roots
}

// add counts at the indirect branches of functions that were not walked before.
func (p *probes) add(inv *xdppath.Inventory, roots []xdppath.Root) {
	for _, f := range inv.Functions {
		isRoot := slices.ContainsFunc(roots, func(r xdppath.Root) bool { return r.Addr == f.Addr })
		if !isRoot && !p.walked[f.Addr] && f.Per != functions.PerRare && goesOn(f.Name) {
			p.limited[f.Addr] = f
		}
		p.walked[f.Addr] = true
		if f.Per != functions.PerRare && f.Partial == "" {
			p.known[f.Addr] = true
		}
	}
	for _, s := range inv.Sites {
		// Code of BPF programs and of the dispatcher cannot be probed. arm64 has none: its function calls the program.
		if strings.HasPrefix(s.Function, "bpf_dispatcher_xdp") && p.kernel.Arch == "amd64" || strings.HasPrefix(s.Function, "bpf_prog_") ||
			strings.HasPrefix(s.Function, "0x") {
			continue
		}
		at, err := probeAt(p.kernel, s)
		if err == nil && slices.Contains(p.Places, at) {
			continue
		}
		if err == nil {
			err = p.put(at, s.Addr-s.Offset+at.Offset)
		}
		if err != nil {
			p.uncounted = append(p.uncounted, at.String())
			continue
		}
		p.sites[len(p.Places)-1] = site{s, s.Instructions, p.beyond}
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
	if p.kernel != nil {
		err = errors.Join(err, p.kernel.Close())
	}
	return err
}

// jumpOfKCFI is where, in bytes before an indirect branch, the jump of its kCFI check stands.
const jumpOfKCFI = 4

// probeAt is where to count an indirect branch. Behind a check of CFI that is where the check
// begins, with the function in the register, or the jump of kCFI: the kernel puts no kprobe
// before that (can_probe in arch/x86/kernel/kprobes/core.c). Else it is the branch's own place
// except for a call with a prefix, "cs call __x86_indirect_thunk_r10", as compilers write those of r8 to r15: a
// kprobe there would return one byte early and crash the kernel, as int3_emulate_call in
// arch/x86/include/asm/text-patching.h takes each call for 5 bytes long (seen with Linux
// 6.1 and 6.12). The instruction before is as good when it always runs on into the call.
func probeAt(k *kernel.Kernel, s xdppath.Site) (count.Place, error) {
	at := count.Place{Function: s.Function, Offset: s.Offset, Register: s.Register}
	switch s.Check {
	case branch.CheckNone:
	case branch.CheckKCFI, branch.CheckKCFIUDB:
		at.Offset -= jumpOfKCFI
		return at, nil
	default:
		at.Offset -= s.CheckLen
		return at, nil
	}
	if k.Arch == "arm64" {
		return at, nil
	}
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

// entryOf is where to count the entries of a function: at its first instruction behind the nop that ftrace has there, which
// each entry executes and no jump leads to. At the nop the kernel would go through all of its 40 000 nops for each probe.
func entryOf(k *kernel.Kernel, f ksym.Symbol) count.Place {
	entry := count.Place{Function: f.Name}
	if f.Size == 0 || f.Size > kernel.MaxFunction {
		return entry
	}
	code, err := k.Code(f)
	if err != nil {
		return entry
	}
	if k.Arch == "arm64" {
		return entryOfARM64(entry, code, f.Addr)
	}
	at := uint64(0)
	for _, padding := range [][]byte{{0xf3, 0x0f, 0x1e, 0xfa}, {0x0f, 0x1f, 0x44, 0x00, 0x00}} { // endbr64, ftrace's nop
		if bytes.HasPrefix(code[at:], padding) {
			at += uint64(len(padding))
		}
	}
	for inst := range branch.Decode(code, f.Addr) {
		switch {
		case inst.Kind == branch.Bad, inst.Target == f.Addr+at,
			inst.Addr == f.Addr+at && inst.Kind != branch.Other:
			return entry
		}
	}
	entry.Offset = at
	return entry
}

// entryOfARM64 is [entryOf] behind the bti, the two nops and the paciasp that functions of arm64 may begin with.
func entryOfARM64(entry count.Place, code []byte, addr uint64) count.Place {
	at := uint64(0)
	for inst := range branch.DecodeARM64(code, addr) {
		if at = inst.Addr - addr; !inst.Endbr() && inst.Word() != branch.NopARM64 {
			break
		}
	}
	for inst := range branch.DecodeARM64(code, addr) {
		switch {
		case inst.Kind == branch.Bad, inst.Target == addr+at, inst.Addr == addr+at && inst.Kind != branch.Other:
			return entry
		}
	}
	entry.Offset = at
	return entry
}
