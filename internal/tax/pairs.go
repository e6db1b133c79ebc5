package tax

import (
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// pair is two experiments that differ in one indirect branch, or a reference for the
// prices of others.
type pair struct {
	// name of its row: "map-lookup/lpm". What stands before the slash is
	// the family.
	name string
	// target is what is called, and what the call is compared with.
	target string
	// sides are what is compared.
	sides sides
	// note is what else the price holds; empty when it is the branch alone.
	note string
}

// family is the name of a group of rows.
func (p pair) family() string {
	family, _, _ := strings.Cut(p.name, "/")
	return family
}

// matches tells whether a name that a plan takes is that of the pair or its family.
func (p pair) matches(want string) bool { return want == p.name || want == p.family() }

// Thunk is the pair that gives the price of one indirect call of the kernel, with
// nothing else in it.
const Thunk = "bpf-prog"

// topBulk is the bulk of pairs that are measured at one only, and of the hop that
// the calls of 2018 are added to: what is left of it when nothing is called for each
// packet.
const topBulk = 64

// pairs lists all pairs in the order they are shown. A new one is a line here, and
// its programs in internal/bpf/price.
func pairs() []pair {
	const (
		tree        = "the dispatcher's compare tree: several programs in it against one"
		lookup      = "map->ops->map_lookup_elem: of a map the verifier cannot know, against one it knows"
		loop        = "the callback: of bpf_for_each_map_elem or bpf_loop, against bpf_loop inlined, an iteration"
		xmit        = "netdev_ops->ndo_xdp_xmit: the hop at bulk 1 against a larger bulk, a packet"
		tracepoints = "observers at xdp_redirect: one or two against none, a hit"
		user        = "a function in user space: called indirectly against directly"

		direct   = "no indirect branch: a reference for the others"
		oneCall  = "one indirect branch, and a direct call with its return that the inlined lookup does not have"
		twoLoops = "the two loops differ too: one walks an array"
	)
	return []pair{
		{"control", "nothing: two loads of one program",
			programs{with: "lpm_known", without: "lpm_known", reference: true}, ""},

		{Thunk, "prog->bpf_func: outside the full BPF dispatcher against inside",
			outsideFull{}, "the thunk alone: both sides walk the same compare tree"},
		{"dispatcher-tree/4", tree, treeSize{4, 1}, direct},
		{"dispatcher-tree/16", tree, treeSize{16, 1}, direct},
		{"dispatcher-tree/full", tree, treeSize{full, 1}, direct},

		{"map-lookup/array", lookup, programs{with: "array_unknown", without: "array_known"}, oneCall},
		{"map-lookup/hash", lookup, programs{with: "hash_unknown", without: "hash_known"}, oneCall},
		{"map-lookup/lpm", lookup, programs{with: "lpm_unknown", without: "lpm_known"}, ""},

		{"tail-call", "the next program: by a variable index against a constant one",
			programs{with: "tail_variable", without: "tail_constant"},
			"one indirect branch, and the checks that a constant index does not need"},

		{"callback/for-each", loop, programs{with: "for_each", without: "loop_inlined"}, twoLoops},
		{"callback/loop", loop, programs{with: "loop_called", without: "loop_inlined"}, ""},

		{"ndo-xdp-xmit/bulk=16", xmit, hop{1, 16}, ""},
		{"ndo-xdp-xmit/bulk=64", xmit, hop{1, 64}, ""},

		{"return-frame", "returning frames: one by one against in bulk", returnFrame{}, ""},

		{"devmap-prog", "a second program: run from the devmap entry against none, a packet",
			devmapProgram{}, "one indirect branch, the program, and a new xdp_buff for it"},

		{"tracepoint/1", tracepoints, observers{1, functions.CallsObserver},
			"all of an empty observer: one indirect call and the direct ones around it"},
		{"tracepoint/2", tracepoints, observers{2, functions.CallsObservers},
			"two empty observers: four indirect calls, as the first is no longer called directly"},

		{"direct-call", "a helper that does nothing: against none, a direct call and its return",
			programs{with: "helper_called", without: "helper_spared", reference: true}, direct},

		{Statistics, "run statistics of BPF programs (kernel.bpf_stats_enabled): on against off, a run", runStatistics{}, direct},

		{"user/indirect", user, userCalls{way{"indirect", false}, directly}, ""},
		{"user/indirect-varying", user, userCalls{way{"indirect", true}, directly}, ""},
		{"user/retpoline", user, userCalls{way{"retpoline", false}, directly}, ""},
		{"user/retpoline-varying", user, userCalls{way{"retpoline", true}, directly}, ""},
		{"user/lfence", user, userCalls{way{"lfence", false}, directly}, ""},
		{"user/lfence-varying", user, userCalls{way{"lfence", true}, directly}, ""},
	}
}

// Families lists the names that a plan takes, one a group of pairs.
func Families() []string {
	var out []string
	for _, p := range pairs() {
		if !slices.Contains(out, p.family()) {
			out = append(out, p.family())
		}
	}
	return out
}

// EstimatePairs lists the pairs that the estimate of a packet at bulk 16 takes: the price
// of a call, and the chains that calls are counted on.
func EstimatePairs() []string { return []string{Thunk, "ndo-xdp-xmit/bulk=16"} }

// CallFamilies lists the families whose price is that of an indirect call of the
// kernel, and the control.
func CallFamilies() []string {
	return slices.DeleteFunc(Families(), func(family string) bool {
		return slices.Contains([]string{"dispatcher-tree", "return-frame", "direct-call", Statistics, "user"}, family)
	})
}
