package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"unthunk/branch"
	"unthunk/host"
	"unthunk/ksym"
	"unthunk/ktext"
	"unthunk/netlab"
	"unthunk/path"
	"unthunk/redirect"
)

// Measurement is what a guest counted.
type Measurement struct {
	Host host.Fingerprint `json:"host"`
	// Bulks are in the order asked for.
	Bulks []BulkCount `json:"bulks"`
}

// BulkCount is what a redirected packet goes through at one bulk, from the
// generator's call to the sink's verdict.
type BulkCount struct {
	Bulk int `json:"bulk"`
	// Instructions per packet: the least of all windows of Window packets, as the
	// others hold a timer's tick. Without an exact clock it is time in ns, and means
	// nothing.
	Instructions float64 `json:"instructions"`
	Windows      int     `json:"windows"`
	Window       int     `json:"window"`
	// Sent, Redirected and Received are packets of the slots that instructions were
	// taken from.
	Sent       uint64 `json:"sent"`
	Redirected uint64 `json:"redirected"`
	Received   uint64 `json:"received"`
	// Sites are the indirect branches that every packet, or every bulk, goes through.
	Sites []SiteCount `json:"sites"`
	// Functions are entries of functions per packet, by name.
	Functions map[string]float64 `json:"functions"`
}

// SiteCount is how often an indirect branch is executed.
type SiteCount struct {
	Function string `json:"function"`
	Offset   uint64 `json:"offset"`
	// Jump is set for a tail call.
	Jump  bool   `json:"jump,omitempty"`
	Kind  string `json:"kind"`
	Stage string `json:"stage"`
	Calls string `json:"calls,omitempty"`
	// Target is the function that was entered.
	Target string `json:"target,omitempty"`
	// PerPacket is exact: a whole multiple of a 64th.
	PerPacket float64 `json:"per-packet"`
}

// counted are functions whose entries are counted where the kernel has them: frames
// given back, the page pool, the DMA API with what stands behind it.
var counted = []string{
	"xdp_do_redirect", "xdp_do_redirect_frame", "bq_xmit_all",
	"xdp_return_frame", "xdp_return_frame_rx_napi", "xdp_return_frame_bulk", "__xdp_return",
	"page_pool_put_unrefed_netmem", "page_pool_put_unrefed_page", "page_pool_put_defragged_page", "page_pool_put_page",
	"page_pool_alloc_pages", "page_pool_alloc_netmems",
	"dma_map_page_attrs", "dma_unmap_page_attrs", "dma_map_sg_attrs", "dma_sync_single_for_cpu", "dma_sync_single_for_device",
	"__dma_sync_single_for_cpu", "__dma_sync_single_for_device",
	"swiotlb_tbl_map_single", "swiotlb_map", "swiotlb_bounce", "iommu_dma_map_page", "iommu_dma_unmap_page",
	"qi_flush_iotlb", "intel_iommu_tlb_sync",
}

// slots a bulk is measured in: nearly all have a window without a tick.
const slots = 6

// Measure counts, in a guest, what a packet of the veth chain goes through at each
// bulk. It needs CONFIG_KPROBE_EVENTS and CONFIG_HIST_TRIGGERS.
func Measure(ctx context.Context, bulks []int) (m *Measurement, err error) {
	m = &Measurement{Host: host.Identify(ctx)}
	cpu, err := redirect.PickCPU(-1)
	if err != nil {
		return nil, err
	}
	lab, err := netlab.New(cpu)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	plan := redirect.Plan{Bulks: bulks, CPU: cpu}
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	rows := plan.Rows()
	chain, err := redirect.BuildRow(lab, 0, rows[0], cpu)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, chain.Close()) }()
	var arms []*redirect.Arm
	for _, row := range rows {
		arm, err := chain.Arm(ctx, row.Bulk)
		if err != nil {
			return nil, err
		}
		b, err := instructions(ctx, arm)
		if err != nil {
			return nil, fmt.Errorf("count instructions at bulk %d: %w", row.Bulk, err)
		}
		b.Bulk = row.Bulk
		arms, m.Bulks = append(arms, arm), append(m.Bulks, b)
	}
	p, err := place(ctx, lab, chain)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	for i := range m.Bulks {
		if err := p.count(ctx, arms[i], &m.Bulks[i]); err != nil {
			return nil, fmt.Errorf("count at bulk %d: %w", m.Bulks[i].Bulk, err)
		}
	}
	return m, nil
}

func disagree(span redirect.Span) error {
	return fmt.Errorf("packet counts disagree: %d sent, %d redirected, %d received", span.Sent, span.Redirected, span.Received)
}

func instructions(ctx context.Context, arm *redirect.Arm) (b BulkCount, err error) {
	b = BulkCount{Instructions: math.Inf(1), Functions: make(map[string]float64), Sites: []SiteCount{}}
	for range slots {
		span, ok, err := arm.Span(ctx)
		if err != nil {
			return b, err
		}
		if !ok {
			return b, disagree(span)
		}
		b.Sent, b.Redirected, b.Received = b.Sent+span.Sent, b.Redirected+span.Redirected, b.Received+span.Received
		b.Window = span.Window
		for _, ns := range span.Windows {
			b.Windows++
			b.Instructions = min(b.Instructions, float64(ns)/float64(span.Window))
		}
	}
	return b, nil
}

// placed are the counters on the way of a packet.
type placed struct {
	*kprobes
	sites map[string]path.Site // by place
	table *ksym.Table
}

// place puts a counter at each indirect branch of the path, and at the functions that
// are counted.
func place(ctx context.Context, lab *netlab.Namespace, chain *redirect.Chain) (*placed, error) {
	text, err := ktext.OpenLive()
	if err != nil {
		return nil, err
	}
	defer text.Close()
	inv, table, err := walk(ctx, text, lab, chain)
	if err != nil {
		return nil, err
	}
	p := &placed{sites: make(map[string]path.Site), table: table}
	var probes []probe
	for _, s := range inv.Sites {
		// Code of BPF programs and of the dispatcher cannot be probed.
		if strings.HasPrefix(s.Function, "bpf_dispatcher_xdp") || strings.HasPrefix(s.Function, "bpf_prog_") || strings.HasPrefix(s.Function, "0x") {
			continue
		}
		place := fmt.Sprintf("%s+%d", s.Function, s.Offset)
		if _, seen := p.sites[place]; seen {
			continue
		}
		p.sites[place] = s
		probes = append(probes, probe{place, registers[register(text, s)]})
	}
	for _, name := range counted {
		if s, ok := table.Lookup(name); ok && s.Text() {
			probes = append(probes, probe{place: name})
		}
	}
	p.kprobes, err = newKprobes(probes)
	return p, err
}

// count adds what is executed per packet: the difference of a slot and one of twice
// as many packets, so that what a slot takes besides its packets cancels. What is not
// the same in a second such slot, or not repeated with every 64 packets, is a timer's
// or another task's.
func (p *placed) count(ctx context.Context, arm *redirect.Arm, b *BulkCount) error {
	one, packets, err := p.slot(ctx, arm)
	if err != nil {
		return err
	}
	arm.Lengthen(2)
	two, more, err := p.slot(ctx, arm)
	if err != nil {
		return err
	}
	again, _, err := p.slot(ctx, arm)
	if err != nil {
		return err
	}
	for t, n := range two {
		per := float64(n-one[t]) / float64(more-packets)
		if n <= one[t] || n != again[t] || per*64 != math.Trunc(per*64) {
			continue
		}
		s, isSite := p.sites[t.place]
		if !isSite {
			b.Functions[t.place] = per
			continue
		}
		name := ""
		if f, off, ok := p.table.Find(t.addr); ok && off == 0 {
			name = f.Name
		}
		b.Sites = append(b.Sites, SiteCount{
			Function: s.Function, Offset: s.Offset, Jump: s.Jump, Kind: string(s.Kind),
			Stage: string(s.Stage), Calls: s.Calls, Target: name, PerPacket: per,
		})
	}
	slices.SortFunc(b.Sites, func(x, y SiteCount) int {
		return cmp.Or(cmp.Compare(y.PerPacket, x.PerPacket), cmp.Compare(x.Function, y.Function), cmp.Compare(x.Offset, y.Offset), cmp.Compare(x.Target, y.Target))
	})
	return nil
}

func (p *placed) slot(ctx context.Context, arm *redirect.Arm) (hits map[target]uint64, packets uint64, err error) {
	before, err := p.hits()
	if err != nil {
		return nil, 0, err
	}
	span, ok, err := arm.Span(ctx)
	if err == nil && !ok {
		err = disagree(span)
	}
	if err != nil {
		return nil, 0, err
	}
	after, err := p.hits()
	return since(after, before), span.Sent, err
}

// register is the one that holds a site's target: of its thunk, or of the branch that
// the kernel made of it.
func register(text ktext.Source, s path.Site) string {
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

// walk reads the way of a packet through the chain's devices, and of the generator
// that sends it.
func walk(ctx context.Context, text ktext.Source, lab *netlab.Namespace, chain *redirect.Chain) (inv *path.Inventory, table *ksym.Table, err error) {
	if table, err = ksym.Live(); err != nil {
		return nil, nil, err
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, nil, fmt.Errorf("read types of the kernel: %w", err)
	}
	code := path.Code{Text: text, Table: table, Types: types, Live: true}
	tested, _, _ := chain.Devices()
	err = lab.Do(func() error {
		roots, err := path.LiveRoots(code, tested)
		if err != nil {
			return err
		}
		for _, name := range []string{"bpf_test_run_xdp_live", "xdp_test_run_batch", "bpf_prog_test_run_xdp"} {
			for _, suffix := range []string{"", ".isra.0", ".constprop.0"} {
				if s, ok := table.Lookup(name + suffix); ok && s.Text() {
					roots = append(roots, path.Root{Function: s.Name, Addr: s.Addr, Stage: path.StageReceive, Per: path.PerBulk, Why: "it generates frames"})
				}
			}
		}
		inv, err = path.Walk(ctx, code, roots)
		return err
	})
	return inv, table, err
}
