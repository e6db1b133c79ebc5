package tax

import (
	"strings"

	"github.com/unthunk/unthunk/internal/redirect"
)

// Pair is two experiments that differ in one indirect branch, or a reference
// that prices are read against.
type Pair struct {
	// Name of its row: "map-lookup/lpm". What stands before the slash is
	// the family.
	Name string
	// Calls is what is called, and against what.
	Calls string
	// With and Without are the two experiments.
	With, Without arm
	// Note is what else the price holds; empty when it is the branch alone.
	Note string
	// In are kernel functions one of which holds the branch: the premise of
	// a pair that is not told by the code of its programs.
	In []string
	// PerPacket says how often it runs for a packet of redirect-map.
	PerPacket perPacket
}

// Family is the name of a group of rows.
func (p Pair) Family() string {
	family, _, _ := strings.Cut(p.Name, "/")
	return family
}

// needsJIT tells whether the premise is read from the code of programs, or from the
// dispatcher's, which tells programs apart by it. Without the JIT all programs of a
// stack size have one address, and the verifier refuses callbacks.
func (p Pair) needsJIT() bool {
	switch a := p.With.(type) {
	case program, tree:
		return true
	case onChain:
		return a.second
	}
	return false
}

// perPacket is how often a pair's call runs on the way of a packet that is
// redirected by redirect-map at bulk 64, from the program that redirects it to
// the program that ends it.
type perPacket int

const (
	// notOnPath: the chain's programs and the kernel's path do not make
	// this call. That is read off their code.
	notOnPath perPacket = iota
	// onceEach: once for each packet, where it is in use.
	onceEach
	// tracepointHits: as often as the hop hits the tracepoint.
	tracepointHits
	// programCalls: as many as the path calls programs that do not stand in
	// the dispatcher.
	programCalls
	// xmitsSaved: the ndo_xdp_xmit calls that bulking saves.
	xmitsSaved
	// notCounted: a reference, or not a call.
	notCounted
)

// arm is one side of a pair. Arms that are equal are measured once.
type arm interface{ kind() kind }

type kind int

const (
	programKind kind = iota
	treeKind
	chainKind
	userKind
	impossibleKind
)

// program is a program of internal/bpf/price that times its own work; copy tells
// two loads of one program apart.
type program struct {
	name string
	copy int
}

// tree is an XDP program that the kernel calls while the BPF dispatcher holds
// this many programs: it among them, or not.
type tree struct {
	size    int // full: as many as fit
	outside bool
}

const full = 0

// onChain is a chain at a bulk.
type onChain struct {
	bulk int
	// drop ends the chain at the program under test: there is no redirect.
	drop bool
	// second runs another program for each frame, from the devmap.
	second bool
	// observers is how many programs are at the tracepoint xdp_redirect, less
	// one; 0 stands for "not part of that experiment".
	observers int
	// hop takes the chain without the redirect off.
	hop bool
}

// user is a kind of call in user space: see internal/usercall.
type user struct {
	name    string
	varying bool
}

// impossible is a path that cannot be isolated; the row says why.
type impossible struct{}

func (program) kind() kind    { return programKind }
func (tree) kind() kind       { return treeKind }
func (onChain) kind() kind    { return chainKind }
func (user) kind() kind       { return userKind }
func (impossible) kind() kind { return impossibleKind }

// callsXmit is where a redirect calls ndo_xdp_xmit: the second where the compiler
// has put the first into it.
var callsXmit = []string{"bq_xmit_all", "__dev_flush"}

// pathCall is an indirect call that the kernel makes on the way of a redirected
// packet, whatever its programs do.
type pathCall struct {
	name string
	in   []string // kernel functions, the first of which that exists makes it
	of   func(redirect.Calls) float64
}

// pathCalls are those between the program that redirects a packet and the one
// that ends it: what the estimates for a whole packet add up.
var pathCalls = []pathCall{
	{"ndo_xdp_xmit", callsXmit, func(c redirect.Calls) float64 { return c.Xmits }},
	{"softirq action", []string{"handle_softirqs", "__do_softirq"}, func(c redirect.Calls) float64 { return c.Softirqs }},
	{"NAPI poll", []string{"__napi_poll", "napi_poll", "net_rx_action"}, func(c redirect.Calls) float64 { return c.Polls }},
}

// Thunk is the pair that gives the price of one indirect call of the kernel, with
// nothing else in it.
const Thunk = "bpf-prog"

// Pairs lists all pairs in the order they are shown. A new one is a line here
// and its program in internal/bpf/price.
func Pairs() []Pair {
	const (
		treeCalls   = "the dispatcher's compare tree: so many programs in it against one"
		lookupCalls = "map->ops->map_lookup_elem: of a map the verifier cannot know, against one it knows"
		loopCalls   = "the callback: of bpf_for_each_map_elem or bpf_loop, against bpf_loop inlined, an iteration"
		xmitCalls   = "netdev_ops->ndo_xdp_xmit: the hop at bulk 1 against a larger bulk, a packet"
		tracepoints = "observers at xdp_redirect: so many against none, a hit"
		userCalls   = "a function in user space: called indirectly against directly"

		direct   = "no indirect branch: to read the others against"
		oneCall  = "one indirect branch, and a direct call with its return that the inlined lookup lacks"
		twoLoops = "the two loops differ too: one walks an array"
	)
	return []Pair{
		{Name: "control", Calls: "nothing: two loads of one program",
			With: program{"lpm_known", 1}, Without: program{"lpm_known", 2}, PerPacket: notCounted},

		{Name: "bpf-prog", Calls: "prog->bpf_func: outside the full BPF dispatcher against inside",
			With: tree{full, true}, Without: tree{full, false}, PerPacket: programCalls,
			Note: "the thunk alone: both sides walk the same compare tree"},
		{Name: "dispatcher-tree/4", Calls: treeCalls, With: tree{4, false}, Without: tree{1, false}, PerPacket: notCounted, Note: direct},
		{Name: "dispatcher-tree/16", Calls: treeCalls, With: tree{16, false}, Without: tree{1, false}, PerPacket: notCounted, Note: direct},
		{Name: "dispatcher-tree/full", Calls: treeCalls, With: tree{full, false}, Without: tree{1, false}, PerPacket: notCounted, Note: direct},

		{Name: "map-lookup/array", Calls: lookupCalls, With: program{"array_unknown", 0}, Without: program{"array_known", 0}, Note: oneCall},
		{Name: "map-lookup/hash", Calls: lookupCalls, With: program{"hash_unknown", 0}, Without: program{"hash_known", 0}, Note: oneCall},
		{Name: "map-lookup/lpm", Calls: lookupCalls, With: program{"lpm_unknown", 0}, Without: program{"lpm_known", 0}},

		{Name: "tail-call", Calls: "the next program: by a variable index against a constant one",
			With: program{"tail_variable", 0}, Without: program{"tail_constant", 0},
			Note: "one indirect branch, and the checks that a constant index does not need"},

		{Name: "callback/for-each", Calls: loopCalls, With: program{"for_each", 0}, Without: program{"loop_inlined", 1}, Note: twoLoops},
		{Name: "callback/loop", Calls: loopCalls, With: program{"loop_called", 0}, Without: program{"loop_inlined", 2}},

		{Name: "ndo-xdp-xmit/bulk=16", Calls: xmitCalls,
			With: onChain{bulk: 1, hop: true}, Without: onChain{bulk: 16, hop: true}, In: callsXmit, PerPacket: xmitsSaved},
		{Name: "ndo-xdp-xmit/bulk=64", Calls: xmitCalls,
			With: onChain{bulk: 1, hop: true}, Without: onChain{bulk: 64, hop: true}, In: callsXmit, PerPacket: xmitsSaved},

		{Name: "return-frame", Calls: "giving frames back: one by one against in bulk", With: impossible{}, Without: impossible{}, PerPacket: notCounted},

		{Name: "devmap-prog", Calls: "a second program: run from the devmap entry against none, a packet",
			With: onChain{bulk: 64, second: true}, Without: onChain{bulk: 64}, PerPacket: onceEach,
			Note: "one indirect branch, the program, and an xdp_buff made anew around it"},

		{Name: "tracepoint/1", Calls: tracepoints,
			With: onChain{bulk: 64, observers: 2}, Without: onChain{bulk: 64, observers: 1}, In: []string{"bpf_trace_run7", "bpf_trace_run6"}, PerPacket: tracepointHits,
			Note: "all of an empty observer: one indirect call and the direct ones around it"},
		{Name: "tracepoint/2", Calls: tracepoints,
			With: onChain{bulk: 64, observers: 3}, Without: onChain{bulk: 64, observers: 1}, In: []string{"__traceiter_xdp_redirect"}, PerPacket: tracepointHits,
			Note: "two empty observers: four indirect calls, as the first is no longer called directly"},

		{Name: "direct-call", Calls: "a helper that does nothing: against none, a direct call and its return",
			With: program{"helper_called", 0}, Without: program{"helper_spared", 0}, PerPacket: notCounted, Note: direct},

		{Name: "user/indirect", Calls: userCalls, With: user{"indirect", false}, Without: user{"direct", false}, PerPacket: notCounted},
		{Name: "user/indirect-varying", Calls: userCalls, With: user{"indirect", true}, Without: user{"direct", false}, PerPacket: notCounted},
		{Name: "user/retpoline", Calls: userCalls, With: user{"retpoline", false}, Without: user{"direct", false}, PerPacket: notCounted},
		{Name: "user/retpoline-varying", Calls: userCalls, With: user{"retpoline", true}, Without: user{"direct", false}, PerPacket: notCounted},
		{Name: "user/lfence", Calls: userCalls, With: user{"lfence", false}, Without: user{"direct", false}, PerPacket: notCounted},
		{Name: "user/lfence-varying", Calls: userCalls, With: user{"lfence", true}, Without: user{"direct", false}, PerPacket: notCounted},
	}
}
