package redirect

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/traffic"
)

// Scenario is a way of a frame, by the verdict of the program under test.
type Scenario string

// The scenarios.
const (
	Map     Scenario = "redirect-map"      // bpf_redirect_map, DEVMAP
	MapHash Scenario = "redirect-map-hash" // bpf_redirect_map, DEVMAP_HASH
	Plain   Scenario = "redirect"          // bpf_redirect
	Multi   Scenario = "redirect-multi"    // broadcast to two ports of a DEVMAP
	CPU     Scenario = "redirect-cpu"      // CPUMAP, dropped by a program on the other CPU
	XSK     Scenario = "redirect-xsk"      // XSKMAP, into an AF_XDP socket in copy mode
	TX      Scenario = "tx"                // XDP_TX
	Drop    Scenario = "drop"              // XDP_DROP
	Pass    Scenario = "pass"              // XDP_PASS, dropped by the network stack
)

// Scenarios lists all of them.
func Scenarios() []Scenario {
	return []Scenario{Map, MapHash, Plain, Multi, CPU, XSK, TX, Drop, Pass}
}

// program is the name of the program under test, "" when it is none of this package's.
func (s Scenario) program() string {
	if s == Prog {
		return ""
	}
	return strings.ReplaceAll(string(s.verdict()), "-", "_")
}

// redirects says whether the scenario has a redirect that [Drop] lacks.
func (s Scenario) redirects() bool { return s != Drop && s != Pass }

// copies is how many frames arrive for one that is redirected.
func (s Scenario) copies() uint64 {
	if s.verdict() == Multi {
		return 2
	}
	return 1
}

// frame is the content of the frames.
func (s Scenario) frame(size int) ([]byte, error) {
	switch {
	case s.verdict() == Pass:
		return traffic.UnknownFrame(size)
	case ways[s].frags:
		return traffic.JumboFrame(fragsSize)
	}
	return traffic.UDPFrame(size)
}

// connection returns what the scenario adds to the chain that all scenarios have: where the program under test sends
// frames to, or who counts them. It is nil when the programs alone do it. Adding a scenario takes a constant, a case
// here, and the program of its name in internal/bpf/chain.
func (s Scenario) connection() func(*Chain, context.Context) error {
	switch s {
	case Egress:
		return (*Chain).connectEgress
	case CPUPass, CPUGRO:
		return (*Chain).connectCPUStack
	}
	switch s.verdict() {
	case Map, MapHash:
		return (*Chain).connectPort
	case Multi:
		return (*Chain).connectTwoPorts
	case CPU:
		return (*Chain).connectCPU
	case XSK:
		return (*Chain).connectSocket
	case TX:
		return (*Chain).connectBack
	case Pass:
		return (*Chain).connectStack
	case Prog:
		return (*Chain).connectTarget
	}
	return nil
}

// Operation is what the program under test does to a frame before its
// verdict. The zero value does nothing.
type Operation struct {
	op    chain.Operation
	spins uint32
}

const maxSpins = 10000

// ParseOperation reads none, read, swap-macs, parse, or spin:N, a loop of N
// turns: a known slowdown. spin:0 does the same as none, for an A/A
// comparison.
func ParseOperation(s string) (Operation, error) {
	for _, op := range []chain.Operation{chain.None, chain.Read, chain.SwapMACs, chain.Parse} {
		if (Operation{op: op}).String() == s {
			return Operation{op: op}, nil
		}
	}
	if n, ok := strings.CutPrefix(s, "spin:"); ok {
		if n, err := strconv.ParseUint(n, 10, 32); err == nil && n <= maxSpins {
			return Operation{op: chain.Spin, spins: uint32(n)}, nil
		}
	}
	return Operation{}, fmt.Errorf(
		"operation %q is not none, read, swap-macs, parse or spin:N with N from 0 to %d", s, maxSpins)
}

// String is what ParseOperation reads.
func (o Operation) String() string {
	switch o.op {
	case chain.Read:
		return "read"
	case chain.SwapMACs:
		return "swap-macs"
	case chain.Parse:
		return "parse"
	case chain.Spin:
		return fmt.Sprintf("spin:%d", o.spins)
	}
	return "none"
}

// Mode is where the program under test is attached.
type Mode string

// The modes.
const (
	Native  Mode = "native"  // in the driver
	Generic Mode = "generic" // in the network stack, on sk_buffs
)

// CoreLayout says which CPU does what.
type CoreLayout string

// The core layouts.
const (
	// OneCore has generator, redirect and sink on one CPU.
	OneCore CoreLayout = "one-core"
	// TwoCore has the generator on one CPU; the NAPI poll that redirects,
	// and the sink, run in a kernel thread on another.
	TwoCore CoreLayout = "two-core"
)
