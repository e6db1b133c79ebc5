package lab

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/guest"
	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

// A kernel that clang built with CFI is booted in each mode. What the modes differ in is accounted for to the instruction by their
// checks and preambles; each counted branch is one that the walk finds, of the same cost, and enters a function, no preamble.
func TestCFI(t *testing.T) {
	tree := os.Getenv("UNTHUNK_CFI_TREE")
	if tree == "" {
		testutil.Missing(t, "the tree of a kernel that clang built with CFI (UNTHUNK_CFI_TREE, of scripts/small-kernel)")
	}
	modes := []struct {
		mode, kind, check string
		executed          map[string]int // by target
	}{
		{"off", "thunk", "kcfi-off", map[string]int{"veth_poll": 5, "veth_ndo_xdp_xmit": 5, "net_rx_action": 5}},
		{"kcfi", "thunk", "kcfi-udb", map[string]int{"veth_poll": 8, "veth_ndo_xdp_xmit": 8, "net_rx_action": 8}},
		{"fineibt", "thunk", "fineibt", map[string]int{"veth_poll": 10, "veth_ndo_xdp_xmit": 10, "net_rx_action": 10}},
		{"fineibt,paranoid", "register", "fineibt-paranoid", map[string]int{"veth_poll": 8, "veth_ndo_xdp_xmit": 8, "net_rx_action": 8}},
		{"fineibt,bhi", "thunk", "fineibt", map[string]int{"veth_poll": 14, "veth_ndo_xdp_xmit": 16, "net_rx_action": 10}},
	}
	self := unthunk(t)
	plan := Plan{Kernels: []string{tree}, Bulks: []int{1, 16}}
	for _, m := range modes {
		plan.Appends = append(plan.Appends, "cfi="+m.mode)
	}
	cells, err := Run(t.Context(), plan, self, nil)
	testutil.SkipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	l := Record(cells, plan.Rows(), nil)
	for _, d := range l.Differences {
		t.Logf("%s, %s: %v instructions a packet, %v by %v branches", d.With, d.Without, d.Instructions, d.BySites, d.CallsPerPacket)
		if d.Remainder != 0 {
			t.Errorf("%s, %s: %v instructions are not accounted for", d.With, d.Without, d.Remainder)
		}
	}
	if len(l.Differences) != 2*4 {
		t.Errorf("%d differences", len(l.Differences))
	}
	for i, c := range cells {
		m := modes[i]
		t.Run(m.mode, func(t *testing.T) {
			if c.Err != nil {
				t.Fatalf("%v; console:\n%s", c.Err, c.Console)
			}
			if c.Host.CFI != m.mode {
				t.Errorf("mode %q, want %q", c.Host.CFI, m.mode)
			}
			walked := sitesIn(t, Plan{Kernels: []string{tree}, Appends: []string{c.Append}}, self)
			for _, b := range c.Bulks {
				seen := make(map[string]bool)
				for _, s := range b.Sites {
					seen[s.Target] = true
					if want := m.executed[s.Target]; s.Executed != want || want == 0 || s.Kind != m.kind {
						t.Errorf("bulk %d: %+v, want %d instructions, %s", b.Bulk, s, want, m.kind)
					}
					at := slices.IndexFunc(walked, func(w record.SiteRow) bool { return w.Function == s.Function && w.Offset == s.Offset })
					if at < 0 || walked[at].Check != m.check || walked[at].Pointer == nil {
						t.Errorf("%s+%#x was counted: not walked, or not as %s with a name", s.Function, s.Offset, m.check)
						continue
					}
					if w := walked[at]; len(w.Targets) > 0 && (!slices.Contains(w.Targets, s.Target) || w.Instructions+w.Preamble != s.Executed) {
						t.Errorf("%+v was counted as %+v", w, s)
					}
				}
				if len(seen) != len(m.executed) {
					t.Errorf("bulk %d: entered %v", b.Bulk, seen)
				}
			}
			for _, w := range walked {
				if slices.ContainsFunc(w.Targets, func(name string) bool { return strings.HasPrefix(name, "__cfi_") }) {
					t.Errorf("%s+%#x calls %q", w.Function, w.Offset, w.Targets)
				}
				if w.Check != m.check && w.Function != "bpf_dispatcher_xdp" {
					t.Errorf("%s+%#x: check %q, want %q", w.Function, w.Offset, w.Check, m.check)
				}
			}
		})
	}
}

// sitesIn are the indirect branches that xray finds in the guest of a plan. The guest counts exactly: in others a timer's interrupt
// may come while the kernel rewrites its checks, and then a check fails.
func sitesIn(t *testing.T, plan Plan, self string) (rows []record.SiteRow) {
	t.Helper()
	err := each(t.Context(), plan.withDefaults(), 1, self, nil, func(ctx context.Context, _ int, m *guest.Machine, _ Cell) {
		m.Exact = true
		r, err := m.Run(ctx, guest.Command{Args: []string{guest.Self, "xray", "--json"}, Timeout: plan.withDefaults().Limit})
		if err != nil {
			t.Errorf("%v; console:\n%s", err, r.Console)
			return
		}
		saved, err := record.Parse(r.Results[0].Stdout)
		if err != nil {
			t.Errorf("%v: %s", err, r.Results[0].Stderr)
			return
		}
		rows = saved.Sites().Rows
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
