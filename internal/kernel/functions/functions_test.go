package functions

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTable checks that entries do not contradict themselves or one another.
func TestTable(t *testing.T) {
	version := regexp.MustCompile(`^[4-9]\.\d+$`)
	named := make(map[string]Role)
	for _, f := range Table() {
		pattern := strings.Contains(f.Name, "*")
		if inner := strings.Trim(f.Name, "*"); inner == "" || strings.Contains(inner, "*") {
			t.Errorf("%s: a * stands at the end, or at both ends", f.Name)
		}
		if pattern && (f.Since != "" || f.Until != "" || f.Was != nil || f.Per != "" || f.Roles&Root != 0) {
			t.Errorf("%s: a pattern has a stage and roles at most", f.Name)
		}
		if f.Stage != "" && !slices.Contains(Stages(), f.Stage) {
			t.Errorf("%s: there is no stage %q", f.Name, f.Stage)
		}
		if f.Per != "" && f.Per.Rank() == 0 || f.Loop != "" && f.Loop.Rank() == 0 {
			t.Errorf("%s: runs per %q, its loops per %q", f.Name, f.Per, f.Loop)
		}
		if f.Roles&Root != 0 && (f.Stage == "" || f.Per == "" || f.What == "") {
			t.Errorf("%s: a root has a stage, a rate and what it does", f.Name)
		}
		for _, n := range f.Names() {
			for _, v := range []string{n.Since, n.Until} {
				if v != "" && !version.MatchString(v) {
					t.Errorf("%s: %q is not a version", n.Name, v)
				}
			}
			if twice := named[n.Name] & f.Roles; twice != 0 {
				t.Errorf("%s: two entries give it roles %b", n.Name, twice)
			}
			named[n.Name] |= f.Roles
		}
	}
}

func TestStageOf(t *testing.T) {
	for symbol, want := range map[string]Stage{
		"net_rx_action":             StageSoftirq,
		"handle_softirqs.isra.0":    StageSoftirq,
		"napi_complete_done":        StageSoftirq,
		"napi_pp_put_page":          StagePagePool, // not softirq, as other napi_ are
		"page_pool_put_unrefed_new": StagePagePool,
		"__xdp_return.constprop.0":  StageReturn,
		"dev_map_redirect":          StageProgram,
		"dev_map_redirect_multi":    StageRedirect,
		"dev_xdp_enqueue":           StageRedirect,
		"bpf_prog_0123456789abcdef": StageProgram,
		"bpf_trace_run7":            StageObserver,
		"_raw_spin_lock":            StageLocks,
		"igb_clean_tx_irq":          StageCompletion,
		"veth_poll":                 "",
		"":                          "",
	} {
		if got := StageOf(symbol); got != want {
			t.Errorf("StageOf(%q) = %q, want %q", symbol, got, want)
		}
	}
}

func TestHas(t *testing.T) {
	for _, test := range []struct {
		symbol string
		role   Role
		want   bool
	}{
		{"bq_xmit_all.isra.0", Transmits, true},
		{"veth_xdp_rcv_one", Driver, true},
		{"veth_xdp_rcv_one", Drops, true},
		{"xdp_return_frame", OfFrame, true}, // by a pattern
		{"xdp_return_frame", Root, true},    // by its name
		{"warn_slowpath_fmt", Rare, true},
		{".slowpath", Rare, true},
		{"asm_sysvec_call_function", Interrupt, true},
		{"asm_sysvec_call_function", Outermost, true},
		{"page_pool_put_defragged_page", Counted, true}, // an older name
		{"veth_poll", Root, false},
		{"", Rare, false},
	} {
		if got := Has(test.symbol, test.role); got != test.want {
			t.Errorf("Has(%q, %b) = %v, want %v", test.symbol, test.role, got, test.want)
		}
	}
}

func TestFind(t *testing.T) {
	f, ok := Find("page_pool_put_unrefed_page.part.0")
	if !ok || f.Name != "page_pool_put_unrefed_netmem" || f.Stage != StagePagePool || f.Per != PerPacket {
		t.Errorf("an older name, split by the compiler: %+v, %v", f, ok)
	}
	for _, symbol := range []string{"xdp_do_redirect.cold", "xdp_do_redirect.isra.0.cold", "page_pool_*", "nothing"} {
		if f, ok := Find(symbol); ok {
			t.Errorf("%s is %+v", symbol, f)
		}
	}
}

// TestHolders checks the order: programs look at the first that there is.
func TestHolders(t *testing.T) {
	for role, want := range map[Role][]string{
		CallsXmit:   {"bq_xmit_all", "__dev_flush"},
		CallsAction: {"handle_softirqs", "__do_softirq"},
		CallsPoll:   {"__napi_poll", "napi_poll", "net_rx_action"},
	} {
		if got := Holders(role); !slices.Equal(got, want) {
			t.Errorf("holders of role %b are %q, want %q", role, got, want)
		}
	}
}

func TestLimit(t *testing.T) {
	for symbol, want := range map[string]string{
		"_printk":                          "warnings and messages",
		"native_queued_spin_lock_slowpath": "locks, when contended",
		"some_lock_slowpath":               "locks, when contended",
		"kmem_cache_alloc_noprof":          "the memory allocator",
		"page_pool_alloc_pages":            "",
		"veth_poll":                        "",
	} {
		if got := Limit(symbol); got != want {
			t.Errorf("Limit(%q) = %q, want %q", symbol, got, want)
		}
	}
}

func TestStages(t *testing.T) {
	for i, s := range Stages() {
		if s.Order() != i || s.Group() == "" || s.Meaning() == "" && s != StageIdle {
			t.Errorf("stage %s: order %d of %d, group %q, meaning %q", s, s.Order(), i, s.Group(), s.Meaning())
		}
	}
	if s := Stage("new"); s.Order() != len(Stages()) || s.Group() != GroupRest || s.OnPath() || s.Meaning() != "" {
		t.Errorf("a stage that is not known: order %d, group %q", s.Order(), s.Group())
	}
	if !(PerPacket.Rank() > PerBulk.Rank() && PerBulk.Rank() > PerPoll.Rank() && PerPoll.Rank() > PerUnknown.Rank() &&
		PerUnknown.Rank() > PerRare.Rank() && PerRare.Rank() > Per("").Rank()) {
		t.Error("rates are out of order")
	}
}
