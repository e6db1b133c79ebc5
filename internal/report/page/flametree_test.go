package page

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/report/reporttest"
)

// vethChain are call chains of a real profile with the stages that it gave them: a frame
// has the color of that stage in every graph.
var vethChain = []struct{ stage, frames string }{
	{"generator", "entry_SYSCALL_64_after_hwframe do_syscall_64 __x64_sys_bpf __sys_bpf bpf_prog_test_run_xdp " +
		"bpf_test_run_xdp_live xdp_test_run_batch.constprop.0"},
	{"generator", "> __dev_flush bq_xmit_all veth_ndo_xdp_xmit veth_xdp_xmit"},
	{"generator", "> bpf_prog_305bf0bd80b20e3b_generate dev_map_redirect"},
	{"generator", "> page_pool_alloc_pages page_pool_refill_alloc_cache"},
	{"generator", "bpf_prog_305bf0bd80b20e3b_generate"},
	{"softirq", "> __local_bh_enable_ip do_softirq.part.0 handle_softirqs net_rx_action"},
	{"softirq", "> __local_bh_enable_ip do_softirq.part.0 handle_softirqs net_rx_action skb_defer_free_flush _find_next_bit"},
	{"receive", "poll"},
	{"receive", "poll veth_xdp_rcv veth_xdp_rcv_one"},
	{"sink", "poll veth_xdp_rcv veth_xdp_rcv_one"},
	{"sink", "poll veth_xdp_rcv veth_xdp_rcv_one bpf_prog_f5ad222ac4c771a3_sink"},
	{"program", "poll veth_xdp_rcv veth_xdp_rcv_one bpf_prog_e32ca3b65d652642_redirect_map dev_map_redirect"},
	{"redirect", "poll veth_xdp_rcv veth_xdp_rcv_one xdp_do_redirect dev_map_enqueue"},
	{"bulk-queue", "poll veth_xdp_rcv veth_xdp_rcv_one xdp_do_redirect dev_map_enqueue bq_enqueue"},
	{"return", "poll veth_xdp_rcv veth_xdp_rcv_one page_pool_put_unrefed_netmem"},
	{"locks", "poll veth_xdp_rcv veth_xdp_rcv_one page_pool_put_unrefed_netmem _raw_spin_lock"},
	{"transmit", "poll __dev_flush bq_xmit_all veth_ndo_xdp_xmit veth_xdp_xmit"},
	{"softirq", "poll napi_complete_done"},
}

// framesOf are the frames of a chain of vethChain.
func framesOf(s string) []string {
	root := vethChain[0].frames
	s = strings.Replace(s, ">", root, 1)
	return strings.Fields(strings.Replace(s, "poll", root+
		" __local_bh_enable_ip do_softirq.part.0 handle_softirqs net_rx_action __napi_poll veth_poll", 1))
}

// vethProfile is a profile of vethChain, each chain with 2 ns, and of what is no packet's.
func vethProfile(ns float64) *record.Profile {
	p := loadableProfile()
	p.Stacks = nil
	for _, c := range vethChain {
		p.Stacks = append(p.Stacks, record.ProfileStack{Frames: framesOf(c.frames), Stage: c.stage, Samples: 10, Ns: ns})
	}
	p.Stacks = append(p.Stacks, record.ProfileStack{Frames: []string{"[user]"}, Stage: "other", Samples: 5000, Ns: 500})
	return p
}

func TestFlameStages(t *testing.T) {
	t.Parallel()
	for _, c := range vethChain {
		var at flameStage
		for _, name := range framesOf(c.frames) {
			at = at.of(name, c.stage == "sink")
		}
		if string(at.stage) != c.stage {
			t.Errorf("%s: stage %q, want %q", c.frames, at.stage, c.stage)
		}
	}
}

// lab is a color of the form #rrggbb in CIELAB, where distances are those that are seen.
func lab(t *testing.T, color string) [3]float64 {
	t.Helper()
	n, err := strconv.ParseUint(color[1:], 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	linear := func(shift uint) float64 {
		c := float64(n>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	r, g, b := linear(16), linear(8), linear(0)
	f := func(x float64) float64 {
		if x > 0.008856 {
			return math.Cbrt(x)
		}
		return 7.787*x + 16.0/116
	}
	x := f((0.4124*r + 0.3576*g + 0.1805*b) / 0.9505)
	y := f(0.2126*r + 0.7152*g + 0.0722*b)
	z := f((0.0193*r + 0.1192*g + 0.9505*b) / 1.089)
	return [3]float64{116*y - 16, 500 * (x - y), 200 * (y - z)}
}

// Stages that a graph shows differ in color by far more than is just seen (2.3), from
// each other and from the paper of both themes, and letters on them can be read.
func TestFlameColors(t *testing.T) {
	t.Parallel()
	colors := map[string]string{"light paper": "#fdfcf9", "dark paper": "#15171a", "none": flameColors[""]}
	for _, s := range functions.Stages() {
		if s.Group() != functions.GroupRest {
			if flameColors[s] == "" {
				t.Errorf("stage %s has no color", s)
				continue
			}
			colors[string(s)] = flameColors[s]
		}
	}
	for a, x := range colors {
		for b, y := range colors {
			p, q := lab(t, x), lab(t, y)
			if d := math.Hypot(math.Hypot(p[0]-q[0], p[1]-q[1]), p[2]-q[2]); a < b && d < 13 {
				t.Errorf("%s %s and %s %s are %.1f apart", a, x, b, y, d)
			}
		}
		if light := lab(t, x)[0]; light < 60 && a != "dark paper" {
			t.Errorf("%s %s is too dark for dark letters", a, x)
		}
	}
}

// What is no packet's takes no width and is said; the polls of the redirect and of the
// sink are two; the frames that an indirect call enters are marked; the graph of a phone
// is of the poll that redirects.
func TestFlameTree(t *testing.T) {
	t.Parallel()
	p := vethProfile(2)
	tree, err := newFlameTree(t.Context(), p, indirectCallsOf(p, []record.SiteRow{
		{Function: "__napi_poll", Targets: []string{"veth_poll"}}}))
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 * float64(len(vethChain)); tree.root.width != want {
		t.Errorf("%v ns wide, want %v", tree.root.width, want)
	}
	if got := tree.leftOut(); got != "Not drawn, as it is no packet's: other 500 ns a packet." {
		t.Errorf("left out: %q", got)
	}
	if len(tree.root.children) != 2 {
		t.Fatalf("%d outermost frames", len(tree.root.children))
	}
	if first := tree.root.children[1]; first.name != "bpf_prog_test_run_xdp" || len(first.under) != 4 {
		t.Errorf("the outermost frame is %s above %v", first.name, first.under)
	}
	count := make(map[string]int)
	var walk func(f *flameFrame)
	walk = func(f *flameFrame) {
		count[f.name+"/"+string(f.at.stage)]++
		if f.indirect {
			count["indirect "+f.name]++
		}
		for _, c := range f.children {
			walk(c)
		}
	}
	walk(tree.root)
	for name, want := range map[string]int{"veth_poll/receive": 1, "veth_poll/sink": 1, "indirect veth_poll": 2,
		"indirect veth_ndo_xdp_xmit": 2, "indirect veth_xdp_xmit": 0} {
		if count[name] != want {
			t.Errorf("%s: %d times, want %d", name, count[name], want)
		}
	}
	if f := tree.root.redirect(); f.name != "__napi_poll" || f.at.base != inPoll {
		t.Errorf("a phone sees %s", f.name)
	}
}

// All stages of a graph stand in its legend, also where they take several lines.
func TestFlameLegend(t *testing.T) {
	t.Parallel()
	p := vethProfile(2)
	for _, s := range functions.Stages() {
		if s.Group() != functions.GroupRest {
			p.Stacks = append(p.Stacks, record.ProfileStack{Frames: []string{"f_" + string(s)}, Stage: string(s), Ns: 1})
		}
	}
	text := string(pageOf(t, Source{Records: []*record.Saved{savedAs(t, "p", p)}}))
	for _, s := range functions.Stages() {
		// Once in the graph of a desk, once in that of a phone.
		if n := strings.Count(text, `">`+string(s)+" "); n < 2 && s.Group() != functions.GroupRest {
			t.Errorf("stage %s stands in %d legends", s, n)
		}
	}
	if strings.Contains(text, `">other 500`) {
		t.Error("the legend has what is not drawn")
	}
}

func TestFlameDifference(t *testing.T) {
	t.Parallel()
	old, changed := vethProfile(2), vethProfile(2)
	for i := range changed.Stacks {
		switch s := &changed.Stacks[i]; {
		case s.Frames[len(s.Frames)-1] == "veth_xdp_xmit" && s.Stage == "transmit":
			s.Ns = 6
		case s.Stage == "locks":
			s.Ns = 0.5
		}
	}
	gone := record.ProfileStack{Frames: framesOf("poll gone"), Stage: "receive", Samples: 40, Ns: 1}
	old.Stacks = append(old.Stacks, gone)
	a, b := savedAs(t, "a.json", old), savedAs(t, "b.json", changed)
	var svg bytes.Buffer
	if err := SVG(t.Context(), &svg, Source{Records: []*record.Saved{a, b}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"veth_xdp_xmit +4", `fill="` + changeColor(1) + `"`, "the function itself 2.00 → 6.00 (+4.0), stage transmit",
		"gone: 1.00 → 0.00 ns a packet", "_raw_spin_lock -1.5", "redirect-map/bulk=16: from a.json to b.json",
	} {
		if !strings.Contains(svg.String(), want) {
			t.Errorf("no %q", want)
		}
	}
	page := checkHTML(t, pageOf(t, Source{Records: []*record.Saved{a, b}}))
	if !strings.Contains(page, "What changed from a.json to b.json: redirect-map/bulk=16") {
		t.Error("the page has no differential flame graph")
	}
	other := vethProfile(2)
	other.Settings["bulk"] = "1"
	page = checkHTML(t, pageOf(t, Source{Records: []*record.Saved{a, savedAs(t, "c.json", other)}}))
	if strings.Contains(page, "What changed from") {
		t.Error("profiles of two bulks are compared")
	}
	bench := savedAs(t, "bench.json", reporttest.Bench("x", 1, 1))
	for _, tt := range []struct {
		records []*record.Saved
		want    string
	}{
		{[]*record.Saved{bench}, "0 records with call chains"},
		{[]*record.Saved{a, b, a}, "3 records with call chains"},
		{[]*record.Saved{a, savedAs(t, "c.json", other)}, "of redirect-map/bulk=16, the other of redirect-map/bulk=1"},
		{[]*record.Saved{bench, a}, ""},
	} {
		err := SVG(t.Context(), new(bytes.Buffer), Source{Records: tt.records})
		if fmt.Sprint(err) != tt.want && !strings.Contains(fmt.Sprint(err), cmp.Or(tt.want, "<nil>")) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}

// A graph of very many stacks ends soon after its context.
func TestFlameStopped(t *testing.T) {
	t.Parallel()
	p := reporttest.Profile()
	p.Stacks = nil
	for i := range 200_000 {
		p.Stacks = append(p.Stacks, record.ProfileStack{Frames: []string{fmt.Sprint("f", i), "g"}, Stage: "receive", Ns: 1})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Flame(ctx, new(bytes.Buffer), p, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("a graph: %v", err)
	}
	src := Source{Records: []*record.Saved{savedAs(t, "run", reporttest.Bench("x", 1, 1))}}
	for name, write := range map[string]func() error{
		"HTML":     func() error { return HTML(ctx, new(bytes.Buffer), src) },
		"Markdown": func() error { return Markdown(ctx, new(bytes.Buffer), src) },
		"CSV":      func() error { return CSV(ctx, new(bytes.Buffer), src) },
	} {
		if err := write(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A record of 10 MB may have a million frames: they are refused before they take the memory, and
// the picture that they would make is too large for a page.
func TestFlameLimits(t *testing.T) {
	t.Parallel()
	p := &record.Profile{}
	for i := range 30_000 {
		s := record.ProfileStack{Stage: "receive", Samples: 1, Ns: 1}
		for j := range 18 {
			s.Frames = append(s.Frames, fmt.Sprintf("%d_%d", i, j))
		}
		p.Stacks = append(p.Stacks, s)
	}
	if _, err := newFlameTree(t.Context(), p, nil); !errors.Is(err, errFlameFrames) {
		t.Error(err)
	}
	p.Stacks = p.Stacks[:20_000]
	tree, err := newFlameTree(t.Context(), p, nil)
	if err != nil || tree.frames != 360_000 {
		t.Fatal(tree.frames, err)
	}
	g := newFlameGraph(tree, "")
	g.room = 10_000
	if _, err := g.draw(t.Context(), "", 0.01); !errors.Is(err, errFlameRoom) {
		t.Error(err)
	}
	if g.b.Len() > 20_000 {
		t.Errorf("%d bytes are drawn", g.b.Len())
	}
}

// A frame finds its children whether it has few or many.
func TestFlameChildren(t *testing.T) {
	t.Parallel()
	tree := emptyFlameTree()
	for range 2 {
		for i := range 3 * unindexed {
			f := tree.child(tree.root, fmt.Sprint(i), false, nil)
			if f != tree.root.children[i] {
				t.Fatalf("child %d is another", i)
			}
		}
	}
	if tree.frames != 3*unindexed {
		t.Error(tree.frames)
	}
}
