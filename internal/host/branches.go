package host

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/ksym"
)

// branches is what kernel memory says about indirect branches.
type branches struct {
	// err is why there is nothing else.
	err error
	// thunk is what call sites go through, or __x86_indirect_thunk_rax
	// where they go through none; thunkName is its symbol.
	thunk     branch.Thunk
	thunkName string
	// returnThunk is the symbol that most returns jump to, "ret" when
	// they jump nowhere.
	returnThunk string
	returnKind  branch.ReturnKind
	returns     branch.Returns
	core, all   tally
	cfi         cfi
	arch        string // see [kernel.Kernel.Arch]
	// entries are what CPUs of arm64 execute when user space is left, see [entry].
	entries    []string
	entriesErr error
	// unread are functions that could not be read.
	unread int
	// dispatched are the programs in the BPF dispatcher, of the running kernel.
	dispatched    int
	dispatcherErr error
}

// tally counts the indirect branches of some functions.
type tally struct {
	functions, returns int
	sites              map[branch.SiteKind]int
	jumps              int
	thunks             map[string]int // by symbol, with the register cut off
	names              []string       // of functions that have any
}

func (t *tally) add(function string, sites []branch.Site) {
	t.functions++
	if len(sites) > 0 {
		t.names = append(t.names, function)
	}
	for _, s := range sites {
		t.sites[s.Kind]++
		if s.Jump {
			t.jumps++
		}
		if s.Thunk != "" {
			t.thunks[family(s.Thunk)]++
		}
	}
}

func (t *tally) total() int {
	n := 0
	for _, k := range t.sites {
		n += k
	}
	return n
}

// family cuts the register off a thunk's symbol.
func family(thunk string) string {
	return thunk[:strings.LastIndexByte(thunk, '_')+1]
}

// most returns the key with the highest count, the first by name of equals.
func most(counts map[string]int) string {
	best := ""
	for name, n := range counts {
		if best == "" || n > counts[best] || n == counts[best] && name < best {
			best = name
		}
	}
	return best
}

// readBranches reads the given kernel, or the running one.
func (m *machine) readBranches() branches {
	if !x86() && runtime.GOARCH != "arm64" {
		return branches{err: errors.New("only code of x86-64 and arm64 is understood")}
	}
	k := m.opts.Kernel
	if k == nil {
		if !m.live {
			return branches{err: errors.New("no kernel memory was given")}
		}
		wanted := make(map[string]bool)
		for _, name := range pathFunctions() {
			wanted[name] = true
		}
		var err error
		k, err = kernel.OpenNamed(func(name, _ []byte) bool {
			plain, _, _ := bytes.Cut(name, []byte("."))
			return wanted[string(plain)] || structural(name) || kernel.DispatcherSymbol(name)
		})
		if err != nil {
			return branches{err: err}
		}
		defer k.Close()
		b := readBranches(k)
		programs, _, err := k.Dispatcher()
		b.dispatched, b.dispatcherErr = len(programs), err
		m.addEntries(&b, k)
		return b
	}
	b := readBranches(k)
	m.addEntries(&b, k)
	return b
}

// addEntries adds what CPUs of arm64 execute when user space is left.
func (m *machine) addEntries(b *branches, k *kernel.Kernel) {
	if k.Arch == "arm64" && b.err == nil {
		b.entries, b.entriesErr = readEntries(k, m.onlineCPUs())
	}
}

// pathFunctions are the names of functions that frames run through between a driver's
// poll and the next driver's ndo_xdp_xmit. Those of the XDP core are in every kernel
// that can redirect, so two kernels' call sites can be compared by them. Names that a
// kernel lacks are skipped.
func pathFunctions() []string { return functions.Names(functions.Checked | functions.Driver) }

// structural tells whether name is part of a mitigation, or one that other
// code jumps to and that looks like one: bpf_dispatcher_nop_func is a bare
// jmp *%rdx where spectre_v2=off.
func structural(name []byte) bool {
	switch string(name) {
	case "__ret", "warn_thunk_thunk", "bpf_dispatcher_nop_func",
		// of readEntries
		"this_cpu_vector", "bp_hardening_data", "__per_cpu_offset", "vectors", "call_smc_arch_workaround_1",
		"call_hvc_arch_workaround_1", "qcom_link_stack_sanitisation", "ret_to_user", "tramp_exit", "tramp_exit_native":
		return true
	}
	return bytes.HasPrefix(name, []byte("__x86_indirect_")) || bytes.HasSuffix(name, []byte("_return_thunk")) ||
		bytes.HasPrefix(name, []byte("srso_"))
}

// readBranches counts the branches of the redirect path and names the thunks that they
// go through.
func readBranches(k *kernel.Kernel) branches {
	b, err := countBranches(k)
	if err != nil {
		return branches{err: err}
	}
	if err := errors.Join(b.nameThunk(k), b.nameReturn(k)); err != nil {
		return branches{err: err}
	}
	return b
}

// countBranches counts the branches of the functions of the redirect path that the
// kernel has. One that cannot be read is counted as unread.
func countBranches(k *kernel.Kernel) (branches, error) {
	newTally := func() tally { return tally{sites: make(map[branch.SiteKind]int), thunks: make(map[string]int)} }
	b := branches{arch: k.Arch, core: newTally(), all: newTally(), returns: make(branch.Returns)}
	b.cfi.checks = make(map[branch.Check]int)
	var firstErr error
	path := sized(k, pathFunctions())
	for _, f := range path {
		sites, returns, err := k.Sites(f)
		if err != nil {
			b.unread++
			firstErr = cmp.Or(firstErr, err)
			continue
		}
		b.all.add(f.Name, sites)
		b.cfi.sites(sites)
		if functions.Has(f.Name, functions.Checked) {
			b.core.add(f.Name, sites)
		}
		for name, n := range returns {
			b.returns[name] += n
			b.all.returns += n
		}
	}
	if b.all.functions == 0 {
		return b, cmp.Or(firstErr, errors.New("no function of the redirect path is in the symbol table"))
	}
	slices.Sort(b.all.names)
	b.cfi.readPreambles(k, path)
	return b, nil
}

// sized are the functions of a known size that the source gives one of the names.
func sized(k *kernel.Kernel, names []string) (out []ksym.Symbol) {
	for _, name := range names {
		for _, f := range k.Functions(name) {
			if f.Size > 0 {
				out = append(out, f)
			}
		}
	}
	return out
}

// nameThunk names the thunk that most call sites go through, or that of rax where they
// go through none.
func (b *branches) nameThunk(k *kernel.Kernel) error {
	name := "__x86_indirect_thunk_rax"
	if used := most(b.all.thunks); used != "" {
		name = used + "rax"
	}
	thunk, ok := k.Symbols.Lookup(name)
	if !ok {
		return nil
	}
	code, err := k.Read(thunk.Addr, 32)
	if err != nil {
		return err
	}
	b.thunkName, b.thunk = name, branch.NameIndirectThunk(code, thunk.Addr, k.Symbols.Starts)
	return nil
}

// nameReturn names what most returns jump to. Under ITS only the returns in the lower
// half of a cache line go through the thunk, so one is enough to name it.
func (b *branches) nameReturn(k *kernel.Kernel) error {
	b.returnThunk, b.returnKind = "ret", branch.ReturnPlain
	thunks := maps.Clone(b.returns)
	delete(thunks, "ret")
	name := most(thunks)
	if name == "" {
		return nil
	}
	thunk, _ := k.Symbols.Lookup(name)
	code, err := k.Read(thunk.Addr, 16)
	if err != nil {
		return err
	}
	b.returnThunk, b.returnKind = name, branch.NameReturnThunk(code, thunk.Addr, k.Symbols.Starts)
	return nil
}

// ARM64CallSites is [Fingerprint.CallSites] of arm64.
const ARM64CallSites = "blr and br, as compiled"

// callSites says in words how the redirect path makes indirect branches.
func (b branches) callSites() string {
	s := b.core.sites
	var ways []string
	if s[branch.SiteThunk] > 0 {
		ways = append(ways, "through thunks")
	}
	if s[branch.SiteITS] > 0 {
		ways = append(ways, "through ITS thunks")
	}
	if s[branch.SiteLfence] > 0 {
		ways = append(ways, "rewritten to lfence; call *reg")
	}
	if s[branch.SiteRegister] > 0 && b.arch == "arm64" {
		ways = append(ways, ARM64CallSites)
	} else if s[branch.SiteRegister] > 0 && s[branch.SiteMemory] == 0 {
		ways = append(ways, "rewritten to call *reg")
	}
	if s[branch.SiteMemory] > 0 {
		ways = append(ways, "call *mem, as compiled without retpolines")
	}
	if len(ways) == 0 {
		return "none found"
	}
	return strings.Join(ways, ", ")
}

func branchRows(f *Fingerprint, flags []string, b branches) []Finding {
	const indirect, returns, sites, integrity = "indirect-call", "return-thunk", "call-sites", "cfi"
	if b.err != nil {
		return []Finding{unseen(indirect, b.err), unseen(returns, b.err), unseen(sites, b.err), unseen(integrity, b.err)}
	}
	f.CFI = b.cfi.mode()
	f.ReturnThunk = b.returnThunk
	f.CallSites = b.callSites()
	f.IndirectThunk = "none"
	if b.thunkName != "" {
		f.IndirectThunk = string(b.thunk.Kind)
	}
	return []Finding{indirectRow(indirect, f, flags, b), returnRow(returns, f, flags, b), sitesRow(sites, f, b), b.cfi.row(integrity)}
}

// throughThunk tells whether the path's call sites use thunks at all.
func (b branches) throughThunk() bool {
	return b.all.sites[branch.SiteThunk]+b.all.sites[branch.SiteITS] > 0
}

func indirectRow(name string, f *Fingerprint, flags []string, b branches) Finding {
	row := Finding{Name: name, Level: LevelOK}
	if b.arch == "arm64" {
		row.Found = "blr and br: arm64 has no thunks"
		row.Means = "indirect calls are predicted like any other branch"
		return row
	}
	if b.thunkName == "" {
		row.Found = "this kernel has no __x86_indirect_thunk_rax: it was built without retpolines"
		row.Means = "indirect calls are predicted like any other branch"
		return row
	}
	row.Found = fmt.Sprintf("%s: %s is %q", b.thunk.Kind, b.thunkName, strings.Join(b.thunk.Lines, "; "))
	switch b.thunk.Kind {
	case branch.ThunkRetpoline, branch.ThunkCallDepth:
		row.Level = LevelWarn
		row.Means = "every indirect call is mispredicted on purpose: ndo_xdp_xmit, the program call and map lookups each " +
			"pay a pipeline refill (unthunk tax prices it)"
		row.Do = "where only trusted code runs, boot with spectre_v2=off"
		switch {
		// Linux 6.3 and later prefer automatic IBRS to retpolines.
		case hidden(*f, flags, "autoibrs"):
			row.Do = "have the hypervisor pass automatic IBRS through: Zen 5 has it, this guest does not see it, and Linux 6.3 " +
				"and later need no retpolines with it"
		case slices.Contains(flags, "autoibrs") || slices.Contains(flags, "ibrs_enhanced"):
			row.Do = "boot without the parameter that asks for retpolines: this CPU has enhanced or automatic IBRS, which " +
				"spectre_v2=auto prefers"
		}
		if !b.throughThunk() {
			row.Level = LevelOK
			row.Means = "call sites do not go there, so it costs XDP_REDIRECT nothing"
			row.Do = ""
		}
	case branch.ThunkLfence:
		row.Level = LevelWarn
		row.Means = "every indirect call waits until its target is known: cheaper than a retpoline when the pointer is in cache"
	case branch.ThunkITS:
		row.Level = LevelNote
		row.Means = "an ordinary predicted jump behind one more direct branch"
	case branch.ThunkPlain:
		row.Means = "an ordinary predicted jump: an indirect call costs little more than a direct one while it keeps its target"
	default:
		row.Level = LevelUnknown
		row.Means = "unthunk does not know this code: price it with unthunk tax"
	}
	return row
}

// hidden tells whether a guest on Zen 5 (AMD family 26) does not see a CPU
// flag that all of Zen 5 has. Family 25 is Zen 3 as well as Zen 4, so nothing
// can be said of it.
func hidden(f Fingerprint, flags []string, flag string) bool {
	return f.Virtual != "" && f.Virtual != "none" && strings.Contains(f.CPU, "AMD") &&
		strings.Contains(f.CPU, "family 26 ") && !slices.Contains(flags, flag)
}

func returnRow(name string, f *Fingerprint, flags []string, b branches) Finding {
	row := Finding{Name: name, Level: LevelOK}
	thunked := b.all.returns - b.returns["ret"]
	if thunked == 0 {
		row.Found = fmt.Sprintf("none: all %d returns read are a bare ret", b.returns["ret"])
		row.Means = "returns are predicted by the return stack and cost next to nothing"
		return row
	}
	row.Found = fmt.Sprintf("%s (%s), at %d of %d returns read", b.returnThunk, b.returnKind, thunked, b.all.returns)
	switch b.returnKind {
	case branch.ReturnSRSO:
		row.Level = LevelWarn
		row.Means = "every return is mispredicted on purpose, so direct calls pay too (14 cycles on Zen 4), and an indirect " +
			"one pays on its way in and again on its way back"
		row.Do = "count calls per packet, not only indirect ones; where only trusted code runs, boot once with " +
			"spec_rstack_overflow=off to see the price"
		if hidden(*f, flags, "srso_user_kernel_no") {
			row.Do = "have the hypervisor pass SRSO_USER_KERNEL_NO through: Zen 5 has it, this guest does not see it, and " +
				"newer kernels need no safe ret with it; else " + row.Do
		}
	case branch.ReturnRetbleed:
		row.Level = LevelNote
		row.Means = "every return takes one more direct jump; the untraining itself is paid on kernel entry, not per packet"
	case branch.ReturnITS:
		row.Level = LevelNote
		row.Means = "some returns take one more direct jump; prediction still works"
	case branch.ReturnUnpatched:
		row.Level = LevelWarn
		row.Means = "the kernel put another return thunk in place and left these returns out: they are a bare ret"
	case branch.ReturnCallDepth:
		row.Level = LevelWarn
		row.Means = "every call and return updates a count, and deep call chains refill the return stack"
	default:
		row.Level = LevelUnknown
		row.Means = "unthunk does not know this code"
	}
	return row
}

func sitesRow(name string, f *Fingerprint, b branches) Finding {
	t := b.all
	row := Finding{Name: name, Level: LevelOK}
	row.Found = fmt.Sprintf("%s: %d of %d functions of the redirect path make %d indirect calls and %d indirect tail jumps",
		f.CallSites, len(t.names), t.functions, t.total()-t.jumps, t.jumps)
	var known []string
	for _, name := range []string{"bq_xmit_all", "bpf_xdp_redirect_map"} {
		if slices.Contains(t.names, name) {
			known = append(known, name)
		}
	}
	if len(known) > 0 {
		row.Found += ", among them " + strings.Join(known, " and ")
	}
	var parts []string
	for _, k := range []struct {
		kind branch.SiteKind
		text string
	}{
		{branch.SiteThunk, "through thunks"}, {branch.SiteITS, "through ITS thunks"}, {branch.SiteLfence, "lfence; call *reg"},
		{branch.SiteRegister, "bare call *reg"}, {branch.SiteMemory, "bare call *mem"},
	} {
		if n := t.sites[k.kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, k.text))
		}
	}
	if len(parts) > 1 {
		row.Found += "; " + strings.Join(parts, ", ")
	}
	if b.unread > 0 {
		row.Found += fmt.Sprintf("; %d functions could not be read", b.unread)
	}
	switch {
	case b.throughThunk():
		row.Means = "the thunk above is what a redirected frame runs through at each of them"
		if b.thunk.Kind == branch.ThunkRetpoline || b.thunk.Kind == branch.ThunkCallDepth {
			row.Level = LevelWarn
		} else {
			row.Level = LevelNote
		}
	case t.sites[branch.SiteLfence] > 0:
		row.Level = LevelWarn
		row.Means = "the thunk symbols are absent from profiles, but each call waits for its target"
	case t.total() > 0:
		row.Means = "the thunk symbols are absent from profiles; the calls are still indirect, but predicted"
	}
	return row
}
