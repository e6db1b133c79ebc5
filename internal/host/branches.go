package host

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/ksym"
)

// corePath are functions of net/core, kernel/bpf and kernel/dma that frames
// run through between a driver's poll and the next driver's ndo_xdp_xmit.
// They are in every kernel that can redirect, so two kernels' call sites can
// be compared by them. Names that a kernel lacks are skipped.
const corePath = `
xdp_do_redirect xdp_do_redirect_frame xdp_do_flush xdp_do_generic_redirect xdp_do_generic_redirect_map do_xdp_generic
bpf_prog_run_generic_xdp generic_xdp_tx xdp_master_redirect bpf_xdp_redirect bpf_xdp_redirect_map
dev_map_redirect dev_hash_map_redirect cpu_map_redirect xsk_map_redirect
dev_map_enqueue dev_map_enqueue_multi dev_xdp_enqueue bq_enqueue bq_xmit_all __dev_flush dev_map_bpf_prog_run
dev_map_generic_redirect dev_map_redirect_multi dev_map_enqueue_clone dev_map_lookup_elem dev_map_hash_lookup_elem
cpu_map_enqueue cpu_map_generic_redirect __cpu_map_flush bq_flush_to_queue cpu_map_kthread_run cpu_map_bpf_prog_run_xdp cpu_map_bpf_prog_run
__xsk_map_redirect __xsk_map_flush xsk_rcv __xsk_rcv xsk_flush xsk_generic_rcv
xdp_return_frame xdp_return_frame_rx_napi xdp_return_frame_bulk xdp_flush_frame_bulk xdp_return_buff xdp_return_frag __xdp_return
xdp_convert_zc_to_xdp_frame __xdp_build_skb_from_frame xdp_build_skb_from_frame xdp_build_skb_from_buff
page_pool_alloc_pages page_pool_alloc_netmems page_pool_alloc_frag __page_pool_alloc_pages_slow __page_pool_alloc_netmems_slow
page_pool_put_unrefed_page page_pool_put_unrefed_netmem page_pool_put_defragged_page page_pool_put_page_bulk page_pool_put_netmem_bulk
page_pool_return_page page_pool_dma_map page_pool_dma_sync_for_device page_pool_recycle_in_ring
net_rx_action __napi_poll napi_complete_done __napi_schedule __napi_schedule_irqoff napi_schedule_prep napi_threaded_poll
napi_gro_receive dev_gro_receive napi_alloc_skb __napi_alloc_skb napi_build_skb napi_consume_skb
dma_map_page_attrs dma_map_phys dma_unmap_page_attrs dma_unmap_phys dma_sync_single_for_cpu dma_sync_single_for_device
__dma_sync_single_for_cpu __dma_sync_single_for_device __dma_need_sync dma_map_sg_attrs dma_unmap_sg_attrs
dma_direct_map_sg dma_direct_sync_single_for_device iommu_dma_map_page iommu_dma_map_phys iommu_dma_unmap_page iommu_dma_unmap_phys
iommu_dma_sync_single_for_cpu iommu_dma_sync_single_for_device swiotlb_map swiotlb_tbl_map_single swiotlb_tbl_unmap_single
array_map_lookup_elem htab_map_lookup_elem __htab_map_lookup_elem htab_lru_map_lookup_elem htab_percpu_map_lookup_elem
percpu_array_map_lookup_elem trie_lookup_elem bpf_map_lookup_elem bpf_map_update_elem bpf_for_each_map_elem bpf_for_each_array_elem
bpf_test_run_xdp_live xdp_test_run_batch bpf_prog_test_run_xdp bpf_dispatcher_xdp_func`

// driverPath are the functions that poll and transmit XDP frames in drivers
// that may be built in or modules.
const driverPath = `
veth_poll veth_xdp_rcv veth_xdp_rcv_one veth_xdp_rcv_skb veth_xdp_rcv_bulk_skb veth_xdp_xmit veth_ndo_xdp_xmit veth_xdp_tx veth_xdp_flush_bq
virtnet_poll virtnet_receive receive_buf receive_small receive_mergeable virtnet_xdp_handler virtnet_xdp_xmit __virtnet_xdp_xmit_one
virtqueue_add_outbuf virtqueue_add_inbuf virtqueue_get_buf_ctx virtqueue_kick_prepare virtqueue_notify free_old_xmit __free_old_xmit
tun_xdp_one tun_xdp_xmit tun_xdp_act ixgbe_poll ixgbe_clean_rx_irq ixgbe_run_xdp ixgbe_xdp_xmit ixgbe_xmit_xdp_ring
ixgbevf_poll ixgbevf_clean_rx_irq i40e_napi_poll i40e_clean_rx_irq i40e_run_xdp i40e_xdp_xmit i40e_xmit_xdp_ring i40e_xmit_xdp_tx_ring
ice_napi_poll ice_clean_rx_irq ice_run_xdp ice_xdp_xmit __ice_xmit_xdp_ring ice_clean_xdp_irq iavf_napi_poll
igb_poll igb_clean_rx_irq igb_run_xdp igb_xdp_xmit igb_xmit_xdp_ring igc_poll igc_clean_rx_irq igc_xdp_run_prog igc_xdp_xmit
mlx5e_napi_poll mlx5e_poll_rx_cq mlx5e_handle_rx_cqe mlx5e_handle_rx_cqe_mpwrq mlx5e_skb_from_cqe_linear mlx5e_skb_from_cqe_mpwrq_linear
mlx5e_xdp_handle mlx5e_xdp_xmit mlx5e_xmit_xdp_frame mlx5e_xmit_xdp_frame_mpwqe mlx5e_poll_xdpsq_cq mlx5e_free_xdpsq_desc
mlx4_en_poll_rx_cq mlx4_en_process_rx_cq mlx4_en_xmit_frame bnxt_poll bnxt_rx_pkt bnxt_rx_xdp bnxt_xdp_xmit
ena_io_poll ena_clean_rx_irq ena_xdp_xmit ena_xdp_xmit_frame gve_napi_poll gve_rx_dqo gve_xdp_xmit mana_poll mana_xdp_xmit
netvsc_poll netvsc_run_xdp netvsc_ndo_xdp_xmit xennet_poll xennet_xdp_xmit vmxnet3_poll_rx_only vmxnet3_process_xdp vmxnet3_xdp_xmit
stmmac_napi_poll_rx stmmac_xdp_xmit qede_poll qede_xdp_transmit sfc_poll efx_poll efx_xdp_tx_buffers efx_xdp_xmit nfp_nfd3_poll`

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
	// unread are functions that could not be read.
	unread int
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
	if !x86() {
		return branches{err: errors.New("only x86-64 code is understood")}
	}
	k := m.opts.Kernel
	if k == nil {
		if !m.live {
			return branches{err: errors.New("no kernel memory was given")}
		}
		core, drivers := names(corePath), names(driverPath)
		var err error
		k, err = kernel.OpenNamed(func(name, _ []byte) bool {
			plain, _, _ := bytes.Cut(name, []byte("."))
			return core[string(plain)] || drivers[string(plain)] || structural(name)
		})
		if err != nil {
			return branches{err: err}
		}
		defer k.Close()
	}
	return readBranches(k)
}

func names(list string) map[string]bool {
	out := make(map[string]bool)
	for _, name := range strings.Fields(list) {
		out[name] = true
	}
	return out
}

// structural tells whether name is part of a mitigation, or one that other
// code jumps to and that looks like one: bpf_dispatcher_nop_func is a bare
// jmp *%rdx where spectre_v2=off.
func structural(name []byte) bool {
	return bytes.HasPrefix(name, []byte("__x86_indirect_")) || bytes.HasSuffix(name, []byte("_return_thunk")) ||
		bytes.HasPrefix(name, []byte("srso_")) || string(name) == "__ret" || string(name) == "bpf_dispatcher_nop_func"
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
	b := branches{core: newTally(), all: newTally(), returns: make(branch.Returns)}
	core := names(corePath)
	var firstErr error
	for _, f := range functions(k, strings.Fields(corePath+" "+driverPath)) {
		sites, returns, err := k.Sites(f)
		if err != nil {
			b.unread++
			firstErr = cmp.Or(firstErr, err)
			continue
		}
		b.all.add(f.Name, sites)
		if plain, _, _ := strings.Cut(f.Name, "."); core[plain] {
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
	return b, nil
}

// functions are those that the source gives one of the names.
func functions(k *kernel.Kernel, names []string) (out []ksym.Symbol) {
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
	if s[branch.SiteRegister] > 0 && s[branch.SiteMemory] == 0 {
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
	const indirect, returns, sites = "indirect-call", "return-thunk", "call-sites"
	if b.err != nil {
		return []Finding{unseen(indirect, b.err), unseen(returns, b.err), unseen(sites, b.err)}
	}
	f.ReturnThunk = b.returnThunk
	f.CallSites = b.callSites()
	f.IndirectThunk = "none"
	if b.thunkName != "" {
		f.IndirectThunk = string(b.thunk.Kind)
	}
	return []Finding{indirectRow(indirect, f, flags, b), returnRow(returns, f, flags, b), sitesRow(sites, f, b)}
}

// throughThunk tells whether the path's call sites use thunks at all.
func (b branches) throughThunk() bool {
	return b.all.sites[branch.SiteThunk]+b.all.sites[branch.SiteITS] > 0
}

func indirectRow(name string, f *Fingerprint, flags []string, b branches) Finding {
	row := Finding{Name: name, Level: LevelOK}
	if b.thunkName == "" {
		row.Found = "this kernel has no __x86_indirect_thunk_rax: it was built without retpolines"
		row.Means = "indirect calls are predicted like any other branch"
		return row
	}
	row.Found = fmt.Sprintf("%s: %s is %q", b.thunk.Kind, b.thunkName, strings.Join(b.thunk.Lines, "; "))
	switch b.thunk.Kind {
	case branch.ThunkRetpoline, branch.ThunkCallDepth:
		row.Level = LevelWarn
		row.Means = "every indirect call is mispredicted on purpose: ndo_xdp_xmit, the program call and map lookups each pay a pipeline refill (30 cycles against 4 on a Broadwell Xeon)"
		row.Do = "raise the bulk so that one call serves more frames; unthunk tax prices the call"
		switch {
		// Linux 6.3 and later prefer automatic IBRS to retpolines.
		case hidden(*f, flags, "autoibrs"):
			row.Do = "have the hypervisor pass automatic IBRS through: Zen 5 has it, this guest does not see it, and Linux 6.3 and later need no retpolines with it; else " + row.Do
		case slices.Contains(flags, "autoibrs") || slices.Contains(flags, "ibrs_enhanced"):
			row.Do = "see why: this CPU has enhanced or automatic IBRS, which spectre_v2=auto prefers to retpolines; else " + row.Do
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
		row.Means = "code of a shape not known here: price it with unthunk tax"
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
		row.Means = "every return is mispredicted on purpose, so direct calls pay too (14 cycles on Zen 4), and an indirect one pays on its way in and again on its way back"
		row.Do = "count calls per packet, not only indirect ones; where only trusted code runs, boot once with spec_rstack_overflow=off to see the price"
		if hidden(*f, flags, "srso_user_kernel_no") {
			row.Do = "have the hypervisor pass SRSO_USER_KERNEL_NO through: Zen 5 has it, this guest does not see it, and newer kernels need no safe ret with it; else " + row.Do
		}
	case branch.ReturnRetbleed:
		row.Level = LevelNote
		row.Means = "every return takes one more direct jump; the untraining itself is paid on kernel entry, not per packet"
	case branch.ReturnITS:
		row.Level = LevelNote
		row.Means = "some returns take one more direct jump; prediction still works"
	case branch.ReturnCallDepth:
		row.Level = LevelWarn
		row.Means = "every call and return does bookkeeping, and deep call chains refill the return stack"
	default:
		row.Level = LevelUnknown
		row.Means = "code of a shape not known here"
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
