package functions

import (
	"slices"
	"strings"
	"sync"
)

// Function is a function of the kernel, or all those whose names fit a pattern.
type Function struct {
	// Name is the newest name in the kernel's source. A * at its end, or one at each
	// end, makes it a pattern: the * stands for anything.
	Name string
	// Since is the version of mainline that brings the name, in which it need not be
	// the function's first ("6.10"); empty for Linux 4.18 and before. Stable kernels
	// may have it sooner.
	Since string
	// Until is the last version that has it, of a function that is gone; empty while
	// it is there.
	Until string
	// Was are other names of the same function, the newest first: those it had before,
	// and those that remain as wrappers.
	Was []Name
	// Stage is where its time goes; empty for the stage of what calls it.
	Stage Stage
	// Per is how often it runs; empty where that follows from what calls it.
	Per Per
	// Loop is what runs once for each turn of its loops, when that is not a packet.
	Loop Per
	// Flat is set when its loops go over things that Per counts already: those of
	// net_rx_action go over polls.
	Flat bool
	// Inlined is set for a helper that the verifier mostly calls another function for;
	// Per holds where it does not.
	Inlined bool
	// Into is the caller that compilers put it into, or that it was a part of before its
	// first version; empty when there is none, or when it has many.
	Into string
	// Absent is why a kernel may be without it: "static", "CONFIG_PAGE_POOL". Without it
	// every kernel that redirects has a symbol of one of its names.
	Absent string
	// DMA is what it does of the DMA API.
	DMA DMA
	// Roles are what the packages of unthunk take it for.
	Roles Role
	// What it does, in a few words.
	What string
}

// Name is one name of a function with the versions that have it, as in [Function].
type Name struct{ Name, Since, Until string }

// Role is a set of what functions are taken for.
type Role uint32

const (
	// Root is where a walk of the path starts, on the path of every driver.
	Root Role = 1 << iota
	// Checked is a function of the XDP core whose indirect branches `check` counts.
	Checked
	// Driver is a function of a driver, which polls or transmits XDP frames.
	Driver
	// RunsProgram is called by a driver for each frame that it has received, so the loop
	// that does is the receive loop.
	RunsProgram
	// OfFrame is called once a frame or more often.
	OfFrame
	// Rare is only called on ways that a packet does not take while all goes well.
	Rare
	// NoReturn does not return.
	NoReturn
	// Generator makes the frames of BPF_PROG_TEST_RUN.
	Generator
	// Sends is where a packet socket, or one of AF_XDP, sends packets.
	Sends
	// WorkerCalls are the system calls of a worker that forwards by AF_XDP.
	WorkerCalls
	// Poll is where the frames of one poll come from: a call chain further out says
	// nothing of the packet. So it is with the four below.
	Poll
	// SoftirqLoop calls polls.
	SoftirqLoop
	// Interrupt is the entry of an interrupt.
	Interrupt
	// Idle is the idle task.
	Idle
	// Outermost ends a call chain.
	Outermost
	// Transmits calls a driver's ndo_xdp_xmit, or its ndo_start_xmit.
	Transmits
	// CallsXmit calls ndo_xdp_xmit for a redirect, CallsPoll a NAPI poll, CallsAction a
	// softirq's action, CallsObserver one program at the tracepoint xdp_redirect,
	// CallsObservers all of them.
	CallsXmit
	CallsPoll
	CallsAction
	CallsObserver
	CallsObservers
	// Counted is a function whose entries are counted in guests.
	Counted
	// Returns is on the way of a frame that is returned.
	Returns
	// ReturnsOne is what drivers call to return frames one by one, ReturnsBulk in bulk.
	ReturnsOne
	ReturnsBulk
	// Drops returns frames one by one that go no further.
	Drops
	// XDPOnly is needed by drivers that run XDP programs, and by no others.
	XDPOnly
	// MakesPool makes a page pool, TakesPage takes a page of one.
	MakesPool
	TakesPage
)

// DMA is a kind of call of the DMA API.
type DMA string

const (
	DMAMap       DMA = "map"
	DMAUnmap     DMA = "unmap"
	DMAMapList   DMA = "map list" // of a scatter-gather list
	DMAUnmapList DMA = "unmap list"
	DMASync      DMA = "sync"
	DMABounce    DMA = "bounce" // swiotlb copies a frame
	DMAFlush     DMA = "flush"  // an IOMMU's TLB is invalidated
	DMACopy      DMA = "copy"   // the kernel copies a frame; no call of the DMA API, and what that is there to avoid
)

// Names are all names of a function, the newest first.
func (f *Function) Names() []Name {
	return append([]Name{{f.Name, f.Since, f.Until}}, f.Was...)
}

// table is the whole table.
var table = sync.OnceValue(func() []Function {
	return slices.Concat(core, memory, stack, measured, drivers(), patterns, rare)
})

// Table is the whole table. It must not be changed.
func Table() []Function { return table() }

// With are the functions that have one of some roles, in the order of the table.
func With(roles Role) []Function {
	var out []Function
	for _, f := range table() {
		if f.Roles&roles != 0 {
			out = append(out, f)
		}
	}
	return out
}

// Names are those of the functions that have one of some roles. Where a program looks at
// the first that there is, the order tells which.
func Names(roles Role) []string {
	var out []string
	for _, f := range With(roles) {
		for _, n := range f.Names() {
			out = append(out, n.Name)
		}
	}
	return out
}

// Holders are the names of the functions that have a role, and behind each the caller
// that compilers put it into: the first that a kernel has holds the code.
func Holders(role Role) []string {
	var out []string
	for _, f := range With(role) {
		for _, n := range f.Names() {
			out = append(out, n.Name)
		}
		if f.Into != "" {
			out = append(out, f.Into)
		}
	}
	return out
}

// Source is the name in the kernel's source of a symbol: without what the compiler
// appended (".isra.0").
func Source(symbol string) string {
	if i := strings.IndexByte(symbol, '.'); i > 0 {
		return symbol[:i]
	}
	return symbol
}

// Program is the own name of a BPF program by its symbol: bpf_prog_, the tag, _, the name (bpf_get_prog_name in
// kernel/bpf/core.c). It is empty for other symbols.
func Program(symbol string) string {
	const tag = 16 // letters
	parts := strings.SplitN(symbol, "_", 4)
	if len(parts) < 4 || parts[0] != "bpf" || parts[1] != "prog" || len(parts[2]) != tag {
		return ""
	}
	return parts[3]
}

// Find is the function of a symbol, which is no pattern. The cold part of a function is
// not that function.
func Find(symbol string) (Function, bool) {
	if strings.Contains(symbol, ".cold") {
		return Function{}, false
	}
	f, ok := lookup().exact[Source(symbol)]
	return f, ok
}

// Has tells whether the function of a symbol, or a pattern that it fits, has a role.
func Has(symbol string, role Role) bool {
	x, name := lookup(), Source(symbol)
	return x.exact[name].Roles&role != 0 || x.roles[role].match(name)
}

// DMAOf is what the function of a symbol does of the DMA API; empty when nothing.
func DMAOf(symbol string) DMA {
	f, _ := Find(symbol)
	return f.DMA
}

// StageOf is the stage that the name of a symbol tells: that of its function, else of
// the first pattern that it fits; empty when neither has one.
func StageOf(symbol string) Stage {
	x, name := lookup(), Source(symbol)
	if s := x.exact[name].Stage; s != "" {
		return s
	}
	for i := range x.stages {
		if x.stages[i].patterns.match(name) {
			return x.stages[i].stage
		}
	}
	return ""
}

// matcher are patterns.
type matcher []string

func (m matcher) match(name string) bool {
	for _, pattern := range m {
		if fits(pattern, name) {
			return true
		}
	}
	return false
}

func fits(pattern, name string) bool {
	rest, ok := strings.CutSuffix(pattern, "*")
	if !ok {
		return pattern == name
	}
	if inner, ok := strings.CutPrefix(rest, "*"); ok {
		return strings.Contains(name, inner)
	}
	return strings.HasPrefix(name, rest)
}

// index is the table by name.
type index struct {
	exact map[string]Function // its roles are those of all entries with the name
	roles map[Role]matcher
	// stages in the order in which patterns are tried.
	stages []stagePatterns
}

type stagePatterns struct {
	stage    Stage
	patterns matcher
}

// lookup makes the index once.
var lookup = sync.OnceValue(func() index {
	x := index{exact: make(map[string]Function), roles: make(map[Role]matcher)}
	for _, f := range table() {
		if strings.Contains(f.Name, "*") {
			for role := Role(1); role != 0 && role <= f.Roles; role <<= 1 {
				if f.Roles&role != 0 {
					x.roles[role] = append(x.roles[role], f.Name)
				}
			}
			if n := len(x.stages); f.Stage != "" && (n == 0 || x.stages[n-1].stage != f.Stage) {
				x.stages = append(x.stages, stagePatterns{stage: f.Stage})
			}
			if f.Stage != "" {
				last := &x.stages[len(x.stages)-1].patterns
				*last = append(*last, f.Name)
			}
			continue
		}
		for _, n := range f.Names() {
			one := f
			if known, ok := x.exact[n.Name]; ok {
				one = known
				one.Roles |= f.Roles
				if one.Stage == "" {
					one.Stage = f.Stage
				}
			}
			x.exact[n.Name] = one
		}
	}
	return x
})
