package tax

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// code reads and decodes what runs: kernel functions and JITed programs, as they
// stand in memory.
type code struct {
	table *ksym.Table
	text  *ktext.Live
}

func openCode() (*code, error) {
	table, err := ksym.Live()
	if err != nil {
		return nil, err
	}
	text, err := ktext.OpenLive()
	if err != nil {
		return nil, err
	}
	return &code{table, text}, nil
}

func (c *code) Close() error { return c.text.Close() }

// function is code of a known length.
type function struct {
	name string
	addr uint64
	size uint64
}

// maxFunction bounds how much of one function is decoded, in bytes.
const maxFunction = 64 << 10

// kernel finds a function of the kernel by name; one that the compiler split
// ("name.isra.0") is found too.
func (c *code) kernel(name string) (function, bool) {
	for _, suffix := range []string{"", ".isra.0", ".constprop.0", ".part.0"} {
		if s, ok := c.table.Lookup(name + suffix); ok && s.Text() {
			return function{s.Name, s.Addr, s.Size}, true
		}
	}
	return function{}, false
}

// read is the function's bytes.
func (c *code) read(f function) ([]byte, error) {
	b := make([]byte, min(f.size, maxFunction))
	return b, c.text.ReadAddr(b, f.addr)
}

// sites are the indirect branches of a function, as "name+0x1f: call thunk".
func (c *code) sites(f function) ([]string, error) {
	b, err := c.read(f)
	if err != nil {
		return nil, err
	}
	follow := func(addr uint64) []byte {
		thunk := make([]byte, 16)
		if c.text.ReadAddr(thunk, addr) != nil {
			return nil
		}
		return thunk
	}
	var out []string
	sites, _ := branch.Sites(b, f.addr, c.table.Starts, follow)
	for _, s := range sites {
		verb := "call"
		if s.Jump {
			verb = "jmp"
		}
		what := s.Thunk
		if what == "" {
			what = string(s.Kind)
		}
		out = append(out, fmt.Sprintf("%s+%#x: %s %s", f.name, s.Offset, verb, what))
	}
	return out, nil
}

// compiles tells whether the kernel compiles BPF programs. It asks a program: only
// the first network namespace has net.core.bpf_jit_enable, so a container may not.
func (c *code) compiles() (bool, error) {
	p, err := price.Load("nothing")
	if err != nil {
		return false, err
	}
	defer p.Close()
	functions, err := c.functions(p)
	return functions != nil, err
}

// errNoJIT is why an interpreted program has no premise.
const errNoJIT = "the JIT is off (net.core.bpf_jit_enable): what is called cannot be told"

// functions are those of a JITed program. A nil slice without an error means
// that there is no code to read.
func (c *code) functions(p *ebpf.Program) ([]function, error) {
	info, err := p.Info()
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	addrs, _ := info.JitedKsymAddrs()
	lens, _ := info.JitedFuncLens()
	return jited(addrs, lens), nil
}

// jited are the functions of a program whose JITed code begins at addrs. Of an
// interpreted program the kernel gives the interpreter's address and the length 0
// (bpf_prog_get_info_by_fd in kernel/bpf/syscall.c), and the address 0 to those who
// may not see it.
func jited(addrs []uintptr, lens []uint32) (out []function) {
	if len(addrs) != len(lens) || slices.Contains(addrs, 0) || slices.Contains(lens, 0) {
		return nil
	}
	for i := range addrs {
		out = append(out, function{"program", uint64(addrs[i]), uint64(lens[i])})
		if i > 0 {
			out[i].name = fmt.Sprintf("program's function %d", i)
		}
	}
	return out
}

// timer is called before and after the timed work, not in it.
const timer = "bpf_ktime_get_ns"

// reached are the indirect branches of a program and of the functions that it
// calls directly, but for the timer. What those call in turn is left out: it is
// the slow path of a helper, or the same on both sides.
func (c *code) reached(p *ebpf.Program) (sites map[string]bool, jited bool, err error) {
	own, err := c.functions(p)
	if err != nil || own == nil {
		return nil, false, err
	}
	all := slices.Clone(own)
	for _, f := range own {
		called, err := c.called(f)
		if err != nil {
			return nil, true, err
		}
		all = append(all, called...)
	}
	sites = make(map[string]bool)
	for _, f := range all {
		found, err := c.sites(f)
		if err != nil {
			return nil, true, err
		}
		for _, s := range found {
			sites[s] = true
		}
	}
	return sites, true, nil
}

// called are the kernel's functions that a function calls or jumps to.
func (c *code) called(f function) ([]function, error) {
	b, err := c.read(f)
	if err != nil {
		return nil, err
	}
	var out []function
	for inst := range branch.Decode(b, f.addr) {
		if inst.Kind != branch.CallDirect && inst.Kind != branch.JumpDirect {
			continue
		}
		s, off, ok := c.table.Find(inst.Target)
		if !ok || off != 0 || !s.Text() || s.Size == 0 || s.Name == timer ||
			strings.HasPrefix(s.Name, "__x86_") || branch.ReturnThunk(s.Name) {
			continue
		}
		out = append(out, function{s.Name, s.Addr, s.Size})
	}
	return out, nil
}

// alreadyDirect is why a pair has no price on a kernel that makes both alike.
const alreadyDirect = "already direct here: the code of both sides makes the same indirect branches"

// differ checks the premise of two programs: the first makes an indirect branch
// that the second does not, and the second none that the first does not.
func (c *code) differ(with, without *ebpf.Program) (premise, refused string, err error) {
	a, jited, err := c.reached(with)
	if err != nil || !jited {
		return "", errNoJIT, err
	}
	b, jited, err := c.reached(without)
	if err != nil || !jited {
		return "", errNoJIT, err
	}
	var only, extra []string
	for _, s := range slices.Sorted(maps.Keys(a)) {
		if !b[s] {
			only = append(only, s)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(b)) {
		if !a[s] {
			extra = append(extra, s)
		}
	}
	switch {
	case len(extra) > 0:
		return "", "not one branch apart here: the side without it makes " + strings.Join(extra, ", "), nil
	case len(only) == 0:
		return "", alreadyDirect, nil
	}
	return strings.Join(only, ", "), "", nil
}

// alike checks the premise of a control or a reference: neither program makes an
// indirect branch that the other does not.
func (c *code) alike(with, without *ebpf.Program) (premise, refused string, err error) {
	premise, refused, err = c.differ(with, without)
	switch {
	case err != nil || refused == errNoJIT:
		return "", refused, err
	case refused == alreadyDirect:
		return "no indirect branch on either side that the other lacks", "", nil
	}
	return "", "the two sides differ in an indirect branch: " + premise + refused, nil
}

// holds checks that one of the named functions has an indirect branch.
func (c *code) holds(names []string) (premise, refused string, err error) {
	for _, name := range names {
		f, ok := c.kernel(name)
		if !ok {
			continue
		}
		found, err := c.sites(f)
		if err != nil {
			return "", "", err
		}
		if len(found) > 0 {
			return strings.Join(found, ", "), "", nil
		}
		return "", fmt.Sprintf("already direct here: %s makes no indirect branch", f.name), nil
	}
	return "", fmt.Sprintf("this kernel has no %s to look at", strings.Join(names, " or ")), nil
}

// callers are the kernel's functions that call or jump to name, modules
// included, by name.
func (c *code) callers(name string) ([]string, error) {
	target, ok := c.kernel(name)
	if !ok {
		return nil, nil
	}
	start, okStart := c.table.Lookup("_stext")
	end, okEnd := c.table.Lookup("_etext")
	if !okStart || !okEnd || end.Addr <= start.Addr || end.Addr-start.Addr > 256<<20 {
		return nil, fmt.Errorf("find callers of %s: no bounds of kernel text", name)
	}
	text := make([]byte, end.Addr-start.Addr)
	if err := c.text.ReadAddr(text, start.Addr); err != nil {
		return nil, err
	}
	found := make(map[string]bool)
	for i := 0; i+5 <= len(text); i++ {
		if text[i] != 0xe8 && text[i] != 0xe9 { // call, jmp
			continue
		}
		rel := int32(uint32(text[i+1]) | uint32(text[i+2])<<8 | uint32(text[i+3])<<16 | uint32(text[i+4])<<24)
		at := start.Addr + uint64(i)
		if at+5+uint64(int64(rel)) == target.addr {
			if s, _, ok := c.table.Find(at); ok {
				plain, _, _ := strings.Cut(s.Name, ".")
				found[plain] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// returnFrame says why giving frames back has no price here, or rather what is
// known of it instead.
func (c *code) returnFrame() (string, error) {
	var direct, indirect []string
	for _, name := range []string{"xdp_return_frame", "xdp_return_frame_rx_napi", "__xdp_return", "page_pool_put_unrefed_netmem", "page_pool_put_unrefed_page", "page_pool_put_defragged_page"} {
		f, ok := c.kernel(name)
		if !ok {
			continue
		}
		found, err := c.sites(f)
		if err != nil {
			return "", err
		}
		if len(found) == 0 {
			direct = append(direct, name)
		} else {
			indirect = append(indirect, found...)
		}
	}
	one, err := c.callers("xdp_return_frame")
	if err != nil {
		return "", err
	}
	two, err := c.callers("xdp_return_frame_rx_napi")
	if err != nil {
		return "", err
	}
	bulk, err := c.callers("xdp_return_frame_bulk")
	if err != nil {
		return "", err
	}
	var parts []string
	if len(indirect) > 0 {
		parts = append(parts, "indirect: "+strings.Join(indirect, ", "))
	} else if len(direct) > 0 {
		parts = append(parts, "already direct here: "+strings.Join(direct, ", ")+" make no indirect branch")
	}
	ways := slices.DeleteFunc(append(one, two...), func(name string) bool {
		return !slices.Contains([]string{"bq_xmit_all", "veth_xdp_rcv_one", "veth_xdp_rcv", "cpu_map_kthread_run", "cpu_map_bpf_prog_run_xdp", "dev_map_bpf_prog_run"}, name)
	})
	slices.Sort(ways)
	if len(ways) > 0 {
		parts = append(parts, strings.Join(ways, ", ")+" (refused by the target, dropped at the sink, cpumap) all give back one by one")
	}
	if len(bulk) == 0 {
		parts = append(parts, "no function built into this kernel calls xdp_return_frame_bulk")
	} else {
		parts = append(parts, "only these call xdp_return_frame_bulk, and no virtual device runs them: "+strings.Join(bulk, ", "))
	}
	return "cannot be isolated: " + strings.Join(parts, "; "), nil
}
